/**
 * How people define pipelines in TypeScript: what they write, checked and made a Pipeline. The types carry the body's and the
 * earlier results' types into each step.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { parseDuration } from "../duration.ts";
import { pointerOf } from "../order/json-pointer.ts";
import {
  type BodyCheck,
  type BodyFinding,
  type BodyIssue,
  type ConcurrencyLimit,
  type JsonObject,
  type Pipeline,
  RESERVED_STEP_NAMES,
  type RollbackContext,
  type Step,
  type StepContext,
  type Verification,
  type WaitLimit,
} from "../order/pipeline.ts";
import { DEFAULT_RETRY, DEFAULT_ROLLBACK_RETRY, type RetryPolicy } from "../order/retry.ts";

/** A duration: a text such as `60ms`, `5s`, `2m`, `36h`, `7d`, or milliseconds. */
export type Duration = string | number;

/** How the attempts of a step's run and rollback are repeated. What is left out is as in the default. */
export interface RetryOptions {
  /** How many attempts there are at the most; 1 means no retry. Default 3. */
  readonly attempts?: number;
  /** The wait after the first failure. Default 200ms. */
  readonly delay?: Duration;
  /** Each further wait is this many times the one before. Default 2. */
  readonly factor?: number;
  /** No wait is longer, unless the receiver asks for it. Default 30s. */
  readonly delayMax?: Duration;
  /** The share of each wait, 0 to 1, that is taken off at random. Default 0.2. */
  readonly jitter?: number;
  /** No attempt begins so long after the first. Default: no limit. */
  readonly deadline?: Duration;
}

/** How many calls may be under way at once: a number means on each node. */
export type ConcurrencyOptions = number | { readonly perNode: number } | { readonly cluster: number };

/** That the step waits for a signal from outside after its run, such as an approval. */
export interface WaitOptions {
  /** The step has failed when no signal came within it. Default: it waits for good. */
  readonly deadline?: Duration;
}

/** What becomes of a value on its way through JSON: steps are given results, and bodies, as they are stored. */
export type Jsonified<T> = T extends { toJSON(): infer Json }
  ? Jsonified<Json>
  : T extends undefined | void
    ? undefined
    : T extends string | number | boolean | null
      ? T
      : T extends (...args: never[]) => unknown
        ? never
        : T extends object
          ? { readonly [Key in keyof T]: Jsonified<T[Key]> }
          : unknown extends T
            ? unknown
            : never;

/** One step of a pipeline as it is written. */
export interface StepOptions<Body, Results, Name extends string, Result, Wait> {
  /** Unique in its pipeline, and shown to users. */
  readonly name: Name;
  /**
   * Does the work. What it returns (JSON, 64 KiB at the most) is kept and given to later steps. Throwing is failure: it is
   * retried, unless it throws `permanent(…)`. May be left out by a step that waits for a signal.
   */
  run?(context: StepContext<Body, Results>): Result;
  /** Undoes the work, also work that was only partly done, or not at all. Left out: there is nothing to undo. */
  rollback?(context: RollbackContext<Body, Results, Jsonified<Awaited<Result>>>): unknown;
  readonly retry?: RetryOptions;
  /** An attempt that takes longer has failed, and its outcome is unknown. Default 60s. */
  readonly timeout?: Duration;
  readonly concurrency?: ConcurrencyOptions;
  /**
   * What comes before the next attempt when a former one may have done its work: another call with the same idempotency key
   * (default), or first the question whether it was done.
   */
  readonly onUnknown?: "retry" | { verify(context: StepContext<Body, Results>): Verification | Promise<Verification> };
  /** The point of no return: once it has completed the order only goes forward, retrying. */
  readonly commit?: boolean;
  /** After its run (if it has one) the step waits for a signal, whose content is its result. */
  readonly wait?: Wait;
}

/** The results that the step after this one is given. */
export type Then<Results, Name extends string, Result, Wait> = Results & {
  readonly [Key in Name]: Wait extends object ? unknown : Jsonified<Awaited<Result>>;
};

type BodyOf<Schema> = Schema extends StandardSchemaV1 ? Jsonified<StandardSchemaV1.InferOutput<Schema>> : JsonObject;

/** The results of steps, given as [name, result, wait] each. */
type ResultsOf<Steps extends readonly unknown[]> = Steps extends readonly [
  ...infer Before,
  readonly [infer Name extends string, infer Result, infer Wait],
]
  ? Then<ResultsOf<Before>, Name, Result, Wait>
  : // Not `object`: that could not be given to a function that takes any results.
    // eslint-disable-next-line typescript/no-generated-empty-object-type -- no results, and nothing against any
    Record<never, never>;

