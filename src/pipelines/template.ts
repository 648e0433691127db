/**
 * Templates: JSON whose texts may hold expressions, `"Order ${order.id}"`. The expressions are CEL (cel.dev): small, without side
 * effects, and within a budget (budget.ts) that whoever fills in a template gives it. A text that is one expression and nothing else becomes the expression's value, of any type.
 *
 * `$${` stands for `${` itself.
 */
import { type ASTNode, Environment, type ParseResult } from "@marcbachmann/cel-js";
import { BudgetError, requireBudget, spend } from "./budget.ts";
import { meterExpression } from "./metered-cel.ts";

/** What expressions can name. */
export interface TemplateValues {
  readonly order: { readonly id: string; readonly user: string };
  readonly body: unknown;
  readonly results: unknown;
  /** In a rollback: what the step's own run has returned, or null. */
  readonly result: unknown;
  readonly attempt: number;
  /** Secrets: the environment variables that the file names. */
  readonly env: Readonly<Record<string, string>>;
}

/** What an expression may refer to where it stands. */
export interface TemplateScope {
  /** The steps whose results there are. */
  readonly steps: readonly string[];
  /** Whether `result` is there. */
  readonly hasResult: boolean;
  /** The properties that the order's body is declared to have; null: it may have any. */
  readonly bodyNames: readonly string[] | null;
}

/** A text, taken apart. */
export type TextTemplate = readonly (string | Expression)[];

export interface Expression {
  readonly source: string;
  readonly evaluate: (values: TemplateValues) => unknown;
  /** The environment variables that it names. */
  readonly variables: readonly string[];
  /** Whether it names nothing else. */
  readonly isConstant: boolean;
}

/** Something with templates in it, to be filled in. */
export interface Template {
  readonly fill: (values: TemplateValues) => unknown;
  /** The environment variables that it names. */
  readonly variables: readonly string[];
}

/** An expression is wrong. `message` says which, and why, in one line. */
export class TemplateError extends Error {
  override readonly name = "TemplateError";
  /** Where in what was given the text stands. */
  readonly path: (string | number)[] = [];
}

/** Does something with a part of what was given, so that its errors say where. */
export function within<T>(key: string | number, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof TemplateError) error.path.unshift(key);
    throw error;
  }
}

const VARIABLES = ["order", "body", "results", "result", "attempt", "env"] as const;

const environment = new Environment({
  enableOptionalTypes: true,
  homogeneousAggregateLiterals: false,
  limits: { maxAstNodes: 1_000, maxDepth: 50 },
})
  .registerVariable("order", "map")
  .registerVariable("body", "dyn")
  .registerVariable("results", "map")
  .registerVariable("result", "dyn")
  .registerVariable("attempt", "dyn")
  .registerVariable("env", "map");

// JSON has one kind of number, and CEL two that don't mix: `body.amount + 1` would be no sum.
const ARITHMETIC: Readonly<Record<string, (one: number, other: number) => number>> = {
  "+": (one, other) => one + other,
  "-": (one, other) => one - other,
  "*": (one, other) => one * other,
  "/": (one, other) => one / other,
  "%": (one, other) => one % other,
};
for (const [operator, calculate] of Object.entries(ARITHMETIC)) {
  const handler = (one: number | bigint, other: number | bigint): number => calculate(Number(one), Number(other));
  environment.registerOperator(`double ${operator} int`, handler).registerOperator(`int ${operator} double`, handler);
}

/**
 * Takes a text apart.
 * @throws TemplateError
 */
export function parseText(text: string, scope: TemplateScope): TextTemplate {
  const parts: (string | Expression)[] = [];
  let literal = "";
  for (let at = 0; at < text.length;) {
    if (text.startsWith("$${", at)) {
      literal += "${";
      at += 3;
    } else if (text.startsWith("${", at)) {
      const end = endOfExpression(text, at + 2);
      if (end < 0) throw new TemplateError(`"${shorten(text.slice(at))}" has no closing brace`);
      if (literal !== "") parts.push(literal);
      literal = "";
      parts.push(parseExpression(text.slice(at + 2, end).trim(), scope));
      at = end + 1;
    } else {
      literal += text[at++];
    }
  }
  if (literal !== "") parts.push(literal);
  return parts;
}

