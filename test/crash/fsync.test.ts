/** That an acknowledgement waits for the disk: seen from outside the process, in its system calls. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { acceptedOrderId, finalOrder } from "../support/client.ts";
import { startService, temporaryFolder } from "../support/service.ts";
import { straceRefusal, traceAcknowledgements } from "./strace.ts";

const STRACE_SERVICE = fileURLToPath(new URL("strace-service.ts", import.meta.url));
const ORDERS = 20;

test("every acknowledgement is sent after a sync of the WAL that covers its order", async (t) => {
  const refusal = straceRefusal();
  if (refusal !== null) return t.skip(refusal);
  const tracePath = join(temporaryFolder(t), "trace");
  const service = await startService(t, {
    script: STRACE_SERVICE,
    args: ["--step-time", "0s"],
    env: { STRACE_OUTPUT: tracePath },
  });
  const orderIds: string[] = [];
  // One by one, so that none is covered by a sync that another needed; the steps of the one before may still be written.
  for (let order = 0; order < ORDERS; order++) orderIds.push(await acceptedOrderId(service.url));
  for (const orderId of orderIds) await finalOrder(service.url, orderId);
  assert.equal(await service.end("SIGTERM"), 0);

  const { acknowledged, unsynced } = traceAcknowledgements(readFileSync(tracePath, "utf8"));
  assert.deepEqual(acknowledged, orderIds, "the trace shows every acknowledgement");
  assert.deepEqual(unsynced, []);
  t.diagnostic(`${acknowledged.length} acknowledgements, each after its sync`);
});

const ID = "01900000-0000-7000-8000-000000000001";
const WRITE = `7 pwrite64(21</d/orders.sqlite-wal>, "\\0\\1${ID}user"..., 8192, 56) = 8192`;
const SYNC = "7 fdatasync(21</d/orders.sqlite-wal>) = 0";
const ANSWER = `5 writev(25<socket:[9]>, [{iov_base="HTTP/1.1 201 Created\\r\\n\\r\\n{\\"order_id\\":\\"${ID}\\"}", iov_len=9}], 1) = 9`;

for (const [what, lines] of Object.entries({
  "after its sync": [WRITE, SYNC, ANSWER],
  "after its sync, which another thread's call cut in two": [
    WRITE,
    "7 fdatasync(21</d/orders.sqlite-wal> <unfinished ...>",
    '5 write(1<pipe:[3]>, "x", 1) = 1',
    "7 <... fdatasync resumed>) = 0",
    ANSWER,
  ],
})) {
  test(`an acknowledgement ${what} is found good in a trace`, () => {
    assert.deepEqual(traceAcknowledgements(lines.join("\n")), { acknowledged: [ID], unsynced: [] });
  });
}

for (const [what, lines] of Object.entries({
  "without a sync": [WRITE, ANSWER],
  "before its sync": [WRITE, ANSWER, SYNC],
  "after a sync of what came before it": [SYNC, WRITE, ANSWER],
  "after a sync of another file": [WRITE, SYNC.replace("-wal", ""), ANSWER],
  "after a sync that failed": [WRITE, SYNC.replace("= 0", "= -1 EIO (Input/output error)"), ANSWER],
  "while its sync is under way": [
    WRITE,
    "7 fdatasync(21</d/orders.sqlite-wal> <unfinished ...>",
    ANSWER,
    "7 <... fdatasync resumed>) = 0",
  ],
  "that was never written": [SYNC, ANSWER],
})) {
  test(`an acknowledgement ${what} is found bad in a trace`, () => {
    assert.deepEqual(traceAcknowledgements(lines.join("\n")), { acknowledged: [ID], unsynced: [ID] });
  });
}
