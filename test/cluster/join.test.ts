/** `--join`: nodes that find their cluster by the address of one of its nodes, and those that can't, which say why in one line. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { cpSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer, type Socket, type Server as TcpServer } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { PROTOCOL } from "../../src/cluster/join.ts";
import { assertProblem, assertRefused, assertServes } from "../support/checks.ts";
import { acceptedOrderId, finalOrder, send } from "../support/client.ts";
import { freePort } from "../support/ports.ts";
import { runCommand, type Service, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import { startBackend } from "./backend.ts";

/** Cases that share nothing run side by side: most of their time is the start of a process, or the wait for an answer. */
const CONCURRENT = { concurrency: 5 };

/** Long enough that no node is taken for dead because the machine is busy, short enough for nodes to see each other soon. */
const QUICK = ["--node-ttl", "4s", "--step-time", "0s"];

test("a node that joins needs no store named, by whichever node it joins", async (t) => {
  const [first] = await startCluster(t);
  const second = await startService(t, { args: [...QUICK, "--join", addressOf(first)] });
  const third = await startService(t, { args: [...QUICK, "--join", addressOf(second)] });
  await seeEachOther([first, second, third]);
  const orderId = await acceptedOrderId(third.url);
  assert.equal((await finalOrder(first.url, orderId)).status, "completed", "they share their orders");
  await assertServes(second.url);
});

test("the data folder's own store is shared with those who join", async (t) => {
  if ((await startBackend(t)).path === null) return t.skip("the store is not in a folder");
  const first = await startService(t, { args: QUICK });
  const second = await startService(t, { args: [...QUICK, "--join", addressOf(first)] });
  await seeEachOther([first, second]);
  const orderId = await acceptedOrderId(second.url);
  assert.equal((await finalOrder(first.url, orderId)).status, "completed");
});

test("a node that has joined goes back to its cluster without --join, also when it is the only one", async (t) => {
  const [first] = await startCluster(t);
  const second = await startService(t, { args: [...QUICK, "--join", addressOf(first)] });
  const clusterId = await clusterIdOf(first);
  await second.end("SIGTERM");
  await first.end("SIGKILL");
  const again = await startService(t, { data: second.data, args: QUICK });
  assert.equal(await clusterIdOf(again), clusterId);
  await assertServes(again.url);
});

test("a node whose cluster is known goes on when no node answers at the address to join", async (t) => {
  const [first] = await startCluster(t);
  const second = await startService(t, { args: [...QUICK, "--join", addressOf(first)] });
  const clusterId = await clusterIdOf(first);
  await second.end("SIGTERM");
  await first.end("SIGTERM");
  const again = await startService(t, { data: second.data, args: [...QUICK, "--join", addressOf(first)] });
  assert.equal(await clusterIdOf(again), clusterId);
  assert.match(
    again.output(),
    /No order_process answers at .*; this node goes back to the cluster that it was part of/,
  );
});

test("a node says so when one of a version that says other things to nodes is in its cluster", async (t) => {
  const path = join(temporaryFolder(t), "shared.sqlite");
  const store = await openSqliteStore({ path, now: Date.now, onBroken: assert.ifError });
  const serviceId = "8cc227c0-8dac-42cf-983e-f7bcb95bf455";
  const former = { serviceId, url: "http://127.0.0.1:1", version: "0.0.1", ttlMs: 5_000, process: null };
  await store.cluster.register(former, Date.now());
  await store.close();
  const service = await startService(t, { args: [...QUICK, "--store", `sqlite:${path}`] });
  assert.match(service.output(), new RegExp(`Node ${serviceId} .*version 0\\.0\\.1\\) says other things to nodes`));
});

test("a node with another TTL than its cluster's says so", async (t) => {
  const [first] = await startCluster(t);
  const second = await startService(t, { args: ["--node-ttl", "7s", "--join", addressOf(first)] });
  assert.match(second.output(), /Node .* has a --node-ttl of \d+ ms, and this one 7000 ms; give all nodes the same/);
});

test("a node that is started a moment before the one that it joins waits for it", async (t) => {
  const port = await freePort();
  const joining = startService(t, { args: [...QUICK, "--join", `127.0.0.1:${port}`] });
  const { args } = await startBackend(t);
  const first = await startService(t, { args: [...QUICK, ...args, "--port", String(port)] });
  await seeEachOther([first, await joining]);
});

