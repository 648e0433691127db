/**
 * An order's whole life on one screen: what happens next when a call has ended, or when somebody asks for something.
 *
 *     scheduled ──its time──► running ◄──────────────► waiting
 *                                │ │       signal         │ too late
 *                                │ └─last step──► completed (final)
 *                                │ failed for good, canceled
 *                                ▼
 *                          rolling_back ──first step──► failed, canceled (final)
 *                                │ failed for good
 *                                ▼
 *                          rollback_incomplete   (waits for an operator: retry, skip)
 *
 *     scheduled, running, waiting and rolling_back can be paused; resumed, they are what they were.
 *
 * A step that is a commit is the point of no return: when it is done, nothing after it fails for good, and nobody can cancel.
 *
 *     running, rolling_back ──its calls ended their nodes, or nobody knows whether a commit was made──► set_aside
 *     set_aside   (waits for an operator: retry, cancel, skip, complete)
 *
 * Which action each status allows, and what it does: actions.ts.
 *
 * Pure: the time and the die come in with the outcome.
 */
import type { CarriedStep, Incarnation, JsonText, LaterEvent, OrderEvent } from "./events.ts";
import { type CurrentCall, currentCall, type Order } from "./order.ts";
import type { Pipeline, Step } from "./pipeline.ts";
import { retryDelayMs, type RetryPolicy, SHORTAGE_RETRY, unlimitedRetryDelayMs } from "./retry.ts";

/** How a call of a step's run or rollback ended. */
export type CallOutcome =
  | { readonly kind: "succeeded"; readonly atMs: number; readonly result: JsonText | null }
  | {
      readonly kind: "failed";
      readonly atMs: number;
      readonly error: string;
      /** Another attempt can't help. */
      readonly permanent: boolean;
      /** What this attempt did is not known. */
      readonly unknown: boolean;
      /** Before this attempt it was found out that those before it had done nothing. */
      readonly formerNotDone: boolean;
      /** It failed for a shortage of the node's own, and does not count. */
      readonly shortage: boolean;
      /** Its time was over, and its code goes on. */
      readonly lingers: boolean;
      /** The shortest wait that the receiver asks for, or null. */
      readonly retryAfterMs: number | null;
      /** Since the first attempt could begin. */
      readonly elapsedMs: number;
      /** From 0 (inclusive) to 1, for the jitter of the retry. */
      readonly random: number;
    };

type FailedCall = Extract<CallOutcome, { readonly kind: "failed" }>;

/** What may be said when an order is made. */
export interface CreationOptions {
  readonly startAtMs?: number;
  /** The order that this one is made again from, and the steps of it that it goes on from. */
  readonly retry?: { readonly orderId: string; readonly by: string; readonly carried: readonly CarriedStep[] };
}

/** The event that begins an order's life: it exists, and its first step has started, unless it is to start later. */
export function decideCreation(
  pipeline: Pipeline,
  owner: Incarnation,
  atMs: number,
  { startAtMs, retry }: CreationOptions = {},
): Extract<OrderEvent, { kind: "created" }> {
  const carried = retry?.carried ?? [];
  return {
    kind: "created",
    atMs,
    owner,
    stepName: stepAt(pipeline, carried.length).name,
    ...(startAtMs === undefined || startAtMs <= atMs ? {} : { startAtMs }),
    ...(retry === undefined ? {} : { retryOf: retry.orderId, by: retry.by }),
    ...(carried.length === 0 ? {} : { carried }),
  };
}

/**
 * The event that follows when the order's current call has ended.
 * @throws Error when the order is at no call: the caller is wrong
 */
