import assert from "node:assert/strict";
import { test } from "node:test";
import {
  type Action,
  type ActionRequest,
  ACTIONS,
  allowedActions,
  decideAction,
  isDoneAlready,
  stepsToUndo,
} from "./actions.ts";
import { completion, decideCreation } from "./decide.ts";
import type { LaterEvent } from "./events.ts";
import { createdOrder, evolve } from "./evolve.ts";
import type { Order } from "./order.ts";
import { isFinal, ORDER_STATUSES } from "./status.ts";
import type { Pipeline, Step } from "./pipeline.ts";
import { DEFAULT_RETRY } from "./retry.ts";

const NO_DEADLINE = { deadlineMs: null };

function stepOf(name: string, change: Partial<Step> = {}): Step {
  return {
    name,
    run: () => undefined,
    rollback: () => undefined,
    retry: DEFAULT_RETRY,
    rollbackRetry: DEFAULT_RETRY,
    timeoutMs: 1_000,
    concurrency: null,
    isCommit: false,
    wait: null,
    ...change,
  };
}

/** Reserve; Approve, which waits; Pay, after which there is no way back; Send. */
const pipeline: Pipeline = {
  name: "test",
  version: 1,
  steps: [
    stepOf("Reserve"),
    stepOf("Approve", { wait: NO_DEADLINE }),
    stepOf("Pay", { isCommit: true }),
    stepOf("Send"),
  ],
  checkBody: null,
};

const created = createdOrder("id", decideCreation(pipeline, 1, 0));

function lived(...events: LaterEvent[]): Order {
  return events.reduce(evolve, created);
}

const atMs = 5;
const by = "alice";
const reserved = completion(pipeline, 0, atMs, null);
const waits = { kind: "step_waiting", atMs, limitMs: null } as const;
const approved = completion(pipeline, 1, atMs, "null", by);
const paid = completion(pipeline, 2, atMs, null);
const failed = { kind: "step_failed", atMs, error: "no", rollbackIndex: 0 } as const;
const abandoned = { kind: "rollback_abandoned", atMs, error: "no" } as const;
const undone = { kind: "step_rolled_back", atMs, rollbackIndex: null } as const;
const canceled = { kind: "canceled", atMs, by, reason: null, rollbackIndex: 0 } as const;
const paused = { kind: "paused", atMs, by } as const;
const crashed = { kind: "set_aside", atMs, reason: "crashes" } as const;
const unsure = { kind: "set_aside", atMs, reason: "unknown_commit", error: "no" } as const;
const resumed = { kind: "resumed", atMs, by } as const;
const queued = { kind: "attempt_queued", atMs } as const;
const retried = { kind: "attempt_failed", atMs, error: "no", delayMs: 1_000, elapsedMs: 0 } as const;
const [interrupted] = [{ kind: "owner_changed", atMs, owner: 2 } as const];

const scheduled = createdOrder("id", decideCreation(pipeline, 1, 0, { startAtMs: 9 }));

/** Every state in which an order can rest, or be at a call, and all that can be done to it. */
const STATES: readonly (readonly [string, Order, readonly Action[]])[] = [
  ["scheduled", scheduled, ["cancel", "pause"]],
  ["scheduled and paused", evolve(scheduled, paused), ["cancel", "resume"]],
  ["running", created, ["cancel", "pause"]],
  ["running, to be paused", evolve(created, { kind: "pause_requested", atMs, by }), ["cancel", "pause", "resume"]],
  ["running, to be canceled", evolve(created, { kind: "cancel_requested", atMs, by, reason: null }), ["cancel"]],
  ["running a step that will wait", lived(reserved), ["cancel", "pause", "complete"]],
  ["waiting", lived(reserved, waits), ["cancel", "pause", "complete"]],
  ["waiting and paused", lived(reserved, waits, paused), ["cancel", "resume", "complete"]],
  ["running the commit", lived(reserved, waits, approved), ["pause"]],
  ["running the commit again", lived(reserved, waits, approved, interrupted), ["pause"]],
  ["paused before the commit", lived(reserved, waits, approved, paused), ["cancel", "resume"]],
  ["paused, and resumed at the commit", lived(reserved, waits, approved, paused, resumed), ["pause"]],
  ["paused after a commit that was cut short", lived(reserved, waits, approved, interrupted, paused), ["resume"]],
  ["waiting for a slot for the commit", lived(reserved, waits, approved, queued), ["cancel", "pause"]],
  ["waiting to try the commit again", lived(reserved, waits, approved, retried), ["cancel", "pause"]],
  [
    "waiting to try a commit again that may be done",
    lived(reserved, waits, approved, { ...retried, unknown: true }),
    ["pause"],
  ],
  ["running after the commit", lived(reserved, waits, approved, paid), ["pause"]],
  ["paused", evolve(created, paused), ["cancel", "resume"]],
  ["paused and resumed fifty times", lived(...Array.from({ length: 50 }, () => [paused, resumed]).flat()), ["cancel"]],
  ["rolling back", lived(failed), ["pause"]],
  ["rolling back, to be paused", lived(failed, { kind: "pause_requested", atMs, by }), ["pause", "resume"]],
  ["rolling back and paused", lived(failed, paused), ["resume"]],
  ["rolling back what was canceled", lived(canceled), ["pause"]],
  ["rollback incomplete", lived(failed, abandoned), ["retry", "skip"]],
  ["set aside for crashes", lived(crashed), ["cancel", "retry"]],
  ["set aside for crashes of the commit", lived(reserved, waits, approved, crashed), ["complete", "retry"]],
  ["set aside for crashes after the commit", lived(reserved, waits, approved, paid, crashed), ["complete", "retry"]],
  ["set aside for crashes of a rollback", lived(failed, crashed), ["retry", "skip"]],
  ["set aside as nobody knows of the commit", lived(reserved, waits, approved, unsure), ["cancel", "complete"]],
  ["completed", lived(reserved, waits, approved, paid, completion(pipeline, 3, atMs, null)), []],
  ["failed", lived(failed, undone), ["retry"]],
  ["canceled", lived(canceled, undone), ["retry"]],
];

