/**
 * Runs the orders of one incarnation: takes new ones in, takes over those of the dead, and stops without losing any. A node
 * that was taken for dead gets a new engine with its new incarnation.
 *
 * Owns the orders in flight on this node. Does not own what an order does next (order/decide.ts), how it gets there
 * (order-run.ts), how writes are gathered (group-commit.ts) or who is dead (cluster/).
 *
 * 1. `submit` says "accepted" only when the order is durable (guarantee G1).
 * 2. An order is in `#runs` from when it is durable until it is final, waits for an operator, or is another's; before, it is
 *    counted in `#creating`.
 * 3. What is in flight is bounded, in number and in the size of bodies (guarantee G8): beyond it intake is refused, and orders
 *    of the dead wait in the store until there is room.
 * 4. Nothing new begins, no call and no order, while the node has not said for long that it lives (`mayStart`, cluster rule 3).
 * 5. An order becomes this engine's in the memory only after it is in the store, and never twice: whatever reads orders to go on with
 *    (claims, orders that were given to it, the audit) does so one after the other.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { ActionRequest } from "../order/actions.ts";
import { type CreationOptions, decideCreation } from "../order/decide.ts";
import { createdOrder, type Incarnation, isFinal, type Order, type OrderStatus, replay } from "../order/order.ts";
import { type Pipeline, pipelineLabel } from "../order/pipeline.ts";
import type { PipelineSet } from "../order/pipeline-set.ts";
import type { Logger } from "../log.ts";
import {
  type AdvanceWrite,
  type CreateWrite,
  type OrderIdPage,
  type OwnedOrder,
  type OwnedOrders,
  type Store,
  type StoredOrder,
  StoreUnavailableError,
  type WriteOutcome,
} from "../store/store.ts";
import { GroupCommit, type WriteListener } from "./group-commit.ts";
import { type ActionOutcome, OrderRun, type RunHost, TIMER_MS_MAX } from "./order-run.ts";
import { sameJson } from "./same-json.ts";
import { PermitExchange } from "./permit-exchange.ts";
import { Slots } from "./slots.ts";

export interface EngineOptions {
  readonly store: Store;
  readonly incarnation: Incarnation;
  readonly pipelines: PipelineSet;
  readonly log: Logger;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** From 0 (inclusive) to 1. */
  readonly random: () => number;
  /** store/order-id.ts, or what makes ids alike. */
  readonly newOrderId: (user: string, idempotencyKey: string | null) => string;
  readonly limits: EngineLimits;
  /** Whether this incarnation may begin anything new: asked before each call and each order. */
  readonly mayStart: () => boolean;
  /** The store takes nothing from this incarnation any more; called once. */
  readonly onFenced: () => void;
}

/** What a takeover has brought. */
export interface TakenOver {
  readonly orders: number;
  /** There was no room for more, or no more were asked for. */
  readonly mayBeMore: boolean;
}

/** A live node that can be told what is its own. */
export interface Successor {
  readonly incarnation: Incarnation;
  /** How many orders it takes now: at least one. */
  readonly room: number;
}

/** How a drain has ended. */
export interface Drained {
  /** Calls of steps that were cut short, to be made again by whoever goes on. */
  readonly cut: number;
  /** Orders given to other nodes. */
  readonly givenAway: number;
  /** Orders that nobody took: they are in the store, and still this incarnation's. */
  readonly left: number;
}

/** Who gets the orders of a node that stops. */
export interface Successors {
  /** The node that should have the next ones; or null: there is none that has room. */
  choose(): Promise<Successor | null>;
  /** Tells it which orders are its own from now on. Never rejects: what a node is not told it finds by its audit. */
  tell(successor: Incarnation, orderIds: readonly string[]): Promise<void>;
}

/** Who gets orders of pipelines that this node lacks. */
export interface Receivers {
  /** A live node that has the pipeline, or null: there is none. */
  choose(label: string): Incarnation | null;
  /** Tells it which orders are its own from now on. */
  tell(receiver: Incarnation, orderIds: readonly string[]): Promise<void>;
}

