import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeResult, RESULT_CHARS_MAX, RESULTS_CHARS_MAX } from "./result.ts";

const cycle: { self?: unknown } = {};
cycle.self = cycle;
const deep = JSON.parse(`${"[".repeat(150)}1${"]".repeat(150)}`) as unknown;

for (const [what, value, expected] of [
  ["nothing", undefined, { ok: true, text: null }],
  ["null", null, { ok: true, text: "null" }],
  [
    "an object",
    { a: [1, "x"], when: new Date(0) },
    { ok: true, text: '{"a":[1,"x"],"when":"1970-01-01T00:00:00.000Z"}' },
  ],
  ["what JSON leaves out", { toJSON: () => undefined }, { ok: true, text: null }],
] as const) {
  test(`${what} can be kept`, () => assert.deepEqual(encodeResult(value, 0), expected));
}

for (const [what, value, message] of [
  ["a function", () => 1, /returned a function; return JSON, or nothing/],
  ["a symbol", Symbol("x"), /returned a symbol/],
  ["a cycle", cycle, /can't be made JSON: .*circular/],
  ["a big integer", { n: 1n }, /can't be made JSON: .*BigInt/],
  ["10 MiB", "x".repeat(10 * 1024 * 1024), /returned 10485762 characters of JSON; the most is 65536/],
  ["what is nested too deeply", deep, /nested deeper than 100 levels/],
  [
    "what throws when it is looked at",
    {
      toJSON: () => {
        throw new Error("no\nway");
      },
    },
    /can't be made JSON: no$/,
  ],
] as const) {
  test(`${what} is refused, in one line`, () => {
    const encoded = encodeResult(value, 0);
    assert.ok(!encoded.ok && message.test(encoded.error), JSON.stringify(encoded));
  });
}

test("all results of an order together have a limit, too", () => {
  const value = "x".repeat(RESULT_CHARS_MAX - 2);
  assert.ok(encodeResult(value, RESULTS_CHARS_MAX - RESULT_CHARS_MAX).ok);
  assert.ok(!encodeResult(value, RESULTS_CHARS_MAX - RESULT_CHARS_MAX + 1).ok);
});
