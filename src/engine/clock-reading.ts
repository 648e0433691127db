/** One moment on two clocks: what an event says of it, and what this node's monotonic clock showed. */

export interface ClockReading {
  /** As in the event: a reading of its owner's wall clock. */
  readonly wallMs: number;
  readonly monotonicMs: number;
}
