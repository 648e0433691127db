/**
 * How long a node is kept by one order's body, expression or schema, at the worst: bodies of 256 KiB that were made for that. Prints the
 * slowest of each kind, in processor time of the main thread, and what the check by a TypeScript schema costs the node.
 *
 *     node bench/judge.ts
 */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { sameJson } from "../src/engine/same-json.ts";
import { parseJsonBody } from "../src/http/body.ts";
import type { JsonObject } from "../src/order/pipeline.ts";
import { compileBodySchema } from "../src/pipelines/body-schema.ts";
import { withinBudget } from "../src/pipelines/budget.ts";
import { loadPipelines } from "../src/pipelines/load.ts";
import { parseTemplate } from "../src/pipelines/template.ts";

const BODY_CHARS = 256 * 1024 - 64;
const GOAL_MS = 200;
const ROUNDS = 3;
const CHECKS = 20_000;

let isGood = true;

report("taking a body in", intakes());
report("comparing a body with an earlier one", comparisons());
report("evaluating an expression", expressions());
report("checking a body against a JSON Schema", schemas());
await reportProcess();
process.exit(isGood ? 0 : 1);

type Case = readonly [what: string, work: () => unknown];

/** The rest of a body of full length, of as many parts as go into it. */
function parts(part: (index: number) => string): string {
  const all: string[] = [];
  for (let index = 0, chars = 0; chars < BODY_CHARS; index++) {
    const text = part(index);
    chars += text.length + 1;
    if (chars < BODY_CHARS) all.push(text);
  }
  return all.join(",");
}

function intakes(): Case[] {
  const bodies = {
    "many small objects": `{"a":[${parts(() => "{}")}]}`,
    "many keys": `{${parts((index) => `"${index.toString(36)}":0`)}}`,
    "many keys that are numbers, far apart": `{${parts((index) => `"${(index * 65_537) % 4_294_967_291}":0`)}}`,
    "one key again and again": `{${parts(() => '"a":0')}}`,
    "one number": `{"a":${"9".repeat(BODY_CHARS)}}`,
    "one number with many zeros": `{"a":0.${"0".repeat(BODY_CHARS)}1e${"9".repeat(50)}}`,
    "many long numbers": `{"a":[${parts((index) => `1.${index}${"7".repeat(700)}e-${index % 300}`)}]}`,
    "one text of escapes": `{"a":"${"\\u0041".repeat(BODY_CHARS / 6)}"}`,
    brackets: `{"a":${"[".repeat(BODY_CHARS / 2)}${"]".repeat(BODY_CHARS / 2)}}`,
    "deep lists side by side": `{"a":[${parts(() => `${"[".repeat(98)}${"]".repeat(98)}`)}]}`,
    "different shapes": `{"a":[${parts((index) => `{"k${index}":0}`)}]}`,
    "what ends too early": `{"a":"${"\\\\".repeat(BODY_CHARS / 2)}`,
  };
  return Object.entries(bodies).map(([what, text]) => {
    const bytes = Buffer.from(text);
    return [what, () => parseJsonBody(bytes)];
  });
}

function comparisons(): Case[] {
  const bodies = {
    "one number with many zeros": `{"a":1.${"0".repeat(BODY_CHARS)}1}`,
    "many small numbers": `{"a":[${parts(() => "1")}]}`,
    "many numbers with zeros": `{"a":[${parts(() => "1.0")}]}`,
    "many numbers of 15 digits": `{"a":[${parts(() => "123456789012345")}]}`,
    "many long numbers": `{"a":[${parts((index) => `0.0${index}123456789012345678`)}]}`,
    "one text of escapes": `{"a":"${"\\u0041".repeat(BODY_CHARS / 6)}"}`,
    "many keys": `{${parts((index) => `"${index.toString(36)}":0`)}}`,
    "many small objects": `{"a":[${parts(() => "{}")}]}`,
  };
  return Object.entries(bodies).map(([what, text]) => [what, () => sameJson(text, `${text} `)]);
}

