/** Starts of the service on Redis: what it refuses, and what it warns of. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { send, submitOrder } from "../support/client.ts";
import { DURABLE, redisIsMissing, type RedisServer, startRedis } from "../support/redis.ts";
import { type FinishedCommand, runCommand, type Service, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const REDIS = { skip: redisIsMissing };
const PASSWORD = "open-sesame-4711";

test(
  "with --require-durable it does not start on a Redis that may lose what it has confirmed, and says what to set",
  REDIS,
  async (t) => {
    const { port } = await startRedis(t, ["--appendonly", "yes", "--appendfsync", "everysec"]);
    const { code, stderr } = await refusedStart(t, ["--store", `redis://127.0.0.1:${port}`, "--require-durable"]);
    assert.equal(code, 1);
    assert.match(stderr, /has the durability fsync-every-second.*CONFIG SET appendfsync always/);
    const evicting = await startRedis(t, [...DURABLE, "--maxmemory-policy", "allkeys-lru"]);
    const refused = await refusedStart(t, ["--store", `redis://127.0.0.1:${evicting.port}`, "--require-durable"]);
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /has the durability none.*CONFIG SET maxmemory-policy noeviction/);
  },
);

test(
  "with --require-durable, new orders are refused while Redis has weaker settings than at the start",
  REDIS,
  async (t) => {
    const { server, output, submitted } = await startDurable(t);
    const says = (line: RegExp): Promise<boolean> =>
      waitFor(() => line.test(output()), { what: `the log says ${line.source}` });
    assert.equal(await submitted(), 201);
    await server.command("CONFIG", "SET", "appendfsync", "everysec");
    await says(/New orders are refused until it is fsync-always again/);
    assert.match(output(), /Durability of what is acknowledged: fsync-every-second, which was fsync-always/);
    assert.match(output(), /CONFIG SET appendfsync always/);
    assert.equal(await submitted(), 503);
    await server.command("CONFIG", "SET", "appendfsync", "always");
    await says(/New orders are accepted again/);
    assert.equal(await submitted(), 201);
  },
);

test(
  "with --require-durable, nothing is acknowledged by a Redis that comes back with weaker settings",
  REDIS,
  async (t) => {
    const { server, url, output, submitted } = await startDurable(t);
    assert.equal(await submitted(), 201);
    await server.kill();
    const restarting = server.restart("--appendfsync", "everysec");
    // Again and again, until it has long been back: none may get in between.
    let statuses: number[] = [];
    for (let triesLeft = 50; triesLeft > 0;) {
      statuses.push(await submitted());
      if (/is back/.test(output())) triesLeft--;
    }
    assert.deepEqual(new Set(statuses), new Set([503]), `${statuses.length} orders`);
    await restarting;
    assert.match(output(), /Durability of what is acknowledged: fsync-every-second, which was fsync-always/);
    assert.equal((await send(`${url}/diagnostic/heartbeat`)).json?.["durability"], "fsync-every-second");
    await server.kill();
    await server.restart();
    statuses = await waitFor(
      async () => {
        statuses.push(await submitted());
        return statuses.at(-1) === 201 ? statuses : undefined;
      },
      { what: "it is as before" },
    );
    assert.deepEqual(new Set(statuses), new Set([503, 201]));
  },
);

test(
  "without it, it says in the log and to whoever asks how durable an acknowledgement is, and that Redis may evict",
  REDIS,
  async (t) => {
    const { port } = await startRedis(t, ["--maxmemory-policy", "allkeys-lru"]);
    const { url, output } = await startService(t, { args: ["--store", `redis://127.0.0.1:${port}`] });
    assert.equal((await send(`${url}/diagnostic/heartbeat`)).json?.["durability"], "none");
    assert.match(output(), /CONFIG SET appendonly yes/);
    assert.match(output(), /allkeys-lru.*CONFIG SET maxmemory-policy noeviction/);
  },
);

test(
  "a password is needed and never shown: not when it is wrong, not in the log, not to other nodes",
  REDIS,
  async (t) => {
    const { port } = await startRedis(t, [...DURABLE, "--requirepass", PASSWORD]);
    const store = `redis://127.0.0.1:${port}`;
    const without = await refusedStart(t, ["--store", store]);
    assert.match(without.stderr, /password/i);
    const wrong = await refusedStart(t, ["--store", `redis://:${PASSWORD}-not@127.0.0.1:${port}`]);
    assert.match(wrong.stderr, /password/i);
    assert.doesNotMatch(wrong.stdout + wrong.stderr, new RegExp(PASSWORD));

    const env = { ORDER_PROCESS_STORE_PASSWORD: PASSWORD };
    const first = await startService(t, { args: ["--store", store, "--log-level", "trace"], env });
    const join = ["--join", new URL(first.url).host];
    const joiner = await refusedStart(t, join);
    assert.match(joiner.stderr, /password/i);
    const unnamed = await runCommand(["--port", "0", "--data", temporaryFolder(t), ...join], { env });
    assert.match(unnamed.stderr, /credentials are sent only to a store that is named here/);
    const second = await startService(t, { args: [...join, "--store", store], env });
    const cluster = await send(`${second.url}/diagnostic/cluster`);
    assert.equal(cluster.json?.["nodes_count"], 2);
    assert.doesNotMatch(first.output() + second.output() + JSON.stringify(cluster.json), new RegExp(PASSWORD));
  },
);

test("a node that other hosts can't reach says so, where its Redis is not for this host alone", REDIS, async (t) => {
  const { port } = await startRedis(t);
  const here = await startService(t, { args: ["--store", `redis://127.0.0.1:${port}`] });
  assert.doesNotMatch(here.output(), /Other hosts/);
  // To connect to 0.0.0.0 reaches this very host, and names it by an address that isn't a loopback one.
  const store = ["--store", `redis://0.0.0.0:${port}`];
  const there = await startService(t, { args: store });
  assert.match(there.output(), /Other hosts can't reach this node at http:\/\/127\.0\.0\.1:\d+; .*--advertise/);
  const advertised = await startService(t, { args: [...store, "--advertise", "node-3.example:8080"] });
  assert.doesNotMatch(advertised.output(), /Other hosts/);
});

/** A Redis that syncs every write, and a service that insists on it. */
async function startDurable(
  t: TestContext,
): Promise<Service & { readonly server: RedisServer; readonly submitted: () => Promise<number> }> {
  const server = await startRedis(t);
  const service = await startService(t, {
    args: ["--store", `redis://127.0.0.1:${server.port}`, "--require-durable"],
  });
  return { ...service, server, submitted: async () => (await submitOrder(service.url, {})).status };
}

function refusedStart(t: TestContext, args: readonly string[]): Promise<FinishedCommand> {
  return runCommand(["--port", "0", "--data", temporaryFolder(t), ...args]);
}
