import assert from "node:assert/strict";
import { test } from "node:test";
import * as valibot from "valibot";
import * as zod from "zod";
import { pipelineShape } from "../order/pipeline.ts";
import { DEFAULT_RETRY, DEFAULT_ROLLBACK_RETRY } from "../order/retry.ts";
import { buildPipeline, definePipeline, type PipelineOptions } from "./define-pipeline.ts";

const run = (): void => undefined;
const step = (name: unknown, change: object = {}): object => ({ name, run, ...change });

/** What somebody wrote in JavaScript, or without looking at the types. */
function build(options: unknown): ReturnType<typeof buildPipeline> {
  return buildPipeline(options as PipelineOptions);
}

for (const [what, change, message] of [
  ["no name", { name: undefined }, /pipeline without a name: its name must be a text/],
  ["an empty name", { name: " " }, /its name must be a text/],
  ["a name that no header carries", { name: "bestellung-é" }, /printable ASCII/],
  ["no version", { version: undefined }, /its version must be a whole number from 1/],
  ["a version that is none", { version: 1.5 }, /its version must be a whole number from 1/],
  ["a property that is none", { step: [] }, /there is no property "step"; there are name, version, body, steps/],
  ["a body that is no schema", { body: { type: "object" } }, /its body is no Standard Schema/],
  ["no steps", { steps: [] }, /it has no steps/],
  ["steps that are no list", { steps: {} }, /it has no steps/],
  [
    "too many steps",
    { steps: Array.from({ length: 201 }, (_, index) => step(`S${index}`)) },
    /it has 201 steps; the most is 200/,
  ],
  ["a step that is nothing", { steps: [null] }, /step 1: a step is an object/],
  ["a nameless step", { steps: [step("")] }, /step "": its name must be a text/],
  ["a step whose name is no text", { steps: [step(7)] }, /step 1: its name must be a text/],
  ["a step named like a prototype", { steps: [step("__proto__")] }, /prototype/],
  ["two steps of one name", { steps: [step("A"), step("A")] }, /step "A": another step has the same name/],
  ["a step named like an end", { steps: [step("Canceled")] }, /the name of an order's end/],
  ["a step without run", { steps: [{ name: "A" }] }, /step "A": its run is not a function/],
  ["a run that is none", { steps: [step("A", { run: "curl" })] }, /its run is not a function/],
  ["a rollback that is none", { steps: [step("A", { rollback: true })] }, /its rollback is not a function/],
  ["an unknown property of a step", { steps: [step("A", { retries: 5 })] }, /there is no property "retries"/],
  ["a timeout without a unit", { steps: [step("A", { timeout: "10" })] }, /its timeout is no duration/],
  ["no time at all", { steps: [step("A", { timeout: 0 })] }, /its timeout must be 1ms at least/],
  ["a retry that is none", { steps: [step("A", { retry: 5 })] }, /its retry is not an object/],
  [
    "an unknown property of retry",
    { steps: [step("A", { retry: { max: 5 } })] },
    /its retry: there is no property "max"/,
  ],
  ["half an attempt", { steps: [step("A", { retry: { attempts: 1.5 } })] }, /retry.attempts must be a whole number/],
  ["a jitter over 1", { steps: [step("A", { retry: { jitter: 2 } })] }, /retry.jitter must be a number from 0 to 1/],
  ["no concurrency", { steps: [step("A", { concurrency: 0 })] }, /its concurrency must be a whole number from 1/],
  ["two concurrencies", { steps: [step("A", { concurrency: { perNode: 1, cluster: 2 } })] }, /its concurrency must be/],
  ["an unknown scope", { steps: [step("A", { concurrency: { region: 2 } })] }, /or \{ cluster \}/],
  ["an onUnknown that is none", { steps: [step("A", { onUnknown: "ignore" })] }, /its onUnknown is neither/],
  ["a commit that is none", { steps: [step("A", { commit: "yes" })] }, /its commit is neither true nor false/],
  [
    "an unknown property of wait",
    { steps: [step("A", { wait: { until: "1h" } })] },
    /its wait: there is no property "until"/,
  ],
  [
    "a deadline after the commit",
    { steps: [step("A", { commit: true }), step("B", { wait: { deadline: "1h" } })] },
    /step "B": it can't fail after the commit/,
  ],
  [
    "a deadline of a commit that is called",
    { steps: [step("A", { commit: true, wait: { deadline: "1h" } })] },
    /step "A": as the commit it can't fail once it was called/,
  ],
] as const) {
  test(`a pipeline with ${what} is refused, by name`, () => {
    const options = { name: "p", version: 1, steps: [step("A")], ...change };
    assert.throws(() => build(options), message);
    if (!("name" in change)) assert.throws(() => build(options), /^TypeError: pipeline "p": /);
  });
}

test("an approval that is the commit, and calls nothing, may have a deadline", () => {
  build({ name: "p", version: 1, steps: [{ name: "A", commit: true, wait: { deadline: "1h" } }] });
});

test("what is no pipeline at all is refused", () => {
  for (const nothing of [undefined, null, 7, "checkout"])
    assert.throws(() => build(nothing), /a pipeline is an object/);
});

test("what is left out is as the documentation says, and durations are read", () => {
  const [plain, full, shared] = build({
    name: "p",
    version: 1,
    steps: [
      step("Plain"),
      step("Full", {
        timeout: "10s",
        retry: { attempts: 5, delay: "100ms", factor: 3, delayMax: "1m", jitter: 0, deadline: "1h" },
        concurrency: { perNode: 7 },
        commit: true,
      }),
      step("Shared", { concurrency: { cluster: 3 } }),
    ],
  }).steps;
  assert.deepEqual(shared?.concurrency, { scope: "cluster", callsMax: 3 });
  assert.deepEqual(
    [plain?.retry, plain?.timeoutMs, plain?.concurrency, plain?.isCommit, plain?.wait],
    [DEFAULT_RETRY, 60_000, null, false, null],
  );
  assert.deepEqual(plain?.rollbackRetry, DEFAULT_ROLLBACK_RETRY);
  assert.deepEqual(full?.rollbackRetry, full?.retry);
  const impatient = build({ name: "p", version: 1, steps: [step("A", { retry: { delay: "1s" } })] }).steps[0];
  assert.deepEqual([impatient?.retry.attemptsMax, impatient?.rollbackRetry.attemptsMax], [3, 15]);
  assert.deepEqual(full?.retry, {
    attemptsMax: 5,
    delayMs: 100,
    factor: 3,
    delayMsMax: 60_000,
    jitter: 0,
    deadlineMs: 3_600_000,
  });
  assert.deepEqual([full.timeoutMs, full.concurrency, full.isCommit], [10_000, { scope: "node", callsMax: 7 }, true]);
});

test("the shape has what must not change under orders, and nothing else", () => {
  const shape = (change: object): string =>
    pipelineShape(build({ name: "p", version: 1, steps: [step("A", change), step("B")] }));
  assert.equal(shape({}), shape({ timeout: "9s", retry: { attempts: 9 }, concurrency: 9 }));
  const others = [{ rollback: run }, { commit: true }, { wait: {} }].map(shape);
  assert.equal(new Set([shape({}), ...others]).size, 4);
});

for (const [what, body] of [
  [
    "zod",
    zod.object({ "a/b": zod.array(zod.object({ amount: zod.number() })), currency: zod.string().default("EUR") }),
  ],
  [
    "valibot",
    valibot.object({
      "a/b": valibot.array(valibot.object({ amount: valibot.number() })),
      currency: valibot.optional(valibot.string(), "EUR"),
    }),
  ],
] as const) {
  test(`a body is checked with ${what}, and given its defaults`, async () => {
    const { checkBody } = definePipeline({ name: "p", version: 1, body, steps: [{ name: "A", run }] });
    assert.deepEqual(await checkBody?.({ "a/b": [{ amount: 3 }] }), {
      kind: "accepted",
      body: { "a/b": [{ amount: 3 }], currency: "EUR" },
    });
    const finding = await checkBody?.({ "a/b": [{ amount: 3 }, { amount: "3" }] });
    assert.ok(finding?.kind === "refused");
    assert.deepEqual(
      finding.issues.map(({ pointer }) => pointer),
      ["/a~1b/1/amount"],
    );
  });
}