/** A step behind those whose results are known by type. */
type LaterStep<Body, Results> = StepOptions<Body, Results & JsonObject, string, unknown, WaitOptions>;

const TIMEOUT_MS_DEFAULT = 60_000;

/** What a timer of Node's can wait. */
const DURATION_MS_MAX = 2 ** 31 - 1;

/** Longer names are a mistake; they are part of keys, headers and pages. */
const NAME_CHARS_MAX = 200;

/** An order's history has an entry for each; nobody writes so many by hand. */
const STEPS_MAX = 200;

/**
 * Checks a pipeline and makes it one that the service runs; a file given with `--pipelines` exports it as its default.
 * Of more than twelve steps the later ones know the results of the first twelve by type, and others as `unknown`.
 * @throws TypeError naming the pipeline, the step and what is wrong
 */
// Types of names (N), results (O) and waits (W): TypeScript infers them one after the other, as far as they are written out.
// prettier-ignore
export function definePipeline<
  const N1 extends string, O1, W1,
  const N2 extends string, O2, W2,
  const N3 extends string, O3, W3,
  const N4 extends string, O4, W4,
  const N5 extends string, O5, W5,
  const N6 extends string, O6, W6,
  const N7 extends string, O7, W7,
  const N8 extends string, O8, W8,
  const N9 extends string, O9, W9,
  const N10 extends string, O10, W10,
  const N11 extends string, O11, W11,
  const N12 extends string, O12, W12,
  Schema extends StandardSchemaV1 | undefined = undefined,
>(pipeline: {
  /** Names the pipeline: `POST /orders?pipeline=<name>`. */
  readonly name: string;
  /** A whole number from 1. To be raised when steps are added, removed or renamed: orders keep the version that they began with. */
  readonly version: number;
  /** Checks each order's body (zod, valibot, or any other Standard Schema), and gives it its type. Left out: any JSON object. */
  readonly body?: Schema;
  readonly steps: readonly [
    // eslint-disable-next-line typescript/no-generated-empty-object-type -- the first step knows of no results
    StepOptions<BodyOf<Schema>, ResultsOf<[]>, N1, O1, W1>,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1]]>, N2, O2, W2>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2]]>, N3, O3, W3>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3]]>, N4, O4, W4>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4]]>, N5, O5, W5>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4], [N5, O5, W5]]>, N6, O6, W6>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4], [N5, O5, W5], [N6, O6, W6]]>, N7, O7, W7>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4], [N5, O5, W5], [N6, O6, W6], [N7, O7, W7]]>, N8, O8, W8>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4], [N5, O5, W5], [N6, O6, W6], [N7, O7, W7], [N8, O8, W8]]>, N9, O9, W9>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4], [N5, O5, W5], [N6, O6, W6], [N7, O7, W7], [N8, O8, W8], [N9, O9, W9]]>, N10, O10, W10>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4], [N5, O5, W5], [N6, O6, W6], [N7, O7, W7], [N8, O8, W8], [N9, O9, W9], [N10, O10, W10]]>, N11, O11, W11>?,
    StepOptions<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4], [N5, O5, W5], [N6, O6, W6], [N7, O7, W7], [N8, O8, W8], [N9, O9, W9], [N10, O10, W10], [N11, O11, W11]]>, N12, O12, W12>?,
    ...LaterStep<BodyOf<Schema>, ResultsOf<[[N1, O1, W1], [N2, O2, W2], [N3, O3, W3], [N4, O4, W4], [N5, O5, W5], [N6, O6, W6], [N7, O7, W7], [N8, O8, W8], [N9, O9, W9], [N10, O10, W10], [N11, O11, W11], [N12, O12, W12]]>>[],
  ];
}): Pipeline {
  return buildPipeline(pipeline as unknown as PipelineOptions);
}

/** A pipeline of which only the form is known: what a JavaScript file exports, or YAML was read as. */
export interface PipelineOptions {
  readonly name: string;
  readonly version: number;
  readonly body?: StandardSchemaV1 | undefined;
  readonly steps: readonly PlainStepOptions[];
}

/** A step of it. */
export type PlainStepOptions = StepOptions<JsonObject, JsonObject, string, unknown, WaitOptions>;

/** Which properties there are; another one is a mistake, a misspelling most likely. */
const PIPELINE_KEYS = ["name", "version", "body", "steps"];
const STEP_KEYS = ["name", "run", "rollback", "retry", "timeout", "concurrency", "onUnknown", "commit", "wait"];
const RETRY_KEYS = ["attempts", "delay", "factor", "delayMax", "jitter", "deadline"];

