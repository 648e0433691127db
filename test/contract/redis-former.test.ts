/** What becomes of a store in Redis that nodes of the former version have written, or still do (FORMER_FORMAT in keys.ts). */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Incarnation } from "../../src/order/events.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import { userDigest } from "../../src/store/redis/commit-calls.ts";
import {
  CLUSTER_KEYS,
  FORMAT,
  FORMER_FORMAT,
  indexKey,
  orderKey,
  partitionOf,
  userKey,
} from "../../src/store/redis/keys.ts";
import { encodeOrder } from "../../src/store/redis/order-text.ts";
import { openRedisStore } from "../../src/store/redis/redis-store.ts";
import type { CreateWrite, OrderFilter, Store } from "../../src/store/store.ts";
import {
  askOwner,
  type Ending,
  redisIsMissing,
  type RedisServer,
  startRedis,
  startRedisCluster,
} from "../support/redis.ts";
import { ALL_ORDERS } from "../support/all-orders.ts";

const AT_MS = 1_700_000_000_000;
const USERS = ["alice", "bob"] as const;

/** All orders are in one: a page of a list asks each partition for a few only, and then goes on. */
const PARTITION = 7;
const ORDERS_AT_ONCE = 12;
const PAGE = 7;

const BY_USER = indexKey(PARTITION, "by_user");
const DESCRIPTION = { url: "", version: "1.0.0", ttlMs: 5_000, process: null };

/** Those on which the store is: one, or those of a Redis Cluster. */
const KINDS: Readonly<Record<string, (ending: Ending) => Promise<readonly RedisServer[]>>> = {
  "in Redis": async (ending) => [await startRedis(ending)],
  "in a Redis Cluster": (ending) => startRedisCluster(ending),
};

for (const [where, start] of Object.entries(KINDS)) {
  test(
    `a store ${where} stays as nodes of the former version need it until none is alive, and lists each user's orders all along`,
    { skip: redisIsMissing },
    async (t) => {
      const servers = await start(t);
      const former = await formerStore(t, servers);
      const made = new Orders(servers);
      const beside = await nodeOn(t, servers, "beside");
      for (let round = 0; round < 4; round++) {
        await made.byFormer(former.incarnation);
        await made.by(beside);
      }
      assert.equal(await formatOf(servers), FORMER_FORMAT);
      assert.equal(await askOwner(servers, ["ZCARD", BY_USER]), made.count);
      await made.assertListedBy(beside);

      await former.leave();
      const next = await nodeOn(t, servers, "next");
      assert.equal(await formatOf(servers), FORMAT);
      for (let round = 0; round < 4; round++) {
        await made.by(next);
        await made.by(beside);
      }
      for (const user of USERS) assert.equal(await sizeOfSet(servers, user), 4 * ORDERS_AT_ONCE);
      await made.assertListedBy(beside);
      await made.assertListedBy(next);
      await made.assertListedBy(await nodeOn(t, servers, "later"));
    },
  );
}

test(
  "a store of the former format that is opened by nobody who starts is left as it is",
  { skip: redisIsMissing },
  async (t) => {
    const servers = [await startRedis(t)];
    const former = await formerStore(t, servers);
    await former.leave();
    const identity = await askOwner(servers, ["HGETALL", CLUSTER_KEYS.identity]);
    await openOn(t, servers);
    assert.deepEqual(await askOwner(servers, ["HGETALL", CLUSTER_KEYS.identity]), identity);
  },
);

test(
  "a node that starts anew after an update does not count as one of the former version",
  { skip: redisIsMissing },
  async (t) => {
    const servers = [await startRedis(t)];
    await formerStore(t, servers);
    await nodeOn(t, servers, "former");
    assert.equal(await formatOf(servers), FORMAT);
  },
);

test(
  "in a store of the present format, the set of all users' orders is neither written nor read",
  { skip: redisIsMissing },
  async (t) => {
    const servers = [await startRedis(t)];
    const node = await nodeOn(t, servers, "service");
    const made = new Orders(servers);
    await made.by(node);
    assert.equal(await askOwner(servers, ["EXISTS", BY_USER]), 0);
    await askOwner(servers, ["ZADD", BY_USER, "0", `${userDigest("alice")} ${idIn(PARTITION)}`]);
    const asked = await commandsOf(servers, () => made.assertListedBy(node));
    assert.ok(asked.some((command) => command.includes(userKey(PARTITION, userDigest("alice")))));
    assert.deepEqual(
      asked.filter((command) => command.includes(BY_USER)),
      [],
    );
  },
);

interface Node {
  readonly store: Store;
  readonly owner: Incarnation;
}

/** The orders of a test's users. */
class Orders {
  readonly #servers: readonly RedisServer[];
  readonly #ids = new Map<string, string[]>(USERS.map((user) => [user, []]));

  constructor(servers: readonly RedisServer[]) {
    this.#servers = servers;
  }

