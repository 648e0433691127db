/**
 * Makes CEL expressions end. An expression has no loops but those over lists and maps, nested; what it costs grows with an order's
 * data all the same, as a power of it. Each node of the tree counts against the budget when it is evaluated, and each operator and
 * function by what it is given. `matches` gets an engine of linear time.
 *
 * The library has no hook for it: the nodes of its tree have an `evaluate` and, once they are checked, a `handle`, which the types don't
 * tell of. Both are replaced, and a node without them is refused, so that another version of the library can't go unmetered.
 */
import type { ASTNode } from "@marcbachmann/cel-js";
import { requireBudget, spend } from "./budget.ts";
import { compilePattern, matchesPattern } from "./linear-regexp.ts";

type Evaluate = (this: unknown, evaluator: unknown, node: unknown, context: unknown) => unknown;

/** Operators are given both sides; calls a list of values, with the receiver in front. */
type Handle = (first: unknown, second: unknown, ...rest: unknown[]) => unknown;

/** A node as the library evaluates it. */
interface Node {
  readonly op: string;
  readonly args: unknown;
  evaluate: Evaluate;
  handle?: Handle;
}

const OPERATORS: ReadonlySet<string> = new Set(["==", "!=", "in", "+", "-", "*", "/", "%", "<", "<=", ">", ">="]);

/** An error is made with its stack and a line of the expression; `all` and `exists` catch it and go on. */
const STEPS_OF_ERROR = 80;

const STEPS_OF_CALL = 5;

/** Copying, comparing or reading so many characters is a step. */
const CHARS_OF_STEP = 16;

/** Looking for a text within a text takes, at the worst, the product of both: so many pairs of characters a step. */
const PAIRS_OF_STEP = 256;

const SEARCHES: ReadonlySet<string> = new Set(["contains", "indexOf", "lastIndexOf", "split"]);

/** Times in other time zones are made by way of texts. */
const STEPS_OF_ZONE = 1_000;

/** V8 keeps the keys of small objects; those of large ones are gathered and sorted each time, which the library has done often. */
const KEYS_OF_SMALL = 128;
const KEYS_OF_STEP = 8;
const STEPS_OF_LARGE_KEY = 5;

/** What reads a duration tries all ways to part its digits. */
const DURATION_CHARS_MAX = 64;
const WAYS_OF_STEP = 4;

/** Beyond ASCII a character may become several. */
const CHANGES_CASE: ReadonlySet<string> = new Set(["lowerAscii", "upperAscii"]);
const CHARS_OF_CASE_STEP = 6;

/**
 * Meters an expression that was checked.
 * @throws PatternError when it has a pattern, written out, that the engine can't take
 */
export function meterExpression(root: ASTNode): void {
  meterNode(root, false);
}

function meterNode(part: unknown, isIterated: boolean): void {
  if (Array.isArray(part)) {
    for (const each of part as unknown[]) meterNode(each, false);
    return;
  }
  if (!isNode(part)) return;
  const { op, args } = part;
  meterEvaluation(part, isIterated);
  if (op === "rcall" || op === "call") {
    meterCall(part, args as unknown[]);
    const isMacro = part.handle === undefined;
    for (const [index, each] of (args as unknown[]).entries())
      meterNode(each, isMacro && op === "rcall" && index === 1);
    return;
  }
  if (OPERATORS.has(op)) {
    const { handle } = part;
    if (handle === undefined) throw new Error(`the operator ${op} can't be metered`);
    part.handle = (left, right, ...rest) => {
      payOperator(op, left, right);
      return handle(left, right, ...rest);
    };
  }
  meterNode(op === "value" || op === "id" ? null : args, false);
}

function meterEvaluation(node: Node, isIterated: boolean): void {
  let evaluate = node.evaluate;
  if (typeof evaluate !== "function") throw new Error(`the node ${node.op} can't be metered`);
  const metered: Evaluate = (evaluator, _, context) => {
    spend(1);
    try {
      const value = evaluate.call(node, evaluator, node, context);
      if (isIterated) spend(sizeOf(value));
      return value;
    } catch (error) {
      requireBudget();
      spend(STEPS_OF_ERROR);
      throw error;
    }
  };
  // When it is evaluated first, a node puts the function there that it has chosen.
  Object.defineProperty(node, "evaluate", {
    get: () => metered,
    set: (chosen: Evaluate) => {
      evaluate = chosen;
    },
  });
}

function meterCall(node: Node, args: readonly unknown[]): void {
  const { handle } = node;
  // A macro, whose parts are metered.
  if (handle === undefined) return;
  const [name] = args;
  if (name === "matches") {
    node.handle = matchesHandle(handle, args);
    return;
  }
  node.handle = (first, second, ...rest) => {
    payCall(String(name), first as readonly unknown[]);
    return handle(first, second, ...rest);
  };
}

function matchesHandle(handle: Handle, args: readonly unknown[]): Handle {
  const [written] = (args.at(-1) ?? []) as readonly unknown[];
  const literal = isNode(written) && written.op === "value" ? written.args : null;
  const compiled = typeof literal === "string" ? compilePattern(literal, "re2") : null;
  return (values, ...rest) => {
    const [text, pattern] = values as readonly unknown[];
    // The library says what it says of other types.
    if (typeof text !== "string" || typeof pattern !== "string") return handle(values, ...rest);
    return compiled === null ? matchesPattern(text, pattern) : compiled.test(text);
  };
}

