import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { OrderEvent } from "../order/order.ts";
import { decodeHistory, decodeStatus, encodeEvent } from "./codec.ts";

const atMs = fc.integer({ min: 0, max: 8_640_000_000_000_000 });
const text = fc.string({ unit: "binary" });
const index = fc.option(fc.nat(), { nil: null });
const owner = fc.nat();

/** Records with the prototype that decoding gives, or deepEqual tells them apart. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true });

const events: fc.Arbitrary<OrderEvent> = fc.oneof(
  record({ kind: fc.constant("created" as const), atMs, owner, stepName: text }),
  record({ kind: fc.constant("step_completed" as const), atMs, nextStepName: fc.option(text, { nil: null }) }),
  record({ kind: fc.constant("attempt_failed" as const), atMs, error: text, retryAtMs: atMs }),
  record({ kind: fc.constant("step_failed" as const), atMs, error: text, rollbackIndex: index }),
  record({ kind: fc.constant("step_rolled_back" as const), atMs, rollbackIndex: index }),
  record({ kind: fc.constant("rollback_abandoned" as const), atMs, error: text }),
  record({ kind: fc.constant("owner_changed" as const), atMs, owner }),
);

test("a history written event by event is read back as it was, whatever its texts hold", () => {
  fc.assert(
    fc.property(fc.array(events), (history) => {
      assert.deepEqual(decodeHistory(history.map(encodeEvent).join(",")), history);
    }),
  );
});

test("an event's text has no raw control characters, which a database might cut at", () => {
  const event = { kind: "rollback_abandoned", atMs: 0, error: "a\u0000b\nc\ud800" } as const;
  assert.match(encodeEvent(event), /^[\x20-\x7e]+$/);
});

for (const damaged of [
  '["created",1',
  '["unknown",1]',
  "7",
  '["created","x",1,"A"]',
  '["step_completed",1,5]',
  '["step_failed",1,"0","x"]',
]) {
  test(`the damaged history ${damaged} is refused`, () => {
    assert.throws(() => decodeHistory(damaged));
  });
}

test("a status that is none is refused", () => {
  assert.throws(() => decodeStatus("done"));
  assert.throws(() => decodeStatus(null));
});
