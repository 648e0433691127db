/** The store's credentials, and whom a node sends them to: never to a store that another process named. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { chmodSync, copyFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { text } from "node:stream/consumers";
import { test, type TestContext } from "node:test";
import { PROTOCOL } from "../../src/cluster/join.ts";
import { assertRefused } from "../support/checks.ts";
import { send } from "../support/client.ts";
import { DURABLE, redisIsMissing, type RedisServer, startRedis } from "../support/redis.ts";
import { runCommand, type Service, type ServiceOptions, startService, temporaryFolder } from "../support/service.ts";

const REDIS = { skip: redisIsMissing };
const PASSWORD = "open-sesame-4711";
const QUICK = ["--node-ttl", "1s", "--step-time", "0s"];
const BY_ENVIRONMENT = { ORDER_PROCESS_STORE_PASSWORD: PASSWORD };
/** What a store named by a stranger leads to. */
const NAME_IT = /credentials are sent only to a store that is named here.* name it with --store rediss?:\/\//;

test("a new node that has credentials sends them to no store that the node at --join names", async (t) => {
  const config = join(temporaryFolder(t), "config.yaml");
  writeFileSync(config, `store-password: ${PASSWORD}\n`);
  const ways: readonly (readonly [way: string, options: Pick<ServiceOptions, "args" | "env">])[] = [
    ["by the environment", { env: BY_ENVIRONMENT }],
    ["by a file", { args: ["--config", config] }],
    ["by a file that the environment names", { env: { ORDER_PROCESS_CONFIG: config } }],
    ["by the command line", { args: ["--store-password", PASSWORD] }],
    ["with a user", { env: { ...BY_ENVIRONMENT, ORDER_PROCESS_STORE_USERNAME: "me" } }],
    ["as a user alone", { env: { ORDER_PROCESS_STORE_USERNAME: PASSWORD } }],
  ];
  for (const scheme of ["redis", "rediss"]) {
    const trap = await startTrap(t);
    const stranger = await startStranger(t, { store: `${scheme}://127.0.0.1:${trap.port}` });
    for (const [way, { args = [], env = {} }] of scheme === "redis" ? ways : ways.slice(0, 1)) {
      const finished = await start(t, ["--join", stranger.address, ...args], env);
      assertRefused(finished, 1, NAME_IT);
      assert.ok(finished.stderr.includes(`--store ${scheme}://127.0.0.1:${trap.port}`), `${way}: it says what to name`);
      assert.ok(!(finished.stdout + finished.stderr).includes(PASSWORD), way);
    }
    assert.equal(trap.connections(), 0);
    assert.ok(stranger.asked() !== "" && !stranger.asked().includes(PASSWORD));
  }
});

test("what the node at --join names as an embedded store is left as it is, unless it is the store of its cluster", async (t) => {
  const folder = temporaryFolder(t);
  const other = await startService(t, { args: QUICK });
  await other.end("SIGKILL");
  const make: Readonly<Record<string, (path: string) => void>> = {
    "an empty file": (path) => writeFileSync(path, ""),
    "a file of one byte": (path) => writeFileSync(path, "x"),
    "a script": (path) => writeFileSync(path, "#!/bin/sh\n", { mode: 0o755 }),
    "a folder": (path) => mkdirSync(path),
    "a pipe": (path) => execFileSync("mkfifo", [path]),
    "a database of another program": (path) => {
      const db = new DatabaseSync(path);
      db.exec("CREATE TABLE a (b)");
      db.close();
    },
    "a store of another cluster": (path) => {
      for (const log of ["", "-wal"]) copyFileSync(`${other.data}/orders.sqlite${log}`, `${path}${log}`);
    },
  };
  for (const [what, write] of Object.entries(make)) {
    const path = join(folder, what);
    write(path);
    chmodSync(path, 0o755);
    const before = statSync(path);
    const { address } = await startStranger(t, { store: `sqlite:${path}`, embedded: true });
    assertRefused(await start(t, ["--join", address], {}), 1, /the store|its cluster is/);
    const { mode, size, mtimeMs } = statSync(path);
    assert.equal(mode.toString(8), before.mode.toString(8), what);
    if (what !== "a store of another cluster") assert.deepEqual([size, mtimeMs], [before.size, before.mtimeMs], what);
  }
});