/**
 * Prepares JSON with templates in its texts, however deep.
 * @throws TemplateError
 */
export function parseTemplate(json: unknown, scope: TemplateScope): Template {
  if (typeof json === "string") {
    const parts = parseText(json, scope);
    const [only] = parts;
    const fill =
      parts.length === 1 && only !== undefined && typeof only !== "string"
        ? (values: TemplateValues) => only.evaluate(values)
        : (values: TemplateValues) => fillText(parts, values);
    return { fill, variables: variablesOf(parts) };
  }
  if (Array.isArray(json)) {
    const items = json.map((item, index) => within(index, () => parseTemplate(item, scope)));
    return {
      fill: (values) => items.map(({ fill }) => fill(values)),
      variables: items.flatMap((item) => item.variables),
    };
  }
  if (typeof json === "object" && json !== null) {
    const entries = Object.entries(json).map(
      ([key, value]) => [key, within(key, () => parseTemplate(value, scope))] as const,
    );
    return {
      fill: (values) => Object.fromEntries(entries.map(([key, { fill }]) => [key, fill(values)])),
      variables: entries.flatMap(([, { variables }]) => variables),
    };
  }
  return { fill: () => json, variables: [] };
}

/**
 * A text with its expressions filled in.
 * @param encode what is done with the value of each expression
 * @throws TemplateError when an expression names what is not there, or what is no text
 */
export function fillText(
  parts: TextTemplate,
  values: TemplateValues,
  encode: (text: string, index: number) => string = (text) => text,
): string {
  return parts
    .map((part, index) => {
      if (typeof part === "string") return part;
      const value = part.evaluate(values);
      if (typeof value === "object" || value === undefined) {
        throw new TemplateError(`\${${part.source}} is ${value === null ? "null" : "no text"}, and stands in a text`);
      }
      const text = `${value as string | number | boolean}`;
      spend(text.length / CHARS_OF_STEP);
      return encode(text, index);
    })
    .join("");
}

/** The environment variables that a text names. */
export function variablesOf(parts: TextTemplate): string[] {
  return parts.flatMap((part) => (typeof part === "string" ? [] : part.variables));
}

function parseExpression(source: string, scope: TemplateScope): Expression {
  let parsed: ParseResult;
  try {
    parsed = environment.parse(source);
    const checked = parsed.check();
    if (!checked.valid) throw checked.error ?? new Error("it is not valid");
    meterExpression(parsed.ast);
  } catch (error) {
    throw new TemplateError(`\${${shorten(source)}}: ${firstLine(error)}`, { cause: error });
  }
  const names = new Set<string>();
  const variables = new Set<string>();
  visit(parsed.ast, new Set(), (variable, key, isOptional) => {
    names.add(variable);
    if (variable === "body" && key !== null && !isOptional && scope.bodyNames?.includes(key) === false) {
      throw new TemplateError(
        `\${${source}}: the schema of the body has no property "${key}"; add it, or write body.?${key} where it may be missing`,
      );
    }
    if (variable === "env") {
      if (key === null) throw new TemplateError(`\${${source}}: name one variable of the environment, as env.NAME`);
      variables.add(key);
    }
    if (variable === "results" && key !== null && !scope.steps.includes(key)) {
      throw new TemplateError(`\${${source}}: no step before this one is named "${key}"`);
    }
    if (variable === "result" && !scope.hasResult) {
      throw new TemplateError(`\${${source}}: only a rollback has a result of its own step`);
    }
  });
  return {
    source,
    variables: [...variables],
    isConstant: [...names].every((name) => name === "env"),
    evaluate: (values) => {
      try {
        const value: unknown = parsed({ ...values });
        requireBudget();
        return plainJson(value);
      } catch (error) {
        // Without the error as its cause: that may quote values, which are in an order's error then.
        throw new TemplateError(`\${${source}}: ${reasonOf(error, variables.size > 0)}`);
      }
    },
  };
}

