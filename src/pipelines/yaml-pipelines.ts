/** Pipelines whose steps are HTTP calls, from YAML or JSON: read, checked, and made pipelines that the engine runs. */
import { readFileSync } from "node:fs";
import { Ajv2020, type ErrorObject, type ValidateFunction } from "ajv/dist/2020.js";
import { type Document, isMap, isNode, isScalar, LineCounter, type Node, parseAllDocuments } from "yaml";
import type { BodyCheck, Pipeline, RollbackContext, StepContext } from "../order/pipeline.ts";
import {
  buildPipeline,
  type ConcurrencyOptions,
  type Duration,
  type PlainStepOptions,
  type RetryOptions,
  type WaitOptions,
} from "./define-pipeline.ts";
import { compileBodySchema } from "./body-schema.ts";
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

/** Tells what is wrong at a place: with the name of a property, or (by default) with its value. */
type Report = (path: Path, message: string, part?: "name" | "value") => void;

/** Problems of one file that are told; more don't help whoever mends it. */
const PROBLEMS_MAX = 20;

const SCHEMA_FILE = new URL("../../docs/pipeline.schema.json", import.meta.url);

const ajvOptions = { allErrors: true, strict: false, validateFormats: false, verbose: true } as const;
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
    const report: Report = (path, message, part = "value") => {
      problems.push({ ...positionOf(document, path, part, lines), message });
    };
    // What follows a mistake in the syntax is often no other.
    const [error] = document.errors;
    if (error !== undefined) {
      const { line, col } = lines.linePos(error.pos[0]);
      problems.push({ line, column: col, message: error.message });
      continue;
    }
    let pipeline: Pipeline | null = null;
    try {
      pipeline = pipelineOf(document, environment, report);
    } catch (caught) {
      if (!(caught instanceof RangeError)) throw caught;
      report([], "it is nested too deeply, or an alias is within what it stands for");
    }
    if (pipeline !== null) pipelines.push(pipeline);
  }
  return problems.length > 0
    ? { kind: "problems", problems: problems.slice(0, PROBLEMS_MAX) }
    : { kind: "pipelines", pipelines };
}

