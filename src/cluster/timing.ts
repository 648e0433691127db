/** How often nodes say that they live, and what silence means; all of it follows from the TTL (docs/cluster.md, rules 1 to 3). */

export interface Timing {
  /** Silence after which a node counts as dead. */
  readonly ttlMs: number;
  /** Between two heartbeats. */
  readonly heartbeatMs: number;
  /** Between two looks at the others' rows: a death is seen a quarter of a heartbeat late at most. */
  readonly readMs: number;
  /** Silence of one's own after which nothing new begins. */
  readonly leaseMs: number;
}

export function timingOf(ttlMs: number): Timing {
  return { ttlMs, heartbeatMs: ttlMs / 5, readMs: ttlMs / 20, leaseMs: (ttlMs * 2) / 3 };
}

/** Silence of a node after which it is looked whether its port still answers. */
export function suspicionMs(ttlMs: number): number {
  return timingOf(ttlMs).heartbeatMs;
}

/** Silence after which a node whose port refuses connections counts as dead: no heartbeat can be merely late then. */
export function silenceWithEvidenceMs(ttlMs: number): number {
  return 1.5 * timingOf(ttlMs).heartbeatMs;
}
