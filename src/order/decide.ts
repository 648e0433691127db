/**
 * An order's whole life on one screen: what happens next when a call has ended.
 *
 *                     succeeded (last step)
 *     running ──────────────────────────────────────► completed
 *        │ failed for good                               (final)
 *        ▼          succeeded (first step)
 *     rolling_back ─────────────────────────────────► failed
 *        │ failed for good                               (final)
 *        ▼
 *     rollback_incomplete   (waits for an operator)
 *
 * Pure: the time and the die come in with the outcome.
 */
import type { Incarnation, Order, OrderEvent } from "./order.ts";
import type { Pipeline, StepDefinition } from "./pipeline.ts";
import { DEFAULT_RETRY, retryDelayMs } from "./retry.ts";

/** How a call of a step's run or rollback ended. */
export type CallOutcome =
  | { readonly kind: "succeeded"; readonly atMs: number }
  | {
      readonly kind: "failed";
      readonly atMs: number;
      readonly error: string;
      /** Another attempt can't help. */
      readonly permanent: boolean;
      /** From 0 (inclusive) to 1, for the jitter of the retry. */
      readonly random: number;
    };

/** The event that begins an order's life: it exists, and its first step has started. */
export function decideCreation(
  pipeline: Pipeline,
  owner: Incarnation,
  atMs: number,
): Extract<OrderEvent, { kind: "created" }> {
  return { kind: "created", atMs, owner, stepName: stepAt(pipeline, 0).name };
}

/**
 * The event that follows when the order's current call has ended.
 * @throws Error when the order is at no call: the caller is wrong
 */
export function decide(
  order: Order,
  pipeline: Pipeline,
  outcome: CallOutcome,
): Exclude<OrderEvent, { kind: "created" | "owner_changed" }> {
  const { state } = order;
  const { atMs } = outcome;
  if (state.status !== "running" && state.status !== "rolling_back") {
    throw new Error(`order ${order.orderId} is ${state.status}: no call of it can end`);
  }
  const { stepIndex, failures } = state.call;

  if (outcome.kind === "succeeded") {
    return state.status === "running"
      ? { kind: "step_completed", atMs, nextStepName: pipeline.steps[stepIndex + 1]?.name ?? null }
      : { kind: "step_rolled_back", atMs, rollbackIndex: lastToRollBack(pipeline, stepIndex - 1) };
  }

  const { error } = outcome;
  const policy = stepAt(pipeline, stepIndex).retry ?? DEFAULT_RETRY;
  const delayMs = outcome.permanent ? null : retryDelayMs(policy, failures + 1, outcome.random);
  if (delayMs !== null) return { kind: "attempt_failed", atMs, error, retryAtMs: atMs + delayMs };
  return state.status === "running"
    ? { kind: "step_failed", atMs, error, rollbackIndex: lastToRollBack(pipeline, stepIndex) }
    : { kind: "rollback_abandoned", atMs, error };
}

/** The last step, not after `from`, that has something to undo. */
function lastToRollBack(pipeline: Pipeline, from: number): number | null {
  for (let index = from; index >= 0; index--) {
    if (stepAt(pipeline, index).rollback !== undefined) return index;
  }
  return null;
}

function stepAt(pipeline: Pipeline, index: number): StepDefinition {
  const step = pipeline.steps[index];
  if (step === undefined) throw new Error(`pipeline ${pipeline.name} v${pipeline.version} has no step ${index}`);
  return step;
}
