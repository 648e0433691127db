/** What the Redis store does when Redis, or the network to it, fails: on real servers, through a proxy that breaks. */
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test, type TestContext } from "node:test";
import type { Incarnation } from "../../src/order/events.ts";
import { DEAD_ROWS_MAX } from "../../src/store/cluster-store.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import { ALL_PARTITIONS, changesKey, openKey, orderKey, partitionOf } from "../../src/store/redis/keys.ts";
import type { RedisLocation } from "../../src/store/redis/location.ts";
import { openRedisStore } from "../../src/store/redis/redis-store.ts";
import { slotOf } from "../../src/store/redis/slots.ts";
import { type AdvanceWrite, type CreateWrite, type Store, StoreUnavailableError } from "../../src/store/store.ts";
import { freePort } from "../support/ports.ts";
import {
  DURABLE,
  redisIsMissing,
  QUICK_FAILOVER,
  type RedisServer,
  startRedis,
  startRedisCluster,
  startReplica,
} from "../support/redis.ts";
import { TcpProxy } from "../support/tcp-proxy.ts";
import { claimTimes } from "../support/claim-times.ts";
import { waitFor } from "../support/wait.ts";
import { ALL_ORDERS } from "../support/all-orders.ts";

const AT_MS = 1_700_000_000_000;

/** An unanswered connection is given up after 5 s, seen a quarter of a second later at most; the rest is a slow machine's. */
const GIVEN_UP_MS_MAX = 30_000;

interface Opened {
  readonly store: Store;
  readonly owner: Incarnation;
  /** What the store has said was broken. */
  readonly broken: readonly Error[];
  readonly notices: readonly string[];
}

function fault(name: string, body: (t: TestContext) => Promise<void>): void {
  test(name, { skip: redisIsMissing }, body);
}

async function openStore(
  t: TestContext,
  location: RedisLocation,
  options: { readonly changesKept?: number } = {},
): Promise<Opened> {
  const broken: Error[] = [];
  const notices: string[] = [];
  const store = await openRedisStore({
    ...options,
    location,
    now: Date.now,
    onBroken: (error) => broken.push(error),
    onNotice: (line) => notices.push(line),
  });
  t.after(() => store.close());
  const owner = await store.cluster.register(
    { serviceId: "service", url: "http://127.0.0.1:1", version: "1.0.0", ttlMs: 5_000, process: null },
    AT_MS,
  );
  return { store, owner, broken, notices };
}

async function throughProxy(t: TestContext): Promise<Opened & { server: RedisServer; proxy: TcpProxy }> {
  const server = await startRedis(t);
  const proxy = await TcpProxy.start(t, server.port);
  return { server, proxy, ...(await openStore(t, { ...server.location, port: proxy.port })) };
}

function creation(owner: Incarnation, idempotencyKey: string | null = null, body = '{"item":"book"}'): CreateWrite {
  return {
    kind: "create",
    orderId: newOrderId("user", idempotencyKey),
    user: "user",
    idempotencyKey,
    pipelineName: "default",
    pipelineVersion: 1,
    event: { kind: "created", atMs: AT_MS, owner, stepName: "A" },
    body,
  };
}

function advance(orderId: string, owner: Incarnation, expectedRevision: number): AdvanceWrite {
  const event = { kind: "step_completed", atMs: AT_MS + expectedRevision, nextStepName: "B" } as const;
  return {
    kind: "advance",
    orderId,
    owner,
    expectedRevision,
    event,
    newStatus: null,
    formerStatus: "running",
    user: "user",
  };
}

async function committed(store: Store, ...writes: readonly (CreateWrite | AdvanceWrite)[]): Promise<void> {
  const outcomes = await store.commit(writes);
  assert.ok(outcomes.every(({ kind }) => kind === "applied"));
}

/** The commit is refused with one line, and with a line that says why. */
async function assertUnavailable(asked: Promise<unknown>, why: RegExp): Promise<void> {
  await assert.rejects(asked, (error) => {
    assert.ok(error instanceof StoreUnavailableError, String(error));
    assert.match(error.message, why);
    assert.doesNotMatch(error.message, /\n/);
    return true;
  });
}

/** Resolves when the store takes writes again. */
async function worksAgain(store: Store): Promise<void> {
  await waitFor(
    () =>
      store.probe().then(
        () => true,
        (error: unknown) => {
          assert.ok(error instanceof StoreUnavailableError, String(error));
          return false;
        },
      ),
    { what: "the store can be written again" },
  );
}

async function openingFails(location: RedisLocation, why: RegExp, credentials = {}): Promise<string> {
  const startMs = performance.now();
  let message = "";
  await assert.rejects(
    openRedisStore({ location, ...credentials, now: Date.now, onBroken: (error) => assert.fail(error) }),
    (error) => {
      assert.ok(error instanceof StoreUnavailableError, String(error));
      ({ message } = error);
      return true;
    },
  );
  assert.match(message, why);
  assert.match(
    message,
    new RegExp(`^the store redis://${location.host}:${location.port}(/\\d+)? can't be opened: [^\\n]+$`),
  );
  assert.ok(performance.now() - startMs < GIVEN_UP_MS_MAX);
  return message;
}

