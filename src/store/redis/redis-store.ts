/**
 * The store in Redis, or in Valkey: a single server, or a Redis Cluster. Orders are in partitions (keys.ts), and every change
 * is a script (scripts.ts).
 *
 * Owns the connections and the requests under way. Does not own when writes are gathered into a batch: that is the engine's.
 *
 * 1. What Redis has confirmed is as durable as Redis is set up to make it (`report`): with appendfsync always it answers only when
 *    its log is on the disk. A failover to a replica may lose what was confirmed a moment before, as Redis copies it later.
 * 2. A commit goes to one server as one call: Redis reads a pipeline in parts, and syncs its log after each.
 * 3. A commit that rejects may still be carried out afterwards, by a server that has received it. It is never sent again.
 * 4. Where the store was emptied or replaced under the node, nothing is written any more: each script compares the id of the
 *    cluster that was opened. The first that finds another one says so to `onBroken`.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import type { Incarnation } from "../../order/events.ts";
import { replay } from "../../order/evolve.ts";
import { listedStatus } from "../../order/order.ts";
import { isFinal, LISTED_STATUSES, type OrderStatus, statusOfListed } from "../../order/status.ts";
import type { ClusterIdentity } from "../cluster-store.ts";
import {
  type OwnedOrder,
  type OwnedOrders,
  type ChangePage,
  CHANGES_KEPT,
  type ClaimOutcome,
  type OrderFilter,
  type OrderIdPage,
  type OrderPage,
  type OwnerSummary,
  type Store,
  type StoredOrder,
  type StoreReport,
  StoreMissingError,
  StoreUnavailableError,
  type Write,
  type WriteOutcome,
  type ClaimTimes,
} from "../store.ts";
import { ClusterRows } from "./cluster-rows.ts";
import { connectCluster } from "./cluster-servers.ts";
import { claimEvent } from "../claim-event.ts";
import { matchesFilter } from "../order-filter.ts";
import { allEnded } from "./all-ended.ts";
import { ChangeStreams } from "./change-streams.ts";
import { commitCalls, userDigest } from "./commit-calls.ts";
import { OrderLengths, type PlannedWrite, planWrites } from "./order-lengths.ts";
import { RedisConnection } from "./connection.ts";
import { newestIds } from "./newest-ids.ts";
import {
  ALL_PARTITIONS,
  changesKey,
  CLUSTER_KEYS,
  countsKey,
  FORMAT,
  FORMER_FORMAT,
  openKey,
  orderKey,
  partitionKey,
  partitionOf,
  PARTITIONS,
  probeKey,
} from "./keys.ts";
import { type RedisLocation, showRedisLocation } from "./location.ts";
import { decodeHeader, decodeOrder, encodeNextEvent } from "./order-text.ts";
import { isFinalRefusal, mayPass, reasonOf, RedisConnectionError } from "./reasons.ts";
import {
  COMMIT,
  COMMIT_APPLIED,
  COMMIT_FENCED,
  COMMIT_KEY_TAKEN,
  COMMIT_MISSING,
  COUNT_OWNERS,
  FENCE_AND_LIST,
  MAKE_IDENTITY,
  MARK,
  type Script,
  TAKE,
} from "./scripts.ts";
import { type Servers, SingleServer } from "./servers.ts";
import {
  LogsInForce,
  parseConfig,
  parseInfo,
  reportOf,
  type Settings,
  SETTINGS_READ,
  worstReport,
} from "./settings.ts";

export interface RedisStoreOptions {
  readonly location: RedisLocation;
  readonly username?: string;
  readonly password?: string;
  readonly now: () => number;
  /** The store is gone for a reason that can't pass: the process must stop. */
  readonly onBroken: (error: Error) => void;
  /** Something an operator should hear of, as a line for the log. */
  readonly onNotice?: (line: string) => void;
  /** A connection is about to be used; the server may be another than before, or have other settings. */
  readonly onConnected?: () => void;
  /** How many changes are remembered, about, for those who follow them (readChanges); 0: none. */
  readonly changesKept?: number;
  /** Refuse a store in which no cluster was ever, and leave it as it is. */
  readonly mustExist?: boolean;
}

