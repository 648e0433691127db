/**
 * The embedded store, seen from the main thread: puts each request to the worker and hands back its answer.
 *
 * Owns the worker and the requests under way. Does not own when writes are gathered into a batch: that is the engine's.
 */
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import type { Incarnation } from "../../order/order.ts";
import { decodeHistory, decodeStatus } from "../codec.ts";
import {
  type Claim,
  type OwnerSummary,
  type Store,
  type StoredOrder,
  StoreUnavailableError,
  type Write,
  type WriteOutcome,
} from "../store.ts";
import {
  type BatchOutcomes,
  flattenBatch,
  type OrderRow,
  OUTCOME_APPLIED,
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
}

interface PendingRequest {
  readonly resolve: (result: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Source in a checkout, JavaScript in an installed package: whatever this file is. */
const WORKER = new URL(`worker${extname(import.meta.url)}`, import.meta.url);

/** Reads beyond this many requests under way are refused: each keeps its caller, some kilobytes of HTTP request, in memory. */
const PENDING_MAX = 2_000;

const APPLIED: WriteOutcome = Object.freeze({ kind: "applied" });
const CONFLICT: WriteOutcome = Object.freeze({ kind: "conflict" });

/**
 * Opens the embedded store.
 * @throws StoreUnavailableError when it can't be opened, with one line that says why and what to do
 */
export async function openSqliteStore(options: SqliteStoreOptions): Promise<Store> {
  const store = new SqliteStore(options);
  try {
    await store.open(options.path);
  } catch (error) {
    await store.terminate();
    throw error;
  }
  return store;
}

class SqliteStore implements Store {
  readonly #worker: Worker;
  readonly #now: () => number;
  readonly #onBroken: (error: Error) => void;
  readonly #pending = new Map<number, PendingRequest>();
  #lastId = 0;
  #closing = false;

  constructor({ now, onBroken }: SqliteStoreOptions) {
    this.#now = now;
    this.#onBroken = onBroken;
    this.#worker = new Worker(WORKER);
    this.#worker.on("message", (reply: ReplyMessage) => this.#settle(reply));
    this.#worker.on("error", (error: unknown) => this.#break(new Error("the store's thread failed", { cause: error })));
    this.#worker.on("exit", () => {
      if (!this.#closing) this.#break(new Error("the store's thread ended"));
    });
  }

  async open(path: string): Promise<void> {
    await this.#ask("open", { path });
  }

  async terminate(): Promise<void> {
    this.#closing = true;
    await this.#worker.terminate();
  }

  registerIncarnation(serviceId: string, atMs: number): Promise<Incarnation> {
    return this.#ask("registerIncarnation", { serviceId, atMs });
  }

  hasService(serviceId: string): Promise<boolean> {
    return this.#ask("hasService", { serviceId });
  }

  async commit(writes: readonly Write[]): Promise<readonly WriteOutcome[]> {
    return unflattenOutcomes(await this.#ask("commit", { batch: flattenBatch(writes) }));
  }

  async readOrder(orderId: string): Promise<StoredOrder | null> {
    if (this.#pending.size >= PENDING_MAX) throw new StoreUnavailableError("too many requests wait for the store");
    const row = await this.#ask("readOrder", { orderId });
    return row === null ? null : storedOrder(row);
  }

  listOwners(): Promise<readonly OwnerSummary[]> {
    return this.#ask("listOwners", null);
  }

  async claimOrders(from: Incarnation, to: Incarnation, atMs: number, limit: number): Promise<Claim> {
    const orders: Claim["orders"][number][] = [];
    const damaged: Claim["damaged"][number][] = [];
    for (const row of await this.#ask("claimOrders", { from, to, atMs, limit })) {
      try {
        orders.push({ ...storedOrder(row), body: row.body });
      } catch (error) {
        damaged.push({ orderId: row.order_id, reason: error instanceof Error ? error.message : String(error) });
      }
    }
    return { orders, damaged };
  }

  async probe(): Promise<void> {
    await this.#ask("probe", { atMs: this.#now() });
  }

  async close(): Promise<void> {
    await this.#ask("close", null);
    await this.terminate();
  }

  #ask<K extends RequestKind>(kind: K, args: Requests[K]["args"]): Promise<Requests[K]["result"]> {
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
    this.#onBroken(error);
  }
}

function unflattenOutcomes({ outcomes, takenKeys }: BatchOutcomes): WriteOutcome[] {
  const result = Array.from(outcomes, (outcome) => (outcome === OUTCOME_APPLIED ? APPLIED : CONFLICT));
  for (const { index, orderId, startTimeMs, body } of takenKeys) {
    if (outcomes[index] === OUTCOME_KEY_TAKEN) result[index] = { kind: "key_taken", orderId, startTimeMs, body };
  }
  return result;
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