export function decide(order: Order, pipeline: Pipeline, outcome: CallOutcome): LaterEvent {
  const { state } = order;
  const { atMs } = outcome;
  if (state.status === "rolling_back") {
    const { stepIndex } = state.call;
    if (outcome.kind === "succeeded") {
      return { kind: "step_rolled_back", atMs, rollbackIndex: lastToRollBack(pipeline, stepIndex - 1) };
    }
    const { rollbackRetry } = stepAt(pipeline, stepIndex);
    return (
      nextAttempt(state.call, rollbackRetry, outcome, { mayGiveUp: true }) ?? {
        kind: "rollback_abandoned",
        atMs,
        error: outcome.error,
      }
    );
  }
  if (state.status !== "running") throw new Error(`order ${order.orderId} is ${state.status}: no call of it can end`);
  const { call } = state;
  if (order.asked === "cancel") return decideStepCanceled(order, pipeline, outcome);
  if (outcome.kind === "succeeded") return runSucceeded(pipeline, call, outcome);
  const { error } = outcome;
  const { retry } = stepAt(pipeline, call.stepIndex);
  const isUnknown = isUnknownAfter(call, outcome);
  const mayGiveUp = !isCommitted(pipeline, call.stepIndex, isUnknown);
  if (isUnknown && isUndecidable(pipeline, call, outcome)) {
    return { kind: "set_aside", atMs, reason: "unknown_commit", error };
  }
  const again = nextAttempt(call, retry, outcome, { mayGiveUp });
  const unknown = isUnknown ? { unknown: true as const } : {};
  return again === null
    ? { kind: "step_failed", atMs, error, rollbackIndex: lastToRollBack(pipeline, call.stepIndex), ...unknown }
    : { ...again, ...unknown };
}

/**
 * Whether the step that the order is at has failed for good, and is only asked about further as nobody knows whether it was done: if it
 * was not, that is its end.
 */
export function isOverIfNotDone(order: Order, pipeline: Pipeline): boolean {
  const call = currentCall(order);
  if (call === null || order.state.status !== "running" || isCommitted(pipeline, call.stepIndex, false)) return false;
  return call.isEndless && call.shortages === 0;
}

/** Calls that ended their nodes so often end no more of them: then the order is set aside. */
export function decideCrashed(order: Order, crashesMax: number, atMs: number): LaterEvent | null {
  const call = currentCall(order);
  return call !== null && call.crashes >= crashesMax ? { kind: "set_aside", atMs, reason: "crashes" } : null;
}

/**
 * Whether a step that is the point of no return has failed for good while nobody knows whether an attempt of it was done, and nothing can
 * find that out: `verify` was asked, or there is none. A step past that point is no question: it must be done in either case.
 */
function isUndecidable(pipeline: Pipeline, call: CurrentCall, { permanent, unknown }: FailedCall): boolean {
  const step = stepAt(pipeline, call.stepIndex);
  const canBeVerified = step.verify !== undefined && (!call.isUnknown || unknown);
  return permanent && step.isCommit && !isCommitted(pipeline, call.stepIndex, false) && !canBeVerified;
}

function isUnknownAfter(call: CurrentCall, { unknown, formerNotDone }: FailedCall): boolean {
  return unknown || (call.isUnknown && !formerNotDone);
}

/** So many shortages in a row are no hiccup: a person should see that. */
const SHORTAGES_IN_A_ROW = 10;

/** The event by which a failed attempt is made again; null: it is given up. */
function nextAttempt(
  call: CurrentCall,
  policy: RetryPolicy,
  { atMs, error, permanent, shortage, lingers, retryAfterMs, elapsedMs, random }: FailedCall,
  { mayGiveUp }: { readonly mayGiveUp: boolean },
): Extract<LaterEvent, { kind: "attempt_failed" }> | null {
  const failed = { elapsedMs, askedDelayMs: retryAfterMs, random };
  const common = { kind: "attempt_failed", atMs, error, elapsedMs, ...(lingers ? { lingers } : {}) } as const;
  if (shortage) {
    const shortages = call.shortages + 1;
    const delayMs = unlimitedRetryDelayMs(SHORTAGE_RETRY, { ...failed, failures: shortages });
    return { ...common, delayMs, shortage, ...(shortages >= SHORTAGES_IN_A_ROW ? { endless: true } : {}) };
  }
  const failure = { ...failed, failures: call.failures + 1 };
  const delayMs = permanent ? null : retryDelayMs(policy, failure);
  if (delayMs !== null) return { ...common, delayMs };
  return mayGiveUp ? null : { ...common, delayMs: unlimitedRetryDelayMs(policy, failure), endless: true };
}

