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
 * Which action each status allows, and what it does: actions.ts.
 *
 * Pure: the time and the die come in with the outcome.
 */
import type { CurrentCall, Incarnation, JsonText, LaterEvent, Order, OrderEvent, CarriedStep } from "./order.ts";
import type { Pipeline, Step } from "./pipeline.ts";
import { retryDelayMs, unlimitedRetryDelayMs } from "./retry.ts";

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
      /** The shortest wait that the receiver asks for, or null. */
      readonly retryAfterMs: number | null;
      /** From 0 (inclusive) to 1, for the jitter of the retry. */
      readonly random: number;
    };

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
    const { error } = outcome;
    const delayMs = outcome.permanent
      ? null
      : retryDelayMs(stepAt(pipeline, stepIndex).rollbackRetry, failureOf(state.call, outcome));
    return delayMs === null
      ? { kind: "rollback_abandoned", atMs, error }
      : { kind: "attempt_failed", atMs, error, retryAtMs: atMs + delayMs };
  }
  if (state.status !== "running") throw new Error(`order ${order.orderId} is ${state.status}: no call of it can end`);
  const { call } = state;
  if (order.asked === "cancel") return decideStepCanceled(order, pipeline, outcome);
  if (outcome.kind === "succeeded") return runSucceeded(pipeline, call, outcome);
  const { error } = outcome;
  const isUnknown = outcome.unknown || (call.isUnknown && !outcome.formerNotDone);
  const { retry } = stepAt(pipeline, call.stepIndex);
  const failure = failureOf(call, outcome);
  const mayFail = !isCommitted(pipeline, call.stepIndex, isUnknown);
  const delayMs = !mayFail
    ? unlimitedRetryDelayMs(retry, failure)
    : outcome.permanent
      ? null
      : retryDelayMs(retry, failure);
  const unknown = isUnknown ? { unknown: true as const } : {};
  return delayMs === null
    ? { kind: "step_failed", atMs, error, rollbackIndex: lastToRollBack(pipeline, call.stepIndex), ...unknown }
    : { kind: "attempt_failed", atMs, error, retryAtMs: atMs + delayMs, ...unknown };
}

/** The event by which a cancellation goes on when the call that it waited for has ended, or (null) was cut short. */
export function decideStepCanceled(order: Order, pipeline: Pipeline, outcome: CallOutcome | null): LaterEvent {
  const { state } = order;
  if (state.status !== "running") throw new Error(`order ${order.orderId} is ${state.status}, and not to be canceled`);
  const { stepIndex, isUnknown } = state.call;
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
  const what = outcome.unknown || (isUnknown && !outcome.formerNotDone) ? "unknown" : "not_done";
  return { kind, atMs, rollbackIndex, outcome: what, error: outcome.error };
}

/** The event that follows when a waiting step's deadline has passed. */
export function decideTooLate(order: Order, pipeline: Pipeline, atMs: number): LaterEvent {
  const { state } = order;
  if (state.status !== "waiting") throw new Error(`order ${order.orderId} is ${state.status}, and waits for no signal`);
  const waitedMs = (state.deadlineMs ?? atMs) - state.sinceMs;
  const error = `no signal came within ${waitedMs} ms`;
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
    deadlineMs: wait.deadlineMs === null ? null : atMs + wait.deadlineMs,
    ...(result === null ? {} : { result }),
  };
}

function failureOf(
  call: CurrentCall,
  { atMs, retryAfterMs, random }: Extract<CallOutcome, { kind: "failed" }>,
): Parameters<typeof retryDelayMs>[1] {
  return {
    failures: call.failures + 1,
    elapsedMs: atMs - call.sinceMs,
    askedDelayMs: retryAfterMs,
    random,
  };
}
