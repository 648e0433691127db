/**
 * Gives orders to other nodes: those of a node that stops, and those of pipelines that this node lacks. An order is another's when
 * that is durable; only then is its new owner told.
 */
import type { Logger } from "../log.ts";
import type { Incarnation } from "../order/events.ts";
import type { Clock } from "../runtime/clock.ts";
import type { AdvanceWrite } from "../store/store.ts";
import { handOverTimes } from "./clock-reading.ts";
import type { GroupCommit } from "./group-commit.ts";
import type { OrderRun } from "./order-run.ts";
import type { ParkedOrders, Stranded } from "./parked-orders.ts";

/** A live node that can be told what is its own. */
export interface Successor {
  readonly incarnation: Incarnation;
  /** How many orders it takes now: at least one. */
  readonly room: number;
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

export interface HandOffOptions {
  readonly incarnation: Incarnation;
  readonly log: Logger;
  readonly clock: Clock;
  readonly groupCommit: GroupCommit;
  readonly runs: () => Iterable<OrderRun>;
  readonly parked: ParkedOrders;
  /** What the clock of another incarnation shows now, as far as is known; null: nothing is known. */
  readonly nowOf: (incarnation: Incarnation) => number | null;
  /** What is known of the orders of this incarnation may be out of date. */
  readonly onDoubt: () => void;
  /** The store takes nothing from this incarnation any more. */
  readonly onFenced: () => void;
}

/** Orders given away in one go, by a node that stops. */
const GIVE_AWAY_ORDERS = 500;

/** What must still be written when the grace time is over gets so long. */
export const LAST_WRITES_MS = 5_000;

/** Orders given at once to nodes that have their pipeline. */
const PASS_ON_ORDERS = 500;

export class HandOff {
  readonly #options: HandOffOptions;
  #passingOn = false;
  /** Looks whether what is waited for is so by now. */
  #look: (() => void) | null = null;

  constructor(options: HandOffOptions) {
    this.#options = options;
  }

  /** Something was committed, or has ended: to be called after each commit. */
  somethingSettled(): void {
    this.#look?.();
  }

  /** Resolves when it is so, or the time is over. One wait at a time. */
  settledWithin(timeMs: number, isSettled: () => boolean): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        timer[Symbol.dispose]();
        this.#look = null;
        resolve();
      };
      const timer = this.#options.clock.after(timeMs, done);
      this.#look = () => {
        if (isSettled()) done();
      };
      this.#look();
    });
  }

  /**
   * Gives away, batch by batch, what is idle, until that time on the monotonic clock.
   * @returns how many orders
   */
  async giveAway(successors: Successors, endMs: number): Promise<number> {
    const { clock, groupCommit } = this.#options;
    let given = 0;
    while (clock.monotonic() < endMs && groupCommit.failure === null && this.#someIdle(1).length > 0) {
      const successor = await successors.choose();
      if (successor === null) break;
      const { incarnation, room } = successor;
      const batch = this.#someIdle(Math.min(GIVE_AWAY_ORDERS, room));
      for (const run of batch) run.giveTo(incarnation);
      // Also beyond that time: what is on its way to the store will be another's, who is to hear of it.
      const waitMs = Math.max(endMs - clock.monotonic(), LAST_WRITES_MS);
      await this.settledWithin(waitMs, () => batch.every((run) => run.isIdle));
      const orderIds = batch.filter((run) => run.order.owner === incarnation).map((run) => run.order.orderId);
      // What was refused is read again, and tried again: the successor may be dead by now.
      if (orderIds.length === 0) break;
      await successors.tell(incarnation, orderIds);
      given += orderIds.length;
    }
    return given;
  }

  /** Gives away orders whose pipeline this node lacks, to nodes that have it; the others wait for one. To be called again and again. */
  async passOn(receivers: Receivers): Promise<void> {
    const { parked, log } = this.#options;
    if (parked.stranded.size === 0 || this.#passingOn) return;
    this.#passingOn = true;
    try {
      const given = new Map<Incarnation, string[]>();
      const writes: Promise<void>[] = [];
      for (const [orderId, stranded] of parked.stranded) {
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
        log.info(`Orders given to a node that has their pipeline: ${orderIds.length}`);
        await receivers.tell(receiver, orderIds);
      }
    } finally {
      this.#passingOn = false;
    }
  }

  #giveStranded(orderId: string, { revision, status, user }: Stranded, owner: Incarnation): Promise<boolean> {
    const { incarnation, clock, groupCommit, parked, nowOf, onDoubt, onFenced } = this.#options;
    const times = handOverTimes(clock, parked.sinceOf(orderId), nowOf(owner));
    return new Promise((resolve) => {
      const write: AdvanceWrite = {
        kind: "advance",
        orderId,
        owner: incarnation,
        expectedRevision: revision,
        event: { kind: "owner_changed", owner, callBegun: false, ...times },
        newStatus: null,
        formerStatus: status,
        user,
      };
      groupCommit.advance(write, {
        settled: (outcome) => {
          if (outcome.kind === "fenced") onFenced();
          // Refused: it has gone already, or its receiver has died meanwhile; the audit finds it again.
          if (outcome.kind !== "fenced") parked.unpark(orderId);
          if (outcome.kind === "conflict") onDoubt();
          resolve(outcome.kind === "applied");
        },
      });
    });
  }

  #someIdle(limit: number): OrderRun[] {
    const idle: OrderRun[] = [];
    for (const run of this.#options.runs()) {
      if (idle.length === limit) break;
      if (run.isIdle) idle.push(run);
    }
    return idle;
  }
}
