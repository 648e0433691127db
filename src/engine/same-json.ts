/** Whether a request says the same as an earlier one. */
import { isDeepStrictEqual } from "node:util";

/** Exponents of more digits are compared as they are written. */
const EXPONENT_CHARS_MAX = 15;

/**
 * Whether two JSON texts say the same, whatever their spacing, the order of their keys, and how they write a number. Numbers are compared
 * as they are written: two ids beyond 2^53 may be the same to JavaScript and are not. Takes time in proportion to the texts.
 */
export function sameJson(one: string, other: string): boolean {
  return one === other || isDeepStrictEqual(parseExactly(one), parseExactly(other));
}

/** The JSON value; numbers that JavaScript's don't stand for exactly have an object that does. */
function parseExactly(text: string): unknown {
  return JSON.parse(text, (_key: string, value: unknown, context?: { source?: string }) =>
    typeof value === "number" ? exactNumber(value, context?.source ?? String(value)) : value,
  );
}

function exactNumber(value: number, source: string): unknown {
  const shortest = String(value);
  if (source === shortest) return value;
  const [exact, ofValue] = [new Exact(source), new Exact(shortest)];
  if (!isDeepStrictEqual(exact, ofValue)) return exact;
  return value === 0 ? 0 : value; // -0 is 0
}

/** A decimal number as its digits without zeros at the ends, and where its point is. */
class Exact {
  readonly digits: string;
  readonly exponent: number;

  constructor(source: string) {
    const [, sign = "", whole = "", fraction = "", exponent = "0"] =
      /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(source) ?? [];
    if (whole === "" || exponent.length > EXPONENT_CHARS_MAX) {
      this.digits = source;
      this.exponent = 0;
      return;
    }
    const all = `${whole}${fraction}`;
    const digits = withoutZeros(all);
    this.digits = digits === "" ? "0" : `${sign}${digits}`;
    this.exponent = digits === "" ? 0 : Number(exponent) - fraction.length + zerosAtEnd(all);
  }
}

/** A pattern for the zeros at the end would look at each run of zeros again from each of its places. */
function zerosAtEnd(digits: string): number {
  let count = 0;
  while (digits.charCodeAt(digits.length - 1 - count) === ZERO) count++;
  return count;
}

function withoutZeros(digits: string): string {
  let start = 0;
  while (digits.charCodeAt(start) === ZERO) start++;
  return digits.slice(start, Math.max(start, digits.length - zerosAtEnd(digits)));
}

const ZERO = 0x30;