test("a new node is refused when no node answers at the address to join", CONCURRENT, async (t) => {
  const line = /can't join .*: no order_process answers there; start that node first, or check the address/;
  const noHttp = /can't join .*: what answers there is no order_process; check the address/;
  const joining = async (tt: TestContext, speak: (socket: Socket) => void): ReturnType<typeof runCommand> => {
    const server = createTcpServer((socket) => speak(socket.on("error", () => undefined).resume()));
    return tryToJoin(tt, await listening(tt, server));
  };
  await Promise.all([
    t.test("nothing listens there", async (tt) => {
      assertRefused(await tryToJoin(tt, `127.0.0.1:${await freePort()}`), 1, line);
    }),
    t.test("it is the node's own address", async (tt) => {
      const port = String(await freePort());
      assertRefused(await tryToJoin(tt, `127.0.0.1:${port}`, ["--port", port]), 1, line);
    }),
    t.test("who answers speaks no HTTP", async (tt) => {
      assertRefused(await joining(tt, (socket) => socket.write("220 smtp.example.org\r\n")), 1, noHttp);
    }),
    t.test("who answers hangs up", async (tt) => {
      assertRefused(await joining(tt, (socket) => socket.end()), 1, line);
    }),
    t.test("who answers says nothing", async (tt) => {
      assertRefused(await joining(tt, () => undefined), 1, line);
    }),
  ]);
});

test("a node with a copy of another's data folder can't join that one", async (t) => {
  const [first] = await startCluster(t);
  const data = join(temporaryFolder(t), "copy");
  cpSync(first.data, data, { recursive: true });
  const finished = await tryToJoin(t, addressOf(first), ["--data", data]);
  assertRefused(finished, 1, /can't join .*: that is this node's own service_id/);
});

test("a node of one cluster is refused by another, and its orders stay what they were", async (t) => {
  const [first] = await startCluster(t);
  const [stranger] = await startCluster(t);
  const orderId = await acceptedOrderId(stranger.url);
  await finalOrder(stranger.url, orderId);
  await stranger.end("SIGTERM");
  const finished = await tryToJoin(t, addressOf(first), ["--data", stranger.data]);
  assertRefused(
    finished,
    1,
    /its cluster is .*, and this node, whose data are in .*, belongs to cluster .*: leave out --join .*, or give .* --data/,
  );
  const again = await startService(t, { data: stranger.data, args: QUICK });
  assert.equal((await finalOrder(again.url, orderId)).status, "completed");
  await nobodyElseIsIn(first);
});

test("a node that names another store than the joined cluster's is refused", async (t) => {
  const [first] = await startCluster(t);
  const { args } = await startBackend(t);
  const finished = await tryToJoin(t, addressOf(first), args);
  assertRefused(
    finished,
    1,
    /can't join .*: the store .* can't be opened: .*leave out --store, or name that cluster's/,
  );
  await nobodyElseIsIn(first);
});

test("a new node is refused when something else answers at the address to join", CONCURRENT, async (t) => {
  const answers: readonly [what: string, status: number, body: string][] = [
    ["a web page", 200, "<html>Welcome</html>"],
    ["JSON that is no answer", 200, '{"ok":true}'],
    ["nothing", 204, ""],
    ["not found", 404, '{"detail":"there is nothing here"}'],
    ["an error", 500, "oops"],
  ];
  await Promise.all(
    answers.map(([what, status, body]) =>
      t.test(what, async (tt) => {
        const address = await answering(tt, status, body);
        assertRefused(await tryToJoin(tt, address), 1, /can't join .*; check the address that --join names/);
      }),
    ),
  );
});

test("a new node is refused by nodes that it can't work with", CONCURRENT, async (t) => {
  const good = {
    cluster_id: randomUUID(),
    service_id: randomUUID(),
    leader_name: "",
    version: "9.9.9",
    protocol: PROTOCOL,
    store: "sqlite:/nowhere/orders.sqlite",
    host: null,
  };
  const answers: readonly [what: string, status: number, answer: object, line: RegExp][] = [
    ["of another protocol", 200, { ...good, protocol: PROTOCOL + 1 }, /its version 9\.9\.9 .* run the same version/],
    ["that refuse it", 409, { detail: "version 9.9.9 and another; run the same version" }, /run the same version/],
    ["whose store is not here", 200, good, /its store \/nowhere\/orders\.sqlite is not on this host/],
    [
      "of another host, with an embedded store",
      200,
      { ...good, host: "elsewhere" },
      /nodes of one host only can share/,
    ],
  ];
  await Promise.all(
    answers.map(([what, status, answer, line]) =>
      t.test(what, async (tt) => {
        assertRefused(await tryToJoin(tt, await answering(tt, status, JSON.stringify(answer))), 1, line);
      }),
    ),
  );
});

test("a node refuses to be joined by one of another protocol, and shows nothing secret to one of its own", async (t) => {
  const [first, , backend] = await startCluster(t);
  const ask = (protocol: number): ReturnType<typeof send> =>
    send(`${first.url}/cluster/join`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ service_id: randomUUID(), version: "9.9.9", protocol }),
    });
  assertProblem(await ask(PROTOCOL + 1), 409, "version_incompatible");
  const answer = await ask(PROTOCOL);
  assert.equal(answer.status, 200, answer.text);
  assert.ok(!answer.text.includes(await backend.readSecret()));
});

