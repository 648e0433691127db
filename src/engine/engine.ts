/**
 * Runs orders: takes them in, resumes those that a former start left, and stops without losing any.
 *
 * Owns the orders in flight on this node. Does not own what an order does next (order/decide.ts), how it gets there
 * (order-run.ts) or how writes are gathered (group-commit.ts).
 *
 * 1. `submit` says "accepted" only when the order is durable (guarantee G1).
 * 2. An order is in `#runs` from when it is durable until it is final, waits for an operator, or is another's; before, it is
 *    counted in `#creating`.
 * 3. What is in flight is bounded, in number and in the size of bodies (guarantee G8): beyond it intake is refused, and orders of a
 *    former start wait in the store until there is room.
 */
import { setTimeout as delay } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { decideCreation } from "../order/decide.ts";
import { createdOrder, type Incarnation, type Order, replay } from "../order/order.ts";
import type { Pipeline } from "../order/pipeline.ts";
import type { Logger } from "../log.ts";
import {
  type AdvanceWrite,
  type CreateWrite,
  type Store,
  type StoredOrder,
  StoreUnavailableError,
  type WriteOutcome,
} from "../store/store.ts";
import { GroupCommit, type WriteListener } from "./group-commit.ts";
import { OrderRun, type RunHost } from "./order-run.ts";

export interface EngineOptions {
  readonly store: Store;
  readonly incarnation: Incarnation;
  readonly pipeline: Pipeline;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** From 0 (inclusive) to 1. */
  readonly random: () => number;
  /** A new order's id; later ids sort after earlier ones, or the store gets slower. */
  readonly newOrderId: () => string;
  readonly limits: EngineLimits;
}

export interface EngineLimits {
  /** Orders in flight at once. */
  readonly ordersMax: number;
  /** Memory for the bodies of the orders in flight, together. */
  readonly bodyBytesMax: number;
}

export interface Submission {
  readonly user: string;
  /** The body as JSON text of an object. */
  readonly body: string;
  readonly idempotencyKey: string | null;
}

export type SubmitOutcome =
  /** Durable; made by this submission, or before by one with the same idempotency key and body. */
  | { readonly kind: "accepted"; readonly orderId: string; readonly startTimeMs: number }
  | { readonly kind: "idempotency_key_reused"; readonly orderId: string }
  | { readonly kind: "too_many_in_flight" }
  | { readonly kind: "store_unavailable"; readonly reason: string }
  | { readonly kind: "shutting_down" };

/** Orders claimed in one commit when a former start's are taken over: bounds the memory that a page takes. */
const CLAIM_PAGE_ORDERS = 500;

/** How long to wait before looking again whether there is room for more, or whether the store answers. */
const LOOK_AGAIN_MS = 250;

export class Engine {
  readonly #store: Store;
  readonly #incarnation: Incarnation;
  readonly #pipeline: Pipeline;
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #newOrderId: () => string;
  readonly #limits: EngineLimits;
  readonly #groupCommit: GroupCommit;
  readonly #host: RunHost & { callsAllowed: boolean };
  readonly #runs = new Map<string, OrderRun>();
  /** Creations on their way to the store: they count as in flight, too. */
  #creating = 0;
  #bodyBytes = 0;
  #callsUnderWay = 0;
  /** Why orders that this node should go on with can't be read, or null. */
  #readFailure: string | null = null;
  /** Pipelines that orders wait for and this node lacks: named in the log once each. */
  readonly #missingPipelines = new Set<string>();
  #stopping = false;
  #wakeDrain: (() => void) | null = null;

  constructor(options: EngineOptions) {
    this.#store = options.store;
    this.#incarnation = options.incarnation;
    this.#pipeline = options.pipeline;
    this.#log = options.log;
    this.#now = options.now;
    this.#newOrderId = options.newOrderId;
    this.#limits = options.limits;
    const groupCommit = new GroupCommit(options.store, options.log, () => this.#wakeDrain?.());
    this.#groupCommit = groupCommit;
    const { log } = options;
    this.#host = {
      now: options.now,
      random: options.random,
      callsAllowed: true,
      lifeLog: log.isLevelEnabled("debug") ? (line) => log.debug(line) : null,
      advance: (write: AdvanceWrite, listener: WriteListener) => groupCommit.advance(write, listener),
      callsUnderWayChanged: (by) => {
        this.#callsUnderWay += by;
      },
      finished: (run) => this.#forget(run),
      refused: (run) => void this.#reread(run),
    };
  }

