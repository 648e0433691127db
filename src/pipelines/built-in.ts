/** The pipeline that a node runs when it is given none: four steps that simulate work. */
import { setTimeout as delay } from "node:timers/promises";
import type { BodyFinding, JsonObject, Pipeline, StepContext } from "../order/pipeline.ts";
import { permanent } from "../order/step-error.ts";
import { buildPipeline } from "./define-pipeline.ts";

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

/** How long a step may take beyond the time that it is to take. */
const TIMEOUT_MARGIN_MS = 60_000;

const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/** Each step waits, then fails if the order's body says `{"fail_at":"<step name>"}`, or by chance. A rollback does nothing. */
export function builtInPipeline({ stepTimeMs, failureRate, random }: BuiltInOptions): Pipeline {
  const outcome = (stepName: string, context: StepContext): void => {
    if (context.body["fail_at"] === stepName) throw permanent(`the order asks to fail at ${stepName}`);
    if (failureRate > 0 && random() < failureRate) throw permanent("failed by chance (--failure-rate)");
  };
  const pipeline = buildPipeline({
    name: "default",
    version: 1,
    steps: BUILT_IN_STEPS.map((name) => ({
      name,
      timeout: Math.min(stepTimeMs + TIMEOUT_MARGIN_MS, TIMEOUT_MS_MAX),
      run: (context: StepContext) =>
        stepTimeMs === 0 ? outcome(name, context) : delay(stepTimeMs).then(() => outcome(name, context)),
      rollback: () => undefined,
    })),
  });
  return { ...pipeline, checkBody };
}

/** A step that is misspelt would fail nowhere, and nobody would know why. */
function checkBody(body: JsonObject): BodyFinding {
  const failAt = body["fail_at"];
  if (failAt === undefined || (typeof failAt === "string" && BUILT_IN_STEPS.includes(failAt))) {
    return { kind: "accepted", body };
  }
  const message = `must be the name of a step: ${BUILT_IN_STEPS.join(", ")}`;
  return { kind: "refused", issues: [{ pointer: "/fail_at", message }] };
}
