/**
 * Runs the orders of one incarnation: takes new ones in, has those of the dead taken over, and stops without losing any. A node that
 * was taken for dead gets a new engine with its new incarnation.
 *
 * Owns the orders in flight on this node. Does not own what an order does next (order/decide.ts), how it gets there (order-run.ts),
 * how orders are read (order-loader.ts) or given away (hand-off.ts), how writes are gathered (group-commit.ts) or who is dead
 * (cluster/).
 *
 * 1. `submit` says "accepted" only when the order is durable (guarantee G1).
 * 2. An order is in `#runs` from when it is durable until it is final, waits for an operator, or is another's; before, it is
 *    counted in `#creating`.
 * 3. What is in flight is bounded (capacity.ts, guarantee G8).
 * 4. Nothing new begins, no call and no order, while the heartbeat lease has expired (`mayStart`, cluster rule 3).
 */
import type { ActionRequest } from "../order/actions.ts";
import { type CreationOptions, decideCreation } from "../order/decide.ts";
import type { Incarnation } from "../order/events.ts";
import { createdOrder } from "../order/evolve.ts";
import type { Order } from "../order/order.ts";
import type { Pipeline } from "../order/pipeline.ts";
import type { PipelineSet } from "../order/pipeline-set.ts";
import type { Logger } from "../log.ts";
import type { Clock } from "../runtime/clock.ts";
import {
  type CreateWrite,
  type OwnedOrder,
  type Store,
  StoreUnavailableError,
  type WriteOutcome,
} from "../store/store.ts";
import { CallMemory } from "./call-memory.ts";
import { bytesInMemory, Capacity, type EngineLimits } from "./capacity.ts";
import { wallAheadMs, wasSet } from "./clock-reading.ts";
import { GroupCommit } from "./group-commit.ts";
import { HandOff, LAST_WRITES_MS, type Receivers, type Successors } from "./hand-off.ts";
import { OrderLoader, type TakenOver } from "./order-loader.ts";
import { logCreation } from "./life-log.ts";
import { type ActionOutcome, OrderRun, type RunHost } from "./order-run.ts";
import { ParkedOrders } from "./parked-orders.ts";
import { PermitExchange } from "./permit-exchange.ts";
import { sameJson } from "./same-json.ts";
import { Slots } from "./slots.ts";
import { steerStranded } from "./steer-stranded.ts";

