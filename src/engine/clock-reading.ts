/** One moment on several clocks. */
import { type Order, waitSinceMs } from "../order/order.ts";
import type { Clock } from "../runtime/clock.ts";

/** What an event says of a moment, and what this node's monotonic clock showed. */
export interface ClockReading {
  /** As in the event: a reading of its owner's wall clock. */
  readonly wallMs: number;
  readonly monotonicMs: number;
}

/**
 * When what an order waits for began: the known reading, if it is that of the order's own time, or what this node's clocks say of that.
 * @param wallMs the order's own time; null: it waits for nothing that is counted
 */
export function readingOf(clock: Clock, wallMs: number | null, known: ClockReading | null): ClockReading | null {
  if (wallMs === null || known?.wallMs === wallMs) return wallMs === null ? null : known;
  return { wallMs, monotonicMs: clock.monotonic() - Math.max(0, clock.now() - wallMs) };
}

/** When what an order waits for began, where the monotonic clock is known to have shown that; null: it waits for nothing that is counted. */
export function readingFrom(order: Order, monotonicMs: number): ClockReading | null {
  const wallMs = waitSinceMs(order);
  return wallMs === null ? null : { wallMs, monotonicMs };
}

/** What the monotonic clock showed when what an order waits for began, in whole milliseconds; where it waits for nothing that is counted, 0. */
export function monotonicStart(clock: Clock, order: Order, known: ClockReading | null): number {
  return Math.round(readingOf(clock, waitSinceMs(order), known)?.monotonicMs ?? 0);
}

/** A wall clock that differs by so much from what the monotonic clock says was set; less is a clock being trimmed. */
const CLOCK_SET_MS = 1_000;

/** How far the wall clock is ahead of the monotonic one, which never jumps. */
export function wallAheadMs(clock: Clock): number {
  return clock.now() - clock.monotonic();
}

/** Whether the wall clock was set between two moments, by how far it was ahead of the monotonic one at each. */
export function wasSet(aheadMs: number, nowAheadMs: number): boolean {
  return Math.abs(nowAheadMs - aheadMs) >= CLOCK_SET_MS;
}

/**
 * The moment at which an order is given away, for the event that says so: on the clock of its new owner, and on the one that its waits
 * were counted on.
 * @param since when what the order waits for began. From there this node's monotonic clock counts, as its wall clock may have jumped
 *     meanwhile; null: nothing is counted
 * @param ownerNowMs what the new owner's clock shows; null: not known
 */
export function handOverTimes(
  clock: Clock,
  since: ClockReading | null,
  ownerNowMs: number | null,
): { readonly atMs: number; readonly formerAtMs?: number } {
  const nowMs = clock.now();
  const atMs = ownerNowMs ?? nowMs;
  const formerAtMs = since === null ? nowMs : since.wallMs + Math.round(clock.monotonic() - since.monotonicMs);
  return formerAtMs === atMs ? { atMs } : { atMs, formerAtMs };
}