/** How long the opening waits for a Redis that is being started, too, or is loading its data. */
const OPEN_MS_MAX = 5_000;

const OPEN_RETRY_MS = 100;

/** The first version with flags of scripts (scripts.ts, invariant 2). Valkey says 7.2.4. */
const VERSION_MIN = 7;

/** Reads beyond this many requests under way are refused: each keeps its caller, some kilobytes of HTTP request, in memory. */
const PENDING_MAX = 2_000;

/** So many orders are read at once for a page at least, and looked at for one about at the most. */
const LIST_IDS_MIN = 50;
const LOOKED_AT_MAX = 300;

/** Over so many commits it is averaged how many changes an entry of a stream has. */
const COMMITS_AVERAGED = 100;
const ENTRIES_KEPT_MIN = 1_000;

/** A claim lists at least so many orders of each server at once, where it can't know which server has them. */
const LIST_LIMIT_MIN = 16;

const APPLIED: WriteOutcome = Object.freeze({ kind: "applied" });
const CONFLICT: WriteOutcome = Object.freeze({ kind: "conflict" });
const FENCED: WriteOutcome = Object.freeze({ kind: "fenced" });

/** The reply of a script that has found its caller fenced. */
const FENCED_REPLY = "FENCED";

/**
 * Opens the store.
 * @throws StoreUnavailableError when it can't be opened, with one line that says why and what to do
 */
export async function openRedisStore(options: RedisStoreOptions): Promise<Store> {
  const { location } = options;
  const connection = new RedisConnection(options);
  let servers: Servers = new SingleServer(connection);
  try {
    const endMs = performance.now() + OPEN_MS_MAX;
    await connection.connect(OPEN_MS_MAX);
    const info = await patiently(endMs, () => loadedInfo(connection));
    requireVersion(info);
    if (info["cluster_enabled"] === "1") servers = await patiently(endMs, () => connectCluster(connection, options));
    const reached = servers;
    const identity = await patiently(endMs, () => openIdentity(reached, options.mustExist ?? false));
    return new RedisStore(options, servers, identity);
  } catch (error) {
    servers.close();
    const Unavailable = error instanceof StoreMissingError ? StoreMissingError : StoreUnavailableError;
    throw new Unavailable(`the store ${showRedisLocation(location)} can't be opened: ${reasonOf(error)}`, {
      cause: error,
    });
  }
}

interface StoreIdentity extends ClusterIdentity {
  /** Whether orders may be in by_user (keys.ts). */
  readonly hasByUser: boolean;
}

class RedisStore implements Store {
  readonly cluster: ClusterRows;
  readonly #options: RedisStoreOptions;
  readonly #logs = new LogsInForce();
  readonly #servers: Servers;
  readonly #identity: StoreIdentity;
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #lengths = new OrderLengths();
  readonly #changes: ChangeStreams;
  #reads = 0;
  #changesPerEntry = 1;
  #broken = false;

