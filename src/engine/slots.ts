/**
 * How many calls of a step are under way on this node, and who waits for one to end.
 *
 * Owns the counting. Does not own how many calls of a limit of the whole cluster this node may make: that is agreed with the others
 * (permits.ts) and set by `allow`.
 *
 * 1. A call that has been granted is counted until it is given back.
 * 2. Who waits longest is granted first; who waits holds nothing and may go away (`leave`).
 */
import type { ConcurrencyLimit } from "../order/pipeline.ts";

/** Who wants to make a call. */
export interface SlotTaker {
  /** The call may be made now, and is counted. */
  granted(): void;
}

/** How this node stands to a limit of the whole cluster. */
export interface Demand {
  readonly key: string;
  /** Of the cluster. */
  readonly callsMax: number;
  /** The most calls that were under way or waited at once, since `demands` was called last. */
  readonly wanted: number;
  /** What `allow` has set. */
  readonly allowed: number;
}

interface Counter {
  readonly scope: ConcurrencyLimit["scope"];
  callsMax: number;
  /** Calls that may be under way on this node. */
  allowed: number;
  underWay: number;
  wanted: number;
  /** A call that ends while others are being granted is made up for by that same loop. */
  isGranting: boolean;
  readonly waiting: Set<SlotTaker>;
}

export class Slots {
  readonly #counters = new Map<string, Counter>();
  readonly #onUneven: () => void;

  /** @param onUneven what a limit of the cluster allows this node is not what it wants, or has, by now; called often */
  constructor(onUneven: () => void) {
    this.#onUneven = onUneven;
  }

  /** @returns whether the call may be made at once; if not, the taker waits */
  take(key: string, limit: ConcurrencyLimit, taker: SlotTaker): boolean {
    const counter = this.#counters.get(key) ?? newCounter(limit);
    this.#counters.set(key, counter);
    counter.callsMax = limit.callsMax;
    if (counter.scope === "node") counter.allowed = limit.callsMax;
    counter.wanted = Math.max(counter.wanted, counter.underWay + counter.waiting.size + 1);
    if (counter.underWay < counter.allowed && counter.waiting.size === 0) {
      counter.underWay++;
      return true;
    }
    if (counter.scope === "cluster" && counter.waiting.size === 0) this.#onUneven();
    counter.waiting.add(taker);
    return false;
  }

  giveBack(key: string): void {
    const counter = this.#counters.get(key);
    if (counter === undefined) return;
    counter.underWay--;
    if (counter.scope === "cluster" && counter.underWay >= counter.allowed) this.#onUneven();
    this.#grant(counter);
    // What is agreed with the other nodes is remembered: there are no more of these than steps of pipelines.
    if (counter.scope === "node" && counter.underWay === 0 && counter.waiting.size === 0) this.#counters.delete(key);
  }

  /** Waits no longer. */
  leave(key: string, taker: SlotTaker): void {
    this.#counters.get(key)?.waiting.delete(taker);
  }

  /** For each limit of the cluster that this node has used. */
  demands(): Demand[] {
    const demands: Demand[] = [];
    for (const [key, counter] of this.#counters) {
      const { scope, callsMax, underWay, wanted, allowed, waiting } = counter;
      if (scope === "node") continue;
      counter.wanted = underWay + waiting.size;
      demands.push({ key, callsMax, wanted, allowed });
    }
    return demands;
  }

  underWay(key: string): number {
    return this.#counters.get(key)?.underWay ?? 0;
  }

  /** Sets how many calls of a limit of the cluster may be under way on this node; more that are already go on. */
  allow(key: string, calls: number): void {
    const counter = this.#counters.get(key);
    if (counter === undefined) return;
    counter.allowed = calls;
    this.#grant(counter);
  }

  #grant(counter: Counter): void {
    if (counter.isGranting) return;
    counter.isGranting = true;
    for (const taker of counter.waiting) {
      if (counter.underWay >= counter.allowed) break;
      counter.waiting.delete(taker);
      counter.underWay++;
      taker.granted();
    }
    counter.isGranting = false;
  }
}

function newCounter({ scope, callsMax }: ConcurrencyLimit): Counter {
  return { scope, callsMax, allowed: 0, underWay: 0, wanted: 0, isGranting: false, waiting: new Set() };
}