/**
 * Checks what was written, whatever it is, and makes it a pipeline.
 * @throws TypeError naming the pipeline, the step and what is wrong
 */
export function buildPipeline(options: PipelineOptions): Pipeline {
  const written: unknown = options;
  if (typeof written !== "object" || written === null)
    throw new TypeError("a pipeline is an object: { name, version, steps }");
  const { name, version, body, steps } = options;
  const fail: Fail = (what) => {
    throw new TypeError(`pipeline ${JSON.stringify(name) ?? "without a name"}: ${what}`);
  };
  requireName(name, fail, "its name");
  requireKnownKeys(options, PIPELINE_KEYS, fail);
  if (!Number.isSafeInteger(version) || version < 1) fail("its version must be a whole number from 1");
  if (!Array.isArray(steps) || steps.length === 0) fail("it has no steps");
  if (steps.length > STEPS_MAX) fail(`it has ${steps.length} steps; the most is ${STEPS_MAX}`);
  const names = new Set<string>();
  const built = steps.map((step, index) => {
    const failStep: Fail = (what) =>
      fail(`step ${typeof step?.name === "string" ? `"${step.name}"` : index + 1}: ${what}`);
    if (typeof step !== "object" || step === null) failStep("a step is an object: { name, run, … }");
    requireName(step.name, failStep, "its name");
    if (RESERVED_STEP_NAMES.has(step.name)) failStep("that is the name of an order's end; choose another");
    if (names.has(step.name)) failStep("another step has the same name");
    names.add(step.name);
    return buildStep(step, failStep);
  });
  const commitIndex = built.findIndex(({ isCommit }) => isCommit);
  // A signal that does not come would undo what is not to be undone.
  if (steps[commitIndex]?.run !== undefined && built[commitIndex]?.wait?.deadlineMs != null)
    fail(
      `step "${built[commitIndex].name}": as the commit it can't fail once it was called, so its wait can't have a deadline`,
    );
  for (const step of commitIndex < 0 ? [] : built.slice(commitIndex + 1)) {
    if (step.wait?.deadlineMs != null)
      fail(`step "${step.name}": it can't fail after the commit, so its wait can't have a deadline`);
  }
  const pipeline = Object.freeze({
    name,
    version,
    steps: Object.freeze(built),
    checkBody: body === undefined ? null : bodyCheckOf(body, fail),
  });
  BUILT.add(pipeline);
  return pipeline;
}

const BUILT = new WeakSet<object>();

/** Whether something is what definePipeline has made. */
export function isBuiltPipeline(value: unknown): value is Pipeline {
  return typeof value === "object" && value !== null && BUILT.has(value);
}

type Fail = (what: string) => never;

function buildStep(step: PlainStepOptions, fail: Fail): Step {
  requireKnownKeys(step, STEP_KEYS, fail);
  const { name, onUnknown, timeout = TIMEOUT_MS_DEFAULT, commit = false } = step;
  const [hasRun, canUndo] = [step.run !== undefined, step.rollback !== undefined];
  if (hasRun ? typeof step.run !== "function" : step.wait === undefined) fail("its run is not a function");
  if (canUndo && typeof step.rollback !== "function") fail("its rollback is not a function");
  if (typeof commit !== "boolean") fail("its commit is neither true nor false");
  const unknown = typeof onUnknown === "object" ? onUnknown : null;
  if (onUnknown !== undefined && onUnknown !== "retry" && typeof unknown?.verify !== "function") {
    fail('its onUnknown is neither "retry" nor { verify }');
  }
  const timeoutMs = durationMs(timeout, "timeout", fail);
  if (timeoutMs < 1) fail("its timeout must be 1ms at least");
  return Object.freeze({
    name,
    run: (context: StepContext) => step.run?.(context),
    ...(canUndo ? { rollback: (context: RollbackContext) => step.rollback?.(context) } : {}),
    ...(unknown === null ? {} : { verify: (context: StepContext) => unknown.verify(context) }),
    retry: buildRetry(step.retry, DEFAULT_RETRY, fail),
    rollbackRetry: buildRetry(step.retry, DEFAULT_ROLLBACK_RETRY, fail),
    timeoutMs,
    concurrency: buildConcurrency(step.concurrency, fail),
    isCommit: commit,
    wait: buildWait(step.wait, fail),
  });
}

