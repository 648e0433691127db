/** Pipelines whose steps are HTTP calls, from YAML or JSON: read, checked, and made pipelines that the engine runs. */
import { readFileSync } from "node:fs";
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import { type Document, isNode, LineCounter, parseAllDocuments } from "yaml";
import type { BodyCheck, Pipeline, RollbackContext, StepContext } from "../order/pipeline.ts";
import {
  buildPipeline,
  type ConcurrencyOptions,
  type Duration,
  type PlainStepOptions,
  type RetryOptions,
  type WaitOptions,
} from "./define-pipeline.ts";
import { type CallOptions, type HttpCall, parseCall, rollbackOutcome, runOutcome, verifyOutcome } from "./http-call.ts";
import { TemplateError, type TemplateScope } from "./template.ts";

/** Something that is wrong in a file. */
export interface FileProblem {
  /** From 1; null: of no place in particular. */
  readonly line: number | null;
  readonly column: number | null;
  readonly message: string;
}

export type YamlResult =
  | { readonly kind: "pipelines"; readonly pipelines: readonly Pipeline[] }
  | { readonly kind: "problems"; readonly problems: readonly FileProblem[] };

interface YamlStep {
  readonly name: string;
  readonly run?: CallOptions;
  readonly rollback?: CallOptions;
  readonly retry?: RetryOptions;
  readonly timeout?: Duration;
  readonly concurrency?: ConcurrencyOptions;
  readonly onUnknown?: "retry" | { readonly verify: CallOptions };
  readonly commit?: boolean;
  readonly wait?: WaitOptions;
}

interface YamlPipeline {
  readonly name: string;
  readonly version: number;
  readonly body?: object | boolean;
  readonly steps: readonly YamlStep[];
}

/** Where in a document: keys and positions. */
type Path = readonly (string | number)[];

/** Problems of one file that are told; more don't help whoever mends it. */
const PROBLEMS_MAX = 20;

const SCHEMA_FILE = new URL("../../docs/pipeline.schema.json", import.meta.url);

const ajvOptions = { allErrors: true, strict: false, validateFormats: false } as const;
let validator: ValidateFunction | null = null;

function schemaValidator(): ValidateFunction {
  validator ??= new Ajv2020(ajvOptions).compile(JSON.parse(readFileSync(SCHEMA_FILE, "utf8")) as object);
  return validator;
}

/**
 * Reads the pipelines of a file's text: one, or several in documents that `---` parts.
 * @param environment where secrets come from
 */
export function parseYamlPipelines(
  text: string,
  environment: Readonly<Record<string, string | undefined>>,
): YamlResult {
  const lines = new LineCounter();
  const problems: FileProblem[] = [];
  const pipelines: Pipeline[] = [];
  const documents = parseAllDocuments(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false });
  if (!Array.isArray(documents) || documents.length === 0) {
    return { kind: "problems", problems: [{ line: 1, column: 1, message: "the file is empty" }] };
  }
  for (const document of documents) {
    const report = (path: Path, message: string): void => {
      problems.push({ ...positionOf(document, path, lines), message });
    };
    for (const error of document.errors) {
      const { line, col } = lines.linePos(error.pos[0]);
      problems.push({ line, column: col, message: error.message });
    }
    if (document.errors.length > 0) continue;
    const pipeline = pipelineOf(document, environment, report);
    if (pipeline !== null) pipelines.push(pipeline);
  }
  return problems.length > 0
    ? { kind: "problems", problems: problems.slice(0, PROBLEMS_MAX) }
    : { kind: "pipelines", pipelines };
}

function pipelineOf(
  document: Document,
  environment: Readonly<Record<string, string | undefined>>,
  report: (path: Path, message: string) => void,
): Pipeline | null {
  let content: unknown;
  try {
    content = document.toJS();
  } catch (error) {
    report([], error instanceof Error ? error.message : String(error)); // aliases that would fill the memory
    return null;
  }
  const validate = schemaValidator();
  if (!validate(content)) {
    for (const error of mostTelling(validate.errors ?? [])) report(...problemOf(error));
    return null;
  }
  const written = content as YamlPipeline;
  let isSound = true;
  const wrong = (path: Path, message: string): void => {
    isSound = false;
    report(path, message);
  };
  const checkBody = bodyCheckOf(written.body, wrong);
  const steps = written.steps.map((step, index) => {
    const earlier = written.steps.slice(0, index).map(({ name }) => name);
    if (earlier.includes(step.name)) wrong(["steps", index, "name"], `another step is named "${step.name}"`);
    return stepOf(step, ["steps", index], earlier, environment, wrong);
  });
  if (!isSound) return null;
  try {
    return { ...buildPipeline({ name: written.name, version: written.version, steps }), checkBody };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    report([], error.message);
    return null;
  }
}

