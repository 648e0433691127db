/** The call that an order is at, from attempt to attempt: what evolve.ts makes of it. */
import type { OrderEvent } from "./events.ts";
import type { CurrentCall, PausableState } from "./order.ts";

/** The call by which a run or rollback begins. */
export function firstCall(stepIndex: number, sinceMs: number): CurrentCall {
  return {
    stepIndex,
    attempt: 1,
    hasBegun: true,
    failures: 0,
    shortages: 0,
    crashes: 0,
    sinceMs,
    waitMs: 0,
    elapsedMs: 0,
    isEndless: false,
    isUnknown: false,
    signal: null,
  };
}

/** The call after an attempt of it has failed, and is to be made again. */
export function callAfterFailure(
  call: CurrentCall,
  event: Extract<OrderEvent, { kind: "attempt_failed" }>,
): CurrentCall {
  const { atMs, delayMs, elapsedMs, unknown, shortage, endless } = event;
  const [isShortage, isLingering] = [shortage === true, event.lingers === true];
  return {
    ...call,
    attempt: call.attempt + 1,
    hasBegun: elapsedMs === undefined,
    failures: isShortage ? call.failures : call.failures + 1,
    shortages: isShortage ? call.shortages + 1 : 0,
    crashes: isLingering ? call.crashes : 0,
    sinceMs: atMs,
    waitMs: delayMs,
    elapsedMs: elapsedMs ?? call.elapsedMs + Math.max(0, atMs - call.sinceMs),
    isUnknown: unknown === true,
    isEndless: endless === true,
    isLingering,
  };
}

/** A call that had begun is made again: that is another attempt, and nobody knows what the former one has done. */
export function callAfterTakeover(
  call: CurrentCall,
  event: Extract<OrderEvent, { kind: "owner_changed" }>,
): CurrentCall {
  const crashes = call.crashes + (event.former === "died" ? 1 : 0);
  if (event.callBegun === false) return { ...call, hasBegun: false, isLingering: false };
  if (!call.hasBegun) return call.isLingering === true ? { ...call, crashes, isLingering: false } : call;
  // Stores of before don't say when an attempt that is made again begins. One that still has to wait counts as not made; but clocks
  // may be wrong, and prove nothing.
  if (event.callBegun === true && call.waitMs > 0) return { ...call, hasBegun: false, isUnknown: true };
  return {
    ...call,
    attempt: call.attempt + 1,
    hasBegun: event.callBegun === undefined,
    crashes,
    isUnknown: true,
  };
}

/** What is left to wait at a reading of the clock that its wait was counted on. */
export function waitedUntil<Call extends CurrentCall>(call: Call, atMs: number): Call {
  const waitedMs = Math.max(0, atMs - call.sinceMs);
  return { ...call, waitMs: Math.max(0, call.waitMs - waitedMs), elapsedMs: call.elapsedMs + waitedMs };
}

/** What people are told of the calls of a run; undefined for those of a rollback. */
export function attemptsOf({ status }: PausableState, { attempt, hasBegun }: CurrentCall): number | undefined {
  return status === "running" ? attempt - (hasBegun ? 0 : 1) : undefined;
}
