/** Whether a request says the same as an earlier one. */
import { isDeepStrictEqual } from "node:util";

/**
 * Whether two JSON texts say the same, whatever their spacing, the order of their keys, and how they write a number. Numbers are compared
 * as they are written: two ids beyond 2^53 may be the same to JavaScript and are not.
 */
export function sameJson(one: string, other: string): boolean {
  return one === other || isDeepStrictEqual(parseExactly(one), parseExactly(other));
}

/** The JSON value, with a text of its own for each number's exact value. */
function parseExactly(text: string): unknown {
  return JSON.parse(text, (_key: string, value: unknown, context?: { source?: string }) =>
    typeof value === "number" ? new Exact(context?.source ?? String(value)) : value,
  );
}

/** A decimal number as its digits without zeros at the ends, and where its point is. */
class Exact {
  readonly digits: string;
  readonly exponent: number;

  constructor(source: string) {
    const [, sign = "", whole = "", fraction = "", exponent = "0"] =
      /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/.exec(source) ?? [];
    const significant = `${whole}${fraction}`.replace(/^0+/, "");
    const digits = significant.replace(/0+$/, "");
    this.digits = digits === "" ? "0" : `${sign}${digits}`;
    this.exponent = digits === "" ? 0 : Number(exponent) - fraction.length + significant.length - digits.length;
  }
}