function pipelineOf(
  document: Document,
  environment: Readonly<Record<string, string | undefined>>,
  report: Report,
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
  const bodyNames = declaredNames(written.body);
  const env: Record<string, string> = {};
  const steps = written.steps.map((step, index) => {
    const earlier = written.steps.slice(0, index).map(({ name }) => name);
    if (earlier.includes(step.name)) wrong(["steps", index, "name"], `another step is named "${step.name}"`);
    return stepOf(step, ["steps", index], { steps: earlier, bodyNames }, { environment, env }, wrong);
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

/** The environment, and those of its variables that the pipeline's steps name. */
interface Variables {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly env: Record<string, string>;
}

function stepOf(
  step: YamlStep,
  path: Path,
  known: Omit<TemplateScope, "hasResult">,
  { environment, env }: Variables,
  wrong: (path: Path, message: string) => void,
): PlainStepOptions {
  const { run, rollback, onUnknown, ...plain } = step;
  const call = (options: CallOptions, at: Path, scope: TemplateScope): HttpCall | null => {
    try {
      const parsed = parseCall(options, scope);
      for (const name of parsed.variables) {
        const value = Object.hasOwn(environment, name) ? environment[name] : undefined;
        if (value === undefined) wrong(at, `the environment variable ${name} is not set`);
        else env[name] = value;
      }
      return parsed;
    } catch (error) {
      if (!(error instanceof TemplateError)) throw error;
      wrong([...at, ...error.path], error.message);
      return null;
    }
  };
  const forward = { ...known, hasResult: false };
  const runCall = run === undefined ? null : call(run, [...path, "run"], forward);
  const rollbackCall =
    rollback === undefined ? null : call(rollback, [...path, "rollback"], { ...known, hasResult: true });
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
  if (typeof schema === "object" && "$async" in schema) {
    wrong(["body", "$async"], "no JSON Schema: there is no $async in it");
    return null;
  }
  return compileBodySchema(schema, (path, message) => wrong(["body", ...path], message), messageOf);
}

/** The properties that a schema names, where it has nothing else that could name some; null: any. */
function declaredNames(schema: object | boolean | undefined): string[] | null {
  if (typeof schema !== "object" || !("properties" in schema)) return null;
  const others = ["$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "if", "patternProperties", "dependentSchemas"];
  if (others.some((keyword) => keyword in schema)) return null;
  const { properties } = schema;
  return typeof properties === "object" && properties !== null ? Object.keys(properties) : null;
}

/** Where one of several forms was due: what is wrong within the form that was meant; or else that it is none of them. */
function mostTelling(errors: readonly ErrorObject[]): ErrorObject[] {
  const choices = errors.filter(({ keyword }) => keyword === "anyOf");
  const isOf = (error: ErrorObject, choice: ErrorObject): boolean =>
    error.schemaPath.startsWith(`${choice.schemaPath}/`) &&
    `${error.instancePath}/`.startsWith(`${choice.instancePath}/`);
  // It is of that form, but for something within it.
  const isWithin = (error: ErrorObject, choice: ErrorObject): boolean =>
    isOf(error, choice) && error.instancePath.length > choice.instancePath.length;
  return errors.filter((error) =>
    error.keyword === "anyOf"
      ? !errors.some((each) => isWithin(each, error))
      : choices.every((choice) => !isOf(error, choice) || isWithin(error, choice)),
  );
}

function problemOf(error: ErrorObject): Parameters<Report> {
  const path: (string | number)[] = error.instancePath
    .split("/")
    .slice(1)
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"))
    .map((key) => (/^\d+$/.test(key) ? Number(key) : key));
  const unknown: unknown = error.params["additionalProperty"];
  if (typeof unknown === "string") {
    const { properties = {} } = error.parentSchema as { properties?: object };
    return [
      [...path, unknown],
      `there is no property "${unknown}" here; there are ${Object.keys(properties).join(", ")}`,
      "name",
    ];
  }
  const what = path.length === 0 ? "the pipeline" : String(path.at(-1));
  return [path, `${typeof path.at(-1) === "number" ? `item ${Number(path.at(-1)) + 1}` : what}: ${messageOf(error)}`];
}

function messageOf({ keyword, message = "it is not valid", params, parentSchema }: ErrorObject): string {
  if (keyword === "anyOf") {
    const { description = "it has none of the forms that it may have" } = parentSchema as { description?: string };
    return `it is not valid (${description.charAt(0).toLowerCase()}${description.slice(1).replace(/\.$/, "")})`;
  }
  const allowed: unknown = params["allowedValues"];
  return Array.isArray(allowed) ? `${message}: ${allowed.join(", ")}` : message;
}

/** Where the property, or its value, at a path stands; or else whatever it would be in. */
function positionOf(
  document: Document,
  path: Path,
  part: "name" | "value",
  lines: LineCounter,
): { line: number; column: number } {
  const nodes = Array.from({ length: path.length + 1 }, (_, length) => nodeAt(document, path.slice(0, length)));
  const name = part === "name" ? keyOf(nodes.at(-2), path.at(-1)) : undefined;
  const start = (name ?? nodes.findLast((node) => node !== undefined))?.range?.[0] ?? 0;
  const { line, col } = lines.linePos(start);
  return { line, column: col };
}

function nodeAt(document: Document, path: Path): Node | undefined {
  const node: unknown = path.length === 0 ? document.contents : document.getIn(path, true);
  return isNode(node) ? node : undefined;
}

function keyOf(parent: Node | undefined, name: string | number | undefined): Node | undefined {
  const key: unknown = isMap(parent)
    ? parent.items.find((pair) => isScalar(pair.key) && pair.key.value === name)?.key
    : undefined;
  return isNode(key) ? key : undefined;
}