function expressions(): Case[] {
  const body: JsonObject = {
    ones: Array.from({ length: BODY_CHARS / 2 }, () => 1),
    a: Array.from({ length: 3_000 }, (_, index) => index),
    b: Array.from({ length: 3_000 }, (_, index) => 3_000 - index),
    keys: Object.fromEntries(Array.from({ length: 20_000 }, (_, index) => [`k${index}`, index])),
    text: "a".repeat(BODY_CHARS / 2),
    needle: `${"a".repeat(60_000)}b`,
    email: `${"a".repeat(66)}!`,
    texts: Array.from({ length: 2_000 }, () => "x".repeat(100)),
    patterns: Array.from({ length: 5_000 }, (_, index) => `x{0,100}${index}`),
    digits: "1".repeat(64),
    greek: "\u0390".repeat(BODY_CHARS / 2),
    folded: Array.from({ length: 100 }, (_, index) => `(?i)b${index}[${"B-\u{1e942}".repeat(100)}]`),
    times: Array.from({ length: 10_000 }, () => "2026-11-26T13:00:00Z"),
  };
  const texts = [
    "body.email.matches('^([a-zA-Z0-9]+[._-]?)+@example[.]org$')",
    "body.text.matches('[ab]*a[ab]{20}[ac]$')",
    "body.text.substring(0, 30000).matches('(\\\\pL{1,50}\\\\b){3}$')",
    "body.patterns.exists(p, body.email.matches(p))",
    "body.a.all(x, body.b.exists(y, y == x + 4000))",
    "body.a.map(x, body.b.map(y, [x, y]))",
    "body.texts.all(x, body.texts.all(y, x == y))",
    "body.ones.all(x, x.nothing == 1)",
    "body.ones.map(x, x * 2)",
    "body.a.all(x, x in body.b)",
    "body.a.all(x, 'k1' in body.keys)",
    "body.a.map(x, size(body.keys))",
    "body.a.map(x, body.keys)",
    "body.a.map(x, body.text.upperAscii())",
    "body.text.contains(body.needle)",
    "body.text.lastIndexOf(body.needle)",
    "body.text.split('').map(x, x + x)",
    "body.times.map(t, timestamp(t).getHours('Europe/Berlin'))",
    "duration(body.text)",
    "body.ones.exists(x, duration(body.digits) < duration('1s'))",
    "body.ones.map(x, body.greek.upperAscii().size())",
    "body.folded.exists(p, 'aaa'.matches(p))",
    "body",
  ];
  return texts.map((text) => {
    const template = parseTemplate(`\${${text}}`, { steps: [], hasResult: false, bodyNames: null });
    const values = { order: { id: "o", user: "u" }, body, results: {}, result: null, attempt: 1, env: {} };
    // eslint-disable-next-line unicorn/no-array-fill-with-reference-type -- no array
    return [text, () => withinBudget(() => template.fill(values))];
  });
}

