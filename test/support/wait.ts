/** Waiting for a condition, with a deadline. Tests never just sleep. */
import { setTimeout as delay } from "node:timers/promises";

export interface WaitOptions {
  readonly deadlineMs?: number;
  /** What is waited for, said when it does not come. */
  readonly what: string | (() => string);
}

/** After it what is waited for never comes. Long, as it must be so on a machine that does much else at the time: what comes is not kept waiting by it. */
export const DEADLINE_MS = 60_000;

const POLL_MS_MIN = 10;
const POLL_MS_MAX = 100;

/** The pause before the next look, as a part of the time waited so far: what has taken long will take some more. */
const POLL_PER_WAITED = 0.05;

/** Between two looks passes so many times what a look takes: who waits is not to take the CPU from whom it waits for. */
const REST_PER_LOOK = 9;

/** Resolves with the first value of `probe` that is neither undefined, null nor false. */
export async function waitFor<T>(
  probe: () => T | Promise<T>,
  { deadlineMs = DEADLINE_MS, what }: WaitOptions,
): Promise<Exclude<T, undefined | null | false>> {
  const startMs = performance.now();
  for (;;) {
    const lookMs = performance.now();
    const value = await probe();
    if (value !== undefined && value !== null && value !== false) return value as Exclude<T, undefined | null | false>;
    const nowMs = performance.now();
    if (nowMs - startMs > deadlineMs) {
      throw new Error(`waited ${deadlineMs} ms in vain until ${typeof what === "string" ? what : what()}`);
    }
    const pauseMs = Math.max(POLL_MS_MIN, REST_PER_LOOK * (nowMs - lookMs), POLL_PER_WAITED * (nowMs - startMs));
    await delay(Math.min(pauseMs, POLL_MS_MAX));
  }
}

/** Milliseconds on a clock that never jumps and that all processes of this host share: what two of them note can be compared. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
