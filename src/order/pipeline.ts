/**
 * What a pipeline is: a named, versioned list of steps, as a value. The engine runs whatever pipeline it is given.
 */
import type { RetryPolicy } from "./retry.ts";

/** A JSON object, as an order's body is. */
export type JsonObject = { readonly [key: string]: unknown };

/** What a step's `run` and `rollback` are given. Fresh for each attempt: what an attempt does to it, no other sees. */
export interface StepContext {
  /** The order this attempt belongs to. */
  readonly order: { readonly orderId: string; readonly user: string };
  /** The order's body, parsed anew for each attempt. */
  readonly body: JsonObject;
  /** Which call of this run or rollback it is, from 1. */
  readonly attempt: number;
  /** The same for all attempts of this run (or rollback), on whatever node: a receiver that honours it acts once. */
  readonly idempotencyKey: string;
  /** Aborts when the attempt times out or the node gives it up. */
  readonly signal: AbortSignal;
}

/** One unit of work and, where it can be undone, its undoing. */
export interface StepDefinition {
  /** Unique in its pipeline; shown to users. */
  readonly name: string;
  /** Does the work. Returning (or resolving) is success; throwing is failure, for good if it throws PermanentError. */
  run(context: StepContext): unknown;
  /** Undoes the work, also work that was only partly done. Absent: there is nothing to undo. */
  rollback?(context: StepContext): unknown;
  /** How run and rollback are retried. Default: DEFAULT_RETRY. */
  readonly retry?: RetryPolicy;
  /** An attempt that takes longer counts as failed. Absent: no limit. */
  readonly timeoutMs?: number;
}

/** A named list of steps. Make it with definePipeline. */
export interface Pipeline {
  readonly name: string;
  readonly version: number;
  readonly steps: readonly StepDefinition[];
}

/** Thrown by a step to say that another attempt can't help. */
export class PermanentError extends Error {
  override readonly name = "PermanentError";
}

/** Names that the order's view uses for its ends; no step may have them. */
const RESERVED_STEP_NAMES: ReadonlySet<string> = new Set(["Completed", "Failed"]);

/**
 * Checks a pipeline and returns it frozen.
 * @throws TypeError naming the pipeline and what is wrong with it
 */
export function definePipeline(pipeline: Pipeline): Pipeline {
  const fail = (what: string): never => {
    throw new TypeError(`pipeline "${pipeline.name}": ${what}`);
  };
  if (pipeline.name === "") fail("the name is empty");
  if (!Number.isInteger(pipeline.version) || pipeline.version < 1) fail("the version is not a whole number from 1");
  if (pipeline.steps.length === 0) fail("it has no steps");
  const names = new Set<string>();
  for (const { name } of pipeline.steps) {
    if (name === "") fail("a step has an empty name");
    if (RESERVED_STEP_NAMES.has(name)) fail(`"${name}" is the name of an order's end, not of a step`);
    if (names.has(name)) fail(`two steps are named "${name}"`);
    names.add(name);
  }
  return Object.freeze({ ...pipeline, steps: Object.freeze([...pipeline.steps]) });
}

/** The key that all attempts of one run or rollback carry (guarantee G4). */
export function idempotencyKey(orderId: string, stepName: string, direction: "run" | "rollback"): string {
  return `${orderId}:${stepName}:${direction}`;
}
