/** Steps that have started, as evolve.ts records them. */
import type { CarriedStep } from "./events.ts";
import type { StepRecord } from "./order.ts";

/** A step that has just started. */
export function startedStep(name: string, startTimeMs: number): StepRecord {
  return {
    name,
    startTimeMs,
    completeTimeMs: null,
    rollbackTimeMs: null,
    attempts: 1,
    error: null,
    result: null,
    outcome: null,
    by: null,
    skipReason: null,
  };
}

/** A step whose work another order did. */
export function carriedStep({ stepName, result }: CarriedStep, atMs: number): StepRecord {
  return { ...startedStep(stepName, atMs), completeTimeMs: atMs, attempts: 0, result, outcome: "done" };
}

/** What is undefined stays. */
type StepChange = { readonly [Field in keyof StepRecord]?: StepRecord[Field] | undefined };

/**
 * The steps, one of them changed.
 * @throws Error when it has not started
 */
export function withStep(steps: readonly StepRecord[], index: number, change: StepChange): StepRecord[] {
  const step = steps[index];
  if (step === undefined) throw new Error(`step ${index} has not started`);
  const changed = steps.slice();
  // Field by field, as this runs at every transition: a spread of two objects costs several times as much.
  changed[index] = {
    name: step.name,
    startTimeMs: step.startTimeMs,
    completeTimeMs: change.completeTimeMs === undefined ? step.completeTimeMs : change.completeTimeMs,
    rollbackTimeMs: change.rollbackTimeMs === undefined ? step.rollbackTimeMs : change.rollbackTimeMs,
    attempts: change.attempts ?? step.attempts,
    error: change.error === undefined ? step.error : change.error,
    result: change.result === undefined ? step.result : change.result,
    outcome: change.outcome === undefined ? step.outcome : change.outcome,
    by: change.by === undefined ? step.by : change.by,
    skipReason: change.skipReason === undefined ? step.skipReason : change.skipReason,
  };
  return changed;
}
