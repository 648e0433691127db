/** The pipeline that a node runs when it is given none: four steps that simulate work. */
import { setTimeout as delay } from "node:timers/promises";
import { definePipeline, PermanentError, type Pipeline, type StepContext } from "../order/pipeline.ts";

export interface BuiltInOptions {
  /** How long each step takes. */
  readonly stepTimeMs: number;
  /** The share of steps that fail, 0 to 1. */
  readonly failureRate: number;
  /** From 0 (inclusive) to 1. */
  readonly random: () => number;
}

/** Its steps, in their order. */
export const BUILT_IN_STEPS: readonly string[] = ["Scheduling", "Pre-Processing", "Processing", "Post-Processing"];

/** Each step waits, then fails if the order's body says `{"fail_at":"<step name>"}`, or by chance. A rollback does nothing. */
export function builtInPipeline({ stepTimeMs, failureRate, random }: BuiltInOptions): Pipeline {
  const outcome = (stepName: string, context: StepContext): void => {
    if (context.body["fail_at"] === stepName) throw new PermanentError(`the order asks to fail at ${stepName}`);
    if (failureRate > 0 && random() < failureRate) throw new PermanentError("failed by chance (--failure-rate)");
  };
  return definePipeline({
    name: "default",
    version: 1,
    steps: BUILT_IN_STEPS.map((name) => ({
      name,
      run: (context) =>
        stepTimeMs === 0 ? outcome(name, context) : delay(stepTimeMs).then(() => outcome(name, context)),
      rollback: () => undefined,
    })),
  });
}
