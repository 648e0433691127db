/** Bodies, expressions, schemas and patterns that would take without end: each is judged, or refused. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { BodyFinding, JsonObject } from "../order/pipeline.ts";
import { compileBodySchema } from "./body-schema.ts";
import { BudgetError, withinBudget } from "./budget.ts";
import { compilePattern, matchesPattern, PatternError } from "./linear-regexp.ts";
import { parseTemplate, TemplateError } from "./template.ts";

const scope = { steps: [], hasResult: false, bodyNames: null };

const REDOS = "^([a-zA-Z0-9]+[._-]?)+@example[.]org$";

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index);

const body: JsonObject = {
  email: `${"a".repeat(66)}!`,
  text: "a".repeat(130_000),
  needle: `${"a".repeat(60_000)}b${"a".repeat(3_000)}`,
  digits: "1".repeat(5_000),
  a: numbers(3_000),
  b: numbers(3_000).toReversed(),
  many: Array.from({ length: 100_000 }, () => 1),
  keys: Object.fromEntries(numbers(20_000).map((index) => [`key ${index}`, index])),
  times: Array.from({ length: 4_000 }, () => "2026-11-26T13:00:00Z"),
  patterns: numbers(2_000).map((index) => `x{0,100}y${index}`),
  large: "(a{0,1000})".repeat(40),
  greek: "\u0390".repeat(120_000),
  folded: ["B-\u{1e942}", "\\x{42}-\\x{1e942}", "\u00e0-\u{1e942}"].map((range) => `(?i)b[${range.repeat(30)}]`),
};

function evaluated(expression: string): unknown {
  const { fill } = parseTemplate(`\${${expression}}`, scope);
  const values = { order: { id: "o", user: "u" }, body, results: {}, result: null, attempt: 1, env: {} };
  return withinBudget(() => fill(values));
}

for (const [expression, expected] of [
  [`body.email.matches('${REDOS}')`, false],
  [`body.email.matches(body.?pattern.orValue('${REDOS}'))`, false],
  ["body.a.all(x, body.b.exists(y, y == x))", null],
  ["body.a.exists(x, body.b.exists(y, y == x + 4000))", null],
  ["body.a.map(x, body.b.map(y, [x, y]))", null],
  ["body.a.filter(x, body.b.filter(y, x == y).size() > 1)", null],
  ["body.many.all(x, x.nothing == 1)", null],
  ["body.a.all(x, x in body.b)", null],
  ["body.a.map(x, size(body.keys))", null],
  ["body.a.all(x, 'key 1' in body.keys)", null],
  ["body.a.map(x, body.keys.exists(key, true))", null],
  ["body.a.map(x, body.keys)", null],
  ["body.a.map(x, body.text)", null],
  ["body.a.map(x, size(body.text))", null],
  ["body.text.contains(body.needle)", null],
  ["body.text.lastIndexOf(body.needle)", null],
  ["body.text.split(body.needle)", null],
  ["duration(body.digits)", null],
  ["body.times.map(time, timestamp(time).getHours('Europe/Berlin'))", null],
  ["body.patterns.exists(pattern, body.text.matches(pattern))", null],
  ["'aaa'.matches(body.large)", null],
  ["'aaa'.matches(body.text)", null],
  ["body.text.matches('[ab]*a[ab]{20}[ac]$')", null],
  ["body.a.map(x, body.text + 'b').size()", null],
  ["cel.bind(a, body.many + body.many, cel.bind(b, a + a, cel.bind(c, b + b, cel.bind(d, c + c, size(d + d)))))", null],
  [
    "cel.bind(a, [body.a, body.a], cel.bind(b, [a, a], cel.bind(c, [b, b], cel.bind(d, [c, c], [d, d, d, d, d, d, d]))))",
    null,
  ],
] as const) {
  test(`the expression ${expression.slice(0, 100)} ends, or is refused by name`, () => {
    try {
      const value = evaluated(expression);
      if (expected !== null) assert.equal(value, expected);
    } catch (error) {
      assert.equal(expected, null, String(error));
      assert.ok(error instanceof TemplateError, String(error));
      assert.ok(error.message.startsWith(`\${${expression}}: `), error.message);
    }
  });
}

test("an expression that is refused says so even where errors are caught", () => {
  assert.throws(
    () => evaluated("body.a.all(x, body.b.all(y, x != y + 5000)) || true"),
    /takes more than 1,000,000 steps/,
  );
});

test("what takes long in one call counts for that much", () => {
  for (const expression of [
    "body.a.exists(x, duration(body.digits.substring(0, 64)) < duration('1s'))",
    "body.a.map(x, body.greek.upperAscii().size())",
    "body.folded.exists(p, 'aaa'.matches(p))",
  ])
    assert.throws(() => evaluated(expression), /takes more than 1,000,000 steps/, expression);
});

test("what orders usually need of expressions is far within the budget", () => {
  assert.equal(evaluated("body.a.map(x, x * 2).filter(x, x > 10).size()"), 2_994);
  assert.equal(evaluated("body.b.filter(y, y in [1, 2, 3, 5, 8]).all(x, x in body.a)"), true);
  assert.deepEqual(
    evaluated("body.a.filter(x, string(x).matches('^[0-9]$')).map(x, {'id': x})"),
    numbers(10).map((id) => ({ id })),
  );
  assert.deepEqual(evaluated("body"), body);
});

test("a pattern of an expression that is written out is refused where it is none of RE2", () => {
  for (const pattern of ["(?=a)b", "(?<!a)b", "(a)\\\\1", "(", "a{2000}"]) {
    assert.throws(
      () => parseTemplate(`\${body.email.matches('${pattern}')}`, scope),
      /the pattern ".*" is none of RE2/,
    );
  }
});

test("patterns of RE2 are what CEL says: found anywhere, by characters, not by code units", () => {
  for (const [text, pattern] of [
    ["xaby", "ab"],
    ["😀", "^.$"],
    ["Ünder", "^\\pL+$"],
    ["a\nb", "a\\sb"],
  ] as const)
    assert.ok(matchesPattern(text, pattern), pattern);
  assert.ok(compilePattern("^\\u0041[^\\/]\\p{L}$", "ecma").test("A-é"));
});

test("a pattern of an order is refused if it would take long to prepare", () => {
  for (const pattern of ["a{0,1000}".repeat(40), "a".repeat(501), "((a{0,30}){0,30}){0,30}"])
    assert.throws(() => withinBudget(() => matchesPattern("a", pattern)), PatternError);
});

test("one budget is used up whatever is caught in between, and the next one is whole", () => {
  const { fill } = parseTemplate("${body.a.all(x, body.b.all(y, x != y + 5000))}", scope);
  const values = { order: { id: "o", user: "u" }, body, results: {}, result: null, attempt: 1, env: {} };
  assert.throws(() => {
    withinBudget(() => {
      try {
        fill(values);
      } catch {
        // As if nothing had been.
      }
    });
  }, BudgetError);
  assert.equal(evaluated("1 + 1"), 2);
});

function judged(schema: object, candidate: JsonObject): BodyFinding {
  const check = compileBodySchema(
    schema,
    (path, message) => assert.fail(`${path.join("/")}: ${message}`),
    ({ message = "" }) => message,
  );
  const finding = check?.(candidate);
  assert.ok(finding !== undefined && !(finding instanceof Promise));
  return finding;
}

/** A value within so many objects. */
function nested(depth: number): JsonObject {
  let value: JsonObject = {};
  for (let level = 0; level < depth; level++) value = { x: value, y: 1 };
  return value;
}

