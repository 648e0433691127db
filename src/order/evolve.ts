/**
 * An order and its history. An order is nothing but the fold of its events: `evolve` is the only code that says what an
 * event does, for a live order as for one read back after a crash.
 *
 * 1. One event is one committed write is one revision, from 1, without gaps (guarantee G3).
 * 2. Times in an order never run backwards, whatever the clock did: an event that claims to be earlier than the one
 *    before it counts as simultaneous with it.
 * 3. Nothing follows a final event.
 * 4. What was asked of an order while a call was under way (pause, cancel) happens when that call has ended.
 * 5. Waits and deadlines are lengths, counted from the moment at which an event began them (`sinceMs`). That moment is a reading of the
 *    owner's clock at the time, as the event has it: what others make of it, only a takeover says (`formerAtMs`).
 * 6. A call has begun only if the record says so. The first call of a run or rollback begins with the event that leads to it; a call that
 *    is made again, or that had to wait, begins with `attempt_started`.
 */
import { attemptsOf, callAfterFailure, callAfterTakeover, firstCall, waitedUntil } from "./current-call.ts";
import type { CarriedStep, LaterEvent, OrderEvent } from "./events.ts";
import { type Ending, heldState, type Order, type OrderState, type PausableState, type StepRecord } from "./order.ts";
import { isFinal } from "./status.ts";
import { carriedStep, startedStep, withStep } from "./step-record.ts";

/** The order that the event `created` makes. */
export function createdOrder(orderId: string, event: Extract<OrderEvent, { kind: "created" }>): Order {
  const { atMs, carried = NO_STEPS, startAtMs, stepName } = event;
  const steps = carried.map((step) => carriedStep(step, atMs));
  const isLater = startAtMs !== undefined;
  if (!isLater) steps.push(startedStep(stepName, atMs));
  return {
    orderId,
    startTimeMs: atMs,
    changeTimeMs: atMs,
    owner: event.owner,
    revision: 1,
    state: isLater
      ? { status: "scheduled", startAtMs, stepName }
      : { status: "running", call: firstCall(carried.length, atMs) },
    asked: null,
    interventions: 0,
    steps,
    retryOf: event.retryOf ?? null,
  };
}

const NO_STEPS: readonly CarriedStep[] = [];

/**
 * The order after an event.
 * @throws Error when the event can't follow: the history is damaged or the caller is wrong
 */
export function evolve(order: Order, event: LaterEvent): Order {
  const next = evolved(order, event);
  const isByHand = "by" in event && event.by !== undefined;
  return isByHand ? { ...next, interventions: next.interventions + 1 } : next;
}

