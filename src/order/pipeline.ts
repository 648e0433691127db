/**
 * What a pipeline is: a named, versioned list of steps, as a value. The engine runs whatever pipeline it is given. People write
 * theirs with definePipeline (pipelines/define-pipeline.ts) or in YAML; this is what both become.
 */
import { DEFAULT_RETRY, DEFAULT_ROLLBACK_RETRY, type RetryPolicy } from "./retry.ts";

/** A JSON object, as an order's body is. */
export type JsonObject = { readonly [key: string]: unknown };

/** Lines for the service's log, with the order and the step beside them. */
export interface StepLog {
  debug(message: string): void;
  info(message: string): void;
  warn(message: string): void;
  error(message: string): void;
}

/** What a step's functions are given. Fresh for each attempt: what an attempt does to it, no other sees. */
export interface StepContext<Body = JsonObject, Results = JsonObject> {
  /** The order this attempt belongs to. */
  readonly order: { readonly orderId: string; readonly user: string };
  /** The step that is called. */
  readonly stepName: string;
  /** The order's body, parsed anew for each attempt. */
  readonly body: Body;
  /** What the steps before this one have returned, by their names. */
  readonly results: Results;
  /** Which call of this run or rollback it is, from 1. */
  readonly attempt: number;
  /** The same for all attempts of this run (or rollback), on whatever node: a receiver that honours it acts once. */
  readonly idempotencyKey: string;
  /**
   * Grows with every call of the order, on whatever node: a receiver that has seen a higher one can refuse this call, which has been given
   * up since.
   */
  readonly fence: number;
  /** Aborts when the attempt times out, the order is canceled or the node gives it up. */
  readonly signal: AbortSignal;
  readonly log: StepLog;
}

/** What a rollback is given. */
export interface RollbackContext<Body = JsonObject, Results = JsonObject, Result = unknown> extends StepContext<
  Body,
  Results
> {
  /** What the step's own run has returned; undefined where it did not complete, or returned nothing. */
  readonly result: Result | undefined;
}

/** What is found out about work that may have been done. */
export type Verification = { readonly done: true; readonly result?: unknown } | { readonly done: false };

/** How many calls of a step may be under way at once: on each node, or together on all nodes of the cluster. */
export interface ConcurrencyLimit {
  readonly scope: "node" | "cluster";
  readonly callsMax: number;
}

/** A call's context for pipelines of our own making, which say what they keep in memory; a step's author does not see it. */
export interface MeteredCall {
  /** Characters of the body and the results that the call is given. */
  readonly givenChars: number;
  /** From now on the call keeps so many bytes until it ends, and nothing of what it was given. */
  keepsOnly(bytes: number): void;
}

/** How many characters a request may have, beside its file's own words, that is made of so many of an order. */
export function requestCharsMax(givenChars: number): number {
  return 64 * 1024 + 4 * givenChars;
}

/** One unit of work and, where it can be undone, its undoing. */
export interface Step {
  /** Unique in its pipeline; shown to users. */
  readonly name: string;
  /** Does the work. Returning (or resolving) is success; throwing is failure, for good if it throws `permanent(…)`. */
  run(context: StepContext): unknown;
  /** Undoes the work, also work that was only partly done. Absent: there is nothing to undo. */
  rollback?(context: RollbackContext): unknown;
  /** Asked before an attempt that follows one of which nobody knows what it did. Absent: it is made again, with the same key. */
  verify?(context: StepContext): unknown;
  readonly retry: RetryPolicy;
  readonly rollbackRetry: RetryPolicy;
  /** An attempt that takes longer counts as failed, and what it did as unknown. */
  readonly timeoutMs: number;
  /** Null: no limit. */
  readonly concurrency: ConcurrencyLimit | null;
  /** The point of no return: once it has completed, the order only goes forward. */
  readonly isCommit: boolean;
  /** After its run the step waits for a signal from outside. Null: it doesn't. */
  readonly wait: WaitLimit | null;
}

export interface WaitLimit {
  /** The step has failed when no signal came within it; null: it waits for good. */
  readonly deadlineMs: number | null;
}

/** Finds out whether a body is one for the pipeline. */
export type BodyCheck = (body: JsonObject, options?: BodyCheckOptions) => Promise<BodyFinding> | BodyFinding;

export interface BodyCheckOptions {
  /** Where checks have to wait, users take turns. */
  readonly user: string;
  /** How large the check may make the body, as JSON. */
  readonly bytesMax: number;
}

export type BodyFinding =
  /** `body`: what the steps are given, which may have defaults filled in. */
  | { readonly kind: "accepted"; readonly body: JsonObject }
  | { readonly kind: "refused"; readonly issues: readonly BodyIssue[] }
  /** The check has made it larger than it may be. */
  | { readonly kind: "too_large" }
  /** So many others were checked that its turn did not come in time. */
  | { readonly kind: "no_turn" };

export interface BodyIssue {
  /** Where in the body, as a JSON Pointer (RFC 6901); "" is the body itself. */
  readonly pointer: string;
  readonly message: string;
}

/** A named list of steps. */
export interface Pipeline {
  readonly name: string;
  readonly version: number;
  readonly steps: readonly Step[];
  /** Null: any JSON object will do. */
  readonly checkBody: BodyCheck | null;
}

/** Names that the order's view uses for its ends; no step may have them. */
export const RESERVED_STEP_NAMES: ReadonlySet<string> = new Set(["Completed", "Failed", "Canceled"]);

/** How orders and people name a pipeline with its version. */
export function pipelineLabel({ name, version }: Pick<Pipeline, "name" | "version">): string {
  return `${name} v${version}`;
}

/**
 * What must not change under orders that are under way: names and order of the steps, and what rolls back, waits and commits. Two
 * pipelines of one name and version with different shapes are two pipelines.
 */
export function pipelineShape({ steps }: Pipeline): string {
  return JSON.stringify(
    steps.map((step) => [
      step.name,
      ...(step.rollback === undefined ? [] : ["rollback"]),
      ...(step.isCommit ? ["commit"] : []),
      ...(step.wait === null ? [] : ["wait"]),
    ]),
  );
}

/**
 * A pipeline of which only the shape is known: enough to decide what follows, and nothing to call.
 * @throws Error when the text is no shape
 */
export function pipelineOfShape(name: string, version: number, shape: string): Pipeline {
  const entries: unknown = JSON.parse(shape);
  if (!Array.isArray(entries)) throw new Error(`not a pipeline's shape: ${shape}`);
  const uncallable = (): never => {
    throw new Error(`this node does not have the pipeline ${pipelineLabel({ name, version })}`);
  };
  const steps = entries.map((entry: unknown): Step => {
    const [stepName = "", ...traits] = entry as string[];
    return {
      name: stepName,
      run: uncallable,
      ...(traits.includes("rollback") ? { rollback: uncallable } : {}),
      retry: DEFAULT_RETRY,
      rollbackRetry: DEFAULT_ROLLBACK_RETRY,
      timeoutMs: 0,
      concurrency: null,
      isCommit: traits.includes("commit"),
      wait: traits.includes("wait") ? { deadlineMs: null } : null,
    };
  });
  return { name, version, steps, checkBody: null };
}

/** The key that all attempts of one run or rollback carry (guarantee G4). */
export function idempotencyKey(orderId: string, stepName: string, direction: "run" | "rollback"): string {
  return `${orderId}:${stepName}:${direction}`;
}
