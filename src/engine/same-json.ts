/** Whether a request says the same as an earlier one. */
import { randomUUID } from "node:crypto";
import { isDeepStrictEqual } from "node:util";

/** Exponents of more digits are compared as they are written. */
const EXPONENT_CHARS_MAX = 15;

const ZERO = 0x30;

/** The texts of a JSON text, and its numbers that JavaScript may write in another way: those with a point, an exponent, 16 digits, or -0. */
const TEXT_OR_NUMBER = /"[^"\\]*(?:\\.[^"\\]*)*"|-?(?:\d{16,}|\d+(?=[.eE]))[\d.eE+-]*|-0/g;

const NUMBER = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/;

/**
 * Whether two JSON texts say the same, whatever their spacing, the order of their keys, and how they write a number. Numbers are compared
 * as they are written: two ids beyond 2^53 may be the same to JavaScript and are not. Takes time in proportion to the texts.
 */
export function sameJson(one: string, other: string): boolean {
  if (one === other) return true;
  // No text of either can begin with it: it is made up when both are there.
  const mark = randomUUID();
  return isDeepStrictEqual(JSON.parse(withExactNumbers(one, mark)), JSON.parse(withExactNumbers(other, mark)));
}

/** The same JSON text; for each number that JavaScript's don't stand for exactly it has a marked text. */
function withExactNumbers(json: string, mark: string): string {
  return json.replace(TEXT_OR_NUMBER, (part) => (part.startsWith('"') ? part : exactNumber(part, mark)));
}

function exactNumber(source: string, mark: string): string {
  const shortest = String(Number(source));
  if (source === shortest) return source;
  const exact = exactDecimal(source);
  return exact === exactDecimal(shortest) ? shortest : `"${mark} ${exact}"`;
}

/** A decimal number as its digits without zeros at the ends, and where its point is: one text for all ways to write it. */
function exactDecimal(source: string): string {
  const [, sign = "", whole = "", fraction = "", exponent = "0"] = NUMBER.exec(source) ?? [];
  if (whole === "" || exponent.length > EXPONENT_CHARS_MAX) return source;
  const all = `${whole}${fraction}`;
  const digits = withoutZeros(all);
  return digits === "" ? "0" : `${sign}${digits}e${Number(exponent) - fraction.length + zerosAtEnd(all)}`;
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
