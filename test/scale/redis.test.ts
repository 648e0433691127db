/** What each script and each command of the store in Redis costs a real server, with little in it and with much. */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { Incarnation } from "../../src/order/events.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import { userDigest } from "../../src/store/redis/commit-calls.ts";
import { ALL_PARTITIONS, changesKey, CLUSTER_KEYS, indexKey, openKey, PARTITIONS } from "../../src/store/redis/keys.ts";
import { openRedisStore } from "../../src/store/redis/redis-store.ts";
import * as exported from "../../src/store/redis/scripts.ts";
import type { AdvanceWrite, CreateWrite, Store } from "../../src/store/store.ts";
import {
  askOwner,
  type Ending,
  redisIsMissing,
  type RedisServer,
  startRedis,
  startRedisCluster,
} from "../support/redis.ts";
import { claimTimes } from "../support/claim-times.ts";
import { assertFlat, LARGE_ROWS, type RoundCosts, SMALL_ROWS } from "./compare.ts";
import { ALL_ORDERS } from "../support/all-orders.ts";

const FOLDER = fileURLToPath(new URL("../../src/store/redis/", import.meta.url));

/** Scripts by what names them to Redis. */
const SCRIPTS: ReadonlyMap<string, string> = new Map(
  Object.entries(exported).flatMap(([name, value]) =>
    typeof value === "object" && "sha1" in value ? [[value.sha1, name]] : [],
  ),
);

/** What so short a call may take more by chance. */
const CLOCK_US = 20;

/**
 * What slow memory adds differs by machine and by what else runs there, so it is measured: by a walk through the orders of a partition, with
 * nothing done on the way. What goes through a partition takes longer. What doesn't may take a quarter as much more: it has rows to look for,
 * and the caches hold less of a large store.
 */
const WALK = "a walk through a partition";
const WALK_SHARE = 1 / 4;

/** As the logarithm of what is in them, with as many looks at memory; to go through all of it would cost 200 times as much. */
const SKIP_LIST = { reason: "goes down Redis's skip lists", ratioMax: 5 };
const EXCEPTIONS = {
  COMMIT: SKIP_LIST,
  FENCE_AND_LIST: SKIP_LIST,
  COUNT_OWNERS: SKIP_LIST,
  [WALK]: { reason: "is what the others are measured by", ratioMax: Number.POSITIVE_INFINITY },
};

const LEFT_OUT = {
  MARK: "runs once in a store's life",
  EVALSHA: "runs a script: each is told by its own name",
  EVAL: "sends a script to a server that doesn't know it",
  ASKING: "tells a server of a Redis Cluster where a moving slot goes; touches no data",
  CLUSTER: "asks a Redis Cluster who has what; touches no data",
  LOADING: "begins an answer of Redis; no command",
  DBSIZE: "of throw-away clusters only (drill)",
  FLUSHDB: "of throw-away clusters only (drill)",
};

/** Calls of one kind in a round. */
const CALLS = 10;
const PAGE = 20;

/** Orders of the owner whose pages are read: as many on both stores, as a page has all of a partition. */
const STAYING_ORDERS = 100;

const AT_MS = 1_700_000_000_000;
const BUSY_USER = "user-busy";
const BUSY_SERVICE = "service-busy";

/** Those on which the store is: one, or those of a Redis Cluster. */
const KINDS: Readonly<Record<string, (ending: Ending) => Promise<readonly RedisServer[]>>> = {
  "in Redis": async (ending) => [await startRedis(ending, SLOWLOG)],
  "in a Redis Cluster": (ending) => startRedisCluster(ending, SLOWLOG),
};

const SLOWLOG = ["--slowlog-log-slower-than", "0", "--slowlog-max-len", "10000"];

