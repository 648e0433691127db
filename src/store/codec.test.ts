import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import type { OrderEvent } from "../order/events.ts";
import { decodeHistory, decodeStatus, encodeEvent } from "./codec.ts";

const atMs = fc.integer({ min: 0, max: 8_640_000_000_000_000 });
const text = fc.string({ unit: "binary" });
const index = fc.option(fc.nat(), { nil: null });
const owner = fc.nat();

/** Records with the prototype that decoding gives, or deepEqual tells them apart. */
const record = <T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> =>
  fc.record(model, { noNullPrototype: true });

/** JSON as a step's result is kept: what JSON.stringify makes. */
const json = fc.jsonValue().map((value) => JSON.stringify(value));
const maybe = <T>(name: string, value: fc.Arbitrary<T>): fc.Arbitrary<object> =>
  fc.option(value, { nil: null }).map((each) => (each === null ? {} : { [name]: each }));
/** An event with properties that it may lack. */
const eventOf = (event: fc.Arbitrary<object>, ...more: fc.Arbitrary<object>[]): fc.Arbitrary<OrderEvent> =>
  fc.tuple(event, ...more).map((parts) => Object.assign({}, ...(parts as object[])) as OrderEvent);

const nextStepName = fc.option(text, { nil: null });
const reason = fc.option(text, { nil: null });
const unknown = maybe("unknown", fc.constant(true));
const result = maybe("result", json);
const kind = <Kind extends OrderEvent["kind"]>(name: Kind): fc.Arbitrary<Kind> => fc.constant(name);
const carried = fc.array(record({ stepName: text, result: fc.option(json, { nil: null }) }), { minLength: 1 });

const events: fc.Arbitrary<OrderEvent> = fc.oneof(
  eventOf(
    record({ kind: kind("created"), atMs, owner, stepName: text }),
    maybe("startAtMs", atMs),
    maybe("retryOf", text),
    maybe("by", text),
    maybe("carried", carried),
  ),
  record({ kind: kind("started"), atMs, stepName: text }),
  eventOf(record({ kind: kind("step_completed"), atMs, nextStepName }), result),
  record({ kind: kind("step_completed"), atMs, nextStepName, result: json, by: text }),
  eventOf(record({ kind: kind("step_waiting"), atMs, limitMs: index }), result),
  record({ kind: kind("signal_received"), atMs, result: json, by: text }),
  eventOf(
    record({ kind: kind("attempt_failed"), atMs, error: text, delayMs: fc.nat(), elapsedMs: fc.nat() }),
    unknown,
    maybe("shortage", fc.constant(true)),
    maybe("endless", fc.constant(true)),
    maybe("lingers", fc.constant(true)),
  ),
  record({ kind: fc.constantFrom("attempt_queued", "attempt_started"), atMs }),
  eventOf(
    record({ kind: kind("set_aside"), atMs, reason: fc.constantFrom("crashes", "unknown_commit") }),
    maybe("error", text),
  ),
  eventOf(record({ kind: kind("step_failed"), atMs, error: text, rollbackIndex: index }), unknown),
  eventOf(
    record({ kind: kind("step_failed"), atMs, error: text, rollbackIndex: index, by: text }),
    unknown,
    maybe("reason", text),
  ),
  record({ kind: kind("step_rolled_back"), atMs, rollbackIndex: index }),
  record({ kind: kind("rollback_abandoned"), atMs, error: text }),
  record({ kind: fc.constantFrom("rollback_retried", "pause_requested", "resumed", "retried"), atMs, by: text }),
  eventOf(record({ kind: kind("paused"), atMs }), maybe("by", text)),
  record({ kind: kind("rollback_skipped"), atMs, by: text, reason: text, rollbackIndex: index }),
  record({ kind: kind("cancel_requested"), atMs, by: text, reason }),
  record({ kind: kind("canceled"), atMs, by: text, reason, rollbackIndex: index }),
  eventOf(
    record({
      kind: kind("step_canceled"),
      atMs,
      rollbackIndex: index,
      outcome: fc.constantFrom("done", "not_done", "unknown"),
    }),
    result,
    maybe("error", text),
  ),
  eventOf(
    record({ kind: kind("owner_changed"), atMs, owner }),
    maybe("callBegun", fc.boolean()),
    maybe("formerAtMs", atMs),
    maybe("former", fc.constantFrom("died", "drained")),
  ),
);

test("a history written event by event is read back as it was, whatever its texts hold", () => {
  fc.assert(
    fc.property(fc.array(events), (history) => {
      assert.deepEqual(decodeHistory(history.map(encodeEvent).join(",")), history);
    }),
  );
});

test("events of stores written before waits were lengths are read as what they meant", () => {
  assert.deepEqual(
    decodeHistory('["attempt_failed",100,350,"no"],["step_waiting",400,null],["step_waiting",400,1400]'),
    [
      { kind: "attempt_failed", atMs: 100, error: "no", delayMs: 250 },
      { kind: "step_waiting", atMs: 400, limitMs: null },
      { kind: "step_waiting", atMs: 400, limitMs: 1_000 },
    ],
  );
  assert.deepEqual(decodeHistory('["owner_changed",5,2],["owner_changed",5,2,false]'), [
    { kind: "owner_changed", atMs: 5, owner: 2 },
    { kind: "owner_changed", atMs: 5, owner: 2, callBegun: false },
  ]);
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