fault("commits go on when the server has forgotten the scripts", async (t) => {
  const server = await startRedis(t);
  const { store, owner } = await openStore(t, server.location);
  const write = creation(owner);
  await committed(store, write);
  await server.command("SCRIPT", "FLUSH");
  await committed(store, advance(write.orderId, owner, 1));
  assert.equal((await store.readOrder(write.orderId))?.revision, 2);
});

fault("a store whose connection is cut works again by itself, and says so", async (t) => {
  const { store, owner, proxy, notices, broken } = await throughProxy(t);
  for (let time = 1; time <= 3; time++) {
    proxy.cut();
    await waitFor(() => notices.length === 2 * time - 1, { what: "the loss is noticed" });
    await worksAgain(store);
    await committed(store, creation(owner));
  }
  assert.match(notices.join("\n"), /^(The connection to Redis was lost: .+\nThe connection to Redis is back\n?){3}$/);
  assert.deepEqual(broken, []);
});

fault("commits that were under way when the connection was cut reject, and are made once at most", async (t) => {
  const { store, owner, proxy } = await throughProxy(t);
  const writes = Array.from({ length: 50 }, () => creation(owner));
  await committed(store, ...writes);
  const rejected = new Set<string>();
  const revisions = new Map(writes.map(({ orderId }) => [orderId, 1]));
  for (let round = 0; round < 20; round++) {
    const asked = writes.map(async ({ orderId }) => {
      const revision = revisions.get(orderId) ?? 0;
      try {
        const [outcome] = await store.commit([advance(orderId, owner, revision)]);
        if (outcome?.kind === "applied") revisions.set(orderId, revision + 1);
      } catch (error) {
        assert.ok(error instanceof StoreUnavailableError);
        rejected.add(orderId);
      }
    });
    if (round % 4 === 0) setImmediate(() => proxy.cut());
    await Promise.all(asked);
    await worksAgain(store);
    for (const orderId of rejected) {
      const known = revisions.get(orderId) ?? 0;
      const revision = (await store.readOrder(orderId))?.revision ?? 0;
      assert.ok(revision === known || revision === known + 1, `order ${orderId}: ${known}, then ${revision}`);
      revisions.set(orderId, revision);
    }
  }
  assert.ok(rejected.size > 0);
  for (const [orderId, revision] of revisions) assert.equal((await store.readOrder(orderId))?.revision, revision);
});

fault("a commit whose answer is lost rejects; made again, it is refused, and the order is there once", async (t) => {
  const { store, owner, proxy } = await throughProxy(t);
  await committed(store, creation(owner)); // from now on the server knows the script
  for (const bytes of [0, 1, 5]) {
    const plain = creation(owner);
    const keyed = creation(owner, `key-${bytes}`);
    proxy.cutReplyAfter(bytes);
    await assertUnavailable(store.commit([plain, keyed]), /the connection to Redis was lost/);
    await worksAgain(store);
    const again = { ...creation(owner, `key-${bytes}`), body: "{}" };
    assert.deepEqual(await store.commit([plain, keyed, again]), [
      { kind: "conflict" },
      { kind: "key_taken", orderId: keyed.orderId, startTimeMs: AT_MS, body: keyed.body },
      { kind: "key_taken", orderId: keyed.orderId, startTimeMs: AT_MS, body: keyed.body },
    ]);
    // Once it has been in this process's hands the store need not read it first.
    assert.deepEqual(await store.commit([advance(plain.orderId, owner, 1)]), [{ kind: "applied" }]);
    const step = advance(plain.orderId, owner, 2);
    proxy.cutReplyAfter(bytes);
    await assertUnavailable(store.commit([step]), /the connection to Redis was lost/);
    await worksAgain(store);
    assert.deepEqual(await store.commit([step]), [{ kind: "conflict" }]);
    assert.equal((await store.readOrder(plain.orderId))?.revision, 3);
  }
});

fault(
  "where the network swallows everything, requests reject in bounded time; it works again when it is back",
  async (t) => {
    const { store, owner, proxy, broken } = await throughProxy(t);
    const order = creation(owner);
    await committed(store, order);
    proxy.stop();
    const startMs = performance.now();
    const late = creation(owner);
    await Promise.all([
      assertUnavailable(store.commit([late]), /Redis has not answered for 5 s/),
      assertUnavailable(store.readOrder(order.orderId), /Redis has not answered for 5 s/),
      assertUnavailable(store.cluster.beat(owner, 1, AT_MS), /Redis has not answered for 5 s/),
    ]);
    assert.ok(performance.now() - startMs < GIVEN_UP_MS_MAX);
    // Nothing waits for a connection that is not there.
    await assertUnavailable(store.commit([late]), /Redis/);
    proxy.go();
    await worksAgain(store);
    // What was swallowed may have arrived in the end: made again, it is there once.
    const [outcome] = await store.commit([late]);
    assert.ok(outcome?.kind === "applied" || outcome?.kind === "conflict");
    assert.equal((await store.readOrder(late.orderId))?.revision, 1);
    assert.deepEqual(broken, []);
  },
);

