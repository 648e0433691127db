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

/** Between two looks passes so many times what a look takes: who waits is not to take the CPU from whom it waits for. */
const REST_PER_LOOK = 4;

/** Resolves with the first value of `probe` that is neither undefined, null nor false. */
export async function waitFor<T>(
  probe: () => T | Promise<T>,
  { deadlineMs = DEADLINE_MS, what }: WaitOptions,
): Promise<Exclude<T, undefined | null | false>> {
  const endMs = performance.now() + deadlineMs;
  for (;;) {
    const startMs = performance.now();
    const value = await probe();
    const tookMs = performance.now() - startMs;
    if (value !== undefined && value !== null && value !== false) return value as Exclude<T, undefined | null | false>;
    if (performance.now() > endMs) {
      throw new Error(`waited ${deadlineMs} ms in vain until ${typeof what === "string" ? what : what()}`);
    }
    await delay(Math.min(Math.max(POLL_MS_MIN, REST_PER_LOOK * tookMs), POLL_MS_MAX));
  }
}

/** Milliseconds on a clock that never jumps and that all processes of this host share: what two of them note can be compared. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