function evolved(order: Order, event: LaterEvent): Order {
  const { state } = order;
  const atMs = Math.max(event.atMs, order.changeTimeMs);
  switch (event.kind) {
    case "started": {
      if (state.status !== "scheduled") break;
      const steps = [...order.steps, startedStep(event.stepName, atMs)];
      return after(order, atMs, { status: "running", call: firstCall(order.steps.length, event.atMs) }, steps);
    }
    case "step_completed": {
      const stepIndex = stepToComplete(state);
      if (stepIndex === null || order.asked === "cancel") break;
      const { result, by } = event;
      const steps = withStep(order.steps, stepIndex, { completeTimeMs: atMs, result, by, outcome: "done" });
      if (event.nextStepName === null) return after(order, atMs, { status: "completed", completeTimeMs: atMs }, steps);
      steps.push(startedStep(event.nextStepName, atMs));
      return after(
        order,
        atMs,
        heldAgain(state, { status: "running", call: firstCall(stepIndex + 1, event.atMs) }),
        steps,
      );
    }
    case "step_waiting": {
      if (state.status !== "running" || order.asked === "cancel") break;
      const { stepIndex } = state.call;
      const steps = withStep(order.steps, stepIndex, { result: event.result });
      return after(order, atMs, { status: "waiting", stepIndex, sinceMs: event.atMs, limitMs: event.limitMs }, steps);
    }
    case "signal_received": {
      const at = state.status === "paused" ? state.held : state;
      if (at.status !== "running") break;
      const call = { ...at.call, signal: { result: event.result, by: event.by } };
      return during(order, atMs, heldAgain(state, { status: "running", call }), order.asked);
    }
    case "attempt_failed": {
      if ((state.status !== "running" && state.status !== "rolling_back") || order.asked === "cancel") break;
      const call = callAfterFailure(state.call, event);
      const steps = withStep(order.steps, call.stepIndex, { error: event.error, attempts: attemptsOf(state, call) });
      return after(order, atMs, { ...state, call }, steps);
    }
    case "attempt_queued":
    case "attempt_started": {
      const hasBegun = event.kind === "attempt_started";
      if ((state.status !== "running" && state.status !== "rolling_back") || state.call.hasBegun === hasBegun) break;
      // What has begun waits for nothing any more, whatever a clock says later.
      const { waitMs, isLingering = false } = state.call;
      const call = {
        ...state.call,
        hasBegun,
        waitMs: hasBegun ? 0 : waitMs,
        isLingering: isLingering && !hasBegun,
      };
      const steps = withStep(order.steps, call.stepIndex, { attempts: attemptsOf(state, call) });
      return { ...during(order, atMs, { ...state, call }, order.asked), steps };
    }
    case "set_aside": {
      if (state.status !== "running" && state.status !== "rolling_back") break;
      const isUnknown = state.call.isUnknown || state.call.hasBegun;
      const call = { ...state.call, hasBegun: false, isUnknown, isEndless: false };
      const { reason } = event;
      const steps = withStep(order.steps, call.stepIndex, { error: event.error });
      return {
        ...after({ ...order, asked: null }, atMs, { status: "set_aside", reason, held: { ...state, call } }, steps),
      };
    }
    case "retried": {
      if (state.status !== "set_aside") break;
      const { held } = state;
      const call = { ...held.call, crashes: 0, sinceMs: event.atMs, waitMs: 0, elapsedMs: 0 };
      return after(order, atMs, { ...held, call });
    }
    case "step_failed": {
      const at = state.status === "set_aside" ? state.held : state;
      const stepIndex = at.status === "running" ? at.call.stepIndex : at.status === "waiting" ? at.stepIndex : null;
      if (stepIndex === null || order.asked === "cancel") break;
      const { error, by, unknown } = event;
      const steps = withStep(order.steps, stepIndex, { error, by, outcome: unknown === true ? "unknown" : "not_done" });
      return after(order, atMs, rollback(event, { status: "failed", sinceMs: atMs }, atMs), steps);
    }
    case "step_rolled_back": {
      if (state.status !== "rolling_back") break;
      const steps = withStep(order.steps, state.call.stepIndex, { rollbackTimeMs: atMs });
      return after(order, atMs, rollback(event, state.ending, atMs), steps);
    }
    case "rollback_abandoned": {
      if (state.status !== "rolling_back") break;
      const { ending, call } = state;
      const steps = withStep(order.steps, call.stepIndex, { error: event.error });
      return after(order, atMs, { status: "rollback_incomplete", ending, stepIndex: call.stepIndex }, steps);
    }
    case "rollback_retried": {
      if (state.status !== "rollback_incomplete") break;
      return after(order, atMs, rollback({ ...event, rollbackIndex: state.stepIndex }, state.ending, atMs));
    }
    case "rollback_skipped": {
      const at = rollbackToSkip(state);
      if (at === null) break;
      const { by, reason: skipReason } = event;
      const steps = withStep(order.steps, at.stepIndex, { by, skipReason });
      return after(order, atMs, rollback(event, at.ending, atMs), steps);
    }
    case "cancel_requested":
      if (state.status !== "running" || order.asked === "cancel") break;
      return during(order, atMs, state, "cancel");
    case "canceled": {
      const at = heldState(state);
      if (at.status !== "scheduled" && at.status !== "running" && at.status !== "waiting") break;
      if (order.asked === "cancel") break;
      const ending = { status: "canceled", sinceMs: atMs } as const;
      const steps = at.status === "scheduled" ? order.steps : endedStep(order.steps, at);
      // It outweighs a pause that was asked for.
      return after({ ...order, asked: null }, atMs, rollback(event, ending, atMs), steps);
    }
    case "step_canceled": {
      if (state.status !== "running" || order.asked !== "cancel") break;
      const ending = { status: "canceled", sinceMs: atMs } as const;
      const { outcome, result, error } = event;
      const completeTimeMs = outcome === "done" ? atMs : undefined;
      const steps = withStep(order.steps, state.call.stepIndex, { outcome, result, error, completeTimeMs });
      return { ...after(order, atMs, rollback(event, ending, atMs), steps), asked: null };
    }
    case "pause_requested":
      if ((state.status !== "running" && state.status !== "rolling_back") || order.asked !== null) break;
      return during(order, atMs, state, "pause");
    case "paused":
      if (!isPausable(state) || order.asked === "cancel") break;
      return { ...after(order, atMs, { status: "paused", held: state }), asked: null };
    case "resumed":
      // One that was still to be paused goes on as if nothing had been asked.
      if (order.asked === "pause") return during(order, atMs, state, null);
      if (state.status !== "paused") break;
      return resumed(order, resumedState(state.held, event.atMs), atMs);
    case "owner_changed":
      if (isFinal(state.status)) break;
      return ownerChanged(order, event, atMs);
  }
  throw new Error(`order ${order.orderId}: ${event.kind} can't follow revision ${order.revision} (${state.status})`);
}

