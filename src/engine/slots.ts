/**
 * How many calls of a step are under way on this node, and who waits for one to end.
 *
 * 1. A call that has been granted is counted until it is given back.
 * 2. Who waits longest is granted first; who waits holds nothing and may go away (`leave`).
 */

/** Who wants to make a call. */
export interface SlotTaker {
  /** The call may be made now, and is counted. */
  granted(): void;
}

interface Counter {
  underWay: number;
  /** A call that ends while others are being granted is made up for by that same loop. */
  isGranting: boolean;
  readonly waiting: Set<SlotTaker>;
}

export class Slots {
  readonly #counters = new Map<string, Counter>();

  /** @returns whether the call may be made at once; if not, the taker waits */
  take(key: string, callsMax: number, taker: SlotTaker): boolean {
    const counter = this.#counters.get(key) ?? { underWay: 0, isGranting: false, waiting: new Set() };
    this.#counters.set(key, counter);
    if (counter.underWay < callsMax && counter.waiting.size === 0) {
      counter.underWay++;
      return true;
    }
    counter.waiting.add(taker);
    return false;
  }

  giveBack(key: string, callsMax: number): void {
    const counter = this.#counters.get(key);
    if (counter === undefined) return;
    counter.underWay--;
    this.#grant(counter, callsMax);
    if (counter.underWay === 0 && counter.waiting.size === 0) this.#counters.delete(key);
  }

  /** Waits no longer. */
  leave(key: string, taker: SlotTaker): void {
    this.#counters.get(key)?.waiting.delete(taker);
  }

  #grant(counter: Counter, callsMax: number): void {
    if (counter.isGranting) return;
    counter.isGranting = true;
    for (const taker of counter.waiting) {
      if (counter.underWay >= callsMax) break;
      counter.waiting.delete(taker);
      counter.underWay++;
      taker.granted();
    }
    counter.isGranting = false;
  }
}
