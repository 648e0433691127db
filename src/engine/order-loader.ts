/**
 * Reads orders from the store to go on with them: those of the dead (claims), those that others gave, those whose time has come, and
 * those that this incarnation owns and does not run (the audit).
 *
 * 1. An order becomes this engine's in the memory only after it is in the store, and never twice: what reads orders does so one after
 *    the other.
 * 2. The store is asked again and again until it answers (guarantee G7), or the node stops.
 * 3. One damaged order does not keep the others from going on: it is left alone, and said.
 */
import type { Logger } from "../log.ts";
import type { Incarnation } from "../order/events.ts";
import { replay } from "../order/evolve.ts";
import { listedStatus, type Order, waitSinceMs } from "../order/order.ts";
import { isFinal } from "../order/status.ts";
import { type Pipeline, pipelineLabel } from "../order/pipeline.ts";
import type { PipelineSet } from "../order/pipeline-set.ts";
import { type Clock, pause } from "../runtime/clock.ts";
import {
  type OrderIdPage,
  type OwnedOrder,
  type OwnedOrders,
  type Store,
  type StoredOrder,
  StoreUnavailableError,
} from "../store/store.ts";
import type { Capacity } from "./capacity.ts";
import { type ClockReading, readingOf } from "./clock-reading.ts";
import type { OrderRun } from "./order-run.ts";
import type { ParkedOrders } from "./parked-orders.ts";

/** What a takeover has brought. */
export interface TakenOver {
  readonly orders: number;
  /** There was no room for more, or no more were asked for. */
  readonly mayBeMore: boolean;
}

export interface OrderLoaderOptions {
  readonly store: Store;
  readonly incarnation: Incarnation;
  readonly pipelines: PipelineSet;
  readonly log: Logger;
  readonly clock: Clock;
  readonly capacity: Capacity;
  readonly parked: ParkedOrders;
  /** No order is begun any more. */
  readonly isStopping: () => boolean;
  /** Nothing is read any more. */
  readonly isOver: () => boolean;
  /** The run of an order, or null: this engine does not run it. */
  readonly runOf: (orderId: string) => OrderRun | null;
  /** Whether the order's creation is on its way to the store. */
  readonly isBeingCreated: (orderId: string) => boolean;
  /** Makes the run of an order that is this incarnation's, and remembers it. */
  readonly startRun: (
    stored: OwnedOrder,
    made: { readonly order: Order; readonly pipeline: Pipeline; readonly since: ClockReading | null },
  ) => OrderRun;
  /** What the clock of another incarnation shows now; null: nothing is known. */
  readonly nowOf: (incarnation: Incarnation) => number | null;
  /** The store takes nothing from this incarnation any more. */
  readonly onFenced: () => void;
}

/** How long to wait before asking the store again: whether it answers, or for more orders of the dead, when there was no room for them. */
const LOOK_AGAIN_MS = 250;

/** How long to wait before looking whether there is room for an order that is this incarnation's. Looking costs next to nothing. */
const LOOK_FOR_ROOM_MS = 25;

/** Order ids read at once by the audit. */
const AUDIT_PAGE_ORDERS = 1_000;

/** Whose a damaged order is can't be told. */
const NOBODY = "";

const NO_ORDERS: OwnedOrders = Object.freeze({ orders: [], damaged: [] });

export class OrderLoader {
  readonly #options: OrderLoaderOptions;
  /** The last of what reads orders (invariant 1). */
  #reading: Promise<unknown> = Promise.resolve();
  /** The last takeover: two at once would divide what there is between them. */
  #takingOver: Promise<unknown> = Promise.resolve();
  /** Orders that are this incarnation's, and that are to be read when there is room. */
  readonly #unread = new Set<string>();
  #adopting: Promise<void> | null = null;
  #auditDue = false;
  #failure: string | null = null;
  /** Pipelines that orders wait for and this node lacks: named in the log once each. */
  readonly #missingPipelines = new Set<string>();

  constructor(options: OrderLoaderOptions) {
    this.#options = options;
  }

  /** Why orders that this node should go on with can't be read, or null. */
  get failure(): string | null {
    return this.#failure;
  }

  /** How many orders of this incarnation wait to be read. */
  get unread(): number {
    return this.#unread.size;
  }

  /** Something may have been committed without this engine's knowledge: the next `auditIfDue` looks for it. */
  doubt(): void {
    this.#auditDue = true;
  }

  /**
   * Takes over the orders that the former incarnations of this node's service left, and goes on with them.
   * Resolves when none is left to take, or the node is stopping.
   */
  async resume(serviceId: string): Promise<number> {
    const { store, incarnation, clock } = this.#options;
    let resumed = 0;
    for (const owner of await this.#patiently(() => store.listOwners(), [])) {
      if (owner.serviceId !== serviceId || owner.incarnation === incarnation) continue;
      for (let mayBeMore = true; mayBeMore;) {
        const taken = await this.takeOver(owner.incarnation, Number.POSITIVE_INFINITY);
        resumed += taken.orders;
        ({ mayBeMore } = taken);
        if (mayBeMore) await pause(clock, LOOK_AGAIN_MS);
      }
    }
    return resumed;
  }