  /** Orders in flight on this node. */
  get ordersInFlight(): number {
    return this.#runs.size + this.#creating;
  }

  /** Why the store can't be written or read at the moment, or null. */
  get storeFailure(): string | null {
    return this.#groupCommit.failure ?? this.#readFailure;
  }

  /** Takes an order in; resolves when it is durable, or refused. */
  submit(submission: Submission): Promise<SubmitOutcome> {
    const bodyBytes = bytesInMemory(submission.body);
    const refusal = this.#refusal(bodyBytes);
    if (refusal !== null) return Promise.resolve(refusal);
    return new Promise((resolve) => {
      const event = decideCreation(this.#pipeline, this.#incarnation, this.#now());
      const orderId = this.#newOrderId();
      const write: CreateWrite = {
        kind: "create",
        orderId,
        user: submission.user,
        idempotencyKey: submission.idempotencyKey,
        pipelineName: this.#pipeline.name,
        pipelineVersion: this.#pipeline.version,
        event,
        body: submission.body,
      };
      this.#creating++;
      this.#bodyBytes += bodyBytes;
      this.#groupCommit.create(write, {
        settled: (outcome) => this.#created(write, outcome, resolve),
        dropped: (error) => {
          this.#creating--;
          this.#bodyBytes -= bodyBytes;
          resolve({ kind: "store_unavailable", reason: error.message });
        },
      });
    });
  }

  /**
   * Takes over every order that is not final from the incarnations before this one, and goes on with it.
   * Resolves when none is left to take, or the node is stopping.
   */
  async resume(): Promise<number> {
    let resumed = 0;
    for (const { incarnation, serviceId } of await this.#patiently(() => this.#store.listOwners(), [])) {
      if (incarnation === this.#incarnation) continue;
      for (;;) {
        const limit = Math.min(CLAIM_PAGE_ORDERS, this.#room());
        if (this.#stopping) return resumed;
        if (limit === 0) {
          await delay(LOOK_AGAIN_MS);
          continue;
        }
        const { orders, damaged } = await this.#patiently(
          () => this.#store.claimOrders(incarnation, this.#incarnation, this.#now(), limit),
          { orders: [], damaged: [] },
        );
        for (const order of orders) this.#adopt(order);
        for (const { orderId, reason } of damaged) this.#leaveAlone(orderId, reason);
        resumed += orders.length;
        if (orders.length + damaged.length < limit) break;
      }
      this.#log.debug(`Orders of service ${serviceId}, incarnation ${incarnation}, are taken over`);
    }
    return resumed;
  }

  /**
   * Stops: takes no new order, starts no further call, and lets those under way end within the grace time. Resolves when
   * all that ended is durable; what has not ended stays in the store for the next start.
   * @returns how many calls were cut short
   */
  async drain(graceMs: number): Promise<number> {
    this.#stopping = true;
    this.#host.callsAllowed = false;
    await this.#settledWithin(graceMs);
    const cut = this.#callsUnderWay;
    for (const run of this.#runs.values()) run.stop("the node is stopping");
    this.#runs.clear();
    this.#groupCommit.close();
    return cut;
  }

  #refusal(bodyBytes: number): SubmitOutcome | null {
    if (this.#stopping) return { kind: "shutting_down" };
    const reason = this.#groupCommit.failure;
    if (reason !== null) return { kind: "store_unavailable", reason };
    if (this.#room() === 0 || this.#bodyBytes + bodyBytes > this.#limits.bodyBytesMax) {
      return { kind: "too_many_in_flight" };
    }
    return null;
  }

  /** How many more orders may come in flight. */
  #room(): number {
    if (this.#bodyBytes >= this.#limits.bodyBytesMax) return 0;
    return Math.max(0, this.#limits.ordersMax - this.ordersInFlight);
  }

  #created(write: CreateWrite, outcome: WriteOutcome, resolve: (outcome: SubmitOutcome) => void): void {
    this.#creating--;
    this.#bodyBytes -= bytesInMemory(write.body);
    switch (outcome.kind) {
      case "applied": {
        const run = new OrderRun(
          this.#host,
          this.#pipeline,
          createdOrder(write.orderId, write.event),
          write.user,
          write.body,
        );
        this.#host.lifeLog?.(`New order created with ID: [${write.orderId}]`);
        this.#host.lifeLog?.(
          `[${write.orderId}]DispatchStepTask,current step: [${write.event.stepName}], next step:[${write.event.stepName}]`,
        );
        resolve({ kind: "accepted", orderId: write.orderId, startTimeMs: write.event.atMs });
        this.#remember(run);
        run.proceed();
        return;
      }
      case "key_taken": {
        const { orderId, startTimeMs, body } = outcome;
        resolve(
          sameJson(body, write.body)
            ? { kind: "accepted", orderId, startTimeMs }
            : { kind: "idempotency_key_reused", orderId },
        );
        return;
      }
      case "conflict":
        throw new Error(`the new order id ${write.orderId} exists already`);
    }
  }

  /** Asks the store again and again until it answers (guarantee G7), or the node stops: then `otherwise`. */
  async #patiently<T>(ask: () => Promise<T>, otherwise: T): Promise<T> {
    while (!this.#stopping) {
      try {
        const answer = await ask();
        this.#readFailure = null;
        return answer;
      } catch (error) {
        if (!(error instanceof StoreUnavailableError)) throw error;
        if (error.message !== this.#readFailure) {
          this.#log.error(`The store can't be read: ${error.message}. It is asked again.`);
        }
        this.#readFailure = error.message;
        await delay(LOOK_AGAIN_MS);
      }
    }
    return otherwise;
  }

  /** Goes on with an order that is this incarnation's by a committed write. */
  #adopt(stored: StoredOrder & { readonly body: string }): void {
    let order: Order;
    try {
      order = replay(stored.orderId, stored.history);
    } catch (error) {
      this.#leaveAlone(stored.orderId, error instanceof Error ? error.message : String(error));
      return;
    }
    if (order.state.status !== "running" && order.state.status !== "rolling_back") return;
    if (stored.pipelineName !== this.#pipeline.name || stored.pipelineVersion !== this.#pipeline.version) {
      const missing = `${stored.pipelineName} v${stored.pipelineVersion}`;
      if (!this.#missingPipelines.has(missing)) {
        this.#log.warn(
          `Orders wait: this node does not have their pipeline ${missing} (order ${stored.orderId} is one)`,
        );
      }
      this.#missingPipelines.add(missing);
      return;
    }
    const run = new OrderRun(this.#host, this.#pipeline, order, stored.user, stored.body);
    this.#remember(run);
    run.proceed();
  }

  /** One damaged order must not keep the others from going on. */
  #leaveAlone(orderId: string, reason: string): void {
    this.#log.error(`Order ${orderId} is left alone: its history in the store is damaged (${reason})`);
  }

  /**
   * A write was refused: either it had been applied before (the store failed after the commit) or the order is another's.
   * Only the store can tell (unknown outcome: read again, never assume).
   */
  async #reread(run: OrderRun): Promise<void> {
    const { orderId } = run.order;
    const stored = await this.#patiently(() => this.#store.readOrder(orderId), null);
    this.#forget(run);
    if (this.#stopping) return;
    if (stored !== null && stored.owner === this.#incarnation) this.#adopt({ ...stored, body: run.bodyText });
    else this.#log.warn(`Order ${orderId} is let go: it belongs to another node now`);
  }

  #remember(run: OrderRun): void {
    this.#runs.set(run.order.orderId, run);
    this.#bodyBytes += bytesInMemory(run.bodyText);
  }

  #forget(run: OrderRun): void {
    if (this.#runs.delete(run.order.orderId)) this.#bodyBytes -= bytesInMemory(run.bodyText);
  }

  /** Resolves when no call and no write is under way, or the time is over. */
  #settledWithin(graceMs: number): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#wakeDrain = null;
        resolve();
      };
      const timer = setTimeout(done, graceMs);
      this.#wakeDrain = () => {
        if (this.#callsUnderWay === 0 && this.#groupCommit.idle) done();
      };
      this.#wakeDrain();
    });
  }
}

/** What a text takes: one byte a character, two when any is outside of Latin-1. */
function bytesInMemory(text: string): number {
  return /[\u0100-\uffff]/.test(text) ? 2 * text.length : text.length;
}

/** Whether two JSON texts say the same, whatever their spacing and the order of their keys. */
function sameJson(one: string, other: string): boolean {
  return one === other || isDeepStrictEqual(JSON.parse(one), JSON.parse(other));
}