export interface EngineOptions {
  readonly store: Store;
  readonly incarnation: Incarnation;
  readonly pipelines: PipelineSet;
  readonly log: Logger;
  readonly clock: Clock;
  /** From 0 (inclusive) to 1. */
  readonly random: () => number;
  /** store/order-id.ts, or what makes ids alike. */
  readonly newOrderId: (user: string, idempotencyKey: string | null) => string;
  readonly limits: EngineLimits;
  /** Whether this incarnation may begin anything new: asked before each call and each order. */
  readonly mayStart: () => boolean;
  /** What the clock of another incarnation shows now, as far as its heartbeats tell; null: nothing is known. */
  readonly nowOf: (incarnation: Incarnation) => number | null;
  /** An order is set aside when so many nodes in a row have died while a call of it was under way. */
  readonly crashesMax: number;
  /** A call begins. */
  readonly onCall?: (orderId: string, stepName: string) => void;
  /** The store takes nothing from this incarnation any more; called once. */
  readonly onFenced: () => void;
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

/** How often a node that stops looks for orders that it can give away: well within the half second that a hand-over may take. */
const GIVE_AWAY_MS = 50;

/** Read at once when the clock was set. */
const COUNTED_ANEW_ORDERS = 100;

/** Who asks something of an order is answered within it. */
const ACT_MS_MAX = 5_000;

export class Engine {
  readonly #options: EngineOptions;
  readonly #capacity: Capacity;
  readonly #callMemory: CallMemory;
  readonly #groupCommit: GroupCommit;
  readonly #permits: PermitExchange;
  readonly #parked: ParkedOrders;
  readonly #loader: OrderLoader;
  readonly #handOff: HandOff;
  readonly #host: RunHost;
  readonly #runs = new Map<string, OrderRun>();
  /** Runs whose call is due and may not begin. */
  readonly #held = new Set<OrderRun>();
  /** Ids of creations on their way to the store: they count as in flight, too. */
  readonly #creating = new Set<string>();
  #callsUnderWay = 0;
  /** `over`: nothing is read or written any more. */
  #phase: "running" | "stopping" | "over" = "running";
  #isFenced = false;
  #lateWritesRefused = 0;
  /** As it was when the clock was looked at last. */
  #wallAheadMs: number;

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#wallAheadMs = wallAheadMs(options.clock);
    const { log, store, clock, incarnation, pipelines } = options;
    this.#callMemory = new CallMemory(options.limits.callBytesMax);
    this.#capacity = new Capacity(options.limits, () => ({
      inFlight: this.ordersInFlight,
      parked: this.#parked.size,
      parkingUsers: this.#parked.users,
      parkedOf: (user) => this.#parked.countOf(user),
      unread: this.#loader.unread,
    }));
    this.#groupCommit = new GroupCommit({
      store,
      log,
      clock,
      onSettled: () => this.#handOff.somethingSettled(),
      onRecovered: () => this.#loader.doubt(),
    });
    const slots = new Slots(() => this.#permits.want());
    this.#permits = new PermitExchange({ store: store.cluster, incarnation, slots, clock });
    this.#parked = new ParkedOrders({ clock, onDue: (orderIds) => void this.#loader.adopt(orderIds) });
    this.#host = this.#hostOf(slots);
    this.#loader = new OrderLoader({
      store,
      incarnation,
      pipelines,
      log,
      clock,
      nowOf: options.nowOf,
      capacity: this.#capacity,
      parked: this.#parked,
      isStopping: () => this.#phase !== "running",
      isOver: () => this.#phase === "over",
      runOf: (orderId) => this.#runs.get(orderId) ?? null,
      isBeingCreated: (orderId) => this.#creating.has(orderId),
      startRun: ({ user, body }, { order, pipeline, since }) => {
        const run = new OrderRun(this.#host, { pipeline, order, user, bodyText: body, since });
        this.#remember(run);
        return run;
      },
      onFenced: () => this.#host.fenced(),
    });
    this.#handOff = new HandOff({
      incarnation,
      log,
      clock,
      groupCommit: this.#groupCommit,
      runs: () => this.#runs.values(),
      parked: this.#parked,
      nowOf: options.nowOf,
      onDoubt: () => this.#loader.doubt(),
      onFenced: () => this.#host.fenced(),
    });
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
    return this.#phase === "running" ? this.#capacity.roomForGiven : 0;
  }

  /** Why the store can't be written or read at the moment, or null. */
  get storeFailure(): string | null {
    return this.#groupCommit.failure ?? this.#loader.failure;
  }

  /** Takes an order in; resolves when it is durable, or refused. */
  submit(submission: Submission): Promise<SubmitOutcome> {
    const bodyBytes = bytesInMemory(submission.body);
    const refusal = this.#refusal(submission, bodyBytes);
    if (refusal !== null) return Promise.resolve(refusal);
    const { incarnation, clock, newOrderId } = this.#options;
    return new Promise((resolve) => {
      const { pipeline } = submission;
      const event = decideCreation(pipeline, incarnation, clock.now(), submission.options);
      const orderId = newOrderId(submission.user, submission.idempotencyKey);
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
      this.#capacity.take(bodyBytes);
      const ended = (): void => {
        this.#creating.delete(orderId);
        this.#capacity.release(bodyBytes);
      };
      this.#groupCommit.create(write, {
        settled: (outcome) => {
          ended();
          this.#created(pipeline, write, outcome, resolve);
        },
        dropped: (error) => {
          ended();
          resolve({ kind: "store_unavailable", reason: error.message });
        },
      });
    });
  }

  /** Takes over what former incarnations of this node's service left (order-loader.ts). */
  resume(serviceId: string): Promise<number> {
    return this.#loader.resume(serviceId);
  }

  /** Takes over orders of a dead incarnation, as there is room for them (order-loader.ts). */
  takeOver(from: Incarnation, ordersMax: number): Promise<TakenOver> {
    return this.#loader.takeOver(from, ordersMax);
  }

  /** Goes on with orders that another node has given to this incarnation, as there is room for them. */
  adopt(orderIds: readonly string[]): Promise<void> {
    return this.#loader.adopt(orderIds);
  }

  /** Looks for orders that this incarnation owns and does not run (order-loader.ts). */
  audit(): Promise<number> {
    return this.#loader.audit();
  }

  /** Gives away orders whose pipeline this node lacks, to nodes that have it. To be called again and again. */
  async passOn(receivers: Receivers): Promise<void> {
    if (this.#phase === "running") await this.#handOff.passOn(receivers);
  }

  /**
   * Goes on with what held still while nothing could begin, and looks after what got lost on the way. To be called
   * again and again, while `mayStart`.
   */
  goOn(): void {
    const due = [...this.#held];
    this.#held.clear();
    for (const run of due) run.proceed();
    this.#loader.auditIfDue();
    this.#noticeClock();
  }

  /** What is waited for is counted anew when the wall clock was set: another owner counts on what it says. */
  #noticeClock(): void {
    const { log, clock } = this.#options;
    const aheadMs = wallAheadMs(clock);
    if (!wasSet(this.#wallAheadMs, aheadMs)) return;
    const bySeconds = ((aheadMs - this.#wallAheadMs) / 1_000).toFixed(1);
    log.warn(
      `The clock was set by ${bySeconds} s. Orders wait as long as they would have; start_at follows the clock.`,
    );
    this.#wallAheadMs = aheadMs;
    for (const run of this.#runs.values()) run.clockWasSet();
    void this.#countParkedAnew(this.#parked.counted);
  }

  /** Page by page, so that others get their turn. */
  async #countParkedAnew(orderIds: readonly string[]): Promise<void> {
    for (let at = 0; at < orderIds.length && this.#phase === "running"; at += COUNTED_ANEW_ORDERS) {
      const page = orderIds.slice(at, at + COUNTED_ANEW_ORDERS);
      this.#parked.makeDue(page);
      await this.#loader.adopt(page);
    }
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
    if (running !== undefined) return this.#withinTime(running.act(request));
    if (!this.#parked.has(orderId)) return null;
    const found = await this.#loader.takeUp(orderId);
    if (found === null) return this.#parked.has(orderId) ? { kind: "refused", reason: "its history is damaged" } : null;
    if (!(found instanceof OrderRun)) return this.#actOnStranded(found, request);
    const outcome = found.act(request);
    found.proceed();
    return this.#withinTime(outcome);
  }

  /** @throws StoreUnavailableError when the store can't be read; then nothing was done */
  #actOnStranded(
    stored: OwnedOrder,
    request: ActionRequest,
  ): Promise<ActionOutcome | { readonly kind: "pipeline_missing" }> {
    const { store, clock } = this.#options;
    const steered = steerStranded({ store, clock, groupCommit: this.#groupCommit }, stored, request).then((outcome) => {
      // What it is after that is read again: it may be final, or still wait for a node that has its pipeline.
      this.#parked.unpark(stored.orderId);
      void this.#loader.adopt([stored.orderId]);
      return outcome;
    });
    return this.#withinTime(steered);
  }

  /**
   * Stops: takes no new order, starts no further call, lets those under way end within the grace time, and gives to others what it
   * does not finish. Resolves when all that ended is durable; what nobody could be given stays in the store.
   * @returns how many calls were cut short, and how many orders given away
   */
  async drain(graceMs: number, successors: Successors): Promise<Drained> {
    const { clock } = this.#options;
    this.#phase = "stopping";
    const isSettled = (): boolean => this.#callsUnderWay === 0 && this.#groupCommit.idle;
    const endMs = clock.monotonic() + graceMs;
    let givenAway = 0;
    for (;;) {
      givenAway += await this.#handOff.giveAway(successors, endMs);
      const leftMs = endMs - clock.monotonic();
      if (leftMs <= 0 || isSettled()) break;
      await this.#handOff.settledWithin(Math.min(leftMs, GIVE_AWAY_MS), isSettled);
    }
    const cut = this.#callsUnderWay;
    for (const run of this.#runs.values()) run.stop("the node is stopping");
    if (this.#groupCommit.failure === null) await this.#handOff.settledWithin(LAST_WRITES_MS, isSettled);
    givenAway += await this.#handOff.giveAway(successors, clock.monotonic() + LAST_WRITES_MS);
    for (const run of this.#runs.values()) run.leaveInStore();
    if (this.#groupCommit.failure === null) await this.#handOff.settledWithin(LAST_WRITES_MS, isSettled);
    const left = this.#runs.size + this.#parked.size;
    this.#end("the node is stopping");
    return { cut, givenAway, left };
  }

  /** Lets go of everything at once: this incarnation counts as dead, and its orders are others' (cluster rule 3). */
  abandon(): void {
    this.#end("the node was taken for dead, and joins again");
  }

  /** Nothing waits any more: neither calls nor timers are left. */
  #end(reason: string): void {
    this.#phase = "over";
    for (const run of this.#runs.values()) run.stop(reason);
    this.#runs.clear();
    this.#held.clear();
    this.#parked.clear();
    this.#permits.stop();
    this.#groupCommit.close(reason);
  }

  /** What runs need of this engine. */
  #hostOf(slots: Slots): RunHost {
    const { log, clock, random, mayStart, onFenced } = this.#options;
    return {
      clock,
      random,
      mayCall: () => this.#phase === "running" && mayStart(),
      isOver: () => this.#phase === "over",
      held: (run) => this.#held.add(run),
      lifeLog: log.isLevelEnabled("debug") ? (line) => log.debug(line) : null,
      advance: (write, listener) => this.#groupCommit.advance(write, listener),
      callsUnderWayChanged: (by) => {
        this.#callsUnderWay += by;
      },
      grew: (chars) => this.#capacity.take(chars),
      parked: (run, due, since) => {
        this.#forget(run);
        if (this.#phase === "running") this.#parked.park(run.order.orderId, run.user, due, since);
      },
      finished: (run) => this.#forget(run),
      stepLog: (order, step) => log.child({ order, step }),
      needsPerson: (line) => log.error(line),
      nowOf: this.#options.nowOf,
      crashesMax: this.#options.crashesMax,
      onCall: this.#options.onCall ?? null,
      slots,
      callMemory: this.#callMemory,
      refused: (run) => void this.#reread(run),
      fenced: () => {
        this.#lateWritesRefused++;
        if (this.#isFenced) return;
        this.#isFenced = true;
        onFenced();
      },
    };
  }

  #refusal({ user, options }: Submission, bytes: number): SubmitOutcome | null {
    if (this.#phase !== "running") return { kind: "shutting_down" };
    const reason = this.#groupCommit.failure;
    if (reason !== null) return { kind: "store_unavailable", reason };
    if (!this.#options.mayStart()) return { kind: "store_unavailable", reason: "the heartbeat lease has expired" };
    const isForLater = options?.startAtMs !== undefined;
    return this.#capacity.admits({ bytes, user, isForLater }) ? null : { kind: "too_many_in_flight" };
  }

  #created(
    pipeline: Pipeline,
    write: CreateWrite,
    outcome: WriteOutcome,
    resolve: (outcome: SubmitOutcome) => void,
  ): void {
    switch (outcome.kind) {
      case "applied": {
        const { orderId, event } = write;
        const { user, body: bodyText } = write;
        const run = new OrderRun(this.#host, { pipeline, order: createdOrder(orderId, event), user, bodyText });
        const { lifeLog } = this.#host;
        if (lifeLog !== null) logCreation(lifeLog, orderId, event.stepName);
        resolve({ kind: "accepted", orderId, startTimeMs: event.atMs });
        if (this.#phase === "over") return;
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

  /**
   * A write was refused: either it had been applied before (the store failed after the commit) or the order is another's.
   * Only the store can tell (unknown outcome: read again, never assume).
   */
  async #reread(run: OrderRun): Promise<void> {
    const { orderId } = run.order;
    const order: Order | null = await this.#loader.read(orderId);
    if (this.#phase === "over" || this.#runs.get(orderId) !== run) return;
    if (order === null) {
      run.stop("the order is gone, or damaged");
      return this.#forget(run);
    }
    run.reread(order);
    this.#handOff.somethingSettled();
    if (order.owner === this.#options.incarnation) return;
    this.#lateWritesRefused++;
    this.#options.log.warn(`Order ${orderId} is let go: it belongs to another node now`);
  }

  #remember(run: OrderRun): void {
    this.#runs.set(run.order.orderId, run);
    this.#capacity.take(bytesInMemory(run.bodyText) + run.resultChars);
  }

  #forget(run: OrderRun): void {
    this.#held.delete(run);
    if (this.#runs.get(run.order.orderId) !== run) return;
    this.#runs.delete(run.order.orderId);
    this.#capacity.release(bytesInMemory(run.bodyText) + run.resultChars);
  }

  /** The store may fail while it is being done: then nobody waits for long. */
  #withinTime<T>(outcome: Promise<T>): Promise<T | Extract<ActionOutcome, { kind: "unknown" }>> {
    return new Promise((resolve, reject) => {
      const timer = this.#options.clock.after(ACT_MS_MAX, () => resolve({ kind: "unknown" }));
      outcome.then(resolve, reject).finally(() => timer[Symbol.dispose]());
    });
  }
}