test("every status is among the states", () => {
  const met = new Set(STATES.map(([, { state }]) => state.status));
  assert.deepEqual(
    ORDER_STATUSES.filter((status) => !met.has(status)),
    [],
  );
});

for (const [name, order, allowed] of STATES) {
  for (const action of Object.keys(ACTIONS) as Action[]) {
    const may = allowed.includes(action);
    test(`an order that is ${name} ${may ? "allows" : "does not allow"} ${action}`, () => {
      assert.equal(allowedActions(order, pipeline).includes(action), may);
      for (const callUnderWay of [false, true]) {
        if (callUnderWay && order.state.status !== "running" && order.state.status !== "rolling_back") continue;
        // The order makes sense only so: this was asked during a call.
        if (!callUnderWay && order.asked !== null) continue;
        const decision = decideAction(order, pipeline, requestOf(action, order), { atMs: 7, callUnderWay });
        // Of an order that is final a new one is made, and not by this.
        const isFinalRetry = action === "retry" && isFinal(order.state.status);
        if (!may || isFinalRetry) {
          assert.notEqual(decision.kind, "event");
        } else if (decision.kind === "event") {
          assert.equal(evolve(order, decision.event).revision, order.revision + 1, "what is decided can happen");
        } else {
          assert.equal(decision.kind, "nothing_to_do");
        }
      }
    });
  }
}

function requestOf(action: Action, order: Order): ActionRequest {
  switch (action) {
    case "cancel":
      return { action, by, reason: "changed my mind" };
    case "skip":
      return { action, by, reason: "undone by hand" };
    case "complete":
      return { action, by, stepName: order.steps.at(-1)?.name ?? "", result: '{"ok":true}' };
    default:
      return { action, by };
  }
}

function decided(order: Order, request: ActionRequest, callUnderWay = false): Order {
  const decision = decideAction(order, pipeline, request, { atMs: 7, callUnderWay });
  assert.ok(decision.kind === "event", decision.kind === "refused" ? decision.reason : decision.kind);
  return evolve(order, decision.event);
}

test("what is asked twice is done once: the second time there is nothing to do", () => {
  const complete = { action: "complete", by, stepName: "Approve", result: '{"ok":true}' } as const;
  const asked: readonly (readonly [Order, ActionRequest, boolean])[] = [
    [created, { action: "pause", by }, false],
    [created, { action: "pause", by }, true],
    [created, { action: "cancel", by, reason: null }, false],
    [created, { action: "cancel", by, reason: null }, true],
    [lived(reserved, waits), complete, false],
    [lived(reserved), complete, true],
    [lived(reserved, waits, paused), complete, false],
  ];
  for (const [order, request, callUnderWay] of asked) {
    const after = decided(order, request, callUnderWay);
    assert.equal(decideAction(after, pipeline, request, { atMs: 8, callUnderWay }).kind, "nothing_to_do");
  }
});

test("a signal that says something else than the one before it is refused, and so is one for another step", () => {
  const order = decided(lived(reserved, waits), { action: "complete", by, stepName: "Approve", result: "true" });
  const again = decideAction(
    order,
    pipeline,
    { action: "complete", by, stepName: "Approve", result: "false" },
    { atMs, callUnderWay: true },
  );
  assert.equal(again.kind, "refused");
  const early = decided(lived(reserved), { action: "complete", by, stepName: "Approve", result: "true" }, true);
  const next = { action: "complete", by, stepName: "Approve", result: "false" } as const;
  assert.equal(decideAction(early, pipeline, next, { atMs, callUnderWay: true }).kind, "refused");
  const other = decideAction(
    lived(reserved, waits),
    pipeline,
    { action: "complete", by, stepName: "Pay", result: "1" },
    { atMs, callUnderWay: false },
  );
  assert.deepEqual(other, { kind: "refused", reason: 'the order is not at the step "Pay"' });
});

