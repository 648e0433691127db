import assert from "node:assert/strict";
import { test } from "node:test";
import type { OrderEvent } from "../../src/order/events.ts";
import { type Evidence, findViolations, type Rule } from "./checker.ts";
import type { ReceivedCall } from "./receiver.ts";
import type { StoreRow } from "./store-content.ts";

const PIPELINE = ["A", "B"];

const CREATED: OrderEvent = { kind: "created", atMs: 1, owner: 1, stepName: "A" };
const TO_B: OrderEvent = { kind: "step_completed", atMs: 2, nextStepName: "B" };
const COMPLETED: OrderEvent = { kind: "step_completed", atMs: 3, nextStepName: null };
const B_FAILED: OrderEvent = { kind: "step_failed", atMs: 3, error: "no", rollbackIndex: 1 };
const B_ROLLED_BACK: OrderEvent = { kind: "step_rolled_back", atMs: 4, rollbackIndex: 0 };
const A_ROLLED_BACK: OrderEvent = { kind: "step_rolled_back", atMs: 5, rollbackIndex: null };
const OWNER_2: OrderEvent = { kind: "owner_changed", atMs: 2, owner: 2 };
const RETRY: OrderEvent = { kind: "attempt_failed", atMs: 2, error: "no", delayMs: 1 };

const ROW: StoreRow = {
  orderId: "1",
  idempotencyKey: null,
  status: "completed",
  owner: 1,
  revision: 3,
  history: [CREATED, TO_B, COMPLETED],
  body: "{}",
};
const FAILED_HISTORY = [CREATED, TO_B, B_FAILED, B_ROLLED_BACK, A_ROLLED_BACK];
const FAILED_ROW: StoreRow = {
  ...ROW,
  status: "failed",
  revision: 5,
  history: FAILED_HISTORY,
  body: '{"fail_at":"B"}',
};

const RUN_A = call("A", "run", 1);
const RUN_B = call("B", "run", 2);
const ROLLBACK_B = call("B", "rollback", 3);
const ROLLBACK_A = call("A", "rollback", 4);

/** An order that was paused at its first call, waited for a signal and was canceled while its second step was called. */
const STEERED_HISTORY: OrderEvent[] = [
  CREATED,
  { kind: "pause_requested", atMs: 2, by: "ann" },
  { kind: "step_waiting", atMs: 3, limitMs: null },
  { kind: "resumed", atMs: 4, by: "ann" },
  { kind: "step_completed", atMs: 5, nextStepName: "B", result: "1", by: "ann" },
  { kind: "cancel_requested", atMs: 6, by: "ann", reason: null },
  { kind: "step_canceled", atMs: 7, rollbackIndex: 1, outcome: "unknown" },
  { kind: "step_rolled_back", atMs: 8, rollbackIndex: 0 },
  { kind: "step_rolled_back", atMs: 9, rollbackIndex: null },
];

/** That order, with nothing wrong: its second step's call was cut off before it had arrived. */
const STEERED_WELL: Evidence = {
  pipeline: PIPELINE,
  acknowledged: [{ orderId: "1", idempotencyKey: null, body: "{}" }],
  actions: (["pause", "resume", "complete", "cancel"] as const).map((action) => ({ orderId: "1", action })),
  stored: [{ ...ROW, status: "canceled", revision: 9, history: STEERED_HISTORY }],
  calls: [RUN_A, call("B", "rollback", 7), call("A", "rollback", 8)],
};

/** An order that completed, with nothing wrong. */
const COMPLETED_WELL: Evidence = {
  pipeline: PIPELINE,
  acknowledged: [{ orderId: "1", idempotencyKey: null, body: "{}" }],
  stored: [ROW],
  calls: [RUN_A, RUN_B],
};

/** An order that failed and was rolled back, with nothing wrong. */
const FAILED_WELL: Evidence = {
  pipeline: PIPELINE,
  acknowledged: [{ orderId: "1", idempotencyKey: "k", body: '{"fail_at":"B"}' }],
  stored: [FAILED_ROW],
  calls: [RUN_A, RUN_B, ROLLBACK_B, ROLLBACK_A],
};

test("finds nothing wrong with a completed order", () => {
  assert.deepEqual(findViolations(COMPLETED_WELL), []);
});

