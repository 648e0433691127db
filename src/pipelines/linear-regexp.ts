/**
 * Regular expressions in linear time, for texts and patterns that may come from an order: RE2 (as CEL specifies), which has no
 * backtracking, no lookaround and no backreferences.
 */
import { RE2JS } from "re2js";
import { spend } from "./budget.ts";

/** A pattern is none, or not one of RE2. `message` says why, in one line. */
export class PatternError extends Error {
  override readonly name = "PatternError";
}

export interface LinearRegExp {
  readonly source: string;
  /** Whether the pattern is found in a text. Throws BudgetError. */
  readonly test: (text: string) => boolean;
}

/** Measured: the slowest texts take 70 ns for each character and instruction of the pattern's program. */
const STEPS_OF_INSTRUCTION = 0.7;

/** Of a program that never has two ways to go. */
const STEPS_OF_CHARACTER = 0.5;

const STEPS_OF_CALL = 10;

/** One test can't be interrupted: beyond that, text and pattern together are too long. */
const TEST_STEPS_MAX = 700_000;

/** Larger programs take seconds to compile. */
const PROGRAM_SIZE_MAX = 10_000;

/**
 * A pattern of a file.
 * @param dialect "ecma": with JavaScript's escapes, as JSON Schema has them
 * @throws PatternError
 */
export function compilePattern(pattern: string, dialect: "re2" | "ecma"): LinearRegExp {
  let program: RE2JS;
  try {
    program = RE2JS.compile(dialect === "ecma" ? RE2JS.translateRegExp(pattern) : pattern);
  } catch (error) {
    const reason = (error instanceof Error ? error.message : String(error)).replace("error parsing regexp: ", "");
    throw new PatternError(
      `the pattern ${shown(pattern)} is none of RE2, which has no lookaround and no \\1: ${reason}`,
    );
  }
  if (program.programSize() > PROGRAM_SIZE_MAX) throw new PatternError(`the pattern ${shown(pattern)} is too large`);
  const isOnePass = program.re2().onepass !== null;
  const stepsOfCharacter = isOnePass ? STEPS_OF_CHARACTER : program.programSize() * STEPS_OF_INSTRUCTION;
  return {
    source: pattern,
    test: (text) => {
      const stepsMax = STEPS_OF_CALL + Math.ceil(text.length * stepsOfCharacter);
      if (stepsMax > TEST_STEPS_MAX) spend(Number.MAX_VALUE);
      // Most texts take much less than the slowest ones.
      const start = performance.now();
      const isFound = program.test(text);
      spend(Math.min(stepsMax, STEPS_OF_CALL + (performance.now() - start) * STEPS_PER_MS));
      return isFound;
    },
  };
}

const STEPS_PER_MS = 10_000;

/** Patterns made while orders run, of which each takes time to compile. */
const MADE_CHARS_MAX = 500;
const MADE_REPEATS_MAX = 20_000;
const STEPS_OF_MADE_CHARACTER = 500;

/** Where upper and lower case are the same, each character between the two ends of a range is looked up. */
const IGNORES_CASE = /\(\?[a-z-]*i/i;
const RANGES_BEYOND_ASCII = /(?<!\w)-|-(?!\w)/g;
const STEPS_OF_RANGE = 30_000;
const KEPT_MAX = 100;

const kept = new Map<string, LinearRegExp>();

/**
 * Whether a pattern that is made while orders run, and may be theirs, is found in a text.
 * @throws PatternError, BudgetError
 */
export function matchesPattern(text: string, pattern: string): boolean {
  let compiled = kept.get(pattern);
  if (compiled === undefined) {
    if (pattern.length > MADE_CHARS_MAX)
      throw new PatternError(`a pattern is longer than ${MADE_CHARS_MAX} characters`);
    const repeats = Array.from(pattern.matchAll(/\{\d*,?(\d*)\}/g), ([all, last]) =>
      Number(last || /\d+/.exec(all)?.[0]),
    );
    const repeated = repeats.reduce((sum, times) => sum + (times || 0), 0) * pattern.length;
    if (repeated > MADE_REPEATS_MAX) throw new PatternError("a pattern repeats too much");
    spend(pattern.length * STEPS_OF_MADE_CHARACTER);
    if (IGNORES_CASE.test(pattern)) spend((pattern.match(RANGES_BEYOND_ASCII)?.length ?? 0) * STEPS_OF_RANGE);
    compiled = compilePattern(pattern, "re2");
    const [oldest] = kept.size < KEPT_MAX ? [] : kept.keys();
    if (oldest !== undefined) kept.delete(oldest);
    kept.set(pattern, compiled);
  }
  return compiled.test(text);
}

function shown(pattern: string): string {
  return JSON.stringify(pattern.length > 80 ? `${pattern.slice(0, 80)}…` : pattern);
}