/** An order whose pipeline this node lacks, as it was when it was read. */
interface Stranded {
  readonly label: string;
  readonly revision: number;
  readonly status: OrderStatus;
  readonly user: string;
}

export interface EngineLimits {
  /** Orders in flight at once. */
  readonly ordersMax: number;
  /** Memory for the bodies and results of the orders in flight, together. */
  readonly bodyBytesMax: number;
  /** The largest body that is taken in, and the most results that an order may have. */
  readonly largestOrderBytes: number;
}

export interface Submission {
  readonly user: string;
  /** The body as JSON text of an object. */
  readonly body: string;
  readonly idempotencyKey: string | null;
  readonly pipeline: Pipeline;
  readonly options?: CreationOptions;
}

export type SubmitOutcome =
  /** Durable; made by this submission, or before by one with the same idempotency key and body. */
  | { readonly kind: "accepted"; readonly orderId: string; readonly startTimeMs: number }
  | { readonly kind: "idempotency_key_reused"; readonly orderId: string }
  | { readonly kind: "too_many_in_flight" }
  | { readonly kind: "store_unavailable"; readonly reason: string }
  | { readonly kind: "shutting_down" };

/** Orders claimed in one commit: it is over in some milliseconds, and others' writes come between. */
const CLAIM_PAGE_ORDERS = 500;

/**
 * Bodies that come with one claim: a page is made as small as it must be, should all its bodies be of the largest size. While it is
 * read there are several copies of it, so that it is a small share of what there may be.
 */
const CLAIM_PAGE_BYTES = 64 * 1024 * 1024;
const CLAIM_PAGE_SHARE = 1 / 4;

/** How long to wait before looking again whether there is room for more, or whether the store answers. */
const LOOK_AGAIN_MS = 250;

/** Orders given at once to nodes that have their pipeline. */
const PASS_ON_ORDERS = 500;

/** So many parked orders take the memory of one in flight: an id, a timer, an entry in a map (guarantee G8). */
const PARKED_PER_ORDER = 4;

const NO_ORDERS: OwnedOrders = Object.freeze({ orders: [], damaged: [] });

/** Order ids read at once by the audit. */
const AUDIT_PAGE_ORDERS = 1_000;

/** Orders given away in one go, by a node that stops. */
const GIVE_AWAY_ORDERS = 500;

/** How often a node that stops looks for orders that it can give away: well within the half second that a hand-over may take. */
const GIVE_AWAY_MS = 50;

/** Who asks something of an order is answered within it. */
const ACT_MS_MAX = 5_000;

/** What must still be written when the grace time is over gets so long. */
const LAST_WRITES_MS = 5_000;

export class Engine {
  readonly #store: Store;
  readonly #incarnation: Incarnation;
  readonly #pipelines: PipelineSet;
  readonly #log: Logger;
  readonly #now: () => number;
  readonly #newOrderId: EngineOptions["newOrderId"];
  readonly #limits: EngineLimits;
  readonly #claimPageOrders: number;
  readonly #mayStart: () => boolean;
  readonly #groupCommit: GroupCommit;
  readonly #permits: PermitExchange;
  readonly #host: RunHost;
  readonly #runs = new Map<string, OrderRun>();
  /** Runs whose call is due and may not begin. */
  readonly #held = new Set<OrderRun>();
  /** Ids of creations on their way to the store: they count as in flight, too. */
  readonly #creating = new Set<string>();
  /**
   * Orders of this incarnation that nothing is to be done with now, and the timer that ends that, if any: they wait for a time, for a
   * signal or for an operator, are of a pipeline that it lacks, or damaged.
   */
  readonly #parked = new Map<string, NodeJS.Timeout | null>();
  /** Orders whose time has come, to be read again together. */
  #due: string[] = [];
  /** Orders that others have given to this incarnation, and that have not been read yet. */
  #givenOrders = 0;
  /** The last of what reads orders to go on with (invariant 5). */
  #reading: Promise<unknown> = Promise.resolve();
  #auditDue = false;
  #bodyBytes = 0;
  #callsUnderWay = 0;
  /** Why orders that this node should go on with can't be read, or null. */
  #readFailure: string | null = null;
  /** Pipelines that orders wait for and this node lacks: named in the log once each. */
  readonly #missingPipelines = new Set<string>();
  /** Parked orders of such pipelines. */
  readonly #stranded = new Map<string, Stranded>();
  #passingOn = false;
  #stopping = false;
  /** Nothing is read or written any more. */
  #isOver = false;
  #isFenced = false;
  #lateWritesRefused = 0;
  #wakeDrain: (() => void) | null = null;