test("finds nothing wrong with a failed order that was rolled back", () => {
  assert.deepEqual(findViolations(FAILED_WELL), []);
});

test("finds nothing wrong with an order that was steered, and with a late call of it that had no effect", () => {
  assert.deepEqual(findViolations(STEERED_WELL), []);
  const late = { ...RUN_B, durableRevision: 5, fence: 5, sequence: 9, hadEffect: false };
  assert.deepEqual(findViolations({ ...STEERED_WELL, calls: [...STEERED_WELL.calls, late] }), []);
});

test("finds nothing wrong with an order that is canceled while it is paused, before it was called", () => {
  const history: OrderEvent[] = [
    CREATED,
    { kind: "paused", atMs: 2, by: "ann" },
    { kind: "canceled", atMs: 3, by: "ann", reason: null, rollbackIndex: 0 },
    A_ROLLED_BACK,
  ];
  const stored = [{ ...ROW, status: "canceled", revision: 4, history }];
  const actions = (["pause", "cancel"] as const).map((action) => ({ orderId: "1", action }));
  assert.deepEqual(findViolations({ ...STEERED_WELL, actions, stored, calls: [call("A", "rollback", 3)] }), []);
});

test("finds nothing wrong with a step that is not rolled back as it was never called, and something where it was", () => {
  const history: OrderEvent[] = [
    CREATED,
    { kind: "paused", atMs: 2, by: "ann" },
    { kind: "canceled", atMs: 3, by: "ann", reason: null, rollbackIndex: null },
  ];
  const stored = [{ ...ROW, status: "canceled", revision: 3, history }];
  const actions = (["pause", "cancel"] as const).map((action) => ({ orderId: "1", action }));
  assert.deepEqual(findViolations({ ...STEERED_WELL, actions, stored, calls: [] }), []);
  const rules = findViolations({ ...STEERED_WELL, actions, stored, calls: [RUN_A] }).map(({ rule }) => rule);
  assert.ok(rules.includes("rollbacks_not_reversed"), rules.join());
});

test("finds nothing wrong with an order that nobody was promised", () => {
  assert.deepEqual(findViolations({ ...COMPLETED_WELL, acknowledged: [] }), []);
});

test("finds nothing wrong with a call made again by a new owner and after a failed attempt", () => {
  const evidence: Evidence = {
    ...COMPLETED_WELL,
    stored: [{ ...ROW, owner: 2, revision: 5, history: [CREATED, OWNER_2, RETRY, TO_B, COMPLETED] }],
    calls: [
      RUN_A,
      { ...RUN_A, attempt: 2, incarnation: 2, durableRevision: 2, fence: 2, hadEffect: false },
      { ...RUN_A, attempt: 3, incarnation: 2, durableRevision: 3, fence: 3, hadEffect: false },
      { ...RUN_B, incarnation: 2, durableRevision: 4, fence: 4 },
    ],
  };
  assert.deepEqual(findViolations(evidence), []);
});

expectRule("lost_order", "an acknowledged order that is not in the store", { stored: [], calls: [] });

expectRule("body_differs", "an order stored with another body", {
  acknowledged: [{ orderId: "1", idempotencyKey: null, body: '{"n":1}' }],
});

expectRule("key_made_two_orders", "two orders acknowledged for one Idempotency-Key", {
  acknowledged: ["1", "2"].map((orderId) => ({ orderId, idempotencyKey: "k", body: "{}" })),
  stored: [ROW, { ...ROW, orderId: "2" }],
});

expectRule("key_made_two_orders", "two orders stored for one Idempotency-Key", {
  stored: ["1", "2"].map((orderId) => ({ ...ROW, orderId, idempotencyKey: "k" })),
});

expectRule("order_acknowledged_twice", "one order acknowledged for two requests without a key", {
  acknowledged: [1, 2].map(() => ({ orderId: "1", idempotencyKey: null, body: "{}" })),
});

expectRule("stuck_order", "an order that is not final", {
  stored: [{ ...ROW, status: "running", revision: 2, history: [CREATED, TO_B] }],
});

expectRule("stuck_order", "an order that waits for an operator", {
  stored: [{ ...ROW, status: "rollback_incomplete" }],
});

expectRule("owner_differs", "a row with another owner than its history", { stored: [{ ...ROW, owner: 2 }] });