function buildRetry(options: RetryOptions | undefined, defaults: RetryPolicy, fail: Fail): RetryPolicy {
  const retry = options ?? {};
  const written: unknown = retry;
  if (typeof written !== "object" || written === null) return fail("its retry is not an object");
  requireKnownKeys(retry, RETRY_KEYS, (what) => fail(`its retry: ${what}`));
  const number = (key: "attempts" | "factor" | "jitter", fallback: number, min: number, max: number): number => {
    const value = retry[key] ?? fallback;
    if (typeof value === "number" && value >= min && value <= max) return value;
    return fail(`its retry.${key} must be a number from ${min} to ${max}`);
  };
  const attemptsMax = number("attempts", defaults.attemptsMax, 1, 1_000_000);
  if (!Number.isInteger(attemptsMax)) fail("its retry.attempts must be a whole number");
  return Object.freeze({
    attemptsMax,
    delayMs: durationMs(retry.delay ?? defaults.delayMs, "retry.delay", fail),
    factor: number("factor", defaults.factor, 1, 100),
    delayMsMax: durationMs(retry.delayMax ?? defaults.delayMsMax, "retry.delayMax", fail),
    jitter: number("jitter", defaults.jitter, 0, 1),
    deadlineMs: retry.deadline === undefined ? null : durationMs(retry.deadline, "retry.deadline", fail),
  });
}

function buildConcurrency(options: ConcurrencyOptions | undefined, fail: Fail): ConcurrencyLimit | null {
  if (options === undefined) return null;
  const { scope, callsMax } = readConcurrency(options);
  if (!Number.isSafeInteger(callsMax) || callsMax < 1)
    fail("its concurrency must be a whole number from 1, { perNode } or { cluster }");
  return Object.freeze({ scope, callsMax });
}

function readConcurrency(written: unknown): ConcurrencyLimit {
  if (typeof written !== "object" || written === null) return { scope: "node", callsMax: written as number };
  const [[scope, callsMax] = [], ...more] = Object.entries(written) as [string, number][];
  const isOne = more.length === 0 && (scope === "perNode" || scope === "cluster");
  return { scope: scope === "cluster" ? "cluster" : "node", callsMax: isOne ? (callsMax ?? Number.NaN) : Number.NaN };
}

function buildWait(options: WaitOptions | undefined, fail: Fail): WaitLimit | null {
  if (options === undefined) return null;
  const written: unknown = options;
  if (typeof written !== "object" || written === null) return fail("its wait is not an object");
  requireKnownKeys(options, ["deadline"], (what) => fail(`its wait: ${what}`));
  const { deadline } = options;
  return Object.freeze({ deadlineMs: deadline === undefined ? null : durationMs(deadline, "wait.deadline", fail) });
}

function durationMs(duration: Duration, what: string, fail: Fail): number {
  const value = typeof duration === "string" ? parseDuration(duration) : duration;
  if (typeof value === "number" && value >= 0 && value <= DURATION_MS_MAX) return Math.round(value);
  return fail(`its ${what} is no duration up to 596h; write 60ms, 5s, 2m, 36h or milliseconds`);
}

function requireName(name: unknown, fail: Fail, what: string): void {
  if (typeof name !== "string" || name.trim() === "") return fail(`${what} must be a text`);
  if (name.length > NAME_CHARS_MAX) return fail(`${what} is longer than ${NAME_CHARS_MAX} characters`);
  // Idempotency keys are made of names, and travel in headers.
  if (!/^[\x20-\x7e]+$/.test(name))
    return fail(`${what} has other characters than printable ASCII, which headers can't carry`);
  if (name === "__proto__") return fail(`${what} can't be that of every object's prototype`);
  return undefined;
}

function requireKnownKeys(options: object, known: readonly string[], fail: Fail): void {
  const unknown = Object.keys(options).find((key) => !known.includes(key));
  if (unknown !== undefined) fail(`there is no property "${unknown}"; there are ${known.join(", ")}`);
}

function bodyCheckOf(schema: StandardSchemaV1, fail: Fail): BodyCheck {
  const validate = schema?.["~standard"]?.validate;
  if (typeof validate !== "function") return fail("its body is no Standard Schema (zod, valibot, arktype, …)");
  return (body) => {
    const result = validate(body);
    return "then" in result ? Promise.resolve(result).then(findingOf) : findingOf(result);
  };
}

function findingOf(result: StandardSchemaV1.Result<unknown>): BodyFinding {
  if (result.issues !== undefined) return { kind: "refused", issues: result.issues.map(issueOf) };
  return { kind: "accepted", body: result.value as JsonObject };
}

function issueOf({ message, path = [] }: StandardSchemaV1.Issue): BodyIssue {
  const keys = path.map((segment) => String(typeof segment === "object" ? segment.key : segment));
  return { pointer: pointerOf(keys), message };
}
