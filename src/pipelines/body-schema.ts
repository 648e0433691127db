/**
 * Checks bodies against a JSON Schema (2020-12), within a budget (budget.ts): what a schema costs can grow with a power of the body, or
 * with two to the power of its depth. Each keyword counts where it is applied, by the size of the schema and of what it goes through.
 *
 * Patterns get an engine of linear time, and `uniqueItems` is found out in one pass.
 */
import { Ajv2020 } from "ajv/dist/2020.js";
import {
  _,
  type Code,
  type ErrorObject,
  type KeywordCxt,
  type KeywordDefinition,
  str,
  type ValidateFunction,
} from "ajv";
import { pointerSegment } from "../order/json-pointer.ts";
import type { BodyCheck, BodyFinding, BodyIssue, JsonObject } from "../order/pipeline.ts";
import { BudgetError, spend, withinBudget } from "./budget.ts";
import { compilePattern, PatternError } from "./linear-regexp.ts";

/** Where in a schema: keys and positions. */
type Path = readonly (string | number)[];

/** To find all that is wrong, not the first only, is worth so much. */
const ALL_ISSUES_STEPS_MAX = 50_000;

/** More than anybody reads. */
const ISSUES_MAX = 100;

/** Longer keys, and pointers, are the sender's own. */
const KEY_CHARS_MAX = 100;
const POINTER_CHARS_MAX = 500;

/** What keywords do for each property or choice of the schema, or item of a list, is a fraction of a step. */
const PARTS_OF_STEP = 8;
const CHARS_OF_STEP = 16;

/** Objects with more keys than V8 keeps at hand take long to go through. */
const KEYS_OF_SMALL = 128;
const STEPS_OF_LARGE_KEY = 5;

/** Keywords that go through all items, keys or characters of what they are applied to. */
const GOES_THROUGH: ReadonlySet<string> = new Set([
  "items",
  "contains",
  "unevaluatedItems",
  "propertyNames",
  "additionalProperties",
  "patternProperties",
  "unevaluatedProperties",
  "minProperties",
  "maxProperties",
  "minLength",
  "maxLength",
]);

/** How Ajv writes a key of the body as a part of a pointer, for every error anew: all of a key that may be as long as the body. */
const ESCAPED_KEY = '.replace(/~/g, "~0")';

/**
 * Ajv makes an object of each error, and keeps those of choices and items that do not fit until one does. It puts those of another schema
 * behind them in a new list. In the code that it makes `self` is the Ajv.
 */