/** Tells of each variable that an expression names, and which key of it, if one is. */
function visit(
  node: ASTNode,
  bound: ReadonlySet<string>,
  found: (variable: string, key: string | null, isOptional: boolean) => void,
): void {
  const { op, args } = node as { op: string; args: unknown };
  if (op === "id") {
    if (typeof args === "string" && !bound.has(args) && (VARIABLES as readonly string[]).includes(args))
      found(args, null, false);
    return;
  }
  if (op === "value") return;
  // Of `!` and `-` it is the one thing that they stand before.
  const parts = Array.isArray(args) ? (args as unknown[]).flat(2) : [args];
  const [target, key] = parts;
  if ((op === "." || op === ".?" || op === "[]" || op === "[?]") && isNode(target) && target.op === "id") {
    const name = target.args;
    const literal = typeof key === "string" ? key : isNode(key) && key.op === "value" ? key.args : null;
    if (typeof literal === "string" && !bound.has(name) && (VARIABLES as readonly string[]).includes(name)) {
      found(name, literal, op === ".?" || op === "[?]");
      return;
    }
  }
  for (const each of parts) if (isNode(each)) visit(each, bound, found);
}

function isNode(value: unknown): value is ASTNode {
  return typeof value === "object" && value !== null && "op" in value && "args" in value;
}

/** Why an expression could not be evaluated, in one line. What the library says may quote what the environment holds. */
function reasonOf(error: unknown, namesEnvironment: boolean): string {
  if (error instanceof BudgetError) return `${error.message}; it goes through too much of the order's data`;
  if (!namesEnvironment) return shorten(firstLine(error), REASON_CHARS_MAX);
  const code = error instanceof Error && "code" in error ? String(error.code) : "error";
  return `it can't be evaluated (${code}; more is not said, as it names the environment)`;
}

const REASON_CHARS_MAX = 300;

/** Characters of an expression's value that are put into a text at the cost of a step. */
const CHARS_OF_STEP = 16;

/** CEL's whole numbers are bigints; bytes and times have no JSON. What is plain already, as most of an order's data is, stays what it is. */
function plainJson(value: unknown): unknown {
  spend(typeof value === "string" ? 1 + value.length / CHARS_OF_STEP : 1);
  if (typeof value === "bigint") return Number(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) {
    const plain = value.map(plainJson);
    return plain.every((each, index) => each === value[index]) ? value : plain;
  }
  if (value instanceof Map)
    return Object.fromEntries(Array.from(value, ([key, each]) => [String(key), plainJson(each)]));
  if (value instanceof Date) return value.toISOString();
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) throw new Error("its value has no form in JSON");
  const keys = Object.keys(value);
  spend(keys.length > LARGE_KEYS ? keys.length * STEPS_OF_LARGE_KEY : keys.length);
  const fields = value as Readonly<Record<string, unknown>>;
  const plain = keys.map((key) => plainJson(fields[key]));
  return keys.every((key, index) => plain[index] === fields[key])
    ? value
    : Object.fromEntries(keys.map((key, index) => [key, plain[index]]));
}

/** From there on objects are slow to go through, and to make. */
const LARGE_KEYS = 128;
const STEPS_OF_LARGE_KEY = 10;

/** Where the brace is that closes an expression: not one in a text, or of a map in it. */
function endOfExpression(text: string, start: number): number {
  let depth = 0;
  let quote: string | null = null;
  for (let at = start; at < text.length; at++) {
    const char = text[at] ?? "";
    if (quote !== null) {
      if (char === "\\") at++;
      else if (char === quote) quote = null;
    } else if (char === '"' || char === "'") quote = char;
    else if (char === "{") depth++;
    else if (char === "}" && depth-- === 0) return at;
  }
  return -1;
}

function firstLine(error: unknown): string {
  const [line = ""] = (error instanceof Error ? error.message : String(error)).split("\n");
  return line;
}

function shorten(text: string, charsMax = 80): string {
  return text.length > charsMax ? `${text.slice(0, charsMax)}…` : text;
}