expectRule("called_by_non_owner", "a call by an incarnation that no longer owned the order", {
  stored: [{ ...ROW, owner: 2, revision: 4, history: [CREATED, OWNER_2, TO_B, COMPLETED] }],
  calls: [RUN_A, { ...RUN_B, incarnation: 1, durableRevision: 3, fence: 3 }],
});

expectRule("revision_gap", "a revision beyond the number of events", { stored: [{ ...ROW, revision: 4 }] });

expectRule("illegal_history", "a history that does not begin with the creation", {
  stored: [{ ...ROW, revision: 2, history: [TO_B, COMPLETED] }],
});

expectRule("illegal_history", "an order created twice", {
  stored: [{ ...ROW, revision: 4, history: [CREATED, CREATED, TO_B, COMPLETED] }],
});

expectRule("illegal_history", "a step recorded as completed twice", {
  stored: [{ ...ROW, revision: 4, history: [CREATED, TO_B, TO_B, COMPLETED] }],
});

expectRule("illegal_history", "an order completed with a step left out", {
  stored: [{ ...ROW, revision: 2, history: [CREATED, COMPLETED] }],
});

expectRule("illegal_history", "a rollback without a failure", {
  stored: [{ ...ROW, revision: 3, history: [CREATED, TO_B, A_ROLLED_BACK] }],
});

expectRule("illegal_history", "an order that failed without its rollbacks", {
  stored: [
    {
      ...FAILED_ROW,
      revision: 3,
      history: [CREATED, TO_B, { kind: "step_failed", atMs: 3, error: "no", rollbackIndex: null }],
    },
  ],
});

expectRule("status_differs", "a status that the history does not give", { stored: [{ ...ROW, status: "failed" }] });

expectRule("completed_and_rolled_back", "an order that is both completed and rolled back", {
  stored: [{ ...ROW, revision: 5, history: [CREATED, TO_B, COMPLETED, B_FAILED, B_ROLLED_BACK] }],
});

expectRule("event_after_final", "an event after the completion", {
  stored: [{ ...ROW, owner: 2, revision: 4, history: [CREATED, TO_B, COMPLETED, OWNER_2] }],
});

expectRule("event_after_final", "an event after the last rollback", {
  stored: [{ ...FAILED_ROW, owner: 2, revision: 6, history: [...FAILED_HISTORY, OWNER_2] }],
});

expectRule("rollbacks_not_reversed", "rollbacks that begin with the first step", {
  stored: [
    { ...FAILED_ROW, history: [CREATED, TO_B, { ...B_FAILED, rollbackIndex: 0 }, B_ROLLED_BACK, A_ROLLED_BACK] },
  ],
});

expectRule("rollbacks_not_reversed", "a rollback that is left out", {
  stored: [{ ...FAILED_ROW, revision: 4, history: [CREATED, TO_B, B_FAILED, A_ROLLED_BACK] }],
});

expectRule("wrong_outcome", "an order that completed though it was to fail", {
  acknowledged: [],
  stored: [{ ...ROW, body: '{"fail_at":"B"}' }],
});

expectRule("wrong_outcome", "an order that failed though it was to complete", {
  stored: [{ ...FAILED_ROW, body: "{}" }],
});

expectRule("malformed_key", "a key of another form", { calls: [{ ...RUN_A, key: "1:A" }, RUN_B] });

expectRule("different_keys", "two attempts with different keys", {
  calls: [RUN_A, { ...RUN_A, attempt: 2, key: "1:A:run:2" }, RUN_B],
});

expectRule("attempt_repeated", "one attempt made twice", {
  calls: [RUN_A, { ...RUN_A, hadEffect: false }, RUN_B],
});

expectRule("unknown_order_called", "a call for an order that is not in the store", {
  calls: [RUN_A, RUN_B, { ...RUN_A, orderId: "2", key: "2:A:run" }],
});

expectRule("called_before_durable", "a call made before the start of its step was durable", {
  calls: [RUN_A, { ...RUN_B, durableRevision: 1, fence: 1 }],
});

expectRule("called_before_durable", "a call made before the creation of its order was durable", {
  calls: [{ ...RUN_A, durableRevision: 0, fence: 0 }, RUN_B],
});