for (const [where, start] of Object.entries(KINDS)) {
  test(
    `no script and no command of the store ${where} takes longer the more is stored`,
    { skip: redisIsMissing },
    async (t) => {
      const [small, large] = await Promise.all([
        MeasuredServers.filled(t, await start(t), SMALL_ROWS),
        MeasuredServers.filled(t, await start(t), LARGE_ROWS),
      ]);
      await assertFlat({
        small: () => small.round(),
        large: () => large.round(),
        expected: [...SCRIPTS.values(), ...commandsInCode()],
        exceptions: EXCEPTIONS,
        leftOut: LEFT_OUT,
        slackUs: (least) => Math.max(CLOCK_US, WALK_SHARE * (least.large.get(WALK) ?? 0)),
      });
    },
  );
}

/** All that the adapter sends: each command stands in its code as the beginning of a list. */
function commandsInCode(): string[] {
  const sources = readdirSync(FOLDER).filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"));
  const texts = sources.map((name) => readFileSync(join(FOLDER, name), "utf8"));
  return Array.from(
    new Set(texts.flatMap((text) => Array.from(text.matchAll(/\["([A-Z]{3,})"/g), ([, name]) => name ?? ""))),
  );
}

/** Servers with a store on them, which tell how long each call took them. */
class MeasuredServers {
  readonly #servers: readonly RedisServer[];
  readonly #rows: number;
  readonly #store: Store;
  readonly #owner: Incarnation;
  readonly #dead: Incarnation;
  #number = 0;
  #walked = 0;

  private constructor(
    servers: readonly RedisServer[],
    rows: number,
    store: Store,
    owner: Incarnation,
    dead: Incarnation,
  ) {
    this.#servers = servers;
    this.#rows = rows;
    this.#store = store;
    this.#owner = owner;
    this.#dead = dead;
  }

  static async filled(t: TestContext, servers: readonly RedisServer[], rows: number): Promise<MeasuredServers> {
    // As one that the former version has made: orders are in by_user, too.
    await (await open(servers, rows)).close();
    await askOwner(servers, ["HSET", CLUSTER_KEYS.identity, "by_user", "1"]);
    const store = await open(servers, rows);
    t.after(() => store.close());
    const dead = await register(store, "service-dead");
    // One after the other: a server that runs a script for long answers nobody else.
    for (const partition of ALL_PARTITIONS) {
      const changes = changesKey(servers.length > 1 ? partition : 0);
      const args = [rows, userDigest(BUSY_USER), dead, partition].map(String);
      await askOwner(servers, ["EVAL", FILL_PARTITION, "2", openKey(partition), changes, ...args]);
    }
    await askOwner(servers, ["EVAL", FILL_CLUSTER, "1", CLUSTER_KEYS.identity, String(rows)]);
    await register(store, "service-dead");
    const owner = await register(store, "service-staying");
    await store.commit(Array.from({ length: STAYING_ORDERS }, () => creation(owner, "user-staying", null)));
    const measured = new MeasuredServers(servers, rows, store, owner, dead);
    await measured.round(); // sends the scripts
    return measured;
  }

  /** Calls everything, and tells what each script and each command took the server: the median. */
  async round(): Promise<RoundCosts> {
    await Promise.all(this.#servers.map((server) => server.command("SLOWLOG", "RESET")));
    const opened = await open(this.#servers, this.#rows);
    await opened.close();
    await Promise.all(Array.from({ length: CALLS }, () => this.#steerNodes()));
    await Promise.all(Array.from({ length: CALLS }, async () => this.#read(await this.#write())));
    const claimed = await this.#store.claimOrders(this.#dead, this.#owner, claimTimes(AT_MS), 1);
    if (claimed.kind !== "claimed" || claimed.orders.length !== 1) throw new Error("the dead owner has no orders left");
    const [{ orderId, user } = creation(this.#owner, BUSY_USER, null)] = claimed.orders;
    await this.#store.commit([{ ...advance({ orderId, user }, this.#owner, 2), newStatus: "failed" }]);
    await this.#walk();
    return this.#costs();
  }

  /** Through another partition each time, as what was read lately is in the caches. */
  async #walk(): Promise<void> {
    const orders = indexKey(++this.#walked % PARTITIONS, "orders");
    const rows = Math.floor(this.#rows / PARTITIONS);
    await askOwner(this.#servers, ["ZRANGEBYLEX", orders, "-", "+", "LIMIT", String(rows - 1), "1"]);
  }

  async #costs(): Promise<RoundCosts> {
    const logs = await Promise.all(this.#servers.map((server) => server.command("SLOWLOG", "GET", "10000")));
    const entries = logs.flat() as [number, number, number, string[]][];
    const durations = new Map<string, number[]>();
    for (const [, , us, [command = "", argument = ""]] of entries) {
      const name = nameOf(command, argument);
      // The tests' own question after them is none of the store's.
      if (name !== "SLOWLOG") durations.set(name, [...(durations.get(name) ?? []), us]);
    }
    return new Map(Array.from(durations, ([name, all]) => [name, median(all)]));
  }

  /** The life of an order, a commit an event, as a light load makes them. */
  async #write(): Promise<readonly CreateWrite[]> {
    const key = `made-${++this.#number}`;
    const orders = [creation(this.#owner, BUSY_USER, key), creation(this.#owner, BUSY_USER, null)];
    for (const order of orders) await this.#store.commit([order]);
    const [first] = orders;
    if (first === undefined) return [];
    await this.#store.commit([creation(this.#owner, BUSY_USER, key)]); // taken
    await this.#store.commit([advance(first, this.#owner, 1)]);
    await this.#store.commit([{ ...advance(first, this.#owner, 2), newStatus: "failed" }]);
    return orders;
  }

  async #read(orders: readonly CreateWrite[]): Promise<void> {
    const store = this.#store;
    const ids = orders.map(({ orderId }) => orderId);
    await store.readOrder(ids[0] ?? "");
    await store.readOrders(ids);
    await store.readOwned(this.#owner, ids);
    await store.listOwners();
    await store.listOrderIds(this.#owner, null, PAGE);
    for (const user of [null, BUSY_USER]) {
      await store.listOrders({ ...ALL_ORDERS, user }, null, PAGE);
      await store.listOrders({ ...ALL_ORDERS, user, status: "failed" }, null, PAGE);
      await store.listOrders({ ...ALL_ORDERS, user, needsPerson: true }, null, PAGE);
    }
    await store.countOrders(BUSY_USER);
    const page = await store.readChanges(null, PAGE);
    if (page.kind === "changes") await store.readChanges(page.next, PAGE);
    // Looks whether the beginning is forgotten, of one stream or of one for each partition.
    const streams = this.#servers.length > 1 ? PARTITIONS : 1;
    await store.readChanges(Array.from({ length: streams }, () => "0-0.0").join(","), PAGE);
    await store.report();
    await store.probe();
  }

  /** What nodes say to each other: lives of some nodes from their start to their end, and the limits that they divide. */
  async #steerNodes(): Promise<void> {
    const { cluster } = this.#store;
    const name = `made-${++this.#number}`;
    const incarnation = await register(this.#store, BUSY_SERVICE);
    await cluster.beat(incarnation, 1, AT_MS);
    await cluster.pipelineShape(name, 1, "[]");
    await cluster.recordedShape(name, 1);
    await cluster.changePermits(name, null, "[1]");
    await cluster.permits(name);
    await cluster.hasService(BUSY_SERVICE);
    const { leader } = await cluster.read();
    await cluster.claimLeadership(incarnation, leader);
    await cluster.renewLeadership(incarnation, leader.term + 1);
    await cluster.markDead(await register(this.#store, `service-${name}`), 1);
    await cluster.leave(await register(this.#store, BUSY_SERVICE));
  }
}

/**
 * So many of everything that there can be many of (keys.ts): orders, of which a tenth are completed, a tenth failed and the others open, and
 * half of them one user's; changes of one order each, starts, dead owners, pipelines and limits. This much of it is in a partition.
 */
const FILL_PARTITION = `
local rows, busy, owner, partition, call = tonumber(ARGV[1]), ARGV[2], ARGV[3], tonumber(ARGV[4]), redis.call
local tag = '{op:' .. partition .. '}:'
for i = partition == 0 and ${PARTITIONS} or partition, rows, ${PARTITIONS} do
  local turn = math.floor(i / ${PARTITIONS})
  local id = string.format('%08x-0000-7000-8000-%08x%04x', i, i, partition)
  local user = turn % 2 == 0 and busy or string.format('%022d', math.floor(i / 20))
  local status = turn % 10 == 0 and 'completed' or turn % 10 == 1 and 'failed' or 'running'
  call('SET', tag .. 'order:' .. id, '["${BUSY_USER}","key","default",1,2]\\n{}\\n["created",0,' .. owner .. ',"A"]')
  call('ZADD', tag .. 'orders', 0, id)
  if turn % 4 < 2 then call('ZADD', tag .. 'user:' .. user, 0, id) else call('ZADD', tag .. 'by_user', 0, user .. ' ' .. id) end
  call('HSET', tag .. 'keys', string.format('%064x', i), id)
  call('HINCRBY', tag .. 'counts', status, 1)
  call('HINCRBY', tag .. 'counts', status .. ' ' .. user, 1)
  if status == 'running' then call('ZADD', tag .. 'open', owner, id) end
  if status == 'failed' then call('ZADD', tag .. 'rare', 0, status .. ' ' .. id, 0, status .. '/' .. user .. ' ' .. id) end
  call('XADD', KEYS[2], '*', 'c', '"' .. id .. '",1,"${BUSY_USER}"')
  call('HSET', tag .. 'partition', 'fenced:' .. 1000000 + i, 1)
end`;

/** And this much among the rows of nodes. */
const FILL_CLUSTER = `
local rows, call = tonumber(ARGV[1]), redis.call
for i = 1, rows do
  call('HSET', '{op:cluster}:incarnations', 1000000 + i, 'service-' .. i)
  call('HSET', '{op:cluster}:services', 'service-' .. i, 1000000 + i)
  call('HSET', '{op:cluster}:pipelines', '1 pipeline-' .. i, '[]')
  call('HSET', '{op:cluster}:permits', 'limit-' .. i, '[1,[]]')
  call('SADD', '{op:cluster}:drained', 1000000 + i)
end`;

function nameOf(command: string, argument: string): string {
  if (command === "EVALSHA") return SCRIPTS.get(argument) ?? argument;
  // The store sends none by itself.
  return command === "ZRANGEBYLEX" ? WALK : command;
}

function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function open([server]: readonly RedisServer[], changesKept: number): Promise<Store> {
  if (server === undefined) throw new Error("no server was started");
  return openRedisStore({
    location: server.location,
    now: () => AT_MS,
    changesKept,
    onBroken: (error) => {
      throw error;
    },
  });
}

function register(store: Store, serviceId: string): Promise<Incarnation> {
  return store.cluster.register({ serviceId, url: "", version: "1.0.0", ttlMs: 5_000, process: null }, AT_MS);
}

function creation(owner: Incarnation, user: string, idempotencyKey: string | null): CreateWrite {
  return {
    kind: "create",
    orderId: newOrderId(user, idempotencyKey),
    user,
    idempotencyKey,
    pipelineName: "default",
    pipelineVersion: 1,
    event: { kind: "created", atMs: AT_MS, owner, stepName: "A" },
    body: "{}",
  };
}

function advance(
  { orderId, user }: { readonly orderId: string; readonly user: string },
  owner: Incarnation,
  expectedRevision: number,
): AdvanceWrite {
  return {
    kind: "advance",
    orderId,
    owner,
    expectedRevision,
    event: { kind: "step_completed", atMs: AT_MS, nextStepName: "B" },
    newStatus: null,
    formerStatus: "running",
    user,
  };
}
