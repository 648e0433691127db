/** A clock that a test owns: time passes when the test says so, and the wall clock can be set. */
import type { Clock, Timer } from "../../src/runtime/clock.ts";

interface Waiting {
  readonly atMs: number;
  readonly action: () => void;
}

export class ManualClock implements Clock {
  #monotonicMs = 0;
  #wallMs: number;
  #waiting = new Set<Waiting>();

  constructor(wallMs = 1_700_000_000_000) {
    this.#wallMs = wallMs;
  }

  /** How many waits have not ended. */
  get waits(): number {
    return this.#waiting.size;
  }

  readonly now = (): number => this.#wallMs;
  readonly monotonic = (): number => this.#monotonicMs;
  readonly nextTurn = (action: () => void): void => void setImmediate(action);

  readonly after = (waitMs: number, action: () => void): Timer => {
    const waiting = { atMs: this.#monotonicMs + Math.max(0, waitMs), action };
    this.#waiting.add(waiting);
    return { [Symbol.dispose]: () => void this.#waiting.delete(waiting) };
  };

  /** Lets time pass on both clocks; what is due meanwhile is done in its time. */
  advance(byMs: number): void {
    const endMs = this.#monotonicMs + byMs;
    for (;;) {
      let first: Waiting | null = null;
      for (const each of this.#waiting) if (each.atMs <= endMs && each.atMs < (first?.atMs ?? Infinity)) first = each;
      if (first === null) break;
      this.#waiting.delete(first);
      this.#pass(first.atMs - this.#monotonicMs);
      first.action();
    }
    this.#pass(endMs - this.#monotonicMs);
  }

  /** Somebody sets the wall clock; no time passes. */
  setWall(byMs: number): void {
    this.#wallMs += byMs;
  }

  #pass(byMs: number): void {
    this.#monotonicMs += byMs;
    this.#wallMs += byMs;
  }
}