  constructor(options: RedisStoreOptions, servers: Servers, identity: StoreIdentity) {
    this.#options = options;
    this.#servers = servers;
    this.#identity = identity;
    this.#changes = new ChangeStreams(servers.isCluster ? ALL_PARTITIONS : [0], (key, args) =>
      this.#command(key, args),
    );
    this.cluster = new ClusterRows({
      identity,
      script: (script, keys, args) => this.#ask(servers.script(script, keys, args)),
      command: (key, args) => this.#command(key, args),
      track: (work) => this.#track(work),
    });
  }

  report(): Promise<StoreReport> {
    return this.#track(this.#report());
  }

  commit(writes: readonly Write[]): Promise<readonly WriteOutcome[]> {
    return this.#track(this.#commit(writes));
  }

  readOrder(orderId: string): Promise<StoredOrder | null> {
    return this.#track(this.#readOrder(orderId));
  }

  readOrders(orderIds: readonly string[]): Promise<readonly StoredOrder[]> {
    return this.#track(this.#readOrders(orderIds));
  }

  listOrders(filter: OrderFilter, before: string | null, limit: number): Promise<OrderPage> {
    return this.#track(this.#listOrders(filter, before, limit));
  }

  countOrders(user: string | null): Promise<Partial<Record<OrderStatus, number>>> {
    return this.#track(this.#countOrders(user));
  }

  readChanges(cursor: string | null, limit: number): Promise<ChangePage> {
    return this.#track(this.#changes.read(cursor, limit));
  }

  async readBody(orderId: string): Promise<string | null> {
    const text = await this.#track(this.#readText(orderId));
    return text === null ? null : decodeOrder(text).body;
  }

  readOwned(owner: Incarnation, orderIds: readonly string[]): Promise<OwnedOrders> {
    return this.#track(this.#readOwned(owner, orderIds));
  }

  listOwners(): Promise<readonly OwnerSummary[]> {
    return this.#track(this.#listOwners());
  }

  /** A cursor is the number of the partition to go on with; a page is all that the owner has in one or more partitions. */
  listOrderIds(owner: Incarnation, cursor: string | null, limit: number): Promise<OrderIdPage> {
    return this.#track(this.#listOrderIds(owner, Number(cursor ?? 0), limit));
  }

  claimOrders(from: Incarnation, to: Incarnation, times: ClaimTimes, limit: number): Promise<ClaimOutcome> {
    return this.#track(this.#claimOrders(from, to, times, limit));
  }

  /** On a Redis Cluster in every partition: one server that works says nothing of the others. */
  async probe(): Promise<void> {
    const keys = this.#servers.isCluster
      ? [probeKey("cluster"), ...ALL_PARTITIONS.map(probeKey)]
      : [probeKey("cluster")];
    const time = String(this.#options.now());
    await allEnded(keys.map((key) => this.#command(key, ["SET", key, time])));
  }

  async close(): Promise<void> {
    // One request may ask for several things, one after another.
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
    this.#servers.close();
  }

  async #report(): Promise<StoreReport> {
    const texts = await this.#ask(this.#servers.onEach(["INFO", "server", "persistence"]));
    const infos = texts.map((text) => parseInfo(String(text)));
    // Its log counts as off while it is read.
    if (infos.some((info) => info["loading"] === "1"))
      throw new StoreUnavailableError("Redis is still loading its data; wait for it");
    const configs = await this.#ask(
      this.#servers.onEach(["CONFIG", "GET", ...SETTINGS_READ]).catch((error: unknown) => {
        if (isForbidden(error)) return infos.map(() => []);
        throw error;
      }),
    );
    return worstReport(infos.map((info, at) => reportOf(info, parseConfig(configs[at]), this.#logs)));
  }

  async #commit(writes: readonly Write[]): Promise<readonly WriteOutcome[]> {
    if (writes.length === 0) return [];
    const outcomes = writes.map((): WriteOutcome => CONFLICT);
    await this.#learnLengths(writes);
    const planned = planWrites(writes, this.#lengths);
    const calls = commitCalls(planned, {
      clusterId: this.#identity.clusterId,
      perPartition: this.#servers.isCluster,
      entriesKept: this.#entriesKept(),
      writesByUser: this.cluster.writesByUser,
    });
    this.#changesPerEntry += (planned.length / calls.length - this.#changesPerEntry) / COMMITS_AVERAGED;
    await allEnded(
      calls.map(async ({ keys, args, writes: sent }) => {
        const [letters = "", ...holders] = (await this.#script(COMMIT, keys, args)) as string[];
        const taken: PlannedWrite[] = [];
        for (const [at, write] of sent.entries()) {
          const letter = letters[at];
          if (letter === COMMIT_APPLIED) {
            outcomes[write.place] = APPLIED;
            this.#lengths.note(write.orderId, write.after);
            continue;
          }
          this.#lengths.forget(write.orderId);
          if (letter === COMMIT_FENCED) outcomes[write.place] = FENCED;
          else if (letter === COMMIT_KEY_TAKEN) taken.push(write);
          else if (letter === COMMIT_MISSING) throw this.#orderLost(write.orderId);
        }
        await allEnded(
          taken.map(async ({ place }, at) => {
            outcomes[place] = await this.#keyTaken(holders[at] ?? "");
          }),
        );
      }),
    );
    return outcomes;
  }

  /**
   * How many entries each stream keeps. Streams are bounded by entries, and changes are to be: the streams of a Redis Cluster have a part of
   * them each, and an entry has as many as those of the last commits had.
   */
  #entriesKept(): number {
    const { changesKept = CHANGES_KEPT } = this.#options;
    if (changesKept === 0) return 0;
    const streams = this.#servers.isCluster ? PARTITIONS : 1;
    return Math.max(ENTRIES_KEPT_MIN, Math.ceil(changesKept / streams / this.#changesPerEntry));
  }

  /** Reads the orders that are to be advanced from a state whose length isn't known: those that came to this node by other ways. */
  async #learnLengths(writes: readonly Write[]): Promise<void> {
    const created = new Set(writes.flatMap((write) => (write.kind === "create" ? [write.orderId] : [])));
    const unknown = writes.filter(
      (write) => write.kind === "advance" && !created.has(write.orderId) && !this.#lengths.has(write),
    );
    await allEnded(
      unknown.map(async ({ orderId }) => {
        const partition = partitionOf(orderId);
        if (partition === null) return;
        const key = orderKey(partition, orderId);
        const text = await this.#command(key, ["GET", key]);
        if (typeof text !== "string") return;
        const { owner, revision, status } = decodeOrder(text);
        this.#lengths.note(orderId, isFinal(status) ? null : { owner, revision, length: Buffer.byteLength(text) });
      }),
    );
  }

  async #readOrder(orderId: string): Promise<StoredOrder | null> {
    const text = await this.#readText(orderId);
    if (text === null) return null;
    const { body: _body, ...order } = decodeOrder(text);
    return { orderId, ...order, ownerServiceId: await this.cluster.serviceOf(order.owner) };
  }

  async #readOwned(owner: Incarnation, orderIds: readonly string[]): Promise<OwnedOrders> {
    const texts = await this.#readTexts(orderIds);
    const found = Array.from(texts, ([orderId, text]) => ({ orderId, text }));
    return this.#ownedOrders(owner, found);
  }

  async #readOrders(orderIds: readonly string[]): Promise<StoredOrder[]> {
    const orders: StoredOrder[] = [];
    for (const [orderId, text] of await this.#readTexts(orderIds)) {
      const order = soundOrder(text);
      if (order !== null) orders.push({ orderId, ...order, ownerServiceId: await this.cluster.serviceOf(order.owner) });
    }
    return orders;
  }

  /** The texts of those orders that there are. */
  async #readTexts(orderIds: readonly string[]): Promise<Map<string, string>> {
    const idsOf = Map.groupBy(orderIds, partitionOf);
    idsOf.delete(null);
    const found = new Map<string, string>();
    await allEnded(
      this.#reachable(Array.from(idsOf.keys()).filter((partition) => partition !== null)).map(async (partitions) => {
        const asked = partitions.flatMap((partition) => idsOf.get(partition) ?? []);
        const keys = asked.map((orderId) => orderKey(partitionOf(orderId) ?? 0, orderId));
        const [first] = keys;
        if (first === undefined) return;
        const texts = (await this.#command(first, ["MGET", ...keys])) as (string | null)[];
        for (const [at, orderId] of asked.entries()) {
          const text = texts[at] ?? null;
          if (text !== null) found.set(orderId, text);
        }
      }),
    );
    return found;
  }

  async #listOrders(filter: OrderFilter, before: string | null, limit: number): Promise<OrderPage> {
    if (this.#reads >= PENDING_MAX) throw new StoreUnavailableError("too many requests wait for the store");
    this.#reads++;
    try {
      const orders: StoredOrder[] = [];
      let upper = before;
      for (let lookedAt = 0; lookedAt < LOOKED_AT_MAX;) {
        const { ids, isLast } = await newestIds({
          filter,
          before: upper,
          limit: Math.max(limit - orders.length, LIST_IDS_MIN),
          hasByUser: this.#identity.hasByUser,
          command: (key, args) => this.#command(key, args),
        });
        const texts = await this.#readTexts(ids);
        for (const id of ids) {
          upper = id;
          const order = await this.#listed(id, texts.get(id), filter);
          if (order !== null) orders.push(order);
          if (orders.length === limit) return { orders, next: id };
        }
        if (isLast) return { orders, next: null };
        lookedAt += ids.length;
      }
      return { orders, next: upper };
    } finally {
      this.#reads--;
    }
  }

  /** The order, if it is one that is looked for. */
  async #listed(orderId: string, text: string | undefined, filter: OrderFilter): Promise<StoredOrder | null> {
    if (text === undefined) return null;
    // Most are told apart by the header of their text alone.
    const header = soundHeader(text);
    if (header === null) return null;
    const { user, pipelineName } = header;
    if (filter.user !== null && user !== filter.user) return null;
    if (filter.pipelineName !== null && pipelineName !== filter.pipelineName) return null;
    const order = soundOrder(text);
    if (order === null) return null;
    const stored = { orderId, ...order, ownerServiceId: await this.cluster.serviceOf(order.owner) };
    const status = filter.needsPerson ? listedStatus(replay(orderId, order.history)) : order.status;
    return matchesFilter({ ...stored, status }, filter) ? stored : null;
  }

  async #countOrders(user: string | null): Promise<Partial<Record<OrderStatus, number>>> {
    const fields = LISTED_STATUSES.map((status) => (user === null ? status : `${status} ${userDigest(user)}`));
    const replies = (await allEnded(
      ALL_PARTITIONS.map((partition) =>
        this.#command(countsKey(partition), ["HMGET", countsKey(partition), ...fields]),
      ),
    )) as (string | null)[][];
    const counts: Partial<Record<OrderStatus, number>> = {};
    for (const [at, listed] of LISTED_STATUSES.entries()) {
      const status = statusOfListed(listed);
      const count = replies.reduce((sum, reply) => sum + Number(reply[at] ?? 0), counts[status] ?? 0);
      if (count > 0) counts[status] = count;
    }
    return counts;
  }

  /** Those that are the owner's and not final; what can't be read may be. */
  async #ownedOrders(
    owner: Incarnation,
    found: readonly { readonly orderId: string; readonly text: string }[],
  ): Promise<OwnedOrders> {
    const ownerServiceId = await this.cluster.serviceOf(owner);
    const orders: OwnedOrder[] = [];
    const damaged: { orderId: string; reason: string }[] = [];
    for (const { orderId, text } of found) {
      try {
        if (text === "") throw new Error("its text is gone");
        const order = decodeOrder(text);
        if (order.owner !== owner || isFinal(order.status)) continue;
        this.#lengths.note(orderId, { owner, revision: order.revision, length: Buffer.byteLength(text) });
        orders.push({ orderId, ...order, ownerServiceId });
      } catch (error) {
        damaged.push({ orderId, reason: error instanceof Error ? error.message : String(error) });
      }
    }
    return { orders, damaged };
  }

  async #listOwners(): Promise<readonly OwnerSummary[]> {
    const replies = await allEnded(
      this.#reachable(ALL_PARTITIONS).map((partitions) => this.#script(COUNT_OWNERS, partitions.map(openKey), [])),
    );
    const counts = (replies as number[][]).flat();
    const orders = new Map<Incarnation, number>();
    for (let at = 0; at + 1 < counts.length; at += 2) {
      const owner = counts[at] ?? 0;
      orders.set(owner, (orders.get(owner) ?? 0) + (counts[at + 1] ?? 0));
    }
    return Promise.all(
      Array.from(orders, async ([incarnation, count]) => ({
        incarnation,
        serviceId: await this.cluster.serviceOf(incarnation),
        orders: count,
      })),
    );
  }

  async #listOrderIds(owner: Incarnation, start: number, limit: number): Promise<OrderIdPage> {
    const range = [String(owner), String(owner)];
    const counts = (await allEnded(
      ALL_PARTITIONS.slice(start).map((partition) =>
        this.#command(openKey(partition), ["ZCOUNT", openKey(partition), ...range]),
      ),
    )) as number[];
    let next = start;
    for (let listed = 0; next < PARTITIONS && (listed === 0 || listed + (counts[next - start] ?? 0) <= limit); next++) {
      listed += counts[next - start] ?? 0;
    }
    const pages = await allEnded(
      ALL_PARTITIONS.slice(start, next).map((partition) =>
        this.#command(openKey(partition), ["ZRANGEBYSCORE", openKey(partition), ...range]),
      ),
    );
    return { orderIds: (pages as string[][]).flat(), next: next < PARTITIONS ? String(next) : null };
  }

  /**
   * Lists, and then takes what was listed: another may claim at the same time, and then it goes round again. It ends when as
   * many as wanted are taken, or when nothing is listed: then the dead owner is fenced in all partitions.
   */
  async #claimOrders(from: Incarnation, to: Incarnation, times: ClaimTimes, limit: number): Promise<ClaimOutcome> {
    const { kind, hasDrained } = await this.cluster.claimState(from, to);
    if (kind !== "allowed") return { kind };
    const event = encodeNextEvent(claimEvent(to, times, hasDrained));
    const claimed: { orderId: string; text: string }[] = [];
    for (;;) {
      const wanted = limit - claimed.length;
      const listed = wanted > 0 ? await this.#fenceAndList(from, to, wanted) : new Map<number, string[]>();
      if (listed === null) return { kind: "fenced" };
      if (listed.size === 0) return { kind: "claimed", ...(await this.#ownedOrders(to, claimed)) };
      const taken = await this.#take(from, to, event, listed);
      if (taken === null) return { kind: "fenced" };
      claimed.push(...taken);
    }
  }

  /** What an answer needs of an order is never changed, so that it may be read a moment later. */
  async #keyTaken(orderId: string): Promise<WriteOutcome> {
    const key = orderKey(partitionOf(orderId) ?? 0, orderId);
    const text = await this.#command(key, ["GET", key]);
    if (typeof text !== "string") throw this.#orderLost(orderId);
    const { history, body } = decodeOrder(text);
    return { kind: "key_taken", orderId, startTimeMs: history[0]?.atMs ?? 0, body };
  }

  async #readText(orderId: string): Promise<string | null> {
    const partition = partitionOf(orderId);
    if (partition === null) return null;
    if (this.#reads >= PENDING_MAX) throw new StoreUnavailableError("too many requests wait for the store");
    this.#reads++;
    try {
      const key = orderKey(partition, orderId);
      return (await this.#command(key, ["GET", key])) as string | null;
    } finally {
      this.#reads--;
    }
  }

  /** @returns ids by partition, without partitions that have none; null: the claiming incarnation is fenced itself */
  async #fenceAndList(from: Incarnation, to: Incarnation, wanted: number): Promise<Map<number, string[]> | null> {
    const reachable = this.#reachable(ALL_PARTITIONS);
    // Each server lists about twice its share, where there are several: what the orders are like is not known.
    const limit =
      reachable.length === 1 ? wanted : Math.max(LIST_LIMIT_MIN, Math.ceil((2 * wanted) / reachable.length));
    const replies = await allEnded(
      reachable.map((partitions) =>
        this.#script(
          FENCE_AND_LIST,
          [...partitions.map(partitionKey), ...partitions.map(openKey)],
          [this.#identity.clusterId, String(from), String(to), String(Math.min(limit, wanted))],
        ),
      ),
    );
    if (replies.includes(FENCED_REPLY)) return null;
    const listed = new Map<number, string[]>();
    let remaining = wanted;
    for (const [partition, ids] of (replies as string[][][]).flat().entries()) {
      const some = ids.slice(0, remaining);
      if (some.length > 0) listed.set(partition, some);
      remaining -= some.length;
    }
    return listed;
  }

  /** @returns what was taken, with its text; null: the claiming incarnation is fenced itself */
  async #take(
    from: Incarnation,
    to: Incarnation,
    event: string,
    listed: ReadonlyMap<number, readonly string[]>,
  ): Promise<{ orderId: string; text: string }[] | null> {
    const kept = String(this.#entriesKept());
    const head = [this.#identity.clusterId, String(from), String(to), event];
    const idsOf = (partition: number): readonly string[] => listed.get(partition) ?? [];
    const calls = this.#reachable(Array.from(listed.keys())).map(async (partitions) => {
      const keys = partitions.map(partitionKey);
      for (const partition of partitions) {
        keys.push(openKey(partition), ...idsOf(partition).map((orderId) => orderKey(partition, orderId)));
      }
      keys.push(changesKey(this.#servers.isCluster ? (partitions[0] ?? 0) : 0));
      const counts = partitions.map((partition) => String(idsOf(partition).length));
      const reply = await this.#script(TAKE, keys, [...head, String(partitions.length), kept, ...counts]);
      if (!Array.isArray(reply)) return null;
      return partitions
        .flatMap(idsOf)
        .map((orderId, at): { orderId: string; text: unknown } => ({ orderId, text: reply[at] }));
    });
    const taken: { orderId: string; text: string }[] = [];
    for (const reply of await allEnded(calls)) {
      if (reply === null) return null;
      for (const { orderId, text } of reply) if (typeof text === "string") taken.push({ orderId, text });
    }
    return taken;
  }

  /** Partitions as lists that one call can have. */
  #reachable(partitions: readonly number[]): readonly (readonly number[])[] {
    return this.#servers.isCluster ? partitions.map((partition) => [partition]) : [partitions];
  }

  #script(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    return this.#ask(this.#servers.script(script, keys, args));
  }

  #command(key: string, args: readonly string[]): Promise<unknown> {
    return this.#ask(this.#servers.command(key, args));
  }

  /** What Redis answers; a failure as an operator's line. */
  async #ask<T>(answer: Promise<T>): Promise<T> {
    try {
      return await this.#track(answer);
    } catch (error) {
      const unavailable = new StoreUnavailableError(reasonOf(error), { cause: error });
      if (!mayPass(error)) this.#break(unavailable);
      throw unavailable;
    }
  }

  /** Redis is set up to throw data away, or somebody has deleted keys: what else is gone can't be known. */
  #orderLost(orderId: string | undefined): StoreUnavailableError {
    const error = new StoreUnavailableError(
      `Redis has lost order ${orderId}; set maxmemory-policy noeviction, see that nobody deletes keys, and restore a backup`,
    );
    this.#break(error);
    return error;
  }

  #break(error: StoreUnavailableError): void {
    if (this.#broken) return;
    this.#broken = true;
    this.#options.onBroken(error);
  }

  #track<T>(work: Promise<T>): Promise<T> {
    const tracked = work.finally(() => this.#underWay.delete(tracked));
    this.#underWay.add(tracked);
    return tracked;
  }
}