/** A schema that refers to itself by way of `again`, from property r on. */
const recursive = (a: (again: object) => object): object => ({
  $defs: { a: a({ properties: { x: { $ref: "#/$defs/a" } } }) },
  properties: { r: { $ref: "#/$defs/a" } },
});

const tooMuch = /takes more than 1,000,000 steps/;

for (const [what, schema, candidate, expected] of [
  ["a pattern that backtracks", { properties: { e: { pattern: REDOS } } }, { e: body["email"] }, /must match pattern/],
  ["patternProperties that backtrack", { patternProperties: { [REDOS]: false } }, { [String(body["email"])]: 1 }, null],
  ["propertyNames that backtrack", { propertyNames: { pattern: REDOS } }, { [String(body["email"])]: 1 }, /must match/],
  [
    "uniqueItems of objects",
    { properties: { a: { uniqueItems: true } } },
    { a: numbers(20_000).map((id) => ({ id })) },
    null,
  ],
  [
    "anyOf that refers to itself",
    recursive((again) => ({
      anyOf: [
        { ...again, required: ["z"] },
        { ...again, required: ["q"] },
      ],
    })),
    { r: nested(95) },
    /must have required property|steps/,
  ],
  ["oneOf that refers to itself", recursive((again) => ({ oneOf: [again, again] })), { r: nested(95) }, tooMuch],
  ["allOf that refers to itself", recursive((again) => ({ allOf: [again, again] })), { r: nested(95) }, tooMuch],
  ["not that refers to itself", recursive((again) => ({ not: again, ...again })), { r: nested(95) }, tooMuch],
  [
    "if that refers to itself",
    recursive((again) => Object.fromEntries(["if", "then"].map((keyword) => [keyword, again]))),
    { r: nested(95) },
    tooMuch,
  ],
  [
    "dependentSchemas that refer to themselves",
    recursive((again) => ({ dependentSchemas: { x: again, y: again } })),
    { r: nested(95) },
    tooMuch,
  ],
  [
    "a dynamic reference",
    {
      $dynamicAnchor: "n",
      anyOf: [{ properties: { x: { $dynamicRef: "#n" } } }],
      properties: { x: { $dynamicRef: "#n" } },
    },
    nested(95),
    tooMuch,
  ],
  [
    "many choices for many items",
    { properties: { a: { items: { anyOf: numbers(100).map((id) => ({ const: id + 10 })) } } } },
    { a: body["many"] },
    /constant|steps/,
  ],
  [
    "a large enum",
    { properties: { a: { items: { enum: numbers(1_000).map((id) => ({ id })) } } } },
    { a: numbers(5_000).map(() => ({ id: 999 })) },
    tooMuch,
  ],
  [
    "many patterns for many keys",
    { patternProperties: Object.fromEntries(numbers(100).map((id) => [`^k.*${id}$`, true])) },
    { ...(body["keys"] as object) },
    tooMuch,
  ],
  [
    "many items that are wrong",
    { properties: { a: { items: { minimum: 2, maximum: 0 } } } },
    { a: body["many"] },
    /must be/,
  ],
  [
    "many items that are right",
    { properties: { a: { items: { type: "number", minimum: 0, maximum: 2 } } } },
    { a: body["many"] },
    null,
  ],
  [
    "many items that are wrong under a key as long as a body",
    { additionalProperties: { items: { type: "number" } } },
    { ["~".repeat(130_000)]: numbers(40_000).map(() => "") },
    /must be number/,
  ],
  [
    "many choices for a key as long as a body",
    { additionalProperties: { anyOf: numbers(100).map((id) => ({ const: id })) } },
    { ["/".repeat(250_000)]: "x" },
    /must be equal/,
  ],
  ...[3, 8, 55].map(
    (choices) =>
      [
        `contains, and ${choices} choices that none of many items is`,
        { properties: { a: { contains: { anyOf: numbers(choices).map(() => ({ type: "string" })) } } } },
        { a: numbers(125_000).map(() => 1) },
        tooMuch,
      ] as const,
  ),
  [
    "contains of a schema elsewhere, that none of many items is",
    {
      $defs: { a: { anyOf: [{ $ref: "#/$defs/b" }] }, b: { type: "string" } },
      properties: { a: { contains: { $ref: "#/$defs/a" } } },
    },
    { a: numbers(125_000).map(() => 1) },
    tooMuch,
  ],
  [
    "49 choices of which many items are the last",
    { properties: { a: { items: { anyOf: [...numbers(48).map(() => ({ type: "string" })), { type: "number" }] } } } },
    { a: numbers(125_000).map(() => 1) },
    tooMuch,
  ],
  [
    "three choices of which some thousand items are the last",
    { properties: { a: { items: { anyOf: [{ type: "string" }, { type: "null" }, { type: "number" }] } } } },
    { a: numbers(20_000).map(() => 1) },
    null,
  ],
  [
    "contains, that one of some thousand items is",
    { properties: { a: { contains: { const: 2 } } } },
    { a: [...numbers(20_000).map(() => 1), 2] },
    null,
  ],
  [
    "a long text with a pattern",
    { properties: { e: { pattern: "^data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+$" } } },
    { e: `data:image/png;base64,${"Ab+/".repeat(60_000)}` },
    null,
  ],
] as const satisfies readonly (readonly [string, object, JsonObject, RegExp | null])[]) {
  test(`a body is judged by a schema with ${what}`, () => {
    const finding = judged(schema, candidate);
    if (expected === null) assert.deepEqual(finding, { kind: "accepted", body: candidate });
    else {
      assert.ok(finding.kind === "refused");
      assert.match(finding.issues[0]?.message ?? "", expected);
      assert.ok(finding.issues.length <= 100);
    }
  });
}

