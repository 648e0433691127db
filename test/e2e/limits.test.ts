/** What comes in is bounded, and what goes wrong around a running service ends in good order. */
import assert from "node:assert/strict";
import { linkSync, rmSync, symlinkSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { acceptedOrderId, finalOrder, send, submitOrder } from "../support/client.ts";
import { runCommand, type Service, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const TINY_HEAP = { NODE_OPTIONS: "--max-old-space-size=64" };
const SMALL_HEAP = { NODE_OPTIONS: "--max-old-space-size=256" };

async function open(t: TestContext, { url }: Service): Promise<Socket> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  t.after(() => socket.destroy());
  socket.on("error", () => undefined);
  await new Promise((resolve) => socket.once("connect", resolve));
  return socket;
}

for (const [what, sent] of [
  ["half of a request's headers", "POST /orders HTTP/1.1\r\nHos"],
  [
    "half of a request's body",
    "POST /orders HTTP/1.1\r\nHost: localhost\r\nAuthorization: user\r\nContent-Length: 100\r\n\r\n{",
  ],
] as const) {
  test(`a client that has sent ${what} does not hold up a stop`, async (t) => {
    const service = await startService(t);
    const socket = await open(t, service);
    await new Promise((resolve) => socket.write(sent, resolve));
    await send(`${service.url}/diagnostic/heartbeat`);
    assert.equal(await service.end("SIGTERM"), 0);
  });
}

test("bodies that take many times their text when parsed are refused in time, on a small heap", async (t) => {
  const { url } = await startService(t, { env: SMALL_HEAP, args: ["--step-time", "60s"] });
  const body = `{"a":[${"{},".repeat(87_000)}{}]}`;
  let [accepted, refused] = [0, 0];
  const client = async (): Promise<void> => {
    for (let turn = 0; turn < 8; turn++) {
      const { status } = await submitOrder(url, body);
      if (status === 201) accepted++;
      else if (status === 503) refused++;
      else assert.fail(`answered ${status}`);
    }
  };
  await Promise.all(Array.from({ length: 60 }, client));
  assert.ok(accepted > 0 && refused > 0, `${accepted} accepted, ${refused} refused`);
  assert.equal((await send(`${url}/diagnostic/heartbeat`)).status, 200);
});

test("pipelined reads beyond what the store keeps up with do not fill the memory", async (t) => {
  const service = await startService(t, { env: TINY_HEAP, args: ["--step-time", "0ms"] });
  const orderId = await acceptedOrderId(service.url);
  await finalOrder(service.url, orderId);
  const line = `GET /orders/${orderId} HTTP/1.1\r\nHost: localhost\r\nAuthorization: user\r\n\r\n`;
  const sockets = await Promise.all(Array.from({ length: 20 }, () => open(t, service)));
  let answered = 0;
  for (const socket of sockets) {
    socket.on("data", (bytes: Buffer) => (answered += bytes.toString("latin1").split("HTTP/1.1 ").length - 1));
    for (let part = 0; part < 150; part++) socket.write(line.repeat(100));
  }
  await waitFor(() => answered > 5_000, { what: () => `enough is answered; ${answered} were` });
  for (const socket of sockets) socket.destroy();
  assert.equal((await send(`${service.url}/diagnostic/heartbeat`)).status, 200);
});

for (const [name, harm] of [
  ["orders.sqlite", rmSync],
  ["orders.sqlite-wal", rmSync],
  ["orders.sqlite-shm", rmSync],
  ["orders.sqlite", replaceByLinkToItself],
] as const) {
  test(`${name} that is removed or replaced under a running node stops it, instead of taking orders into nothing (${harm.name})`, async (t) => {
    const service = await startService(t, { args: ["--step-time", "60s"] });
    await acceptedOrderId(service.url);
    harm(join(service.data, name));
    assert.equal(await service.exited, 1);
    assert.match(
      service.output(),
      new RegExp(
        String.raw`^order_process: stopped .*orders\.sqlite was removed or replaced while it was in use: .*${name} is not what it was$`,
        "m",
      ),
    );
  });
}

function replaceByLinkToItself(path: string): void {
  rmSync(path);
  symlinkSync(path, path);
}

test("a store with two names is refused: each name would have a log of its own", async (t) => {
  const service = await startService(t);
  await service.end("SIGTERM");
  const store = join(service.data, "orders.sqlite");
  linkSync(store, join(service.data, "other.sqlite"));
  const refused = await runCommand(["--port", "0", "--data", temporaryFolder(t), "--store", `sqlite:${store}`]);
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /has another name, a hard link/);
});

test("nodes that reach a store by its name and through a link, even one that led nowhere at first, share it", async (t) => {
  const folder = temporaryFolder(t);
  const link = join(folder, "link.sqlite");
  symlinkSync("real.sqlite", link);
  const first = await startService(t, { args: ["--store", `sqlite:${link}`] });
  const second = await startService(t, { args: ["--store", `sqlite:${join(folder, "real.sqlite")}`] });
  for (const { url } of [first, second]) {
    await waitFor(async () => (await send(`${url}/diagnostic/cluster`)).json?.["nodes_count"] === 2, {
      what: "both nodes know each other",
    });
  }
});

test("of a log that nobody reads no more is kept than has room, and it goes on when somebody reads it again", async (t) => {
  const service = await startService(t, {
    env: TINY_HEAP,
    args: ["--step-time", "0ms", "--log-level", "debug"],
    deaf: true,
  });
  const orders = 4_000;
  for (let left = orders; left > 0; left -= 250) {
    await Promise.all(Array.from({ length: 250 }, () => acceptedOrderId(service.url)));
  }
  service.hear();
  // Once the end of a later one has come, nothing of the others is still on its way.
  await waitFor(
    async () => {
      const orderId = await acceptedOrderId(service.url);
      await finalOrder(service.url, orderId);
      return service.output().includes(`[${orderId}]Finish Order`);
    },
    { what: "the log goes on" },
  );
  const ends = service.output().split("]Finish Order").length - 1;
  assert.ok(ends > 0 && ends < orders, `of ${orders} orders the log tells the end of ${ends}`);
});