/** Tries again as long as the failure may be gone in a moment: servers that are started together are not ready together. */
async function patiently<T>(endMs: number, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!mayPass(error) || isFinalRefusal(error) || performance.now() >= endMs) throw error;
    }
    await delay(OPEN_RETRY_MS);
  }
}

async function loadedInfo(connection: RedisConnection): Promise<Settings> {
  const info = parseInfo(String(await connection.send(["INFO"])));
  if (info["loading"] === "1")
    throw new RedisConnectionError("it is still loading its data; wait for it, and start again");
  return info;
}

function requireVersion(info: Settings): void {
  const version = info["redis_version"] ?? "of an unknown version";
  if (!(Number.parseInt(version, 10) >= VERSION_MIN)) {
    throw new Error(
      `it is Redis ${version}, and order_process needs Redis ${VERSION_MIN} or later, or Valkey; update it`,
    );
  }
}

/**
 * Reads who the cluster of this store is; on an empty store it is made, and every partition is marked with it. The marks are made
 * once: a partition that has lost its mark later has lost its orders, too.
 */
async function openIdentity(servers: Servers, mustExist: boolean): Promise<StoreIdentity> {
  const key = CLUSTER_KEYS.identity;
  if (mustExist && (await servers.command(key, ["EXISTS", key])) === 0)
    throw new StoreMissingError("there is no cluster in it");
  const offered = [randomUUID(), randomBytes(32).toString("base64url"), String(FORMAT), String(PARTITIONS)];
  const reply = (await servers.script(MAKE_IDENTITY, [key], offered)) as (string | null)[];
  const [clusterId, secret, format, partitions, ready, byUser] = reply;
  if (typeof clusterId !== "string" || typeof secret !== "string")
    throw new Error(`its key ${key} is damaged; restore a backup`);
  const isFormer = format === String(FORMER_FORMAT);
  if ((format !== String(FORMAT) && !isFormer) || partitions !== String(PARTITIONS)) {
    throw new Error("it was written by another version of order_process; run that version");
  }
  const reachable = servers.isCluster ? ALL_PARTITIONS.map((partition) => [partition]) : [ALL_PARTITIONS];
  const marks = await allEnded(
    ready === "1"
      ? ALL_PARTITIONS.map((partition) =>
          servers.command(partitionKey(partition), ["HGET", partitionKey(partition), "cluster"]),
        )
      : reachable.map((each) =>
          servers.script(
            MARK,
            each.flatMap((partition) => [partitionKey(partition), openKey(partition)]),
            [clusterId],
          ),
        ),
  );
  if (marks.flat().some((mark) => mark !== clusterId)) {
    throw new Error("a part of its data is gone, or of another cluster; restore a backup, or empty it to begin anew");
  }
  if (ready !== "1") await servers.command(key, ["HSET", key, "ready", "1"]);
  // Of no interest is how many there are: it fails where a list of open orders is gone.
  await allEnded(reachable.map((each) => servers.script(COUNT_OWNERS, each.map(openKey), [])));
  return { clusterId, secret, hasByUser: isFormer || byUser === "1" };
}

/** CONFIG is not everybody's, and some who run Redis for others take it away. */
function isForbidden(error: unknown): boolean {
  return error instanceof Error && /^(NOPERM|ERR unknown command)/.test(error.message);
}

/** An order without its body. One that is damaged must not keep the others from being seen; asked for by its id, it is told of. */
function soundOrder(text: string): Omit<ReturnType<typeof decodeOrder>, "body"> | null {
  try {
    const { body: _body, ...order } = decodeOrder(text);
    return order;
  } catch {
    return null;
  }
}

function soundHeader(text: string): ReturnType<typeof decodeHeader> | null {
  try {
    return decodeHeader(text);
  } catch {
    return null;
  }
}