test("a paused order is resumed as it was, also when its owner has changed meanwhile", () => {
  for (const [name, order] of STATES) {
    if (order.state.status === "paused" || !allowedActions(order, pipeline).includes("pause") || order.asked !== null)
      continue;
    const held = evolve(decided(order, { action: "pause", by }), { kind: "owner_changed", atMs: 8, owner: 3 });
    assert.equal(held.state.status, "paused", name);
    const after = decided(held, { action: "resume", by });
    assert.equal(after.state.status, order.state.status, name);
    assert.deepEqual(after.steps, order.steps, name);
  }
});

test("a pause during a call happens when the call has ended, however it ends", () => {
  const asked = decided(created, { action: "pause", by }, true);
  assert.equal(asked.state.status, "running");
  const ends: readonly LaterEvent[] = [
    reserved,
    failed,
    { kind: "attempt_failed", atMs, error: "no", delayMs: 4, elapsedMs: 0 },
  ];
  for (const end of ends) assert.equal(evolve(asked, end).state.status, "paused", end.kind);
  const taken = evolve(asked, { kind: "owner_changed", atMs, owner: 2 });
  assert.deepEqual([taken.state.status, taken.asked], ["running", "pause"]);
  assert.equal(evolve(taken, { kind: "paused", atMs }).state.status, "paused");
  // There is nothing to hold any more.
  const last = decided(lived(reserved, waits, approved, paid), { action: "pause", by }, true);
  assert.equal(evolve(last, completion(pipeline, 3, atMs, null)).state.status, "completed");
  assert.equal(evolve(asked, { ...failed, rollbackIndex: null }).state.status, "failed");
});

test("an order that is canceled is rolled back from the step that it is at, last step first", () => {
  const order = decided(lived(reserved, waits), { action: "cancel", by, reason: "late" });
  assert.deepEqual(stepsToUndo(order, pipeline), ["Approve", "Reserve"]);
  assert.ok(order.state.status === "rolling_back");
  assert.deepEqual([order.state.call.stepIndex, order.state.ending.status], [1, "canceled"]);
});

test("an operator who says that a point of no return was not passed ends the order as failed, rolled back, by that operator", () => {
  const aside = lived(reserved, waits, approved, unsure);
  const asked = { action: "cancel", by, reason: "the bank says no" } as const;
  const decision = decideAction(aside, pipeline, asked, { atMs: 7, callUnderWay: false });
  assert.ok(decision.kind === "event" && decision.event.kind === "step_failed");
  const order = evolve(aside, decision.event);
  assert.ok(order.state.status === "rolling_back" && order.state.ending.status === "failed");
  assert.deepEqual([order.steps[2]?.outcome, order.steps[2]?.by], ["not_done", by]);
  assert.equal(isDoneAlready(order, asked), true);
});

test("an operator who says that a point of no return was passed completes its step, and the order goes on", () => {
  const aside = lived(reserved, waits, approved, unsure);
  const asked = { action: "complete", by, stepName: "Pay", result: '{"id":7}' } as const;
  const decision = decideAction(aside, pipeline, asked, { atMs: 7, callUnderWay: false });
  assert.ok(decision.kind === "event");
  const order = evolve(aside, decision.event);
  assert.equal(order.state.status, "running");
  assert.equal(order.steps[2]?.result, '{"id":7}');
  assert.equal(isDoneAlready(order, asked), true);
  const other = { ...asked, stepName: "Send" };
  assert.equal(decideAction(aside, pipeline, other, { atMs: 7, callUnderWay: false }).kind, "refused");
});

test("a step that was never called is not rolled back, and counts no attempt", () => {
  const [first, before] = [lived(reserved).steps, lived(reserved, paused)];
  assert.equal(first.at(-1)?.attempts, 1);
  assert.equal(before.steps.at(-1)?.attempts, 0);
  assert.deepEqual(stepsToUndo(before, pipeline), ["Reserve"]);
  const decision = decideAction(
    before,
    pipeline,
    { action: "cancel", by, reason: null },
    { atMs, callUnderWay: false },
  );
  assert.ok(decision.kind === "event" && decision.event.kind === "canceled");
  assert.equal(decision.event.rollbackIndex, 0);
  assert.equal(lived(reserved, paused, resumed).steps.at(-1)?.attempts, 1);
  assert.equal(lived(reserved, { kind: "pause_requested", atMs, by }, retried).steps.at(-1)?.attempts, 1);
  assert.equal(lived(reserved, retried, paused).steps.at(-1)?.attempts, 1);
  assert.equal(lived(reserved, interrupted, paused).steps.at(-1)?.attempts, 1);
});