  /**
   * Takes over up to `ordersMax` orders of a dead incarnation, page by page, while there is room, and goes on with them.
   * Takes nothing when that incarnation is not dead, or this one is.
   */
  takeOver(from: Incarnation, ordersMax: number): Promise<TakenOver> {
    const done = this.#takingOver.then(() => this.#takeAll(from, ordersMax));
    this.#takingOver = done.catch(() => undefined);
    return done;
  }

  async #takeAll(from: Incarnation, ordersMax: number): Promise<TakenOver> {
    for (let orders = 0; ;) {
      // Page by page: what somebody asks of an order comes between.
      const page = await this.#oneAfterTheOther(() => this.#claimPage(from, ordersMax - orders));
      orders += page.orders;
      if (page.mayBeMore !== null) return { orders, mayBeMore: page.mayBeMore };
    }
  }

  /** @returns how many it has brought, and what `takeOver` ends with: null, it goes on */
  async #claimPage(
    from: Incarnation,
    ordersMax: number,
  ): Promise<{ readonly orders: number; readonly mayBeMore: boolean | null }> {
    const { store, incarnation, clock, nowOf, isStopping, onFenced } = this.#options;
    const limit = Math.min(this.#pageLimit, ordersMax);
    if (limit === 0 || isStopping()) return { orders: 0, mayBeMore: !isStopping() };
    const claim = await this.#patiently(() => {
      const atMs = clock.now();
      return store.claimOrders(from, incarnation, { atMs, formerAtMs: nowOf(from) ?? atMs }, limit);
    }, null);
    if (claim?.kind === "fenced") onFenced();
    if (claim?.kind !== "claimed") return { orders: 0, mayBeMore: false };
    for (const order of claim.orders) this.#adopt(order);
    for (const { orderId, reason } of claim.damaged) this.#leaveAlone(orderId, reason);
    const isLast = claim.orders.length + claim.damaged.length < limit;
    return { orders: claim.orders.length, mayBeMore: isLast ? false : null };
  }

  /** Goes on with orders that are this incarnation's by now, as there is room for them. Resolves when none is left to read. */
  adopt(orderIds: readonly string[]): Promise<void> {
    for (const orderId of orderIds) this.#unread.add(orderId);
    if (this.#unread.size > 0) this.#adopting ??= this.#adoptUnread();
    return this.#adopting ?? Promise.resolve();
  }

  async #adoptUnread(): Promise<void> {
    const { clock, isStopping } = this.#options;
    try {
      while (this.#unread.size > 0 && !isStopping()) {
        const read = await this.#oneAfterTheOther(() => this.#adoptPage());
        if (read === 0) await pause(clock, LOOK_FOR_ROOM_MS);
      }
    } finally {
      // In the turn of the last look: whoever comes next begins anew. What is left, the audit finds.
      this.#unread.clear();
      this.#adopting = null;
    }
  }

  /** @returns how many of those that are to be read have been */
  async #adoptPage(): Promise<number> {
    const limit = this.#pageLimit;
    const page: string[] = [];
    for (const orderId of this.#unread) {
      if (!this.#isUnknown(orderId)) this.#unread.delete(orderId);
      else if (page.length < limit) page.push(orderId);
      else break;
    }
    if (page.length > 0) await this.#adoptOwn(page);
    return page.length;
  }

  /** Audits when there is reason to. */
  auditIfDue(): void {
    if (!this.#auditDue || this.#options.isStopping()) return;
    this.#auditDue = false;
    void this.audit();
  }

  /**
   * Looks for orders that are this incarnation's in the store and that it does not run, and goes on with them: a creation or a
   * claim was committed and its answer lost, or nobody told of a hand-over (guarantee G5).
   * @returns how many it found
   */
  audit(): Promise<number> {
    const { store, incarnation, log, isStopping } = this.#options;
    return this.#oneAfterTheOther(async () => {
      let found = 0;
      let cursor: string | null = null;
      do {
        const from: string | null = cursor;
        const page: OrderIdPage = await this.#patiently(
          () => store.listOrderIds(incarnation, from, AUDIT_PAGE_ORDERS),
          { orderIds: [], next: null },
        );
        const lost = page.orderIds.filter((orderId) => this.#isUnknown(orderId) && !this.#unread.has(orderId));
        let at = 0;
        for (let limit = this.#pageLimit; at < lost.length && limit > 0; at += limit, limit = this.#pageLimit) {
          found += await this.#adoptOwn(lost.slice(at, at + limit));
        }
        cursor = at < lost.length ? null : page.next; // what there is no room for now is found by the next audit
      } while (cursor !== null && !isStopping());
      if (found > 0) log.warn(`Orders of this node that it did not run are gone on with: ${found}`);
      return found;
    });
  }

  /**
   * The run of a parked order, which is to be acted on, or the order alone where this node lacks its pipeline; null: there is none, or it
   * is damaged.
   * @throws StoreUnavailableError
   */
  takeUp(orderId: string): Promise<OrderRun | OwnedOrder | null> {
    const { store, incarnation, parked, isStopping, runOf } = this.#options;
    return this.#oneAfterTheOther(async () => {
      const running = runOf(orderId);
      if (running !== null || isStopping()) return running;
      const { orders, damaged } = await store.readOwned(incarnation, [orderId]);
      const [order] = orders;
      if (isStopping()) return null;
      if (order === undefined) {
        if (damaged.length === 0) parked.unpark(orderId); // it is another's by now, or final
        return null;
      }
      return this.#newRun(order) ?? (parked.stranded.has(orderId) ? order : null);
    });
  }

  /** The order as it is in the store, where what is known of it is out of date; null: it is gone, or damaged. */
  async read(orderId: string): Promise<Order | null> {
    const stored = await this.#readSound(orderId);
    return stored === null ? null : this.#replayed(stored);
  }

  /** Asks the store again and again until it answers (invariant 2), or it is over: then `otherwise`. */
  async #patiently<T>(ask: () => Promise<T>, otherwise: T, isOver = this.#options.isStopping): Promise<T> {
    const { log, clock } = this.#options;
    while (!isOver()) {
      try {
        const answer = await ask();
        if (this.#failure !== null) this.#auditDue = true; // a claim may have been committed, and its answer lost
        this.#failure = null;
        return answer;
      } catch (error) {
        if (!(error instanceof StoreUnavailableError)) throw error;
        if (error.message !== this.#failure) {
          log.error(`The store can't be read: ${error.message}. It is asked again.`);
        }
        this.#failure = error.message;
        await pause(clock, LOOK_AGAIN_MS);
      }
    }
    return otherwise;
  }

  #oneAfterTheOther<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#reading.then(work);
    this.#reading = done.catch(() => undefined);
    return done;
  }

  #isUnknown(orderId: string): boolean {
    const { runOf, isBeingCreated, parked } = this.#options;
    const isResting = parked.has(orderId) && !parked.isDue(orderId);
    return runOf(orderId) === null && !isBeingCreated(orderId) && !isResting;
  }

  /** How many orders may be read at once, now. */
  get #pageLimit(): number {
    const { capacity } = this.#options;
    return Math.min(capacity.pageOrders, capacity.roomForUnread);
  }

  /**
   * Reads orders, and goes on with those that are this incarnation's and that it does not run yet.
   * @returns how many those were
   */
  async #adoptOwn(orderIds: readonly string[]): Promise<number> {
    const { store, incarnation, parked, isStopping } = this.#options;
    const { orders, damaged } = await this.#patiently(() => store.readOwned(incarnation, orderIds), NO_ORDERS);
    if (isStopping()) return 0;
    for (const orderId of orderIds) this.#unread.delete(orderId);
    const unknown = orders.filter(({ orderId }) => this.#isUnknown(orderId));
    for (const order of unknown) this.#adopt(order);
    for (const { orderId, reason } of damaged) if (this.#isUnknown(orderId)) this.#leaveAlone(orderId, reason);
    // What was due and is not this incarnation's any more.
    for (const orderId of orderIds) if (parked.isDue(orderId)) parked.unpark(orderId);
    return unknown.length;
  }

  /** Goes on with an order that is this incarnation's by a committed write. */
  #adopt(stored: OwnedOrder): void {
    this.#newRun(stored)?.proceed();
  }

  /** A new run of an order that is this incarnation's; null: nothing can be done with it, and it is parked. */
  #newRun(stored: OwnedOrder): OrderRun | null {
    const { pipelines, log, clock, parked, startRun } = this.#options;
    const since = parked.sinceOf(stored.orderId);
    parked.unpark(stored.orderId);
    const order = this.#replayed(stored);
    if (order === null || isFinal(order.state.status)) return null;
    const pipeline = pipelines.find(stored.pipelineName, stored.pipelineVersion);
    if (pipeline !== null) return startRun(stored, { order, pipeline, since });
    const label = pipelineLabel({ name: stored.pipelineName, version: stored.pipelineVersion });
    if (!this.#missingPipelines.has(label)) {
      log.warn(`Orders wait: this node does not have their pipeline ${label} (order ${stored.orderId} is one)`);
    }
    this.#missingPipelines.add(label);
    const { revision, user } = stored;
    const stranded = { label, revision, status: listedStatus(order), user };
    parked.strand(order.orderId, stranded, readingOf(clock, waitSinceMs(order), since));
    return null;
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

  /** An order as the store holds it; null: there is none, or it can't be read and is left alone. */
  async #readSound(orderId: string): Promise<StoredOrder | null> {
    const { store, isOver } = this.#options;
    try {
      return await this.#patiently(() => store.readOrder(orderId), null, isOver);
    } catch (error) {
      this.#leaveAlone(orderId, error instanceof Error ? error.message : String(error));
      return null;
    }
  }

  #leaveAlone(orderId: string, reason: string): void {
    const { parked, log, isStopping } = this.#options;
    if (!isStopping()) parked.park(orderId, NOBODY, null);
    log.error(`Order ${orderId} is left alone: its history in the store is damaged (${reason})`);
  }
}