const COUNTED_ERROR = /(?<=[;{}])errors\+\+;/g;
const JOINED_ERRORS = /(?<= : )vErrors\.concat\(/g;

/** One that is dropped at once costs little; many are kept together, which takes memory. */
const STEPS_OF_ERROR = 2;
const STEPS_OF_KEPT_ERROR = 10;
const ERRORS_OF_FEW = 200;

const ajvOptions = {
  strict: false,
  validateFormats: false,
  verbose: true,
  code: {
    regExp: linearEngine(),
    process: (code: string) =>
      code
        .replaceAll(ESCAPED_KEY, `.slice(0, ${KEY_CHARS_MAX + 1})${ESCAPED_KEY}`)
        .replaceAll(COUNTED_ERROR, "self.countError(errors++);")
        .replaceAll(JOINED_ERRORS, "self.joinErrors(vErrors, "),
  },
} as const;

/** Counts the keywords that it compiles, and the errors that they make. */
class MeteredAjv extends Ajv2020 {
  countError(before: number): void {
    spend(before < ERRORS_OF_FEW ? STEPS_OF_ERROR : STEPS_OF_KEPT_ERROR);
  }

  joinErrors(errors: readonly ErrorObject[], more: readonly ErrorObject[]): ErrorObject[] {
    spend(STEPS_OF_ERROR + (errors.length + more.length) / PARTS_OF_STEP);
    return [...errors, ...more];
  }

  override addKeyword(definition: string | KeywordDefinition): this {
    if (typeof definition === "object" && definition.keyword === "uniqueItems") super.addKeyword(uniqueItems);
    else super.addKeyword(typeof definition === "object" && "code" in definition ? metered(definition) : definition);
    return this;
  }
}

/**
 * Prepares the check of bodies against a schema.
 * @param wrong is told what is wrong with the schema, and where in it
 * @param messageOf words for what is wrong with a body
 * @returns null where something is wrong
 */
export function compileBodySchema(
  schema: object | boolean,
  wrong: (path: Path, message: string) => void,
  messageOf: (error: ErrorObject) => string,
): BodyCheck | null {
  let isSound = true;
  forEachPattern(schema, [], (path, pattern) => {
    try {
      compilePattern(pattern, "ecma");
    } catch (error) {
      if (!(error instanceof PatternError)) throw error;
      isSound = false;
      wrong(path, error.message);
    }
  });
  if (!isSound) return null;
  let isValid: ValidateFunction;
  let findAll: ValidateFunction;
  try {
    isValid = new MeteredAjv(ajvOptions).compile(schema);
    findAll = new MeteredAjv({ ...ajvOptions, allErrors: true, validateSchema: false }).compile(schema);
    withinBudget(() => isValid({}));
  } catch (error) {
    const isEndless = error instanceof RangeError || error instanceof BudgetError;
    const reason = error instanceof Error ? error.message : String(error);
    wrong(
      [],
      `no JSON Schema: ${isEndless ? "it takes too long to check even {} against it; does it refer to itself?" : reason}`,
    );
    return null;
  }
  return (body) => checkBody(body, isValid, findAll, messageOf);
}

function checkBody(
  body: JsonObject,
  isValid: ValidateFunction,
  findAll: ValidateFunction,
  messageOf: (error: ErrorObject) => string,
): BodyFinding {
  let errors: readonly ErrorObject[];
  try {
    if (withinBudget(() => isValid(body))) return { kind: "accepted", body };
    errors = isValid.errors ?? [];
  } catch (error) {
    if (error instanceof BudgetError)
      return tooMuch(`${error.message} to check it against the schema; send less at once`);
    if (error instanceof RangeError) return tooMuch("it is nested too deeply for its schema");
    throw error;
  } finally {
    isValid.errors = null;
  }
  try {
    withinBudget(() => findAll(body), ALL_ISSUES_STEPS_MAX);
    errors = findAll.errors ?? errors;
  } catch {
    // It takes too much, or Ajv stumbles: with allErrors it can trip over unevaluatedProperties. The first that is wrong is enough then.
  } finally {
    findAll.errors = null;
  }
  const issues = errors.slice(0, ISSUES_MAX).map((error): BodyIssue => ({
    pointer: shorten(error.instancePath),
    message: messageOf(error),
  }));
  return { kind: "refused", issues };
}

function tooMuch(message: string): BodyFinding {
  return { kind: "refused", issues: [{ pointer: "", message }] };
}

function shorten(pointer: string): string {
  const shown = pointer.split("/").map(shortenKey).join("/");
  return shown.length > POINTER_CHARS_MAX ? `${shown.slice(0, POINTER_CHARS_MAX)}…` : shown;
}

/** A key that was cut says so. */
function shortenKey(escaped: string): string {
  const key = escaped.replaceAll("~1", "/").replaceAll("~0", "~");
  if (key.length <= KEY_CHARS_MAX) return escaped;
  return `${pointerSegment(key.slice(0, KEY_CHARS_MAX))}…`;
}

function metered<Definition extends KeywordDefinition & { code: (cxt: KeywordCxt, ruleType?: string) => void }>(
  definition: Definition,
): Definition {
  const { keyword, code } = definition;
  const goesThrough = typeof keyword === "string" && GOES_THROUGH.has(keyword);
  return {
    ...definition,
    code: (cxt, ruleType) => {
      const { gen, data, schema, parentSchema } = cxt;
      const steps =
        1 + (keyword === "enum" || keyword === "const" ? stepsOfData(schema) : countOf(schema) / PARTS_OF_STEP);
      const patterns = keyword === "additionalProperties" ? countOf(parentSchema["patternProperties"]) : 0;
      gen.code(
        goesThrough
          ? _`${functionOf(cxt, payAll)}(${data}, ${steps + patterns})`
          : _`${functionOf(cxt, spend)}(${steps})`,
      );
      code(cxt, ruleType);
    },
  };
}

function functionOf({ gen }: KeywordCxt, ref: (...args: never[]) => unknown): Code {
  return gen.scopeValue("func", { ref });
}

/** For the values that data is compared with. */
function stepsOfData(schema: unknown): number {
  const values: readonly unknown[] = Array.isArray(schema) ? schema : [schema];
  const isDeep = values.some((value) => typeof value === "object");
  return isDeep ? JSON.stringify(schema).length / CHARS_OF_STEP : values.length / PARTS_OF_STEP;
}

function countOf(schema: unknown): number {
  return typeof schema === "object" && schema !== null ? Object.keys(schema).length : 0;
}

function payAll(data: unknown, steps: number): void {
  spend(steps * (1 + sizeOf(data)));
}

function sizeOf(data: unknown): number {
  if (typeof data === "string") return data.length / CHARS_OF_STEP;
  if (typeof data !== "object" || data === null) return 0;
  if (Array.isArray(data)) return data.length / PARTS_OF_STEP;
  const count = Object.keys(data).length;
  return count > KEYS_OF_SMALL ? count * STEPS_OF_LARGE_KEY : count / PARTS_OF_STEP;
}

/** Ajv compares each item with each. */
const uniqueItems: KeywordDefinition = {
  keyword: "uniqueItems",
  type: "array",
  schemaType: "boolean",
  error: {
    message: ({ params }) =>
      str`must NOT have duplicate items (items ## ${params["first"]} and ${params["second"]} are identical)`,
  },
  code: (cxt) => {
    if (cxt.schema !== true) return;
    const found = cxt.gen.const("duplicate", _`${functionOf(cxt, findDuplicate)}(${cxt.data})`);
    cxt.setParams({ first: _`${found}[0]`, second: _`${found}[1]` });
    cxt.fail(_`${found} !== null`);
  },
};

function findDuplicate(items: readonly unknown[]): readonly [number, number] | null {
  const places = new Map<string, number>();
  for (const [place, item] of items.entries()) {
    const key = canonicalJson(item);
    const former = places.get(key);
    if (former !== undefined) return [former, place];
    places.set(key, place);
  }
  return null;
}

/** The same text for the same JSON, whatever the order of its keys. */
function canonicalJson(value: unknown): string {
  spend(typeof value === "string" ? 1 + value.length / CHARS_OF_STEP : 1);
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  const keys = Object.keys(value).toSorted();
  spend(keys.length > KEYS_OF_SMALL ? keys.length * STEPS_OF_LARGE_KEY : keys.length);
  const fields = value as JsonObject;
  return `{${keys.map((key) => `${JSON.stringify(key)}:${canonicalJson(fields[key])}`).join(",")}}`;
}

function linearEngine(): { (pattern: string): { test(text: string): boolean }; code: string } {
  const engine = (pattern: string): { test(text: string): boolean; toString(): string } => {
    const { test } = compilePattern(pattern, "ecma");
    // Ajv takes patterns for the same whose texts are.
    return { test, toString: () => pattern };
  };
  return Object.assign(engine, { code: "linearEngine" });
}

/** What holds data, not schemas. */
const NO_SCHEMAS: ReadonlySet<string> = new Set(["const", "default", "enum", "examples"]);

/** What holds schemas by names that are no keywords. */
const NAMED_SCHEMAS: ReadonlySet<string> = new Set(["properties", "$defs", "definitions", "dependentSchemas"]);

function forEachPattern(schema: unknown, path: Path, found: (path: Path, pattern: string) => void): void {
  if (typeof schema !== "object" || schema === null) return;
  for (const [key, value] of Object.entries(schema) as [string, unknown][]) {
    const at = [...path, Array.isArray(schema) ? Number(key) : key];
    if (key === "pattern" && typeof value === "string") found(at, value);
    if (key === "patternProperties" && typeof value === "object" && value !== null)
      for (const pattern of Object.keys(value)) found([...at, pattern], pattern);
    if (NAMED_SCHEMAS.has(key) && typeof value === "object" && value !== null)
      for (const [name, each] of Object.entries(value)) forEachPattern(each, [...at, name], found);
    else if (!NO_SCHEMAS.has(key)) forEachPattern(value, at, found);
  }
}