expectRule("effect_missing", "a step recorded as completed that was never called", { calls: [RUN_A] });

expectRule("effect_missing", "a rollback recorded that was never called", {
  ...FAILED_WELL,
  calls: [RUN_A, RUN_B, ROLLBACK_B],
});

expectRule("effect_unrecorded", "a rollback of an order that completed", { calls: [RUN_A, RUN_B, ROLLBACK_A] });

expectRule("effect_out_of_order", "a rollback called before its run", {
  ...FAILED_WELL,
  calls: [RUN_A, ROLLBACK_B, RUN_B, ROLLBACK_A],
});

expectRule("effect_out_of_order", "a step called before the one that precedes it", { calls: [RUN_B, RUN_A] });

expectRule("illegal_history", "steering that nobody did", {
  stored: [{ ...ROW, revision: 4, history: [CREATED, { kind: "paused", atMs: 2, by: "ann" }, TO_B, COMPLETED] }],
});

for (const action of ["cancel", "pause", "resume", "complete"] as const) {
  expectRule("lost_action", `an acknowledged ${action} that is not in the history`, {
    actions: [{ orderId: "1", action }],
  });
}

expectRule("went_on_while_paused", "a step that failed while the order was paused", {
  ...steered([CREATED, { kind: "paused", atMs: 2, by: "ann" }, RETRY, TO_B, COMPLETED]),
});

expectRule("called_before_durable", "a call of a paused order", {
  ...steered([
    CREATED,
    { kind: "paused", atMs: 2, by: "ann" },
    { kind: "resumed", atMs: 3, by: "ann" },
    TO_B,
    COMPLETED,
  ]),
  calls: [
    { ...RUN_A, durableRevision: 2, fence: 2 },
    { ...RUN_B, durableRevision: 4, fence: 4 },
  ],
});

expectRule("called_before_durable", "a call of a step that waits", {
  ...steered([CREATED, { kind: "step_waiting", atMs: 2, limitMs: null }, TO_B, COMPLETED]),
  calls: [
    RUN_A,
    { ...RUN_A, attempt: 2, durableRevision: 2, fence: 2, hadEffect: false },
    { ...RUN_B, durableRevision: 3 },
  ],
});

expectRule("signal_applied_twice", "one signal that has completed two steps", {
  ...steered([CREATED, { ...TO_B, by: "ann" }, { ...COMPLETED, by: "ann" }]),
});

expectRule("status_differs", "a canceled order that is called failed", {
  ...steered(STEERED_HISTORY),
  stored: [{ ...ROW, status: "failed", revision: 9, history: STEERED_HISTORY }],
});

expectRule("completed_and_rolled_back", "a completed order that was canceled before", {
  ...steered([CREATED, { kind: "canceled", atMs: 2, by: "ann", reason: null, rollbackIndex: 0 }, TO_B, COMPLETED]),
});

expectRule("effect_missing", "a canceled order whose steps before the canceled one were never called", {
  ...steered(STEERED_HISTORY),
  calls: [call("B", "rollback", 7), call("A", "rollback", 8)],
});

expectRule("fence_repeated", "two calls of an order with one fence", { calls: [RUN_A, { ...RUN_B, fence: 1 }] });

/** An order with that history, which people may have steered. */
function steered(history: readonly OrderEvent[]): Partial<Evidence> {
  return { actions: [], stored: [{ ...ROW, revision: history.length, history }] };
}

/** A test that the evidence, which is good but for `wrong`, breaks the rule. */
function expectRule(rule: Rule, what: string, wrong: Partial<Evidence>): void {
  test(`finds ${what}`, () => {
    const rules = findViolations({ ...COMPLETED_WELL, ...wrong }).map((violation) => violation.rule);
    assert.ok(rules.includes(rule), `expected ${rule}, found ${rules.join(", ") || "nothing"}`);
  });
}

/** The first call of a step of order 1, as it should be. */
function call(step: string, direction: "run" | "rollback", durableRevision: number): ReceivedCall {
  return {
    orderId: "1",
    step,
    direction,
    attempt: 1,
    incarnation: 1,
    durableRevision,
    fence: durableRevision,
    sequence: durableRevision,
    atMs: durableRevision,
    key: `1:${step}:${direction}`,
    hadEffect: true,
  };
}