  get count(): number {
    return Array.from(this.#ids.values()).flat().length;
  }

  /** Makes some of each user, and completes a third. */
  async by({ store, owner }: Node): Promise<void> {
    const writes = USERS.flatMap((user) => Array.from({ length: ORDERS_AT_ONCE }, () => creation(owner, user)));
    await applied(store, writes);
    const completed = writes.filter((_, at) => at % 3 === 0);
    await applied(
      store,
      completed.map(({ orderId, user }) => ({
        kind: "advance",
        orderId,
        owner,
        expectedRevision: 1,
        event: { kind: "step_completed", atMs: AT_MS, nextStepName: null },
        newStatus: "completed",
        formerStatus: "running",
        user,
      })),
    );
    this.#note(writes);
  }

  /** As the former version made them: the same in all but where a user's orders are. */
  async byFormer(owner: Incarnation): Promise<void> {
    const writes = USERS.flatMap((user) => Array.from({ length: ORDERS_AT_ONCE }, () => creation(owner, user)));
    const texts = writes.flatMap((write) => [orderKey(PARTITION, write.orderId), encodeOrder(write)]);
    const all = writes.flatMap(({ orderId }) => ["0", orderId]);
    const byUser = writes.flatMap(({ orderId, user }) => ["0", `${userDigest(user)} ${orderId}`]);
    await askOwner(this.#servers, ["MSET", ...texts]);
    await askOwner(this.#servers, ["ZADD", indexKey(PARTITION, "orders"), ...all]);
    await askOwner(this.#servers, ["ZADD", BY_USER, ...byUser]);
    this.#note(writes);
  }

  /** Every list of one user's orders has each once, newest first. */
  async assertListedBy({ store }: Node): Promise<void> {
    for (const [user, made] of this.#ids) {
      const ids = made.toSorted().toReversed();
      assert.deepEqual(await listed(store, { ...ALL_ORDERS, user }), ids, `orders of ${user}`);
      const running = await listed(store, { ...ALL_ORDERS, user, status: "running" });
      const completed = await listed(store, { ...ALL_ORDERS, user, status: "completed" });
      assert.deepEqual([...running, ...completed].toSorted().toReversed(), ids);
      assert.ok(completed.length > 0 && running.length > completed.length);
    }
  }

  #note(writes: readonly CreateWrite[]): void {
    for (const { orderId, user } of writes) this.#ids.get(user)?.push(orderId);
  }
}

async function openOn(t: TestContext, [server]: readonly RedisServer[]): Promise<Store> {
  assert.ok(server !== undefined);
  const store = await openRedisStore({
    location: server.location,
    now: () => AT_MS,
    onBroken: (error) => {
      throw error;
    },
  });
  t.after(() => store.close());
  return store;
}

async function nodeOn(t: TestContext, servers: readonly RedisServer[], serviceId: string): Promise<Node> {
  const store = await openOn(t, servers);
  return { store, owner: await store.cluster.register({ serviceId, ...DESCRIPTION }, AT_MS) };
}

/** A store as the former version made it, and a node of that version which is alive. */
async function formerStore(
  t: TestContext,
  servers: readonly RedisServer[],
): Promise<{ readonly incarnation: Incarnation; readonly leave: () => Promise<void> }> {
  const { cluster } = await openOn(t, servers);
  const incarnation = await cluster.register({ serviceId: "former", ...DESCRIPTION }, AT_MS);
  const row = `1 0 ${AT_MS} ${JSON.stringify(DESCRIPTION)}`;
  await askOwner(servers, ["HSET", CLUSTER_KEYS.nodes, String(incarnation), row]);
  await askOwner(servers, ["HSET", CLUSTER_KEYS.identity, "format", String(FORMER_FORMAT)]);
  return { incarnation, leave: () => cluster.leave(incarnation) };
}

async function formatOf(servers: readonly RedisServer[]): Promise<number> {
  return Number(await askOwner(servers, ["HGET", CLUSTER_KEYS.identity, "format"]));
}

async function sizeOfSet(servers: readonly RedisServer[], user: string): Promise<unknown> {
  return askOwner(servers, ["ZCARD", userKey(PARTITION, userDigest(user))]);
}

/** What a server has been asked meanwhile. */
async function commandsOf(servers: readonly RedisServer[], work: () => Promise<void>): Promise<string[][]> {
  await askOwner(servers, ["CONFIG", "SET", "slowlog-log-slower-than", "0", "slowlog-max-len", "10000"]);
  await askOwner(servers, ["SLOWLOG", "RESET"]);
  await work();
  const entries = (await askOwner(servers, ["SLOWLOG", "GET", "10000"])) as [number, number, number, string[]][];
  return entries.map(([, , , command]) => command);
}

function idIn(partition: number): string {
  for (;;) {
    const id = newOrderId("user", null);
    if (partitionOf(id) === partition) return id;
  }
}

function creation(owner: Incarnation, user: string): CreateWrite {
  return {
    kind: "create",
    orderId: idIn(PARTITION),
    user,
    idempotencyKey: null,
    pipelineName: "default",
    pipelineVersion: 1,
    event: { kind: "created", atMs: AT_MS, owner, stepName: "A" },
    body: "{}",
  };
}

async function applied(store: Store, writes: Parameters<Store["commit"]>[0]): Promise<void> {
  const outcomes = await store.commit(writes);
  assert.ok(outcomes.every(({ kind }) => kind === "applied"));
}

/** Ids of all pages, in their order. */
async function listed(store: Store, filter: OrderFilter): Promise<string[]> {
  const ids: string[] = [];
  for (let next: string | null | undefined; next !== null;) {
    const page = await store.listOrders(filter, next ?? null, PAGE);
    ids.push(...page.orders.map(({ orderId }) => orderId));
    next = page.next;
  }
  return ids;
}