test("a node whose port is taken leaves no trace in the cluster", async (t) => {
  const [first, args, backend] = await startCluster(t);
  await seeEachOther([first]);
  const port = new URL(first.url).port;
  const nodes = await backend.countNodes();
  const data = join(temporaryFolder(t), "data");
  for (const more of [args, ["--join", addressOf(first)]]) {
    const finished = await runCommand([...QUICK, "--data", data, "--port", port, ...more]);
    assertRefused(finished, 1, /the port is in use/);
  }
  assert.equal(await backend.countNodes(), nodes);
  await nobodyElseIsIn(first);
});

test("a node that joins a cluster whose store is gone says so", async (t) => {
  const backend = await startBackend(t);
  if (backend.path === null) return t.skip("the store is not a file");
  const first = await startService(t, { args: [...QUICK, ...backend.args] });
  const address = addressOf(first);
  process.kill(first.pid, "SIGSTOP"); // or it would notice itself, and end
  for (const suffix of ["", "-wal", "-shm"]) rmSync(`${backend.path}${suffix}`);
  const joining = tryToJoin(t, address);
  process.kill(first.pid, "SIGCONT");
  const finished = await joining;
  assertRefused(finished, 1, /can't join .*: (its store .* is not on this host|no order_process answers there)/);
});

test("of two nodes with copies of one data folder the former stops and says why, and its orders go on at the latter", async (t) => {
  const [first, args] = await startCluster(t, "1m");
  const orderId = await acceptedOrderId(first.url);
  const data = temporaryFolder(t);
  cpSync(join(first.data, "node.json"), join(data, "node.json"));
  const second = await startService(t, { data, args: [...QUICK, ...args] });
  let exit: unknown = null;
  void first.exited.then((code) => (exit = code));
  await waitFor(() => exit !== null, { what: "the former stops" });
  assert.equal(exit, 1);
  assert.match(first.output(), /order_process: stopped: another process has started with .* data folder is a copy/);
  assert.equal((await finalOrder(second.url, orderId)).status, "completed");
});

/** One node of a new cluster, the options that name its store, and the store. */
async function startCluster(
  t: TestContext,
  stepTime = "0s",
): Promise<[first: Service, args: readonly string[], backend: Awaited<ReturnType<typeof startBackend>>]> {
  const backend = await startBackend(t);
  return [await startService(t, { args: [...QUICK, "--step-time", stepTime, ...backend.args] }), backend.args, backend];
}

function tryToJoin(
  t: TestContext,
  address: string,
  more: readonly string[] = [],
): Promise<Awaited<ReturnType<typeof runCommand>>> {
  const data = join(temporaryFolder(t), "data");
  return runCommand(["--port", "0", "--data", data, ...QUICK, "--join", address, ...more]);
}

function addressOf({ url }: Service): string {
  return new URL(url).host;
}

async function clusterIdOf({ url }: Service): Promise<unknown> {
  return (await send(`${url}/diagnostic/cluster`)).json?.["cluster_id"];
}

async function connectedNames({ url }: Service): Promise<string[]> {
  const { json } = await send(`${url}/diagnostic/cluster`);
  const nodes = json?.["nodes"] as readonly { name: string; connected: boolean }[];
  return nodes.filter(({ connected }) => connected).map(({ name }) => name);
}

async function seeEachOther(services: readonly Service[]): Promise<void> {
  await waitFor(
    async () => {
      const seen = await Promise.all(services.map(connectedNames));
      return seen.every((names) => names.length === services.length);
    },
    { what: "the nodes see each other" },
  );
}

async function nobodyElseIsIn(service: Service): Promise<void> {
  const { json } = await send(`${service.url}/diagnostic/cluster`);
  assert.equal(json?.["nodes_count"], 1);
}

/** A web server that answers everything alike. */
async function answering(t: TestContext, status: number, body: string): Promise<string> {
  const server = createServer((_, response) => {
    response.writeHead(status, { "content-type": "application/json" }).end(body);
  });
  return listening(t, server);
}

async function listening(t: TestContext, server: Server | TcpServer): Promise<string> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    if ("closeAllConnections" in server) server.closeAllConnections();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}
