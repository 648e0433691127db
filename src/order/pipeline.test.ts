import assert from "node:assert/strict";
import { test } from "node:test";
import { definePipeline, idempotencyKey } from "./pipeline.ts";

const step = (name: string) => ({ name, run: () => undefined });

for (const [what, steps, message] of [
  ["no steps", [], /it has no steps/],
  ["a nameless step", [step("")], /empty name/],
  ["two steps of one name", [step("A"), step("A")], /two steps are named "A"/],
  ["a step named like an end", [step("Completed")], /the name of an order's end/],
] as const) {
  test(`a pipeline with ${what} is refused, by name`, () => {
    assert.throws(() => definePipeline({ name: "p", version: 1, steps }), message);
    assert.throws(() => definePipeline({ name: "p", version: 1, steps }), /pipeline "p"/);
  });
}

test("run and rollback of a step have different keys", () => {
  assert.equal(idempotencyKey("id", "Charge card", "run"), "id:Charge card:run");
  assert.equal(idempotencyKey("id", "Charge card", "rollback"), "id:Charge card:rollback");
});
