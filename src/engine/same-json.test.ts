import assert from "node:assert/strict";
import { test } from "node:test";
import { sameJson } from "./same-json.ts";

const SAME: readonly (readonly [string, string])[] = [
  ['{"a":1,"b":[true,null]}', '{ "b": [true, null], "a": 1 }'],
  ['{"a":"\\u0041"}', '{"a":"A"}'],
  ["[1, 10, 0.5]", "[1.0, 1e1, 5E-1]"],
  ["[120]", "[1.20e+2]"],
  ["[0, 0]", "[-0, 0.00e7]"],
  ["[9007199254740993]", "[9007199254740993.0]"],
  ["[9007199254740993]", "[9007199254740993e0]"],
  ["[0.1, 1e21, 1e-7]", "[1e-1, 1000000000000000000000, 0.0000001]"],
  ["[1e400]", "[10e399]"],
];

const DIFFERENT: readonly (readonly [string, string])[] = [
  ['{"a":1}', '{"a":2}'],
  ['{"a":1}', '{"a":"1"}'],
  ['{"a":[1,2]}', '{"a":[2,1]}'],
  ["[9007199254740992]", "[9007199254740993]"], // the same to JavaScript
  ["[1e400]", "[2e400]"],
  ["[1e-400]", "[0]"],
  ["[1e99999999999999999998]", "[1e99999999999999999999]"],
  ["[0.1]", "[0.10000000000000000001]"],
  ["[-1]", "[1]"],
  ["[10]", "[100]"],
];

test("two texts of one JSON value say the same", () => {
  for (const [one, other] of SAME) assert.ok(sameJson(one, other), `${one} and ${other}`);
});

test("numbers and lists as long as a body are compared at once", { timeout: 20_000 }, () => {
  for (const text of [
    `1.${"0".repeat(255_000)}1`,
    "10".repeat(127_000),
    `[${"1.0,".repeat(63_000)}1]`,
    `[${'"",'.repeat(80_000)}1]`,
    `[${"123456789012345,".repeat(15_000)}1]`,
    `["${'\\"'.repeat(127_000)}"]`,
  ]) {
    assert.ok(sameJson(text, `${text} `));
    assert.ok(!sameJson(text, `[${text}]`));
  }
});

test("texts of two JSON values don't, also where JavaScript's numbers can't tell them apart", () => {
  for (const [one, other] of DIFFERENT) assert.ok(!sameJson(one, other), `${one} and ${other}`);
});

test("V8 not telling how a number is written makes no two numbers the same", () => {
  // After such a key it takes other keys of one escape for it, and leaves their sources out (https://github.com/nodejs/node/issues/63785).
  JSON.parse('{"a":1,"\\\\":2}');
  assert.ok(!sameJson('{"a":1,"\\"":9007199254740993}', '{"a":1,"\\"":9007199254740992}'));
  assert.ok(sameJson('{"a":1,"\\"":0.0}', '{"a":1,"\\"":-0}'));
});
