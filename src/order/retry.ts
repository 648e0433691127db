/** When a failed attempt is made again. */

/** How often, and after which waits, an attempt is made again. */
export interface RetryPolicy {
  /** How many attempts may fail before the step has failed for good; 1 means no retry. */
  readonly attemptsMax: number;
  /** The wait after the first failure. */
  readonly delayMs: number;
  /** Each further wait is this many times the one before. */
  readonly factor: number;
  /** No wait is longer. */
  readonly delayMsMax: number;
  /** The share of a wait, 0 to 1, that is taken off at random, so that orders that failed together don't return together. */
  readonly jitter: number;
}

/** For steps that name no policy: rides out a hiccup of about a second, then gives up. */
export const DEFAULT_RETRY: RetryPolicy = { attemptsMax: 3, delayMs: 200, factor: 2, delayMsMax: 30_000, jitter: 0.2 };

/**
 * The wait before the next attempt, or null when the policy allows none.
 * @param failures how many attempts have failed, this one included; attempts that a crash cut short don't count
 * @param random from 0 (inclusive) to 1
 */
export function retryDelayMs(policy: RetryPolicy, failures: number, random: number): number | null {
  if (failures >= policy.attemptsMax) return null;
  const grown = Math.min(policy.delayMsMax, policy.delayMs * policy.factor ** (failures - 1));
  return Math.round(grown * (1 - policy.jitter * random));
}
