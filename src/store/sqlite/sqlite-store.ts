/**
 * The embedded store, seen from the main thread: puts each request to the worker and hands back its answer.
 *
 * Owns the worker and the requests under way. Does not own when writes are gathered into a batch: that is the engine's.
 */
import { randomBytes, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import type { Incarnation } from "../../order/events.ts";
import type { OrderStatus } from "../../order/status.ts";
import type { ClusterSnapshot, ClusterStore, NodeDescription, NodeRow } from "../cluster-store.ts";
import { decodeHistory, decodeStatus } from "../codec.ts";
import {
  type OwnedOrder,
  type OwnedOrders,
  type Change,
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
import {
  type BatchOutcomes,
  flattenBatch,
  type NodeRecord,
  type NoticeMessage,
  type OrderRow,
  type OwnedRow,
  OUTCOME_APPLIED,
  OUTCOME_FENCED,
  OUTCOME_KEY_TAKEN,
  type ReplyMessage,
  type RequestKind,
  type Requests,
} from "./protocol.ts";

export interface SqliteStoreOptions {
  /** The database file; made if it isn't there. */
  readonly path: string;
  readonly now: () => number;
  /** The store is gone for a reason that can't pass: the process must stop. */
  readonly onBroken: (error: Error) => void;
  /** Something an operator should hear of, as a line for the log. */
  readonly onNotice?: (line: string) => void;
  /** Writes wait as long for a node that was frozen while it held the lock, before it is ended. */
  readonly frozenWriterMs?: number;
  /** How many changes are remembered, for those who follow them (readChanges); 0: none. */
  readonly changesKept?: number;
  /** Memory for pages of the database. */
  readonly cacheBytes?: number;
  /** Refuse a store in which no cluster was ever, and leave it as it is. */
  readonly mustExist?: boolean;
}

/** A third of the usual time after which a silent node counts as dead. */
const FROZEN_WRITER_MS = 1_667;

interface PendingRequest {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Source in a checkout, JavaScript in an installed package: whatever this file is. */
const WORKER = new URL(`worker${extname(import.meta.url)}`, import.meta.url);

/** Reads beyond this many requests under way are refused: each keeps its caller, some kilobytes of HTTP request, in memory. */
const PENDING_MAX = 2_000;

/** Services that are remembered: more starts than any cluster has in a long time, and some megabytes. */
const SERVICES_MAX = 10_000;

const APPLIED: WriteOutcome = Object.freeze({ kind: "applied" });
const CONFLICT: WriteOutcome = Object.freeze({ kind: "conflict" });
const FENCED: WriteOutcome = Object.freeze({ kind: "fenced" });

/**
 * Opens the embedded store.
 * @throws StoreUnavailableError when it can't be opened, with one line that says why and what to do
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  if (options.mustExist === true && !existsSync(options.path)) {
    throw new StoreMissingError(`the store ${options.path} can't be opened: there is no such file`);
  }
  const store = new SqliteStore(options);
  try {
    await store.open();
  } catch (error) {
    await store.terminate();
    throw error;
  }
  return store;
}

class SqliteStore implements Store {
  readonly cluster: ClusterStore = {
    identity: () => this.#ask("identity", { clusterId: randomUUID(), secret: randomBytes(32).toString("base64url") }),
    register: ({ serviceId, ...description }, atMs) =>
      this.#ask("register", { serviceId, description: JSON.stringify(description), atMs }),
    pipelineShape: (name, version, shape) => this.#ask("pipelineShape", { name, version, shape }),
    recordedShape: (name, version) => this.#ask("recordedShape", { name, version }),
    permits: (key) => this.#ask("permits", { key }),
    changePermits: (key, seen, record) => this.#ask("changePermits", { key, seen, record }),
    serviceOf: async (incarnation) => {
      const known = this.#services.get(incarnation);
      if (known !== undefined) return known;
      const serviceId = await this.#ask("serviceOf", { incarnation });
      if (serviceId === null) throw new Error(`the store has no incarnation ${incarnation}`);
      if (this.#services.size >= SERVICES_MAX) this.#services.clear();
      this.#services.set(incarnation, serviceId);
      return serviceId;
    },
    hasService: (serviceId) => this.#ask("hasService", { serviceId }),
    beat: (incarnation, ordersInFlight, atMs) => this.#ask("beat", { incarnation, ordersInFlight, atMs }),
    read: async (): Promise<ClusterSnapshot> => {
      const { nodes, leader } = await this.#ask("readCluster", null);
      return { nodes: nodes.map(nodeRow), leader };
    },
    markDead: (incarnation, seenHeartbeat) => this.#ask("markDead", { incarnation, seenHeartbeat }),
    leave: async (incarnation) => {
      await this.#ask("leave", { incarnation });
    },
    claimLeadership: (incarnation, seen) => this.#ask("claimLeadership", { incarnation, seen }),
    renewLeadership: (incarnation, term) => this.#ask("renewLeadership", { incarnation, term }),
  };
  readonly #options: SqliteStoreOptions;
  readonly #worker: Worker;
  readonly #pending = new Map<number, PendingRequest>();
  /** Whose incarnation is whose never changes. */
  readonly #services = new Map<Incarnation, string>();
  #lastId = 0;
  #closing = false;

  constructor(options: SqliteStoreOptions) {
    this.#options = options;
    this.#worker = new Worker(WORKER);
    this.#worker.on("message", (message: ReplyMessage | NoticeMessage) => {
      if ("notice" in message) options.onNotice?.(message.notice);
      else this.#settle(message);
    });
    this.#worker.on("error", (error: unknown) => this.#break(new Error("the store's thread failed", { cause: error })));
    this.#worker.on("exit", () => {
      if (!this.#closing) this.#break(new Error("the store's thread ended"));
    });
  }

  async open(): Promise<void> {
    const { path, cacheBytes, ...options } = this.#options;
    const { frozenWriterMs = FROZEN_WRITER_MS, changesKept = CHANGES_KEPT, mustExist = false } = options;
    const cache = cacheBytes === undefined ? {} : { cacheBytes };
    await this.#ask("open", { path, frozenWriterMs, changesKept, mustExist, ...cache });
  }

  async terminate(): Promise<void> {
    this.#closing = true;
    await this.#worker.terminate();
  }

  report(): Promise<StoreReport> {
    return Promise.resolve({ durability: "fsync-always", advice: [] });
  }

  async commit(writes: readonly Write[]): Promise<readonly WriteOutcome[]> {
    return unflattenOutcomes(await this.#ask("commit", { batch: flattenBatch(writes) }));
  }

  async readOrder(orderId: string): Promise<StoredOrder | null> {
    if (this.#pending.size >= PENDING_MAX) throw new StoreUnavailableError("too many requests wait for the store");
    const row = await this.#ask("readOrder", { orderId });
    return row === null ? null : storedOrder(row);
  }

  async readOrders(orderIds: readonly string[]): Promise<readonly StoredOrder[]> {
    return (await this.#ask("readOrders", { orderIds })).flatMap(soundOrder);
  }

  async listOrders(filter: OrderFilter, before: string | null, limit: number): Promise<OrderPage> {
    if (this.#pending.size >= PENDING_MAX) throw new StoreUnavailableError("too many requests wait for the store");
    const { rows, next } = await this.#ask("listOrders", { filter, before, limit });
    return { orders: rows.flatMap(soundOrder), next };
  }

  async countOrders(user: string | null): Promise<Partial<Record<OrderStatus, number>>> {
    const rows = await this.#ask("countOrders", { user: user ?? "" });
    const counts: Partial<Record<OrderStatus, number>> = {};
    for (const { status: text, count } of rows) {
      const status = decodeStatus(text);
      counts[status] = (counts[status] ?? 0) + count;
    }
    return counts;
  }

  /** A cursor is the number of the last change that was read. */
  async readChanges(cursor: string | null, limit: number): Promise<ChangePage> {
    const after = cursor === null ? null : Number(/^\d{1,15}$/.exec(cursor)?.[0] ?? Number.NaN);
    if (Number.isNaN(after)) return { kind: "gone" };
    const page = await this.#ask("readChanges", { after, limit });
    if (page.kind === "gone") return page;
    const changes = page.rows.flatMap(({ first, changes: text }) => decodeChanges(first, text));
    const wanted = changes.filter((change) => Number(change.cursor) > (after ?? page.last)).slice(0, limit);
    return { kind: "changes", changes: wanted, next: wanted.at(-1)?.cursor ?? String(after ?? page.last) };
  }

  readBody(orderId: string): Promise<string | null> {
    return this.#ask("readBody", { orderId });
  }

  async readOwned(owner: Incarnation, orderIds: readonly string[]): Promise<OwnedOrders> {
    return ownedOrders(await this.#ask("readOwned", { owner, orderIds }));
  }

  listOwners(): Promise<readonly OwnerSummary[]> {
    return this.#ask("listOwners", null);
  }

  async listOrderIds(owner: Incarnation, cursor: string | null, limit: number): Promise<OrderIdPage> {
    const orderIds = await this.#ask("listOrderIds", { owner, after: cursor ?? "", limit });
    return { orderIds, next: orderIds.length < limit ? null : (orderIds.at(-1) ?? null) };
  }

  async claimOrders(from: Incarnation, to: Incarnation, times: ClaimTimes, limit: number): Promise<ClaimOutcome> {
    const result = await this.#ask("claimOrders", { from, to, times, limit });
    return result.kind === "claimed" ? { kind: "claimed", ...ownedOrders(result.rows) } : result;
  }

  async probe(): Promise<void> {
    await this.#ask("probe", { atMs: this.#options.now() });
  }

  async close(): Promise<void> {
    const closed = this.#ask("close", null);
    this.#closing = true;
    await closed;
    await this.terminate();
  }

  #ask<K extends RequestKind>(kind: K, args: Requests[K]["args"]): Promise<Requests[K]["result"]> {
    if (this.#closing) return Promise.reject(new StoreUnavailableError("the store was closed"));
    return new Promise((resolve, reject) => {
      const id = ++this.#lastId;
      this.#pending.set(id, { resolve: resolve as (result: unknown) => void, reject });
      this.#worker.postMessage({ id, kind, args });
    });
  }

  #settle(reply: ReplyMessage): void {
    const request = this.#pending.get(reply.id);
    if (request === undefined) return;
    this.#pending.delete(reply.id);
    if (reply.ok) return request.resolve(reply.result);
    const error = new StoreUnavailableError(reply.reason);
    request.reject(error);
    if (reply.unexpected) this.#break(new Error("the store failed in a way that is not foreseen", { cause: error }));
  }

  #break(error: Error): void {
    for (const request of this.#pending.values()) request.reject(new StoreUnavailableError(error.message));
    this.#pending.clear();
    this.#options.onBroken(error);
  }
}

function unflattenOutcomes({ outcomes, takenKeys }: BatchOutcomes): WriteOutcome[] {
  const result = Array.from(outcomes, (outcome) => {
    if (outcome === OUTCOME_APPLIED) return APPLIED;
    return outcome === OUTCOME_FENCED ? FENCED : CONFLICT;
  });
  for (const { index, orderId, startTimeMs, body } of takenKeys) {
    if (outcomes[index] === OUTCOME_KEY_TAKEN) result[index] = { kind: "key_taken", orderId, startTimeMs, body };
  }
  return result;
}

function ownedOrders(rows: readonly OwnedRow[]): OwnedOrders {
  const orders: OwnedOrder[] = [];
  const damaged: { orderId: string; reason: string }[] = [];
  for (const row of rows) {
    try {
      orders.push({ ...storedOrder(row), body: row.body });
    } catch (error) {
      damaged.push({ orderId: row.order_id, reason: error instanceof Error ? error.message : String(error) });
    }
  }
  return { orders, damaged };
}

function storedOrder(row: OrderRow): StoredOrder {
  return {
    orderId: row.order_id,
    user: row.user,
    pipelineName: row.pipeline_name,
    pipelineVersion: row.pipeline_version,
    status: decodeStatus(row.status),
    owner: row.owner,
    ownerServiceId: row.service_id,
    revision: row.revision,
    history: decodeHistory(row.history),
  };
}

/** One that is damaged must not keep the others from being seen; asked for by its id, it is told of. */
function soundOrder(row: OrderRow): StoredOrder[] {
  try {
    return [storedOrder(row)];
  } catch {
    return [];
  }
}

function decodeChanges(first: number, text: string): Change[] {
  const flat = JSON.parse(`[${text}]`) as (string | number)[];
  const changes: Change[] = [];
  for (let at = 0; at + 2 < flat.length; at += 3) {
    const [orderId, revision, user] = [flat[at], flat[at + 1], flat[at + 2]];
    changes.push({
      orderId: String(orderId),
      revision: Number(revision),
      user: String(user),
      cursor: String(first + at / 3),
    });
  }
  return changes;
}

function nodeRow(record: NodeRecord): NodeRow {
  return {
    ...(JSON.parse(record.description) as Omit<NodeDescription, "serviceId">),
    serviceId: record.service_id,
    incarnation: record.incarnation,
    alive: record.state === "alive",
    heartbeat: record.heartbeat,
    ordersInFlight: record.orders_in_flight,
    lastHeartbeatMs: record.heartbeat_time,
  };
}
