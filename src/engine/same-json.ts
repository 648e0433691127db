/** Whether a request says the same as an earlier one. */
import { isDeepStrictEqual } from "node:util";

/** Whole numbers of so many digits are exactly JavaScript's. */
const PLAIN_DIGITS_MAX = 15;

/** Exponents of more characters are compared as they are written. */
const EXPONENT_CHARS_MAX = 15;

const ZERO = 0x30;
const NINE = 0x39;
const MINUS = 0x2d;
const BACKSLASH = 0x5c;

/**
 * Whether two JSON texts say the same, whatever their spacing, the order of their keys, and how they write a number. Numbers are compared
 * as they are written: two ids beyond 2^53 may be the same to JavaScript and are not. Takes time in proportion to the texts.
 *
 * Both are JSON, and not deep: what has been taken in. They are not read by `JSON.parse`, as it tells of a number's text only at the price
 * of a call for each value, and not always, and may take one key for another (https://github.com/nodejs/node/issues/63785).
 */
export function sameJson(one: string, other: string): boolean {
  if (one === other) return true;
  const numbers = new Map<string, symbol>();
  return isDeepStrictEqual(new Reader(one, numbers).value(), new Reader(other, numbers).value());
}

/** Reads one JSON text. */
class Reader {
  readonly #json: string;
  /** For each number that JavaScript's don't stand for exactly. */
  readonly #numbers: Map<string, symbol>;
  #at = 0;

  constructor(json: string, numbers: Map<string, symbol>) {
    this.#json = json;
    this.#numbers = numbers;
  }

  value(): unknown {
    switch (this.#next()) {
      case "{":
        return this.#object();
      case "[":
        return this.#array();
      case '"':
        return this.#text();
      case "t":
        return this.#word("true", true);
      case "f":
        return this.#word("false", false);
      case "n":
        return this.#word("null", null);
      default:
        return this.#number();
    }
  }

  /** The next character that is no space. */
  #next(): string {
    while (this.#json.charCodeAt(this.#at) <= 0x20) this.#at++;
    return this.#json.charAt(this.#at);
  }

  #object(): object {
    // Without a prototype, `__proto__` is a key like any other.
    const object = Object.create(null) as Record<string, unknown>;
    this.#at++;
    while (this.#next() !== "}") {
      if (this.#json.charAt(this.#at) === ",") this.#skip();
      const key = this.#text();
      this.#skip(); // the colon
      object[key] = this.value();
    }
    this.#at++;
    return object;
  }

  #array(): readonly unknown[] {
    const items: unknown[] = [];
    this.#at++;
    while (this.#next() !== "]") {
      if (this.#json.charAt(this.#at) === ",") this.#skip();
      items.push(this.value());
    }
    this.#at++;
    return items;
  }

  /** What stands between two values, and the spaces around it. */
  #skip(): void {
    this.#next();
    this.#at++;
    this.#next();
  }

  #word<T>(word: string, value: T): T {
    this.#at += word.length;
    return value;
  }

  #text(): string {
    const start = this.#at;
    do this.#at = this.#json.indexOf('"', this.#at + 1);
    while (this.#isEscaped(this.#at));
    const written = this.#json.slice(start, ++this.#at);
    return written.includes("\\") ? (JSON.parse(written) as string) : written.slice(1, -1);
  }

  /** Whether so many backslashes stand before it that the last one is for it. */
  #isEscaped(at: number): boolean {
    let start = at;
    while (this.#json.charCodeAt(start - 1) === BACKSLASH) start--;
    return (at - start) % 2 === 1;
  }

  #number(): number | symbol {
    const start = this.#at;
    let digits = 0;
    for (let code = this.#json.charCodeAt(start); isDigit(code); code = this.#json.charCodeAt(++this.#at)) {
      digits = 10 * digits + code - ZERO;
    }
    const isPlain = this.#at - start <= PLAIN_DIGITS_MAX && !goesOn(this.#json.charCodeAt(this.#at));
    if (isPlain && this.#at > start) return digits;
    while (goesOn(this.#json.charCodeAt(this.#at))) this.#at++;
    return this.#exact(this.#json.slice(start, this.#at));
  }

  #exact(source: string): number | symbol {
    const value = Number(source);
    const shortest = String(value);
    if (source === shortest) return value;
    const exact = exactDecimal(source);
    if (exact === exactDecimal(shortest)) return Number(shortest); // -0 is 0
    const known = this.#numbers.get(exact) ?? Symbol("number");
    this.#numbers.set(exact, known);
    return known;
  }
}

function isDigit(code: number): boolean {
  return code >= ZERO && code <= NINE;
}

/** Whether a number goes on with it: with digits, signs, a point or an exponent. */
function goesOn(code: number): boolean {
  return isDigit(code) || code === 0x2e || code === 0x65 || code === 0x45 || code === MINUS || code === 0x2b;
}

/** A decimal number as its digits without zeros at the ends, and where its point is: one text for all ways to write it. */
function exactDecimal(source: string): string {
  const [mantissa = "", exponent = "0"] = source.split(/[eE]/);
  if (exponent.length > EXPONENT_CHARS_MAX) return source;
  const isNegative = mantissa.startsWith("-");
  const [whole = "", fraction = ""] = (isNegative ? mantissa.slice(1) : mantissa).split(".");
  const all = `${whole}${fraction}`;
  const zeros = zerosAtEnd(all);
  const digits = all.slice(zerosAtStart(all), all.length - zeros);
  return digits === "" ? "0" : `${isNegative ? "-" : ""}${digits}e${Number(exponent) - fraction.length + zeros}`;
}

function zerosAtStart(digits: string): number {
  let count = 0;
  while (digits.charCodeAt(count) === ZERO) count++;
  return count;
}

/** A pattern for them would look at each run of zeros again from each of its places. */
function zerosAtEnd(digits: string): number {
  let count = 0;
  while (digits.charCodeAt(digits.length - 1 - count) === ZERO) count++;
  return count;
}