test("items are the same whatever the order of their keys, and only then", () => {
  const schema = { properties: { a: { uniqueItems: true } } };
  const issuesOf = (a: unknown[]): unknown => {
    const finding = judged(schema, { a });
    return finding.kind === "refused" ? finding.issues[0]?.message : null;
  };
  assert.equal(
    issuesOf([1, { a: 1, b: [2] }, { b: [2], a: 1 }]),
    "must NOT have duplicate items (items ## 1 and 2 are identical)",
  );
  assert.equal(
    issuesOf([1, "1", true, "true", null, "null", [1], ["1"], { 1: 1 }, { 1: "1" }, "[1]", '{"1":1}', 0, ""]),
    null,
  );
  assert.notEqual(issuesOf([0, -0]), null);
});

test("all that is wrong with a body is told, and of a large one the first", () => {
  const schema = { properties: { a: { items: { type: "string" } } }, required: ["b"] };
  const few = judged(schema, { a: [1, "x", 2] });
  assert.deepEqual(few.kind === "refused" && few.issues.map(({ pointer }) => pointer).toSorted(), ["", "/a/0", "/a/2"]);
});

test("names of a schema that look like Ajv's own code stay what they are", () => {
  const names = ["errors++", "vErrors.concat(", "; errors++;"];
  const finding = judged({ required: names }, {});
  const told = finding.kind === "refused" ? finding.issues.map(({ message }) => message).join() : "";
  for (const name of names) assert.ok(told.includes(`'${name}'`), told);
});