/**
 * The order that a whole history makes.
 * @throws Error when the history can't be one
 */
export function replay(orderId: string, history: readonly OrderEvent[]): Order {
  let order: Order | null = null;
  for (const event of history) {
    if (event.kind === "created") {
      if (order !== null) throw new Error(`order ${orderId}: created twice`);
      order = createdOrder(orderId, event);
    } else {
      if (order === null) throw new Error(`order ${orderId}: its history does not begin with its creation`);
      order = evolve(order, event);
    }
  }
  if (order === null) throw new Error(`order ${orderId}: its history is empty`);
  return order;
}

function isPausable(state: OrderState): state is PausableState {
  const { status } = state;
  return status === "scheduled" || status === "running" || status === "waiting" || status === "rolling_back";
}

/** The next order. A pause that was asked for happens where the next state can be paused. */
function after(order: Order, atMs: number, to: OrderState, steps: readonly StepRecord[] = order.steps): Order {
  const pauses = order.asked === "pause";
  const state: OrderState = pauses && isPausable(to) ? { status: "paused", held: to } : to;
  return {
    orderId: order.orderId,
    startTimeMs: order.startTimeMs,
    changeTimeMs: atMs,
    owner: order.owner,
    revision: order.revision + 1,
    state,
    asked: pauses ? null : order.asked,
    interventions: order.interventions,
    steps: state.status === "paused" ? withoutCall(steps, state.held) : steps,
    retryOf: order.retryOf,
  };
}

/** The call that a paused order is at has not begun: the pause came first. */
function withoutCall(steps: readonly StepRecord[], held: PausableState): readonly StepRecord[] {
  return held.status === "running" ? withStep(steps, held.call.stepIndex, { attempts: held.call.attempt - 1 }) : steps;
}

/** The call that the pause came before begins with it, if it has not waited. */
function resumed(order: Order, to: PausableState, atMs: number): Order {
  const { steps } = order;
  return after(
    order,
    atMs,
    to,
    to.status === "running" ? withStep(steps, to.call.stepIndex, { attempts: attemptsOf(to, to.call) }) : steps,
  );
}

/** The next order, while its call goes on: what was asked still waits for that. */
function during(order: Order, atMs: number, state: OrderState, asked: Order["asked"]): Order {
  return { ...order, changeTimeMs: atMs, revision: order.revision + 1, state, asked };
}