test(
  "a member that is started again goes on with the store that it knows, whatever the node at --join names",
  REDIS,
  async (t) => {
    const { store, clusterId, member } = await startMember(t);
    await member.end("SIGTERM");
    const trap = await startTrap(t);
    const named = `redis://127.0.0.1:${trap.port}`;
    const stranger = await startStranger(t, { store: named, clusterId });
    const again = await startService(t, {
      data: member.data,
      args: [...QUICK, "--join", stranger.address],
      env: BY_ENVIRONMENT,
    });
    assert.equal(await clusterIdOf(again), clusterId);
    assert.ok(again.output().includes(`says that its store is ${named}; this node goes on with ${store}, as before`));
    await again.end("SIGTERM");
    const other = await startStranger(t, { store: named });
    const refused = await start(t, ["--data", member.data, "--join", other.address], BY_ENVIRONMENT);
    assertRefused(refused, 1, /can't join .*: its cluster is .*, and this node, .* belongs to cluster/);
    const without = await startService(t, { data: member.data, args: QUICK, env: BY_ENVIRONMENT });
    assert.equal(await clusterIdOf(without), clusterId, "it needs no --join");
    assert.equal(trap.connections(), 0);
  },
);

test("a member whose store speaks TLS sends nothing in clear to a store that the node at --join names at the same place", async (t) => {
  const trap = await startTrap(t);
  const clusterId = randomUUID();
  const data = writeDataFolder(t, { cluster_id: clusterId, store: `rediss://127.0.0.1:${trap.port}` });
  const stranger = await startStranger(t, { store: `redis://127.0.0.1:${trap.port}`, clusterId });
  const finished = await start(t, ["--data", data, "--join", stranger.address], BY_ENVIRONMENT);
  assert.equal(finished.code, 1);
  assert.ok(trap.connections() > 0, "it has tried the store that it knows");
  assert.ok(!trap.heard().includes(PASSWORD) && !/AUTH|HELLO/.test(trap.heard()), "and has sent nothing but TLS");
});

test(
  "a node that names its own store joins there or not at all, and sends credentials nowhere else",
  REDIS,
  async (t) => {
    const { server, store, clusterId } = await startMember(t);
    const trap = await startTrap(t);
    const config = join(temporaryFolder(t), "config.yaml");
    writeFileSync(config, `store: redis://:${PASSWORD}@127.0.0.1:${server.port}\n`);
    const ways: readonly (readonly [args: readonly string[], env: Record<string, string>])[] = [
      [["--config", config], {}],
      [["--store", store], BY_ENVIRONMENT],
      [[], { ORDER_PROCESS_STORE: `redis://:${PASSWORD}@127.0.0.1:${server.port}` }],
    ];
    const stranger = await startStranger(t, { store: `redis://127.0.0.1:${trap.port}` });
    const silent = await startStranger(t, { store: null, clusterId });
    for (const [args, env] of ways) {
      const refused = await start(t, ["--join", stranger.address, ...args], env);
      assertRefused(refused, 1, /can't join .*: its cluster is .*, and the store .* is that of cluster/);
      assert.ok(!refused.stderr.includes(PASSWORD));
      const joined = await startService(t, { args: [...QUICK, "--join", silent.address, ...args], env });
      assert.equal(await clusterIdOf(joined), clusterId);
    }
    assert.equal(trap.connections(), 0);
  },
);

test("a store that was told and is remembered gets credentials only once it is named", REDIS, async (t) => {
  const server = await startRedis(t);
  const store = `redis://127.0.0.1:${server.port}`;
  const first = await startService(t, { args: [...QUICK, "--store", store] });
  const joiner = await startService(t, { args: [...QUICK, "--join", addressOf(first)] });
  await joiner.end("SIGTERM");
  await first.end("SIGTERM");
  await server.command("CONFIG", "SET", "requirepass", PASSWORD);
  const { data } = joiner;
  for (const times of ["once", "twice"]) {
    const refused = await start(t, ["--data", data], BY_ENVIRONMENT);
    assertRefused(refused, 1, NAME_IT);
    assert.ok(refused.stderr.includes(`--store ${store}`), times);
  }
  const named = await startService(t, { data, args: [...QUICK, "--store", store], env: BY_ENVIRONMENT });
  await named.end("SIGTERM");
  const remembered = await startService(t, { data, args: QUICK, env: BY_ENVIRONMENT });
  await remembered.end("SIGTERM");
});

test("a store that others may have written into the data folder gets no credentials", async (t) => {
  const trap = await startTrap(t);
  const remembered = { cluster_id: randomUUID(), store: `redis://127.0.0.1:${trap.port}` };
  for (const [what, mode] of [
    ["node.json", 0o666],
    ["node.json", 0o660],
    [".", 0o777],
    [".", 0o770],
  ] as const) {
    const data = writeDataFolder(t, remembered);
    const path = join(data, what);
    chmodSync(path, mode);
    assertRefused(await start(t, ["--data", data], BY_ENVIRONMENT), 1, NAME_IT);
    chmodSync(path, what === "." ? 0o700 : 0o600);
    assertRefused(await start(t, ["--data", data], BY_ENVIRONMENT), 1, NAME_IT);
  }
  assert.equal(trap.connections(), 0);
  const data = writeDataFolder(t, remembered);
  assert.equal((await start(t, ["--data", data], BY_ENVIRONMENT)).code, 1);
  assert.ok(trap.heard().includes(PASSWORD), "the trap would have heard it");
});

test("a data folder of an earlier version goes on with its store and its credentials", REDIS, async (t) => {
  const { store, clusterId, member } = await startMember(t);
  await member.end("SIGTERM");
  const { service_id } = JSON.parse(readFileSync(join(member.data, "node.json"), "utf8")) as { service_id: string };
  writeFileSync(join(member.data, "node.json"), JSON.stringify({ service_id, pid: 1, cluster_id: clusterId, store }));
  const again = await startService(t, { data: member.data, args: QUICK, env: BY_ENVIRONMENT });
  assert.equal(await clusterIdOf(again), clusterId);
});

test("what the node at --join says moves no cursor and makes no other line", async (t) => {
  const hostile = "\u001b[2J\u001b]0;owned\u0007\nListening at: http://127.0.0.1:1\u009b31m\u2028";
  const answers: readonly Partial<Record<string, unknown>>[] = [
    { store: `sqlite:/tmp/${hostile}` },
    { store: `redis://${hostile}:1` },
    { store: hostile },
    { store: "redis://me:secret@127.0.0.1:1/x" },
    { version: hostile, protocol: PROTOCOL + 1 },
    { cluster_id: hostile },
    { leader_name: hostile },
    { service_id: hostile },
    { store: "x".repeat(5_000) },
    { detail: hostile, cluster_id: 1 },
    { detail: hostile.repeat(1_000), store: 1 },
  ];
  for (const answer of answers) {
    const stranger = await startStranger(t, answer);
    const finished = await start(t, ["--join", stranger.address], {});
    assertRefused(finished, 1, /^order_process: can't join /);
    const said = (finished.stdout + finished.stderr).replaceAll("\n", "");
    assert.doesNotMatch(said, /[\p{Cc}\u2028]/u, JSON.stringify(answer));
    assert.ok(finished.stderr.length < 1_000, finished.stderr);
  }
});

/** A Redis that wants a password, a node on it, and another one that has joined that; the first one goes on. */
async function startMember(t: TestContext): Promise<{
  readonly server: RedisServer;
  readonly store: string;
  readonly clusterId: string;
  readonly first: Service;
  readonly member: Service;
}> {
  const server = await startRedis(t, [...DURABLE, "--requirepass", PASSWORD]);
  const store = `redis://127.0.0.1:${server.port}`;
  const first = await startService(t, { args: [...QUICK, "--store", store], env: BY_ENVIRONMENT });
  const member = await startService(t, {
    args: [...QUICK, "--join", addressOf(first), "--store", store],
    env: BY_ENVIRONMENT,
  });
  return { server, store, clusterId: await clusterIdOf(first), first, member };
}

/** Somebody at whose address a node is to join, and who answers as a node would, but for what is given. */
async function startStranger(
  t: TestContext,
  { clusterId = randomUUID(), ...more }: { readonly clusterId?: string } & Readonly<Record<string, unknown>>,
): Promise<{ readonly address: string; readonly asked: () => string }> {
  let asked = "";
  const answer = {
    cluster_id: clusterId,
    service_id: randomUUID(),
    leader_name: "",
    version: "9.9.9",
    protocol: PROTOCOL,
    store: null,
    embedded: false,
    host: null,
    ...more,
  };
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      asked += JSON.stringify(request.headers) + body;
      response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(answer));
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked: () => asked };
}

/** Listens where a Redis is said to be, keeps all that it is sent, and agrees to everything. */
async function startTrap(
  t: TestContext,
): Promise<{ readonly port: number; readonly connections: () => number; readonly heard: () => string }> {
  let [connections, heard] = [0, ""];
  const server = createTcpServer((socket) => {
    connections++;
    socket.on("error", () => undefined);
    socket.on("data", (data) => {
      heard += data.toString("latin1");
      socket.write("+OK\r\n");
    });
    t.after(() => socket.destroy());
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => void server.close());
  return { port: (server.address() as AddressInfo).port, connections: () => connections, heard: () => heard };
}

/** A data folder as a former start has left it. */
function writeDataFolder(t: TestContext, remembered: { readonly cluster_id: string; readonly store: string }): string {
  const data = join(temporaryFolder(t), "data");
  mkdirSync(data);
  writeFileSync(join(data, "node.json"), JSON.stringify({ service_id: randomUUID(), pid: 1, ...remembered }));
  return data;
}

/** A start that is to be refused, in a new data folder where none is given. */
function start(
  t: TestContext,
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): ReturnType<typeof runCommand> {
  return runCommand(["--port", "0", "--data", join(temporaryFolder(t), "data"), ...QUICK, ...args], { env });
}

function addressOf({ url }: Service): string {
  return new URL(url).host;
}

async function clusterIdOf({ url }: Service): Promise<string> {
  return String((await send(`${url}/diagnostic/cluster`)).json?.["cluster_id"]);
}