test("a pointer is written as it is, or says where it was cut", () => {
  const schema = { additionalProperties: { additionalProperties: { type: "number" } } };
  for (const [key, shown] of [
    ["a/b~c", "a~1b~0c"],
    ["~".repeat(100), "~0".repeat(100)],
    ["~".repeat(101), `${"~0".repeat(100)}…`],
    ["x".repeat(250_000), `${"x".repeat(100)}…`],
  ] as const) {
    const finding = judged(schema, { [key]: { b: "" } });
    assert.deepEqual(finding.kind === "refused" && finding.issues.map(({ pointer }) => pointer), [`/${shown}/b`]);
  }
});

for (const [what, schema, message] of [
  [
    "a lookahead",
    { properties: { a: { pattern: "^(?=x)" } } },
    /^properties\/a\/pattern: the pattern ".*" is none of RE2/,
  ],
  ["a back reference as a property's name", { patternProperties: { "(a)\\1": {} } }, /^patternProperties\/\(a\)\\1: /],
  ["no end", { allOf: [{ $ref: "#" }] }, /^: no JSON Schema: it takes too long to check even/],
] as const) {
  test(`a schema with ${what} is refused, and its place is told`, () => {
    const told: string[] = [];
    const check = compileBodySchema(
      schema,
      (path, text) => told.push(`${path.join("/")}: ${text}`),
      () => "",
    );
    assert.equal(check, null);
    assert.match(told.join("\n"), message);
  });
}