function payOperator(op: string, left: unknown, right: unknown): void {
  payType(left);
  payType(right);
  if (op === "==" || op === "!=") compare(left, right);
  else if (op === "in") payMembership(left, right);
  else if (op === "+") spend(sizeOf(left) + sizeOf(right));
  else if (typeof left === "string" && typeof right === "string") payText(Math.min(left.length, right.length));
}

function payMembership(value: unknown, collection: unknown): void {
  if (typeof collection === "string") return paySearch(collection, value);
  if (!Array.isArray(collection)) return spend(1);
  for (const each of collection as unknown[]) if (compare(value, each)) return undefined;
  return undefined;
}

function payCall(name: string, values: readonly unknown[]): void {
  spend(STEPS_OF_CALL);
  const [subject, second] = values;
  if (name === "size" && Array.isArray(subject)) return;
  for (const value of values) {
    payType(value);
    spend(sizeOf(value));
  }
  if (name === "size" && typeof subject === "string") spend(subject.length);
  if (SEARCHES.has(name) && typeof subject === "string") {
    paySearch(subject, second);
    if (name === "split") spend(subject.length);
  }
  if (name === "join" && Array.isArray(subject)) {
    const between = typeof second === "string" ? second.length : 0;
    for (const each of subject as unknown[]) payText(between + (typeof each === "string" ? each.length : 0));
  }
  if (name === "duration" && typeof subject === "string") payDuration(subject);
  if (CHANGES_CASE.has(name) && typeof subject === "string") spend(subject.length / CHARS_OF_CASE_STEP);
  if (subject instanceof Date && values.length > 1) spend(STEPS_OF_ZONE);
}

function payDuration({ length }: string): void {
  if (length > DURATION_CHARS_MAX) throw new Error(`duration() takes ${DURATION_CHARS_MAX} characters at the most`);
  spend((length * length) / WAYS_OF_STEP);
}

function paySearch(text: string, sought: unknown): void {
  const soughtLength = typeof sought === "string" ? sought.length : 0;
  if (soughtLength <= text.length) spend((text.length * soughtLength) / PAIRS_OF_STEP);
}

/** To find out which operator or function is meant, the library looks into a list's first item, a map's first value, and so on. */
function payType(value: unknown): void {
  for (let part = value; typeof part === "object" && part !== null;) {
    if (Array.isArray(part)) {
      spend(STEPS_OF_TYPE);
      part = (part as unknown[])[0];
    } else {
      const { steps, first } = keysOf(part);
      spend(STEPS_OF_TYPE + steps);
      part = first;
    }
  }
}

const STEPS_OF_TYPE = 3;

interface Keys {
  readonly count: number;
  readonly steps: number;
  /** The value of the first one. */
  readonly first: unknown;
}

/** Of objects that are looked at again and again; an order's data is new for each attempt. */
const known = new WeakMap<object, Keys>();

function keysOf(map: object): Keys {
  let keys = known.get(map);
  if (keys === undefined) {
    const names = Object.keys(map);
    const [first = ""] = names;
    const count = names.length;
    const steps = 1 + (count <= KEYS_OF_SMALL ? count / KEYS_OF_STEP : count * STEPS_OF_LARGE_KEY);
    keys = { count, steps, first: (map as Readonly<Record<string, unknown>>)[first] };
    known.set(map, keys);
  }
  return keys;
}

function payText(chars: number): void {
  spend(chars / CHARS_OF_STEP);
}

/** The steps that it takes to go through something, but not through what is in it. */
function sizeOf(value: unknown): number {
  if (typeof value === "string") return value.length / CHARS_OF_STEP;
  if (typeof value !== "object" || value === null) return 0;
  if (value instanceof Uint8Array) return value.length / CHARS_OF_STEP;
  return Array.isArray(value) ? value.length : keysOf(value).steps;
}

/** Whether two values are the same, as far as the library compares them to find out; counts each part that is compared. */
function compare(left: unknown, right: unknown): boolean {
  spend(1);
  if (left === right) {
    if (typeof left === "string") payText(left.length);
    return true;
  }
  if (typeof left !== "object" || typeof right !== "object" || left === null || right === null) {
    if (typeof left === "string" && typeof right === "string") payText(Math.min(left.length, right.length));
    return false;
  }
  if (Array.isArray(left) && Array.isArray(right)) {
    return left.length === right.length && left.every((each, index) => compare(each, right[index]));
  }
  spend(sizeOf(left) + sizeOf(right));
  if (keysOf(left).count !== keysOf(right).count) return false;
  const [one, other] = [left, right] as Readonly<Record<string, unknown>>[];
  return Object.keys(left).every((key) => Object.hasOwn(right, key) && compare(one?.[key], other?.[key]));
}

function isNode(value: unknown): value is Node {
  return typeof value === "object" && value !== null && "op" in value && "args" in value;
}
