/**
 * Time, as the engine and the cluster know it. It is handed in everywhere, so that a test can own it; nothing in `engine/` or `cluster/`
 * reads a clock or sets a timer by itself.
 *
 * 1. Wall time is for people and for `start_at`: it may jump either way. How long something took, or is to take, the monotonic clock
 *    tells.
 */
import { performance } from "node:perf_hooks"; // the global one is a getter

/** A wait. Disposed of, it is over, and its action does not happen any more. */
export type Timer = Disposable;

export interface Clock {
  /** Wall time, in milliseconds since the epoch. */
  readonly now: () => number;
  /** Milliseconds since some moment; never runs backwards and never jumps. */
  readonly monotonic: () => number;
  /** Does something once, after so many milliseconds on the monotonic clock; a wait may be of any length. */
  readonly after: (waitMs: number, action: () => void) => Timer;
  /** Does something when what is under way now has been done, before any wait. */
  readonly nextTurn: (action: () => void) => void;
}

/** setTimeout can't wait longer. */
const PART_MS_MAX = 2 ** 31 - 1;

/**
 * The machine's clock.
 * @param now the wall time, where it is not the machine's
 */
export function systemClock(now: () => number = Date.now): Clock {
  return {
    now,
    monotonic: () => performance.now(),
    after: (waitMs, action) => {
      if (waitMs <= PART_MS_MAX) return setTimeout(action, Math.max(0, waitMs));
      let parts = Math.ceil(waitMs / PART_MS_MAX);
      const timer = setInterval(() => {
        if (--parts > 0) return;
        clearInterval(timer);
        action();
      }, waitMs / parts);
      return timer;
    },
    nextTurn: (action) => void setImmediate(action),
  };
}

/** Resolves after so many milliseconds. */
export function pause(clock: Clock, waitMs: number): Promise<void> {
  return new Promise((resolve) => void clock.after(waitMs, resolve));
}