/** The event by which a cancellation goes on when the call that it waited for has ended, or (null) was cut short. */
export function decideStepCanceled(order: Order, pipeline: Pipeline, outcome: CallOutcome | null): LaterEvent {
  const { state } = order;
  if (state.status !== "running") throw new Error(`order ${order.orderId} is ${state.status}, and not to be canceled`);
  const { stepIndex } = state.call;
  const rollbackIndex = lastToRollBack(pipeline, stepIndex);
  const kind = "step_canceled";
  if (outcome === null) return { kind, atMs: order.changeTimeMs, rollbackIndex, outcome: "unknown" };
  const { atMs } = outcome;
  if (outcome.kind === "succeeded") {
    return {
      kind,
      atMs,
      rollbackIndex,
      outcome: "done",
      ...(outcome.result === null ? {} : { result: outcome.result }),
    };
  }
  const what = isUnknownAfter(state.call, outcome) ? "unknown" : "not_done";
  return { kind, atMs, rollbackIndex, outcome: what, error: outcome.error };
}

/** The event that follows when a waiting step's deadline has passed. */
export function decideTooLate(order: Order, pipeline: Pipeline, atMs: number): LaterEvent {
  const { state } = order;
  if (state.status !== "waiting") throw new Error(`order ${order.orderId} is ${state.status}, and waits for no signal`);
  const error = `no signal came within ${stepAt(pipeline, state.stepIndex).wait?.deadlineMs ?? 0} ms`;
  return { kind: "step_failed", atMs, error, rollbackIndex: lastToRollBack(pipeline, state.stepIndex) };
}

/** The event by which a step ends well, and the next one starts. */
export function completion(
  pipeline: Pipeline,
  stepIndex: number,
  atMs: number,
  result: JsonText | null,
  by?: string,
): LaterEvent {
  return {
    kind: "step_completed",
    atMs,
    nextStepName: pipeline.steps[stepIndex + 1]?.name ?? null,
    ...(result === null ? {} : { result }),
    ...(by === undefined ? {} : { by }),
  };
}

/** The last step, not after `from`, that has something to undo. */
export function lastToRollBack(pipeline: Pipeline, from: number): number | null {
  for (let index = from; index >= 0; index--) {
    if (stepAt(pipeline, index).rollback !== undefined) return index;
  }
  return null;
}

/** Whether the order can't be rolled back any more: a step before this one is a commit, or this one, and it may be done. */
export function isCommitted(pipeline: Pipeline, stepIndex: number, mayBeDone: boolean): boolean {
  const last = mayBeDone ? stepIndex : stepIndex - 1;
  for (let index = 0; index <= last; index++) if (pipeline.steps[index]?.isCommit === true) return true;
  return false;
}

/** @throws Error when there is no such step: the order is of another pipeline */
export function stepAt(pipeline: Pipeline, index: number): Step {
  const step = pipeline.steps[index];
  if (step === undefined) throw new Error(`pipeline ${pipeline.name} v${pipeline.version} has no step ${index}`);
  return step;
}

function runSucceeded(
  pipeline: Pipeline,
  { stepIndex, signal }: CurrentCall,
  { atMs, result }: Extract<CallOutcome, { kind: "succeeded" }>,
): LaterEvent {
  const { wait } = stepAt(pipeline, stepIndex);
  if (wait === null) return completion(pipeline, stepIndex, atMs, result);
  if (signal !== null) return completion(pipeline, stepIndex, atMs, signal.result, signal.by);
  return {
    kind: "step_waiting",
    atMs,
    limitMs: wait.deadlineMs,
    ...(result === null ? {} : { result }),
  };
}