/** The time of a pause does not count against the deadline of its call's retries, but it does count as a wait. */
function resumedState(held: PausableState, atMs: number): PausableState {
  if (held.status !== "running" && held.status !== "rolling_back") return held;
  return { ...held, call: { ...waitedUntil(held.call, atMs), sinceMs: atMs, elapsedMs: 0 } };
}

/** The step that `step_completed` completes, or null. */
function stepToComplete(state: OrderState): number | null {
  if (state.status === "running") return state.call.stepIndex;
  const held = heldState(state);
  if (held.status === "waiting") return held.stepIndex;
  return state.status === "set_aside" && held.status === "running" ? held.call.stepIndex : null;
}

/** The rollback that `rollback_skipped` leaves out, or null. */
function rollbackToSkip(state: OrderState): { readonly stepIndex: number; readonly ending: Ending } | null {
  if (state.status === "rollback_incomplete") return state;
  if (state.status !== "set_aside" || state.held.status !== "rolling_back") return null;
  return { stepIndex: state.held.call.stepIndex, ending: state.held.ending };
}

/** A paused order stays paused, whatever is recorded meanwhile. */
function heldAgain(before: OrderState, to: PausableState): OrderState {
  return before.status === "paused" ? { status: "paused", held: to } : to;
}

function ownerChanged(order: Order, event: Extract<OrderEvent, { kind: "owner_changed" }>, atMs: number): Order {
  const state = onNewClock(order.state, event);
  // What was asked is left to the new owner: stores that change an owner by themselves don't know of it, nor change the status.
  const taken = { ...during(order, atMs, state, order.asked), owner: event.owner };
  const isTakenOver = event.owner !== order.owner; // or its own owner's clock was set
  if (!isTakenOver || (state.status !== "running" && state.status !== "rolling_back")) return taken;
  const call = callAfterTakeover(state.call, event);
  const steps = withStep(order.steps, call.stepIndex, { attempts: attemptsOf(state, call) });
  return { ...taken, state: { ...state, call }, steps };
}

/** What was counted on the former owner's clock, on that of the new one (invariant 5). */
function onNewClock<State extends OrderState>(
  state: State,
  event: Extract<OrderEvent, { kind: "owner_changed" }>,
): State {
  const { atMs, formerAtMs = atMs } = event;
  switch (state.status) {
    case "paused":
    case "set_aside":
      return { ...state, held: onNewClock(state.held, event) };
    case "running":
    case "rolling_back":
      return { ...state, call: { ...waitedUntil(state.call, formerAtMs), sinceMs: atMs } };
    case "waiting": {
      const { sinceMs, limitMs } = state;
      const waitedMs = Math.max(0, formerAtMs - sinceMs);
      return { ...state, sinceMs: atMs, limitMs: limitMs === null ? null : Math.max(0, limitMs - waitedMs) };
    }
    default:
      return state;
  }
}

/** The steps after the present one was ended from outside: what a call that broke off has done isn't known. */
function endedStep(
  steps: readonly StepRecord[],
  at: Extract<PausableState, { status: "running" | "waiting" }>,
): readonly StepRecord[] {
  const [stepIndex, isUnknown] =
    at.status === "running" ? [at.call.stepIndex, at.call.isUnknown] : [at.stepIndex, false];
  return withStep(steps, stepIndex, { outcome: isUnknown ? "unknown" : "not_done" });
}

/** What follows when the order is to be rolled back, from `rollbackIndex` on. */
function rollback(
  { rollbackIndex, atMs: sinceMs }: { readonly rollbackIndex: number | null; readonly atMs: number },
  ending: Ending,
  atMs: number,
): OrderState {
  return rollbackIndex === null
    ? { status: ending.status, ending, completeTimeMs: atMs }
    : { status: "rolling_back", ending, call: firstCall(rollbackIndex, sinceMs) };
}