  constructor(options: EngineOptions) {
    this.#store = options.store;
    this.#incarnation = options.incarnation;
    this.#pipelines = options.pipelines;
    this.#log = options.log;
    this.#now = options.now;
    this.#newOrderId = options.newOrderId;
    this.#limits = options.limits;
    const { bodyBytesMax, largestOrderBytes } = options.limits;
    const pageBytes = Math.min(CLAIM_PAGE_BYTES, bodyBytesMax * CLAIM_PAGE_SHARE);
    this.#claimPageOrders = Math.max(1, Math.min(CLAIM_PAGE_ORDERS, Math.floor(pageBytes / largestOrderBytes)));
    this.#mayStart = options.mayStart;
    const { log, store } = options;
    const groupCommit = new GroupCommit({
      store,
      log,
      onSettled: () => this.#wakeDrain?.(),
      onRecovered: () => (this.#auditDue = true),
    });
    this.#groupCommit = groupCommit;
    const slots = new Slots(() => permits.want());
    const permits = new PermitExchange(store.cluster, options.incarnation, slots);
    this.#permits = permits;
    this.#host = {
      now: options.now,
      random: options.random,
      mayCall: () => !this.#stopping && this.#mayStart(),
      held: (run) => this.#held.add(run),
      lifeLog: log.isLevelEnabled("debug") ? (line) => log.debug(line) : null,
      advance: (write: AdvanceWrite, listener: WriteListener) => groupCommit.advance(write, listener),
      callsUnderWayChanged: (by) => {
        this.#callsUnderWay += by;
      },
      grew: (chars) => {
        this.#bodyBytes += chars;
      },
      parked: (run, dueMs) => {
        this.#forget(run);
        this.#park(run.order.orderId, dueMs);
      },
      finished: (run) => this.#forget(run),
      stepLog: (order, step) => log.child({ order, step }),
      needsOperator: ({ orderId }, step, error) =>
        log.error(
          `Order ${orderId} waits for an operator: the rollback of "${step}" has failed for good (${error}); retry it, or skip it with a reason`,
        ),
      slots,
      refused: (run) => void this.#reread(run),
      fenced: () => {
        this.#lateWritesRefused++;
        if (this.#isFenced) return;
        this.#isFenced = true;
        options.onFenced();
      },
    };
  }

  /** Orders in flight on this node. */
  get ordersInFlight(): number {
    return this.#runs.size + this.#creating.size;
  }

  /** Writes that the store refused because the orders were another's by then (guarantee G2). */
  get lateWritesRefused(): number {
    return this.#lateWritesRefused;
  }

  /** How many orders others may give to this incarnation now, whatever their size. */
  get room(): number {
    return this.#stopping ? 0 : Math.max(0, this.#roomForUnread() - this.#givenOrders);
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
      const { pipeline } = submission;
      const event = decideCreation(pipeline, this.#incarnation, this.#now(), submission.options);
      const orderId = this.#newOrderId(submission.user, submission.idempotencyKey);
      const write: CreateWrite = {
        kind: "create",
        orderId,
        user: submission.user,
        idempotencyKey: submission.idempotencyKey,
        pipelineName: pipeline.name,
        pipelineVersion: pipeline.version,
        event,
        body: submission.body,
      };
      this.#creating.add(orderId);
      this.#bodyBytes += bodyBytes;
      this.#groupCommit.create(write, {
        settled: (outcome) => this.#created(pipeline, write, outcome, resolve),
        dropped: (error) => {
          this.#creating.delete(orderId);
          this.#bodyBytes -= bodyBytes;
          resolve({ kind: "store_unavailable", reason: error.message });
        },
      });
    });
  }

  /**
   * Takes over the orders that the former incarnations of this node's service left, and goes on with them.
   * Resolves when none is left to take, or the node is stopping.
   */
  async resume(serviceId: string): Promise<number> {
    let resumed = 0;
    for (const owner of await this.#patiently(() => this.#store.listOwners(), [])) {
      if (owner.serviceId !== serviceId || owner.incarnation === this.#incarnation) continue;
      for (let mayBeMore = true; mayBeMore;) {
        const taken = await this.takeOver(owner.incarnation, Number.POSITIVE_INFINITY);
        resumed += taken.orders;
        ({ mayBeMore } = taken);
        if (mayBeMore) await delay(LOOK_AGAIN_MS);
      }
    }
    return resumed;
  }

  /**
   * Takes over up to `ordersMax` orders of a dead incarnation, page by page, while there is room, and goes on with them.
   * Takes nothing when that incarnation is not dead, or this one is.
   */
  takeOver(from: Incarnation, ordersMax: number): Promise<TakenOver> {
    return this.#oneAfterTheOther(async () => {
      for (let orders = 0; ;) {
        const limit = Math.min(this.#claimPageOrders, ordersMax - orders, this.#roomForUnread());
        if (this.#stopping) return { orders, mayBeMore: false };
        if (limit === 0) return { orders, mayBeMore: true };
        const claim = await this.#patiently(
          () => this.#store.claimOrders(from, this.#incarnation, this.#now(), limit),
          null,
        );
        if (claim?.kind === "fenced") this.#host.fenced();
        if (claim?.kind !== "claimed") return { orders, mayBeMore: false };
        for (const order of claim.orders) this.#adopt(order);
        for (const { orderId, reason } of claim.damaged) this.#leaveAlone(orderId, reason);
        orders += claim.orders.length;
        if (claim.orders.length + claim.damaged.length < limit) return { orders, mayBeMore: false };
      }
    });
  }

  /** Goes on with orders that another node has given to this incarnation, as there is room for them. */
  async adopt(orderIds: readonly string[]): Promise<void> {
    let left = orderIds;
    this.#givenOrders += left.length;
    while (left.length > 0 && !this.#stopping) {
      const given: readonly string[] = left;
      const { unread } = await this.#oneAfterTheOther(() => this.#adoptOwn(given));
      this.#givenOrders += unread.length - left.length;
      left = unread;
      if (left.length > 0) await delay(LOOK_AGAIN_MS);
    }
    this.#givenOrders -= left.length;
  }

  /**
   * Goes on with what held still while nothing could begin, and looks after what got lost on the way. To be called
   * again and again, while `mayStart`.
   */
  goOn(): void {
    const due = [...this.#held];
    this.#held.clear();
    for (const run of due) run.proceed();
    if (!this.#auditDue || this.#stopping) return;
    this.#auditDue = false;
    void this.audit();
  }

  /** Gives away orders whose pipeline this node lacks, to nodes that have it; the others wait for one. To be called again and again. */
  async passOn(receivers: Receivers): Promise<void> {
    if (this.#stranded.size === 0 || this.#passingOn || this.#stopping) return;
    this.#passingOn = true;
    try {
      const given = new Map<Incarnation, string[]>();
      const writes: Promise<void>[] = [];
      for (const [orderId, stranded] of this.#stranded) {
        if (writes.length === PASS_ON_ORDERS) break;
        const receiver = receivers.choose(stranded.label);
        if (receiver === null) continue;
        writes.push(
          this.#giveStranded(orderId, stranded, receiver).then((isGiven) => {
            if (isGiven) given.set(receiver, [...(given.get(receiver) ?? []), orderId]);
          }),
        );
      }
      await Promise.all(writes);
      for (const [receiver, orderIds] of given) {
        this.#log.info(`Orders given to a node that has their pipeline: ${orderIds.length}`);
        await receivers.tell(receiver, orderIds);
      }
    } finally {
      this.#passingOn = false;
    }
  }

  #giveStranded(orderId: string, { revision, status, user }: Stranded, owner: Incarnation): Promise<boolean> {
    return new Promise((resolve) => {
      const event = { kind: "owner_changed", atMs: this.#now(), owner, callBegun: false } as const;
      const write: AdvanceWrite = {
        kind: "advance",
        orderId,
        owner: this.#incarnation,
        expectedRevision: revision,
        event,
        newStatus: null,
        formerStatus: status,
        user,
      };
      this.#groupCommit.advance(write, {
        settled: (outcome) => {
          if (outcome.kind === "fenced") this.#host.fenced();
          // Refused: it has gone already, or its receiver has died meanwhile; the audit finds it again.
          if (outcome.kind !== "fenced") this.#unpark(orderId);
          if (outcome.kind === "conflict") this.#auditDue = true;
          resolve(outcome.kind === "applied");
        },
      });
    });
  }

  /**
   * Looks for orders that are this incarnation's in the store and that it does not run, and goes on with them: a creation or a
   * claim was committed and its answer lost, or nobody told of a hand-over (guarantee G5).
   * @returns how many it found
   */
  audit(): Promise<number> {
    return this.#oneAfterTheOther(async () => {
      let found = 0;
      let cursor: string | null = null;
      do {
        const from: string | null = cursor;
        const page: OrderIdPage = await this.#patiently(
          () => this.#store.listOrderIds(this.#incarnation, from, AUDIT_PAGE_ORDERS),
          { orderIds: [], next: null },
        );
        const { adopted, unread } = await this.#adoptOwn(page.orderIds);
        found += adopted;
        cursor = unread.length > 0 ? null : page.next; // what there is no room for now is found by the next audit
      } while (cursor !== null && !this.#stopping);
      if (found > 0) this.#log.warn(`Orders of this node that it did not run are gone on with: ${found}`);
      return found;
    });
  }

  /**
   * Does what somebody asks of an order of this incarnation; resolves when it is durable, or refused.
   * @returns null: the order is not this incarnation's
   * @throws StoreUnavailableError when the store can't be written or read; then nothing was done
   */
  async act(
    orderId: string,
    request: ActionRequest,
  ): Promise<ActionOutcome | { readonly kind: "pipeline_missing" } | null> {
    const { failure } = this.#groupCommit;
    if (failure !== null) throw new StoreUnavailableError(failure);
    const running = this.#runs.get(orderId);
    if (running !== undefined) return withinTime(running.act(request));
    if (!this.#parked.has(orderId)) return null;
    const run = await this.#oneAfterTheOther(() => this.#takeUp(orderId));
    if (run === null) return this.#parked.has(orderId) ? { kind: "pipeline_missing" } : null;
    const outcome = run.act(request);
    run.proceed();
    return withinTime(outcome);
  }

  /**
   * Stops: takes no new order, starts no further call, lets those under way end within the grace time, and gives to others what it
   * does not finish. Resolves when all that ended is durable; what nobody could be given stays in the store.
   * @returns how many calls were cut short, and how many orders given away
   */
  async drain(graceMs: number, successors: Successors): Promise<Drained> {
    this.#stopping = true;
    const endMs = performance.now() + graceMs;
    let givenAway = 0;
    for (;;) {
      givenAway += await this.#giveAway(successors, endMs);
      const leftMs = endMs - performance.now();
      if (leftMs <= 0 || (this.#callsUnderWay === 0 && this.#groupCommit.idle)) break;
      await this.#settledWithin(Math.min(leftMs, GIVE_AWAY_MS));
    }
    const cut = this.#callsUnderWay;
    for (const run of this.#runs.values()) run.stop("the node is stopping");
    if (this.#groupCommit.failure === null) await this.#settledWithin(LAST_WRITES_MS);
    givenAway += await this.#giveAway(successors, performance.now() + LAST_WRITES_MS);
    this.#isOver = true;
    const left = this.#runs.size + this.#parked.size;
    this.#runs.clear();
    this.#unparkAll();
    this.#permits.stop();
    this.#groupCommit.close("the node is stopping");
    return { cut, givenAway, left };
  }

  /** Lets go of everything at once: this incarnation counts as dead, and its orders are others' (cluster rule 3). */
  abandon(): void {
    this.#stopping = true;
    this.#isOver = true;
    for (const run of this.#runs.values()) run.stop("the node was taken for dead");
    this.#runs.clear();
    this.#held.clear();
    this.#unparkAll();
    this.#permits.stop();
    this.#groupCommit.close("the node was taken for dead, and joins again");
  }

  /** Gives away, batch by batch, what is idle. */
  async #giveAway(successors: Successors, endMs: number): Promise<number> {
    let given = 0;
    while (performance.now() < endMs && this.#groupCommit.failure === null && this.#someIdle(1).length > 0) {
      const successor = await successors.choose();
      if (successor === null) break;
      const { incarnation, room } = successor;
      const batch = this.#someIdle(Math.min(GIVE_AWAY_ORDERS, room));
      for (const run of batch) run.giveTo(incarnation);
      await this.#settledWithin(endMs - performance.now(), () => batch.every((run) => run.isIdle));
      const orderIds = batch.filter((run) => run.order.owner === incarnation).map((run) => run.order.orderId);
      // What was refused is read again, and tried again: the successor may be dead by now.
      if (orderIds.length === 0) break;
      await successors.tell(incarnation, orderIds);
      given += orderIds.length;
    }
    return given;
  }

  #someIdle(limit: number): OrderRun[] {
    const idle: OrderRun[] = [];
    for (const run of this.#runs.values()) {
      if (idle.length === limit) break;
      if (run.isIdle) idle.push(run);
    }
    return idle;
  }

  #refusal(bodyBytes: number): SubmitOutcome | null {
    if (this.#stopping) return { kind: "shutting_down" };
    const reason = this.#groupCommit.failure;
    if (reason !== null) return { kind: "store_unavailable", reason };
    if (!this.#mayStart())
      return { kind: "store_unavailable", reason: "this node could not say for long that it lives" };
    if (this.#room() === 0 || this.#bodyBytes + bodyBytes > this.#limits.bodyBytesMax) {
      return { kind: "too_many_in_flight" };
    }
    return null;
  }

  /** How many more orders may come in flight. */
  #room(): number {
    if (this.#bodyBytes >= this.#limits.bodyBytesMax) return 0;
    const parked = Math.ceil(this.#parked.size / PARKED_PER_ORDER);
    return Math.max(0, this.#limits.ordersMax - this.ordersInFlight - parked);
  }

  /** The same for orders whose bodies nobody has seen yet: each may be of the largest size. */
  #roomForUnread(): number {
    const { bodyBytesMax, largestOrderBytes } = this.#limits;
    const bodies = Math.floor((bodyBytesMax - this.#bodyBytes) / largestOrderBytes);
    return Math.min(this.#room(), this.#bodyBytes === 0 ? Math.max(1, bodies) : Math.max(0, bodies));
  }

  #created(
    pipeline: Pipeline,
    write: CreateWrite,
    outcome: WriteOutcome,
    resolve: (outcome: SubmitOutcome) => void,
  ): void {
    this.#creating.delete(write.orderId);
    this.#bodyBytes -= bytesInMemory(write.body);
    switch (outcome.kind) {
      case "applied": {
        const run = new OrderRun(
          this.#host,
          pipeline,
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
      case "fenced":
        resolve({ kind: "store_unavailable", reason: "this node was taken for dead, and joins again" });
        return this.#host.fenced();
      case "conflict":
        throw new Error(`the new order id ${write.orderId} exists already`);
    }
  }

  /** Asks the store again and again until it answers (guarantee G7), or the node stops: then `otherwise`. */
  async #patiently<T>(ask: () => Promise<T>, otherwise: T, isOver = (): boolean => this.#stopping): Promise<T> {
    while (!isOver()) {
      try {
        const answer = await ask();
        if (this.#readFailure !== null) this.#auditDue = true; // a claim may have been committed, and its answer lost
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

  #oneAfterTheOther<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#reading.then(work);
    this.#reading = done.catch(() => undefined);
    return done;
  }

  /**
   * @returns how many of the orders were this incarnation's, and had not been run by it; and those that have not been read, as there
   *     was no room for more
   */
  async #adoptOwn(orderIds: readonly string[]): Promise<{ adopted: number; unread: readonly string[] }> {
    const isUnknown = (orderId: string): boolean =>
      !this.#runs.has(orderId) && !this.#creating.has(orderId) && !this.#parked.has(orderId);
    const unknown = orderIds.filter(isUnknown);
    let adopted = 0;
    let at = 0;
    while (at < unknown.length && !this.#stopping) {
      const page = unknown.slice(at, at + Math.min(this.#claimPageOrders, this.#roomForUnread()));
      if (page.length === 0) break;
      const { orders, damaged } = await this.#patiently(
        () => this.#store.readOwned(this.#incarnation, page),
        NO_ORDERS,
      );
      if (this.#stopping) break;
      for (const order of orders.filter(({ orderId }) => isUnknown(orderId))) {
        this.#adopt(order);
        adopted++;
      }
      for (const { orderId, reason } of damaged) if (isUnknown(orderId)) this.#leaveAlone(orderId, reason);
      at += page.length;
    }
    return { adopted, unread: unknown.slice(at) };
  }

  /** Goes on with an order that is this incarnation's by a committed write. */
  #adopt(stored: OwnedOrder): void {
    this.#runOf(stored)?.proceed();
  }

  /** The run of a parked order, which is to be acted on; null: there is none, or it can't be gone on with. */
  async #takeUp(orderId: string): Promise<OrderRun | null> {
    const running = this.#runs.get(orderId);
    if (running !== undefined || this.#stopping) return running ?? null;
    const { orders } = await this.#store.readOwned(this.#incarnation, [orderId]);
    const [order] = orders;
    if (order === undefined || this.#stopping) return null;
    this.#unpark(orderId);
    return this.#runOf(order);
  }

  /** A new run of an order that is this incarnation's; null: nothing can be done with it, and it is parked. */
  #runOf(stored: OwnedOrder): OrderRun | null {
    const order = this.#replayed(stored);
    if (order === null || isFinal(order.state.status)) return null;
    const pipeline = this.#pipelines.find(stored.pipelineName, stored.pipelineVersion);
    if (pipeline === null) {
      const missing = pipelineLabel({ name: stored.pipelineName, version: stored.pipelineVersion });
      if (!this.#missingPipelines.has(missing)) {
        this.#log.warn(
          `Orders wait: this node does not have their pipeline ${missing} (order ${stored.orderId} is one)`,
        );
      }
      this.#missingPipelines.add(missing);
      this.#park(order.orderId, null);
      const { revision, status, user } = stored;
      this.#stranded.set(order.orderId, { label: missing, revision, status, user });
      return null;
    }
    const run = new OrderRun(this.#host, pipeline, order, stored.user, stored.body);
    this.#remember(run);
    return run;
  }

  /** The order of a history; null: it is damaged, and left alone. */
  #replayed({ orderId, history }: StoredOrder): Order | null {
    try {
      return replay(orderId, history);
    } catch (error) {
      this.#leaveAlone(orderId, error instanceof Error ? error.message : String(error));
      return null;
    }
  }

  /** An order as the store holds it; one that can't be read is left alone. */
  async #readSound(orderId: string): Promise<StoredOrder | null | "damaged"> {
    try {
      return await this.#patiently(
        () => this.#store.readOrder(orderId),
        null,
        () => this.#isOver,
      );
    } catch (error) {
      this.#leaveAlone(orderId, error instanceof Error ? error.message : String(error));
      return "damaged";
    }
  }

  /** One damaged order must not keep the others from going on. */
  #leaveAlone(orderId: string, reason: string): void {
    this.#park(orderId, null);
    this.#log.error(`Order ${orderId} is left alone: its history in the store is damaged (${reason})`);
  }

  /**
   * A write was refused: either it had been applied before (the store failed after the commit) or the order is another's.
   * Only the store can tell (unknown outcome: read again, never assume).
   */
  async #reread(run: OrderRun): Promise<void> {
    const { orderId } = run.order;
    const stored = await this.#readSound(orderId);
    if (this.#isOver || this.#runs.get(orderId) !== run) return;
    const order = stored === null || stored === "damaged" ? null : this.#replayed(stored);
    if (order === null) {
      run.stop("the order is gone, or damaged");
      return this.#forget(run);
    }
    run.reread(order);
    this.#wakeDrain?.();
    if (order.owner === this.#incarnation) return;
    this.#lateWritesRefused++;
    this.#log.warn(`Order ${orderId} is let go: it belongs to another node now`);
  }

  #remember(run: OrderRun): void {
    this.#runs.set(run.order.orderId, run);
    this.#bodyBytes += bytesInMemory(run.bodyText) + run.resultChars;
  }

  #forget(run: OrderRun): void {
    this.#held.delete(run);
    if (this.#runs.get(run.order.orderId) !== run) return;
    this.#runs.delete(run.order.orderId);
    this.#bodyBytes -= bytesInMemory(run.bodyText) + run.resultChars;
  }

  /** Nothing is to be done with the order before that time, or (null) before somebody asks for it. */
  #park(orderId: string, dueMs: number | null): void {
    this.#unpark(orderId);
    if (this.#stopping) return;
    const waitMs = dueMs === null ? null : Math.max(0, dueMs - this.#now());
    const timer =
      waitMs === null ? null : setTimeout(() => this.#wake(orderId), Math.min(waitMs, TIMER_MS_MAX)).unref();
    this.#parked.set(orderId, timer);
  }

  #unpark(orderId: string): boolean {
    const timer = this.#parked.get(orderId) ?? null;
    if (timer !== null) clearTimeout(timer);
    this.#stranded.delete(orderId);
    return this.#parked.delete(orderId);
  }

  #unparkAll(): void {
    for (const timer of this.#parked.values()) if (timer !== null) clearTimeout(timer);
    this.#parked.clear();
    this.#stranded.clear();
  }

  /** Its time has come, as far as timers tell: it is read again, with all others whose time has come. */
  #wake(orderId: string): void {
    this.#unpark(orderId);
    this.#due.push(orderId);
    if (this.#due.length > 1) return;
    setImmediate(() => {
      const due = this.#due;
      this.#due = [];
      void this.adopt(due);
    });
  }

  /** Resolves when it is so (usually: no call and no write is under way), or the time is over. Looks after each commit. */
  #settledWithin(
    timeMs: number,
    isSettled = (): boolean => this.#callsUnderWay === 0 && this.#groupCommit.idle,
  ): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        this.#wakeDrain = null;
        resolve();
      };
      const timer = setTimeout(done, Math.max(0, timeMs));
      this.#wakeDrain = () => {
        if (isSettled()) done();
      };
      this.#wakeDrain();
    });
  }
}

/** The store may fail while it is being done: then nobody waits for long. */
async function withinTime(outcome: Promise<ActionOutcome>): Promise<ActionOutcome> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<ActionOutcome>((resolve) => {
    timer = setTimeout(() => resolve({ kind: "unknown" }), ACT_MS_MAX);
  });
  try {
    return await Promise.race([outcome, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** What a text takes: one byte a character, two when any is outside of Latin-1. */
function bytesInMemory(text: string): number {
  return /[\u0100-\uffff]/.test(text) ? 2 * text.length : text.length;
}
