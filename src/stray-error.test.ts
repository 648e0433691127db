import assert from "node:assert/strict";
import { test } from "node:test";
import { permanent, StepError } from "./order/step-error.ts";
import { isOfPipelines } from "./stray-error.ts";

const OWN = "/app/node_modules/order-process/dist/";

function withStack(...places: readonly string[]): Error {
  const error = new Error("no");
  error.stack = ["Error: no", ...places.map((place) => `    at ${place}`)].join("\n");
  return error;
}

function lookalike(): Error {
  const error = new Error(`no\n    at ${OURS}`);
  error.stack = `Error: ${error.message}\n    at ${STEP}`;
  return error;
}

const NODE = "process.processTicksAndRejections (node:internal/process/task_queues:105:5)";
const LIBRARY = "request (/app/node_modules/undici/lib/api.js:10:2)";
const OURS = `Engine.act (file://${OWN}engine/engine.js:5:1)`;
const STEP = "Object.run (file:///app/pipelines/my%20checkout.ts:7:11)";
const INLINE = "file:///app/pipelines/checkout.ts:9:3";

for (const [what, error, isTheirs] of [
  ["of a step", withStack(NODE, STEP, OURS), true],
  ["of a step's top level", withStack(INLINE), true],
  ["of a library that a step uses", withStack(LIBRARY, STEP), true],
  ["of nobody", withStack(NODE), true],
  ["of ours", withStack(OURS, STEP), false],
  ["of a library that we use", withStack(NODE, LIBRARY, OURS), false],
  ["that a step threw with permanent", permanent("no"), true],
  ["that a call's signal aborts with", new StepError("timed out", {}), true],
  ["whose stack names no file that there can be", withStack("file:///x%2Fy.js:1:1"), true],
  ["whose message looks like a place of ours", lookalike(), true],
  ["that is none", "a text", true],
  ["that can't be looked at", new Proxy(new Error("no"), { get: () => assert.fail("looked at") }), true],
] as const) {
  test(`an error ${what} is ${isTheirs ? "the pipelines'" : "ours"}`, () => {
    assert.equal(isOfPipelines(error, OWN), isTheirs);
  });
}
