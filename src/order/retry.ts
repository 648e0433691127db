/** When a failed attempt is made again. */

/** How often, and after which waits, an attempt is made again. */
export interface RetryPolicy {
  /** How many attempts may fail before the step has failed for good; 1 means no retry. */
  readonly attemptsMax: number;
  /** The wait after the first failure. */
  readonly delayMs: number;
  /** Each further wait is this many times the one before. */
  readonly factor: number;
  /** No wait is longer, unless the receiver asks for a longer one. */
  readonly delayMsMax: number;
  /** The share of a wait, 0 to 1, that is taken off at random, so that orders that failed together don't return together. */
  readonly jitter: number;
  /** No attempt begins so long after the first one could begin; null: no limit. */
  readonly deadlineMs: number | null;
}

/** For steps that name no policy: rides out a hiccup of about a second, then gives up. */
export const DEFAULT_RETRY: RetryPolicy = {
  attemptsMax: 3,
  delayMs: 200,
  factor: 2,
  delayMsMax: 30_000,
  jitter: 0.2,
  deadlineMs: null,
};

/** For the rollbacks of such steps: rides out some minutes in which the receiver is away, as giving up takes a person to mend. */
export const DEFAULT_ROLLBACK_RETRY: RetryPolicy = { ...DEFAULT_RETRY, attemptsMax: 15 };

/** For shortages of the node's own (no free descriptor, no free port): they pass, or a person must mend them. */
export const SHORTAGE_RETRY: RetryPolicy = { ...DEFAULT_RETRY, attemptsMax: Number.POSITIVE_INFINITY };

/** What a receiver may have us wait at the most, when it says how long. */
export const ASKED_DELAY_MS_MAX = 3_600_000;

/** An attempt that has failed. */
export interface Failure {
  /** How many attempts have failed, this one included; attempts that a crash cut short don't count. */
  readonly failures: number;
  /** Since the first attempt could begin. */
  readonly elapsedMs: number;
  /** The shortest wait that the receiver asks for (Retry-After), or null. */
  readonly askedDelayMs: number | null;
  /** From 0 (inclusive) to 1. */
  readonly random: number;
}

/** The wait before the next attempt, or null when the policy allows none. */
export function retryDelayMs(policy: RetryPolicy, failure: Failure): number | null {
  if (failure.failures >= policy.attemptsMax) return null;
  const delayMs = unlimitedRetryDelayMs(policy, failure);
  return policy.deadlineMs !== null && failure.elapsedMs + delayMs >= policy.deadlineMs ? null : delayMs;
}

/** The wait before the next attempt of what must not be given up, whatever the policy's limits. */
export function unlimitedRetryDelayMs(policy: RetryPolicy, { failures, askedDelayMs, random }: Failure): number {
  const grown = Math.min(policy.delayMsMax, policy.delayMs * policy.factor ** (failures - 1));
  return Math.max(Math.round(grown * (1 - policy.jitter * random)), Math.min(askedDelayMs ?? 0, ASKED_DELAY_MS_MAX));
}