function schemas(): Case[] {
  const again = { properties: { x: { $ref: "#/$defs/a" } } };
  const recursive = (a: object): object => ({ $defs: { a }, properties: { r: { $ref: "#/$defs/a" } } });
  let deep: JsonObject = {};
  for (let level = 0; level < 95; level++) deep = { x: deep, y: 1 };
  const numbers = Array.from({ length: BODY_CHARS / 2 }, () => 1);
  const items = (schema: object): object => ({ properties: { a: { items: schema } } });
  const keys = Object.fromEntries(Array.from({ length: 20_000 }, (_, index) => [`k${index}`, index]));
  const objects = Array.from({ length: 20_000 }, (_, index) => ({ index }));
  const choices = Array.from({ length: 100 }, (_, index) => ({
    properties: { [`p${index}`]: { const: 1 } },
    required: [`p${index}`],
  }));
  const cases: readonly (readonly [string, object, JsonObject])[] = [
    ["uniqueItems of objects", { properties: { a: { uniqueItems: true } } }, { a: objects }],
    ["pattern", { properties: { a: { pattern: "^([a-zA-Z0-9]+[._-]?)+@example[.]org$" } } }, { a: "a".repeat(40_000) }],
    [
      "pattern of many items",
      items({ pattern: "^[a-z]{3}-[0-9]{5}$" }),
      { a: objects.map((_, index) => `abc-${10_000 + index}`) },
    ],
    ["oneOf, again", recursive({ oneOf: [again, again] }), { r: deep }],
    [
      "anyOf, again",
      recursive({
        anyOf: [
          { ...again, required: ["z"] },
          { ...again, required: ["y"], maxProperties: 1 },
        ],
      }),
      { r: deep },
    ],
    ["allOf, again", recursive({ allOf: [again, again] }), { r: deep }],
    ["unevaluatedProperties", { allOf: [{ properties: { k1: true } }], unevaluatedProperties: false }, keys],
    [
      "patternProperties",
      { patternProperties: Object.fromEntries(choices.map((_, index) => [`^k.*${index}$`, true])) },
      keys,
    ],
    ["many choices", items({ anyOf: choices }), { a: Array.from({ length: 5_000 }, () => ({ p99: 1 })) }],
    ["items that are right", items({ type: "number", minimum: 0, maximum: 2 }), { a: numbers }],
    ["items that are wrong", items({ type: "string", minimum: 2 }), { a: numbers }],
    [
      "items that are wrong under a long key",
      { additionalProperties: { items: { type: "number" } } },
      { ["/".repeat(BODY_CHARS / 2)]: numbers.slice(0, BODY_CHARS / 6).map(() => "") },
    ],
    [
      "choices for long keys",
      { additionalProperties: { anyOf: choices } },
      Object.fromEntries(objects.slice(0, 1_000).map((_, index) => [`${index}${"~".repeat(250)}`, {}])),
    ],
  ];
  return cases.map(([what, schema, body]) => {
    const check = compileBodySchema(
      schema,
      (_, message) => {
        throw new Error(message);
      },
      ({ message = "" }) => message,
    );
    return [what, () => check?.(body)];
  });
}

function report(what: string, cases: readonly Case[]): void {
  const slowest = cases
    .map(([name, work]) => ({ name, ms: Math.max(...Array.from({ length: ROUNDS }, () => measure(work))) }))
    .toSorted((one, other) => other.ms - one.ms);
  for (const { name, ms } of slowest.slice(0, 3)) print(`${what}: ${ms.toFixed(1).padStart(6)} ms  ${name}`);
  if ((slowest[0]?.ms ?? 0) > GOAL_MS) isGood = false;
}

/** Processor time of this thread. What the garbage collector's threads take, others may use. */
function measure(work: () => unknown): number {
  const before = process.threadCpuUsage();
  try {
    work();
  } catch {
    // Refused: that is a judgement, too.
  }
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1_000;
}

async function reportProcess(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "order-process-judge-"));
  writeFileSync(
    join(folder, "judged.mjs"),
    `import { definePipeline } from "order-process";
     const validate = (value) => (typeof value.amount === "number" ? { value } : { issues: [{ message: "no amount" }] });
     export default definePipeline({ name: "a", version: 1, body: { "~standard": { version: 1, vendor: "bench", validate } },
       steps: [{ name: "A", run: () => undefined }] });`,
  );
  const { pipelines } = await loadPipelines(join(folder, "judged.mjs"), {});
  const check = pipelines[0]?.pipeline.checkBody;
  const body = { sku: "book", amount: 30, to: "Ann", email: "ann@example.org" };
  await check?.(body);
  const [startMs, before] = [performance.now(), process.threadCpuUsage()];
  for (let count = 0; count < CHECKS; count += 100)
    await Promise.all(Array.from({ length: 100 }, async () => check?.(body)));
  const [wallMs, { user, system }] = [performance.now() - startMs, process.threadCpuUsage(before)];
  print(
    `checking a small body by a TypeScript schema, a hundred at once: ${((wallMs * 1_000) / CHECKS).toFixed(0)} µs each; ` +
      `processor time of the main thread ${((user + system) / CHECKS).toFixed(0)} µs`,
  );
  rmSync(folder, { recursive: true });
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}
