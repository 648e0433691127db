/** A crash at an order's 1st, 2nd, 3rd … write until none is left to crash at, as SQLite is tested. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { finalOrder } from "../support/client.ts";
import { type Service, temporaryFolder } from "../support/service.ts";
import type { Acknowledgement } from "./checker.ts";
import {
  expectKilled,
  finishAndExpectNoViolation,
  isConnectionFailure,
  type OrderRequest,
  startCrashService,
  submit,
} from "./crash-service.ts";
import type { KillPoint } from "./fault-stores.ts";
import { type Receiver, startReceiver } from "./receiver.ts";
import { countOpenOrders, storePathIn } from "./store-content.ts";

const ORDERS = {
  "an order that is rolled back": { body: { fail_at: "Ship" }, firstWrite: 1 },
  // Up to its last step, its writes are those of the other.
  "an order that completes": { body: {}, firstWrite: 5 },
};

/** Far more writes than one order takes: a sweep that comes here does not end. */
const WRITES_MAX = 30;

/** Registering the node, creating the order, and at least one for each of the three steps. */
const WRITES_MIN = 5;

for (const [what, { body, firstWrite }] of Object.entries(ORDERS)) {
  for (const moment of ["before", "after"] as const) {
    test(`${what} survives a crash ${moment} each of its ${firstWrite === 1 ? "" : "last "}writes`, async (t) => {
      let write = firstWrite;
      while (await crashesAt(t, { moment, write }, body)) {
        assert.ok(++write < WRITES_MAX, "the sweep does not end");
      }
      const crashes = write - firstWrite;
      t.diagnostic(`${crashes} crashes`);
      assert.ok(write > WRITES_MIN && crashes > 0, `it ends at write ${write}, after ${crashes} crashes`);
    });
  }
}

test("an order goes on to its end though the node crashes at the second change of the order after every start", async (t) => {
  const receiver = await startReceiver(t);
  const data = temporaryFolder(t);
  const kill: KillPoint = { moment: "after", write: 2, kind: "commit" };
  const first = await startCrashService(t, { receiver, data, kill });
  const order = await submit(first.url, { body: { fail_at: "Ship" }, idempotencyKey: null });
  await expectKilled(first);
  let crashes = 1;
  // What a start writes before, to register, to lead and to claim, differs; then it begins its call again, and gets on.
  while (countOpenOrders(storePathIn(data)) > 0) {
    const service = await startedUnlessKilled(t, receiver, data, kill);
    if (service !== null) await expectKilled(service);
    assert.ok(++crashes < WRITES_MAX, "the order does not get on");
  }
  t.diagnostic(`${crashes} crashes`);
  assert.ok(crashes > 2);
  await finishAndExpectNoViolation(t, { receiver, data }, order === null ? [] : [order]);
});

/**
 * One order with a crash at that write, then a start without, at which the client sends its request again, with its key,
 * as it would without an answer; false when the order ended before there was such a write.
 */
async function crashesAt(t: TestContext, kill: KillPoint, body: object): Promise<boolean> {
  const receiver = await startReceiver(t);
  const data = temporaryFolder(t);
  const request: OrderRequest = { body, idempotencyKey: "key" };
  const acknowledged: Acknowledgement[] = [];
  const service = await startedUnlessKilled(t, receiver, data, kill);
  const crashed = service === null || (await crashesUnderOrder(service, request, acknowledged));
  if (!crashed) await service.end("SIGKILL");
  await finishAndExpectNoViolation(t, { receiver, data }, acknowledged, request);
  return crashed;
}

/** The service, or null when it was killed before it listened. */
async function startedUnlessKilled(
  t: TestContext,
  receiver: Receiver,
  data: string,
  kill: KillPoint,
): Promise<Service | null> {
  try {
    return await startCrashService(t, { receiver, data, kill });
  } catch (error) {
    if (error instanceof Error && error.message.includes("ended before it listened")) return null;
    throw error;
  }
}

/** Submits an order and waits until it is final or the service is gone; true when it is gone. */
async function crashesUnderOrder(
  service: Service,
  request: OrderRequest,
  acknowledged: Acknowledgement[],
): Promise<boolean> {
  const order = await submit(service.url, request);
  try {
    if (order !== null) {
      acknowledged.push(order);
      await finalOrder(service.url, order.orderId);
      return false;
    }
  } catch (error) {
    if (!isConnectionFailure(error)) throw error;
  }
  await expectKilled(service);
  return true;
}
