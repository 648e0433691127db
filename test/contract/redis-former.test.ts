/** What becomes of a store in Redis whose orders a former version made (FORMER_FORMAT in keys.ts). */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { Incarnation } from "../../src/order/events.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import { userDigest } from "../../src/store/redis/commit-calls.ts";
import { CLUSTER_KEYS, FORMER_FORMAT, indexKey, partitionOf, userKey } from "../../src/store/redis/keys.ts";
import { openRedisStore } from "../../src/store/redis/redis-store.ts";
import type { OrderFilter, Store } from "../../src/store/store.ts";
import {
  askOwner,
  type Ending,
  redisIsMissing,
  type RedisServer,
  startRedis,
  startRedisCluster,
} from "../support/redis.ts";

const AT_MS = 1_700_000_000_000;
const USERS = ["alice", "bob"];

/** Those on which the store is: one, or those of a Redis Cluster. */
const KINDS: Readonly<Record<string, (ending: Ending) => Promise<readonly RedisServer[]>>> = {
  "in Redis": async (ending) => [await startRedis(ending)],
  "in a Redis Cluster": (ending) => startRedisCluster(ending),
};

for (const [where, start] of Object.entries(KINDS)) {
  test(
    `orders ${where} that a former version made are a user's beside those of today`,
    { skip: redisIsMissing },
    async (t) => {
      const servers = await start(t);
      const made: Record<string, string[]> = Object.fromEntries(USERS.map((user) => [user, []]));
      const makeSome = async ({ store, owner }: Opened): Promise<void> => {
        for (const user of USERS) for (let n = 0; n < 40; n++) made[user]?.push(await create(store, owner, user));
      };
      const assertFound = async ({ store }: Opened): Promise<void> => {
        for (const user of USERS) {
          const found = await idsOf(store, user);
          assert.deepEqual(found, made[user]?.toSorted().toReversed(), `orders of ${user}`);
        }
      };

      const before = await open(t, servers);
      await makeSome(before);
      await asFormerVersion(servers, made);
      await askOwner(servers, ["HSET", CLUSTER_KEYS.identity, "format", String(FORMER_FORMAT)]);
      const today = await open(t, servers);
      await assertFound(today);

      await makeSome(today);
      await assertFound(today);

      // A node of the former version that runs on makes orders in its way.
      const { alice = [] } = made;
      const late = await create(today.store, today.owner, "alice");
      await asFormerVersion(servers, { alice: [late] });
      alice.push(late);
      await assertFound(today);
      await assertFound(await open(t, servers));
    },
  );
}

test(
  "a store in Redis that has never been a former version's has no set of all users' orders",
  { skip: redisIsMissing },
  async (t) => {
    const servers = [await startRedis(t)];
    const { store, owner } = await open(t, servers);
    const orderId = await create(store, owner, "alice");
    const partition = partitionOf(orderId) ?? -1;
    assert.equal(await askOwner(servers, ["EXISTS", indexKey(partition, "by_user")]), 0);
    assert.equal(await askOwner(servers, ["HEXISTS", CLUSTER_KEYS.identity, "by_user"]), 0);
    assert.deepEqual(await askOwner(servers, ["ZRANGE", userKey(partition, userDigest("alice")), "0", "-1"]), [
      orderId,
    ]);
  },
);

interface Opened {
  readonly store: Store;
  readonly owner: Incarnation;
}

async function open(t: TestContext, [server]: readonly RedisServer[]): Promise<Opened> {
  assert.ok(server !== undefined);
  const store = await openRedisStore({
    location: server.location,
    now: () => AT_MS,
    onBroken: (error) => {
      throw error;
    },
  });
  t.after(() => store.close());
  const node = { serviceId: "service", url: "", version: "1.0.0", ttlMs: 5_000, process: null };
  return { store, owner: await store.cluster.register(node, AT_MS) };
}

async function create(store: Store, owner: Incarnation, user: string): Promise<string> {
  const orderId = newOrderId(user, null);
  const [outcome] = await store.commit([
    {
      kind: "create",
      orderId,
      user,
      idempotencyKey: null,
      pipelineName: "default",
      pipelineVersion: 1,
      event: { kind: "created", atMs: AT_MS, owner, stepName: "A" },
      body: "{}",
    },
  ]);
  assert.equal(outcome?.kind, "applied");
  return orderId;
}

/** Puts orders where the former version had them. */
async function asFormerVersion(
  servers: readonly RedisServer[],
  orders: Readonly<Record<string, readonly string[]>>,
): Promise<void> {
  for (const [user, ids] of Object.entries(orders)) {
    const digest = userDigest(user);
    for (const id of ids) {
      const partition = partitionOf(id) ?? -1;
      assert.equal(await askOwner(servers, ["ZREM", userKey(partition, digest), id]), 1);
      assert.equal(await askOwner(servers, ["ZADD", indexKey(partition, "by_user"), "0", `${digest} ${id}`]), 1);
    }
  }
}

/** All of a user's orders, in short pages. */
async function idsOf(store: Store, user: string): Promise<string[]> {
  const filter: OrderFilter = {
    user,
    status: null,
    needsPerson: false,
    pipelineName: null,
    stepName: null,
    ownerServiceId: null,
    fromMs: null,
    toMs: null,
  };
  const ids: string[] = [];
  for (let next: string | null | undefined; next !== null;) {
    const page = await store.listOrders(filter, next ?? null, 7);
    ids.push(...page.orders.map(({ orderId }) => orderId));
    next = page.next;
  }
  return ids;
}