function stepOf(
  step: YamlStep,
  path: Path,
  earlier: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  wrong: (path: Path, message: string) => void,
): PlainStepOptions {
  const { run, rollback, onUnknown, ...plain } = step;
  const env: Record<string, string> = {};
  const call = (options: CallOptions, at: Path, scope: TemplateScope): HttpCall | null => {
    try {
      const parsed = parseCall(options, scope);
      for (const name of parsed.variables) {
        const value = environment[name];
        if (value === undefined) wrong(at, `the environment variable ${name} is not set`);
        else env[name] = value;
      }
      return parsed;
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error;
      wrong(at, error.message);
      return null;
    }
  };
  const forward = { steps: earlier, hasResult: false };
  const runCall = run === undefined ? null : call(run, [...path, "run"], forward);
  const rollbackCall =
    rollback === undefined ? null : call(rollback, [...path, "rollback"], { steps: earlier, hasResult: true });
  const verify = typeof onUnknown === "object" ? onUnknown.verify : null;
  const verifyCall = verify === null ? null : call(verify, [...path, "onUnknown", "verify"], forward);
  return {
    ...plain,
    ...(runCall === null ? {} : { run: async (context: StepContext) => runOutcome(await runCall.make(context, env)) }),
    ...(rollbackCall === null
      ? {}
      : { rollback: async (context: RollbackContext) => rollbackOutcome(await rollbackCall.make(context, env)) }),
    ...(verifyCall === null
      ? {}
      : {
          onUnknown: { verify: async (context: StepContext) => verifyOutcome(await verifyCall.make(context, env)) },
        }),
  };
}

function bodyCheckOf(
  schema: object | boolean | undefined,
  wrong: (path: Path, message: string) => void,
): BodyCheck | null {
  if (schema === undefined) return null;
  let validate: ValidateFunction;
  try {
    validate = new Ajv2020(ajvOptions).compile(schema);
  } catch (error) {
    wrong(["body"], `no JSON Schema: ${error instanceof Error ? error.message : String(error)}`);
    return null;
  }
  return (body) => {
    if (validate(body)) return { kind: "accepted", body };
    return {
      kind: "refused",
      issues: (validate.errors ?? []).map((error) => ({ pointer: error.instancePath, message: messageOf(error) })),
    };
  };
}

/** Of what fails because its parts fail, the parts say more. */
function mostTelling(errors: readonly ErrorObject[]): ErrorObject[] {
  const telling = errors.filter(({ keyword }) => keyword !== "anyOf");
  return telling.length > 0 ? telling : [...errors];
}

function problemOf(error: ErrorObject): [Path, string] {
  const path: (string | number)[] = error.instancePath
    .split("/")
    .slice(1)
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"))
    .map((key) => (/^\d+$/.test(key) ? Number(key) : key));
  const unknown: unknown = error.params["additionalProperty"];
  if (typeof unknown === "string") return [[...path, unknown], `there is no property "${unknown}" here`];
  const what = path.length === 0 ? "the pipeline" : String(path.at(-1));
  return [path, `${typeof path.at(-1) === "number" ? `item ${Number(path.at(-1)) + 1}` : what}: ${messageOf(error)}`];
}

function messageOf({ message = "it is not valid", params }: ErrorObject): string {
  const allowed: unknown = params["allowedValues"];
  return Array.isArray(allowed) ? `${message}: ${allowed.join(", ")}` : message;
}

/** Where the thing at a path stands; or else whatever it would be in. */
function positionOf(document: Document, path: Path, lines: LineCounter): { line: number; column: number } {
  for (let length = path.length; length >= 0; length--) {
    const node: unknown = length === 0 ? document.contents : document.getIn(path.slice(0, length), true);
    const start = isNode(node) ? node.range?.[0] : undefined;
    if (start !== undefined) {
      const { line, col } = lines.linePos(start);
      return { line, column: col };
    }
  }
  return { line: 1, column: 1 };
}