fault("a server that is stopped and goes on is given up and found again", async (t) => {
  const server = await startRedis(t);
  const { store, owner } = await openStore(t, server.location);
  process.kill(server.pid(), "SIGSTOP");
  const write = creation(owner);
  await assertUnavailable(store.commit([write]), /Redis has not answered for 5 s/);
  process.kill(server.pid(), "SIGCONT");
  await worksAgain(store);
  const [outcome] = await store.commit([write]);
  assert.ok(outcome?.kind === "applied" || outcome?.kind === "conflict");
});

fault("reads that wait are bounded, and a close ends them", async (t) => {
  const { store, owner, proxy } = await throughProxy(t);
  const { orderId } = creation(owner);
  proxy.stop();
  const reads = Array.from({ length: 2_001 }, () => store.readOrder(orderId));
  await assertUnavailable(reads.at(-1) ?? assert.fail(), /too many requests/);
  const startMs = performance.now();
  await store.close();
  assert.ok(performance.now() - startMs < GIVEN_UP_MS_MAX);
  const results = await Promise.allSettled(reads);
  assert.ok(results.every(({ status }) => status === "rejected"));
});

fault("a server that is full refuses the whole batch, and takes it when there is room", async (t) => {
  const server = await startRedis(t);
  const { store, owner, broken } = await openStore(t, server.location);
  const order = creation(owner);
  await committed(store, order);
  const before = await server.command("DBSIZE");
  await server.command("CONFIG", "SET", "maxmemory", "1mb");
  const batch = [advance(order.orderId, owner, 1), ...Array.from({ length: 200 }, () => creation(owner))];
  await assertUnavailable(store.commit(batch), /memory is full.*\(Redis: OOM/);
  await assertUnavailable(store.probe(), /memory is full/);
  await assertUnavailable(store.cluster.beat(owner, 0, AT_MS), /memory is full/);
  assert.equal((await store.readOrder(order.orderId))?.revision, 1);
  assert.equal(await server.command("DBSIZE"), before);
  await server.command("CONFIG", "SET", "maxmemory", "0");
  await committed(store, ...batch);
  assert.deepEqual(broken, []);
});

fault("a server that fills up within batches never leaves a write half made", async (t) => {
  const server = await startRedis(t);
  const { store, owner } = await openStore(t, server.location);
  const used = /used_memory:(\d+)/.exec(String(await server.command("INFO", "memory")))?.[1] ?? "0";
  await server.command("CONFIG", "SET", "maxmemory", String(Number(used) + 4 * 1024 * 1024));
  const applied: string[] = [];
  const refused: string[] = [];
  while (refused.length === 0) {
    const batch = Array.from({ length: 500 }, () => creation(owner, null, JSON.stringify({ item: "x".repeat(500) })));
    const ids = batch.map(({ orderId }) => orderId);
    await store.commit(batch).then(
      (outcomes) => {
        assert.ok(outcomes.every(({ kind }) => kind === "applied"));
        applied.push(...ids);
      },
      () => refused.push(...ids),
    );
  }
  for (const orderId of refused) assert.equal(await store.readOrder(orderId), null);
  const [summary] = await store.listOwners();
  assert.equal(summary?.orders, applied.length);
  for (const orderId of applied) assert.equal((await store.readOrder(orderId))?.revision, 1);
});

fault("a server that has become a replica refuses writes, and takes them as a primary again", async (t) => {
  const server = await startRedis(t);
  const { store, owner, broken } = await openStore(t, server.location);
  const order = creation(owner);
  await committed(store, order);
  await server.command("REPLICAOF", "127.0.0.1", String(await freePort()));
  await assertUnavailable(store.commit([advance(order.orderId, owner, 1)]), /replica/);
  await assertUnavailable(store.probe(), /replica/);
  await server.command("REPLICAOF", "NO", "ONE");
  await committed(store, advance(order.orderId, owner, 1));
  assert.deepEqual(broken, []);
});

fault("all that was confirmed is there when the server was killed and started again", async (t) => {
  const server = await startRedis(t);
  const { store, owner, broken } = await openStore(t, server.location);
  const confirmed = new Map<string, number>();
  for (let round = 0; round < 3; round++) {
    const writers = Array.from({ length: 8 }, async () => {
      for (;;) {
        const writes = Array.from({ length: 20 }, () => creation(owner));
        try {
          await committed(store, ...writes);
          for (const { orderId } of writes) confirmed.set(orderId, 1);
          await committed(store, ...writes.map(({ orderId }) => advance(orderId, owner, 1)));
          for (const { orderId } of writes) confirmed.set(orderId, 2);
        } catch (error) {
          assert.ok(error instanceof StoreUnavailableError, String(error));
          return;
        }
      }
    });
    const enough = confirmed.size + 2_000;
    await waitFor(() => confirmed.size >= enough, { what: "2,000 more orders are made" });
    await server.kill();
    await Promise.all(writers);
    await server.restart();
    await worksAgain(store);
    for (const [orderId, revision] of confirmed) {
      assert.ok(((await store.readOrder(orderId))?.revision ?? 0) >= revision, `order ${orderId} was lost`);
    }
  }
  assert.deepEqual(broken, []);
});

fault("a server that is loading its data refuses for as long, and an opening waits for it", async (t) => {
  const server = await startRedis(t);
  const { store, owner } = await openStore(t, server.location);
  const writes = Array.from({ length: 300 }, () => creation(owner));
  await committed(store, ...writes);
  // From its snapshot: of the log behind that it would read a thousand writes before it looks at its connections.
  await server.command("BGREWRITEAOF");
  await waitFor(
    async () =>
      /aof_rewrite_in_progress:0\r\naof_rewrite_scheduled:0/.test(String(await server.command("INFO", "persistence"))),
    { what: "the log is rewritten" },
  );
  await server.kill();
  await server.restart("--key-load-delay", "20000", "--loading-process-events-interval-bytes", "1024");
  let refusal = "";
  await waitFor(
    () =>
      store.probe().then(
        () => assert.fail("it was not loading any more"),
        (error: unknown) => {
          refusal = error instanceof Error ? error.message : "";
          return refusal.includes("LOADING");
        },
      ),
    { what: "the server says that it is loading" },
  );
  assert.match(refusal, /still loading its data/);
  const opening = openStore(t, server.location);
  await server.command("CONFIG", "SET", "key-load-delay", "0");
  const second = await opening;
  await worksAgain(store);
  const [{ orderId } = creation(owner)] = writes;
  assert.equal((await second.store.readOrder(orderId))?.revision, 1);
});

fault("a store that was emptied is noticed by whatever writes, and nothing is written to it", async (t) => {
  const server = await startRedis(t);
  const writesOf: readonly ((opened: Opened) => Promise<unknown>)[] = [
    ({ store, owner }) => store.commit([creation(owner)]),
    ({ store, owner }) => store.cluster.beat(owner, 0, AT_MS),
    ({ store, owner }) => store.cluster.leave(owner),
    ({ store, owner }) => store.claimOrders(owner - 1, owner, claimTimes(AT_MS), 10),
    ({ store }) => store.cluster.identity(),
    ({ store }) => store.cluster.read(),
    ({ store }) => store.cluster.register({ serviceId: "a", url: "", version: "", ttlMs: 1, process: null }, AT_MS),
  ];
  for (const write of writesOf) {
    const opened = await openStore(t, server.location);
    await server.command("FLUSHALL");
    await assertUnavailable(write(opened), /the store was emptied or replaced.*STOREGONE/);
    assert.equal(await server.command("DBSIZE"), 0);
    assert.equal(opened.broken.length, 1);
    await assertUnavailable(write(opened), /the store was emptied/);
    assert.equal(opened.broken.length, 1, "it is said once");
  }
});

fault("a store that another cluster has taken is not written", async (t) => {
  const server = await startRedis(t);
  const opened = await openStore(t, server.location);
  const order = creation(opened.owner);
  await committed(opened.store, order);
  await server.command("FLUSHALL");
  const successor = await openStore(t, server.location);
  await assertUnavailable(opened.store.commit([creation(opened.owner)]), /emptied or replaced/);
  await assertUnavailable(opened.store.commit([advance(order.orderId, opened.owner, 1)]), /emptied or replaced/);
  assert.equal(opened.broken.length, 1);
  await committed(successor.store, creation(successor.owner));
  assert.notEqual((await successor.store.cluster.identity()).clusterId, "");
});

fault("a store of which a part is gone is not opened", async (t) => {
  const server = await startRedis(t);
  await openStore(t, server.location);
  await server.command("DEL", "{op:7}:partition");
  await openingFails(server.location, /a part of its data is gone/);
});

fault("a store whose list of open orders is gone is not opened, and stops the nodes that use it", async (t) => {
  const server = await startRedis(t);
  const { store, owner, broken } = await openStore(t, server.location);
  await committed(store, creation(owner));
  const { owner: other } = await openStore(t, server.location);
  await server.command("RENAME", "{op:7}:open", "elsewhere");
  await assertUnavailable(store.listOwners(), /a part of it was lost.*STOREGONE.*\{op:7\}:open is gone/);
  assert.equal(broken.length, 1);
  await openingFails(server.location, /STOREGONE.*\{op:7\}:open is gone/);
  await server.command("RENAME", "elsewhere", "{op:7}:open");
  const { store: second, owner: heir } = await openStore(t, server.location);
  await server.command("DEL", "{op:7}:open");
  await assertUnavailable(second.claimOrders(other, heir, claimTimes(AT_MS), 100), /STOREGONE/);
});

fault("a store of another format is not opened, nor a database that another program uses", async (t) => {
  const server = await startRedis(t);
  await openStore(t, server.location);
  await server.command("HSET", "{op:cluster}:identity", "format", "1");
  await openingFails(server.location, /another version of order_process/);
  await server.command("FLUSHALL");
  await server.command("SET", "{op:cluster}:identity", "something else");
  await openingFails(server.location, /used by another program/);
});

fault("an open order that Redis has thrown away stops the node, and is not made anew", async (t) => {
  const server = await startRedis(t);
  const { store, owner, broken } = await openStore(t, server.location);
  const { orderId } = creation(owner);
  await committed(store, { ...creation(owner), orderId });
  const key = orderKey(partitionOf(orderId) ?? 0, orderId);
  await server.command("DEL", key);
  await assertUnavailable(store.commit([advance(orderId, owner, 1)]), new RegExp(`Redis has lost order ${orderId}`));
  assert.equal(broken.length, 1);
  assert.equal(await server.command("EXISTS", key), 0);
});

fault("a claimed order whose text is gone or damaged is reported as damaged, and the others are claimed", async (t) => {
  const server = await startRedis(t);
  const { store, owner } = await openStore(t, server.location);
  const writes = Array.from({ length: 20 }, () => creation(owner));
  await committed(store, ...writes);
  const [gone, damaged] = writes.map(({ orderId }) => orderId);
  assert.ok(gone !== undefined && damaged !== undefined);
  await server.command("DEL", orderKey(partitionOf(gone) ?? 0, gone));
  await server.command("SET", orderKey(partitionOf(damaged) ?? 0, damaged), "nonsense");
  const { store: second, owner: heir } = await openStore(t, server.location);
  const outcome = await second.claimOrders(owner, heir, claimTimes(AT_MS), 100);
  assert.ok(outcome.kind === "claimed");
  assert.equal(outcome.orders.length, 18);
  assert.deepEqual(new Set(outcome.damaged.map(({ orderId }) => orderId)), new Set([gone, damaged]));
  assert.deepEqual(await second.claimOrders(owner, heir, claimTimes(AT_MS), 100), {
    kind: "claimed",
    orders: [],
    damaged: [],
  });
});

fault("an order with a long and strange body is read as it was written", async (t) => {
  const server = await startRedis(t);
  const { store, owner } = await openStore(t, server.location);
  const body = JSON.stringify({ text: "Ünïcode 名 🚚\u2028\n\\\u0000".repeat(50_000) }, null, 2);
  const write = creation(owner, "key", body);
  await committed(store, write);
  await committed(store, advance(write.orderId, owner, 1));
  const { orders } = await store.readOwned(owner, [write.orderId]);
  assert.deepEqual(
    orders.map((order) => order.body),
    [body],
  );
  assert.equal((await store.readOrder(write.orderId))?.revision, 2);
});

fault("of nodes that died and never came back only those that were alive last are listed", async (t) => {
  const server = await startRedis(t);
  const { store, owner } = await openStore(t, server.location);
  const died: Incarnation[] = [];
  for (let index = 0; index < DEAD_ROWS_MAX + 5; index++) {
    const description = { serviceId: `service-${index}`, url: "", version: "1", ttlMs: 1, process: null };
    died.push(await store.cluster.register(description, AT_MS));
  }
  for (const incarnation of died) assert.equal(await store.cluster.markDead(incarnation, 1), true);
  const { nodes } = await store.cluster.read();
  assert.deepEqual(
    nodes.map(({ incarnation, alive }) => [incarnation, alive]),
    [[owner, true], ...died.slice(-DEAD_ROWS_MAX).map((incarnation) => [incarnation, false])],
  );
  assert.equal(await store.cluster.hasService("service-0"), true);
  assert.equal((await store.claimOrders(died[0] ?? 0, owner, claimTimes(AT_MS), 10)).kind, "claimed");
});

fault("an id that no order can have is no order", async (t) => {
  const server = await startRedis(t);
  const { store, owner } = await openStore(t, server.location);
  for (const id of ["", "unknown", "{op:cluster}:identity"]) {
    assert.equal(await store.readOrder(id), null);
    assert.deepEqual(await store.readOwned(owner, [id]), { orders: [], damaged: [] });
  }
});

fault("a wrong password is told in one line, without the password", async (t) => {
  const server = await startRedis(t, [...DURABLE, "--requirepass", "right"]);
  for (const [credentials, why] of [
    [{ password: "wr0ng-s3cret" }, /refuses the user name or the password/],
    [{ username: "nobody", password: "wr0ng-s3cret" }, /refuses the user name or the password/],
    [{}, /wants a password/],
  ] as const) {
    const message = await openingFails(server.location, why, credentials);
    assert.doesNotMatch(message, /wr0ng-s3cret/);
  }
  const store = await openRedisStore({
    location: server.location,
    password: "right",
    now: Date.now,
    onBroken: (error) => assert.fail(error),
  });
  await store.close();
});

fault("a password where none is set is told in one line", async (t) => {
  const server = await startRedis(t);
  await openingFails(server.location, /no password set/, { password: "wr0ng-s3cret" });
});

fault("a wrong port, another program's port and a silent host are told in one line", async (t) => {
  const host = "127.0.0.1";
  await openingFails({ tls: false, host, port: await freePort(), db: 0 }, /nothing listens there.*ECONNREFUSED/);
  for (const greeting of ["HTTP/1.1 400 Bad Request\r\n\r\n", ""]) {
    const other = createServer((socket) =>
      socket.on("data", () => socket.write(greeting)).on("error", () => undefined),
    );
    await new Promise<void>((resolve) => other.listen(0, host, resolve));
    t.after(() => other.close());
    const address = other.address();
    assert.ok(address !== null && typeof address !== "string");
    const why =
      greeting === "" ? /accepts connections, but does not answer/ : /another program than Redis listens there/;
    await openingFails({ tls: false, host, port: address.port, db: 0 }, why);
  }
});

fault("a wrong database is told in one line", async (t) => {
  const server = await startRedis(t);
  await openingFails({ ...server.location, db: 99 }, /no database of that number/);
});

fault("another database of the same server is another store", async (t) => {
  const server = await startRedis(t);
  const one = await openStore(t, server.location);
  const two = await openStore(t, { ...server.location, db: 3 });
  assert.notEqual((await one.store.cluster.identity()).clusterId, (await two.store.cluster.identity()).clusterId);
});

fault("the report names what is weak in the server's settings", async (t) => {
  const server = await startRedis(t, ["--appendonly", "no", "--maxmemory-policy", "allkeys-lru"]);
  const { store } = await openStore(t, server.location);
  const first = await store.report();
  assert.equal(first.durability, "none");
  assert.match(first.advice.join("\n"), /appendonly yes[^]*appendfsync always[^]*noeviction/);
  await server.command("CONFIG", "SET", "appendonly", "yes");
  await logIsWritten(server);
  assert.equal((await store.report()).durability, "none", "it may throw away what it has on the disk");
  await server.command("CONFIG", "SET", "maxmemory-policy", "noeviction");
  assert.equal((await store.report()).durability, "fsync-every-second");
  await server.command("CONFIG", "SET", "appendfsync", "always");
  assert.deepEqual(await store.report(), { durability: "fsync-always", advice: [] });
  await server.command("ACL", "SETUSER", "default", "-config");
  const blind = await store.report();
  assert.equal(blind.durability, "unknown");
  assert.match(blind.advice.join("\n"), /does not let its settings be read/);
});

fault(
  "a log that is switched on counts only when it has been written, and one that is rewritten all the time",
  async (t) => {
    const server = await startRedis(t, [
      "--appendonly",
      "no",
      "--appendfsync",
      "always",
      "--enable-debug-command",
      "yes",
    ]);
    const { store } = await openStore(t, server.location);
    assert.equal((await store.report()).durability, "none");
    // 2,000 keys, a millisecond each: long enough to be seen while it is under way.
    await server.command("DEBUG", "POPULATE", "2000");
    await server.command("CONFIG", "SET", "rdb-key-save-delay", "1000");
    await server.command("CONFIG", "SET", "appendonly", "yes");
    const begun = await store.report();
    assert.equal(begun.durability, "unknown");
    assert.match(begun.advice.join("\n"), /writing its log anew.*wait for it/);
    await logIsWritten(server);
    assert.deepEqual(await store.report(), { durability: "fsync-always", advice: [] });
    await server.command("BGREWRITEAOF");
    assert.match(String(await server.command("INFO", "persistence")), /aof_rewrite_(in_progress|scheduled):1/);
    assert.deepEqual(await store.report(), { durability: "fsync-always", advice: [] });
  },
);

function logIsWritten(server: RedisServer): Promise<boolean> {
  const isWritten = async (): Promise<boolean> =>
    !/aof_rewrite_(in_progress|scheduled):1/.test(String(await server.command("INFO", "persistence")));
  return waitFor(isWritten, { what: "Redis has written its log anew" });
}

fault("a server that is loading its data says nothing of its log", async (t) => {
  const server = await startRedis(t);
  const { store } = await openStore(t, server.location);
  for (let batch = 0; batch < 5; batch++) {
    await server.command("EVAL", "for i = 1, 1000 do redis.call('SET', KEYS[1] .. i, i) end", "1", `k${batch}`);
  }
  await server.kill();
  const readings = new Set<string>();
  const restarting = server.restart("--key-load-delay", "500");
  let isUp = false;
  void restarting.then(() => (isUp = true));
  const loading = (): Promise<boolean> =>
    store.report().then(
      ({ durability }) => {
        readings.add(durability);
        return isUp && durability === "fsync-always";
      },
      (error: unknown) => {
        assert.ok(error instanceof StoreUnavailableError);
        readings.add(/loading/.test(error.message) ? "loading" : "away");
        return false;
      },
    );
  await waitFor(loading, { what: "the report says fsync-always" });
  assert.deepEqual(readings, new Set(["away", "loading", "fsync-always"]));
});

fault("a Redis Cluster has only database 0, and is refused with another in one line", async (t) => {
  const [server] = await startRedisCluster(t);
  assert.ok(server !== undefined);
  await openingFails({ ...server.location, db: 1 }, /only database 0/);
});

fault(
  "a Redis Cluster that moves slots to another server is followed, and no order is lost or made twice",
  async (t) => {
    const [first, second] = await startRedisCluster(t);
    assert.ok(first !== undefined && second !== undefined);
    const { store, owner, broken } = await openStore(t, first.location);
    const writes = Array.from({ length: 320 }, () => creation(owner));
    await committed(store, ...writes);
    const idOf = async (server: RedisServer): Promise<string> => String(await server.command("CLUSTER", "MYID"));
    const [from, to] = [await idOf(first), await idOf(second)];
    const moving = ALL_PARTITIONS.filter((partition) => slotOf(openKey(partition)) < 5_461);
    assert.ok(moving.length > 0);
    for (const partition of moving) {
      const slot = String(slotOf(openKey(partition)));
      await second.command("CLUSTER", "SETSLOT", slot, "IMPORTING", from);
      await first.command("CLUSTER", "SETSLOT", slot, "MIGRATING", to);
      const keys = (await first.command("CLUSTER", "GETKEYSINSLOT", slot, "1000")) as string[];
      const half = Math.ceil(keys.length / 2);
      for (const part of [keys.slice(0, half), keys.slice(half)]) {
        await first.command("MIGRATE", "127.0.0.1", String(second.port), "", "0", "5000", "KEYS", ...part);
        // Half of the keys are here and half there: what can be read is read, and a commit is made whole or refused.
        const mine = writes.filter(({ orderId }) => partitionOf(orderId) === partition);
        for (const { orderId } of mine) assert.equal((await store.readOrder(orderId))?.revision, 1);
        const probe = creation(owner);
        const late = { ...probe, orderId: probe.orderId.slice(0, -4) + (mine[0]?.orderId.slice(-4) ?? "0000") };
        const applied = await store.commit([late]).then(
          ([outcome]) => outcome?.kind === "applied",
          (error: unknown) => {
            assert.ok(error instanceof StoreUnavailableError);
            return false;
          },
        );
        assert.equal(await store.readOrder(late.orderId).then((order) => order !== null), applied);
      }
      await second.command("CLUSTER", "SETSLOT", slot, "NODE", to);
      await first.command("CLUSTER", "SETSLOT", slot, "NODE", to);
    }
    await committed(store, ...writes.map(({ orderId }) => advance(orderId, owner, 1)));
    await store.probe();
    for (const { orderId } of writes) assert.equal((await store.readOrder(orderId))?.revision, 2);
    assert.deepEqual(broken, []);
  },
);

fault("a server of a Redis Cluster that is down makes only what is there fail, until it is back", async (t) => {
  const servers = await startRedisCluster(t, [...DURABLE, "--cluster-require-full-coverage", "no"]);
  const [first, , third] = servers;
  assert.ok(first !== undefined && third !== undefined);
  const { store, owner, broken } = await openStore(t, first.location);
  const writes = Array.from({ length: 320 }, () => creation(owner));
  await committed(store, ...writes);
  await third.kill();
  const isThere = ({ orderId }: CreateWrite): boolean => slotOf(openKey(partitionOf(orderId) ?? 0)) >= 10_923;
  const [there, elsewhere] = [writes.filter(isThere), writes.filter((write) => !isThere(write))];
  assert.ok(there.length > 0 && elsewhere.length > 0);
  await assertUnavailable(store.commit(there.map(({ orderId }) => advance(orderId, owner, 1))), /Redis/);
  await assertUnavailable(store.probe(), /Redis/);
  await committed(store, ...elsewhere.map(({ orderId }) => advance(orderId, owner, 1)));
  await third.restart();
  await worksAgain(store);
  await committed(store, ...there.map(({ orderId }) => advance(orderId, owner, 1)));
  assert.deepEqual(broken, []);
});

fault("where a replica takes over for a server of a Redis Cluster, the store finds it by itself", async (t) => {
  const servers = await startRedisCluster(t, [...DURABLE, ...QUICK_FAILOVER]);
  const [first, , third] = servers;
  assert.ok(first !== undefined && third !== undefined);
  const replica = await startReplica(t, third, servers);
  const { store, owner, broken } = await openStore(t, first.location);
  const writes = Array.from({ length: 320 }, () => creation(owner));
  await committed(store, ...writes);
  await waitFor(
    async () => {
      const info = String(await third.command("INFO", "replication"));
      const [copied, written] = [/offset=(\d+),lag/.exec(info)?.[1], /master_repl_offset:(\d+)/.exec(info)?.[1]];
      return copied !== undefined && copied === written;
    },
    { what: "the replica has everything" },
  );
  await third.kill();
  await worksAgain(store);
  await committed(store, ...writes.map(({ orderId }) => advance(orderId, owner, 1)));
  for (const { orderId } of writes) assert.equal((await store.readOrder(orderId))?.revision, 2);
  assert.match(String(await replica.command("INFO", "replication")), /role:master/);
  assert.deepEqual(broken, []);
});

fault(
  "where Redis fails in the middle of a commit, what came before is applied whole, and what follows is not",
  async (t) => {
    const server = await startRedis(t);
    const { store, owner } = await openStore(t, server.location);
    const large = creation(owner);
    const alike = (): CreateWrite => {
      for (;;) {
        const write = creation(owner);
        if (partitionOf(write.orderId) === partitionOf(large.orderId)) return write;
      }
    };
    const [former, given, before, after] = [alike(), alike(), alike(), alike()];
    await committed(store, large, former, given);
    await server.command("CONFIG", "SET", "proto-max-bulk-len", "1048576"); // the least that it may be
    const grown = (revision: number): AdvanceWrite => {
      const write = advance(large.orderId, owner, revision);
      return {
        ...write,
        event: { kind: "step_completed", atMs: AT_MS, nextStepName: "B", result: JSON.stringify("x".repeat(700_000)) },
      };
    };
    await committed(store, grown(1));
    const end = { kind: "step_completed", atMs: AT_MS, nextStepName: null } as const;
    const completion = { ...advance(former.orderId, owner, 1), event: end, newStatus: "completed" } as const;
    const { next } = (await store.readChanges(null, 1)) as { next: string };
    await assert.rejects(store.commit([before, completion, grown(2), after]));
    assert.deepEqual(
      new Set(
        (await store.readOrders([before.orderId, former.orderId, large.orderId, after.orderId])).map(
          ({ orderId, status, revision }) => `${orderId} ${status} ${revision}`,
        ),
      ),
      new Set([`${before.orderId} running 1`, `${former.orderId} completed 2`, `${large.orderId} running 2`]),
    );
    const open: string[] = [];
    for (let cursor: string | null = null, isFirst = true; isFirst || cursor !== null; isFirst = false) {
      const page = await store.listOrderIds(owner, cursor, 100);
      open.push(...page.orderIds);
      cursor = page.next;
    }
    assert.deepEqual(open.toSorted(), [large, given, before].map(({ orderId }) => orderId).toSorted());
    assert.deepEqual(await store.countOrders("user"), { running: 3, completed: 1 });
    const listed = await store.listOrders({ ...ALL_ORDERS, user: "user" }, null, 10);
    assert.deepEqual(
      listed.orders.map(({ orderId }) => orderId),
      [large, former, given, before]
        .map(({ orderId }) => orderId)
        .toSorted()
        .toReversed(),
    );
    const page = await store.readChanges(next, 10);
    assert.ok(page.kind === "changes");
    assert.deepEqual(
      page.changes.map(({ orderId, revision }) => [orderId, revision]),
      [
        [before.orderId, 1],
        [former.orderId, 2],
      ],
    );
  },
);

fault("the streams of a Redis Cluster keep a part of the changes each, not all of them each", async (t) => {
  const servers = await startRedisCluster(t, []);
  const [first] = servers;
  assert.ok(first !== undefined);
  // A thousand changes for each of the 32 streams, which is the least that one keeps.
  const { store, owner } = await openStore(t, first.location, { changesKept: 32_000 });
  const inFirst: CreateWrite[] = [];
  while (inFirst.length < 1_500) {
    const write = creation(owner);
    if (partitionOf(write.orderId) === 0) inFirst.push(write);
  }
  for (let at = 0; at < inFirst.length; at += 100) {
    await Promise.all(inFirst.slice(at, at + 100).map((write) => store.commit([write])));
  }
  const lengths = await Promise.all(
    servers.map((server) => server.command("XLEN", changesKey(0)).catch(() => 0)), // one of them has the stream
  );
  const kept = Math.max(...lengths.map(Number));
  assert.ok(kept >= 1_000 && kept < 1_200, `${kept} entries are kept`);
});
