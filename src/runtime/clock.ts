/**
 * Time, as the engine and the cluster know it. It is handed in everywhere, so that a test can own it; nothing in `engine/` or `cluster/`
 * reads a clock or sets a timer by itself.
 *
 * 1. Wall time is for people and for `start_at`: it may jump either way. How long something took, or is to take, the monotonic clock
 *    tells.
 */

/** A wait that can be ended early. */
export interface Timer {
  /** Its action does not happen any more. */
  cancel(): void;
}

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

class SystemTimer implements Timer {
  #timeout: NodeJS.Timeout;

  constructor(waitMs: number, action: () => void) {
    this.#timeout = this.#wait(waitMs, action);
  }

  cancel(): void {
    clearTimeout(this.#timeout);
  }

  #wait(waitMs: number, action: () => void): NodeJS.Timeout {
    if (waitMs <= PART_MS_MAX) return setTimeout(action, waitMs);
    return setTimeout(() => (this.#timeout = this.#wait(waitMs - PART_MS_MAX, action)), PART_MS_MAX);
  }
}

/**
 * The machine's clock.
 * @param now the wall time, where it is not the machine's
 */
export function systemClock(now: () => number = Date.now): Clock {
  return {
    now,
    monotonic: () => performance.now(),
    after: (waitMs, action) => new SystemTimer(Math.max(0, waitMs), action),
    nextTurn: (action) => void setImmediate(action),
  };
}

/** Resolves after so many milliseconds. */
export function pause(clock: Clock, waitMs: number): Promise<void> {
  return new Promise((resolve) => void clock.after(waitMs, resolve));
}
