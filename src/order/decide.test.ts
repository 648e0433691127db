import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type CallOutcome, decide, decideCreation } from "./decide.ts";
import { createdOrder, currentCall, evolve, isFinal, type Order, type OrderEvent, replay } from "./order.ts";
import type { Pipeline } from "./pipeline.ts";
import { DEFAULT_RETRY } from "./retry.ts";

/** An attempt that failed and will be made again. */
const FAILURE = {
  kind: "failed",
  error: "it failed",
  permanent: false,
  unknown: false,
  formerNotDone: false,
  retryAfterMs: null,
  random: 0,
} as const;

const ORDER_ID = "01a204a2-22c8-7b5a-94c7-d2d300214792";

interface Life {
  /** Every state the order was in, oldest first. */
  readonly states: readonly Order[];
  readonly events: readonly OrderEvent[];
  /** What was called, such as "run A" or "rollback A", once per attempt. */
  readonly calls: readonly string[];
}

/** What befalls the order next: its call ends, or a crash gives it to another incarnation. */
type Happening =
  { readonly kind: "ended"; readonly ok: boolean; readonly permanent: boolean } | { readonly kind: "crash" };

/** Lives an order until it is final, waits for an operator, or nothing happens any more. */
function live(pipeline: Pipeline, happenings: readonly Happening[], clock: () => number): Life {
  const creation = decideCreation(pipeline, 1, clock());
  let order = createdOrder(ORDER_ID, creation);
  const events: OrderEvent[] = [creation];
  const states = [order];
  const calls: string[] = [];
  for (const happening of happenings) {
    const { state } = order;
    if (state.status !== "running" && state.status !== "rolling_back") break;
    calls.push(`${state.status === "running" ? "run" : "rollback"} ${pipeline.steps[state.call.stepIndex]?.name}`);
    const event =
      happening.kind === "crash"
        ? ({ kind: "owner_changed", atMs: clock(), owner: order.owner + 1 } as const)
        : decide(order, pipeline, outcomeOf(happening, clock()));
    order = evolve(order, event);
    events.push(event);
    states.push(order);
  }
  return { states, events, calls };
}

function outcomeOf(happening: Extract<Happening, { kind: "ended" }>, atMs: number): CallOutcome {
  return happening.ok
    ? { kind: "succeeded", atMs, result: null }
    : { ...FAILURE, atMs, permanent: happening.permanent, random: 0.5 };
}

function pipelineOf(steps: readonly { readonly undoable: boolean; readonly attemptsMax: number }[]): Pipeline {
  return {
    name: "test",
    version: 1,
    steps: steps.map(({ undoable, attemptsMax }, index) => {
      const retry = { ...DEFAULT_RETRY, attemptsMax, delayMs: 10, delayMsMax: 1_000, jitter: 0.5 };
      return {
        name: `S${index}`,
        run: () => undefined,
        ...(undoable ? { rollback: () => undefined } : {}),
        retry,
        rollbackRetry: retry,
        timeoutMs: 1_000,
        concurrency: null,
        isCommit: false,
        wait: null,
      };
    }),
    checkBody: null,
  };
}

const pipelines = fc
  .array(fc.record({ undoable: fc.boolean(), attemptsMax: fc.integer({ min: 1, max: 4 }) }), {
    minLength: 1,
    maxLength: 6,
  })
  .map(pipelineOf);

const happenings = fc.array(
  fc.oneof(
    { weight: 5, arbitrary: fc.constant<Happening>({ kind: "ended", ok: true, permanent: false }) },
    {
      weight: 3,
      arbitrary: fc.boolean().map((permanent): Happening => ({ kind: "ended", ok: false, permanent })),
    },
    { weight: 1, arbitrary: fc.constant<Happening>({ kind: "crash" }) },
  ),
  { maxLength: 60 },
);

/** A clock that may stand still or run backwards. */
const clocks = fc
  .array(fc.integer({ min: -4_000_000, max: 4_000_000 }), { minLength: 1, maxLength: 20 })
  .map((jumps) => {
    let timeMs = 1_700_000_000_000;
    let turn = 0;
    return () => (timeMs += jumps[turn++ % jumps.length] ?? 0);
  });

/** Calls always succeed from here on, often enough for any pipeline to end. */
const GOOD_ENDING: readonly Happening[] = Array.from({ length: 20 }, () => ({
  kind: "ended",
  ok: true,
  permanent: false,
}));

test("revisions have no gaps, and a history gives back the very order it was made from", () => {
  fc.assert(
    fc.property(pipelines, happenings, clocks, (pipeline, what, clock) => {
      const { states, events } = live(pipeline, what, clock);
      states.forEach((order, index) => assert.equal(order.revision, index + 1));
      assert.deepEqual(replay(ORDER_ID, events), states.at(-1));
    }),
  );
});

test("an order whose calls succeed in the end becomes final, or waits for an operator", () => {
  fc.assert(
    fc.property(pipelines, happenings, clocks, (pipeline, what, clock) => {
      const last = live(pipeline, [...what, ...GOOD_ENDING], clock).states.at(-1);
      assert.ok(last !== undefined && (isFinal(last.state.status) || last.state.status === "rollback_incomplete"));
    }),
  );
});

test("nothing follows a final order", () => {
  fc.assert(
    fc.property(pipelines, happenings, clocks, (pipeline, what, clock) => {
      const last = live(pipeline, [...what, ...GOOD_ENDING], clock).states.at(-1);
      if (last === undefined || !isFinal(last.state.status)) return;
      assert.throws(() => decide(last, pipeline, { kind: "succeeded", atMs: clock(), result: null }));
      assert.throws(() => evolve(last, { kind: "owner_changed", atMs: clock(), owner: 9 }));
      assert.throws(() => evolve(last, { kind: "step_completed", atMs: clock(), nextStepName: null }));
    }),
  );
});

test("an order is completed with every step run and none rolled back, or it is failed", () => {
  fc.assert(
    fc.property(pipelines, happenings, clocks, (pipeline, what, clock) => {
      const { states, calls } = live(pipeline, [...what, ...GOOD_ENDING], clock);
      const last = states.at(-1);
      if (last?.state.status !== "completed") return;
      assert.deepEqual(new Set(calls), new Set(pipeline.steps.map(({ name }) => `run ${name}`)));
      assert.ok(last.steps.every((step) => step.completeTimeMs !== null && step.rollbackTimeMs === null));
    }),
  );
});

test("the rollbacks are exactly the started steps that can be undone, last first, the failed one included", () => {
  fc.assert(
    fc.property(pipelines, happenings, clocks, (pipeline, what, clock) => {
      const { states, calls } = live(pipeline, [...what, ...GOOD_ENDING], clock);
      const last = states.at(-1);
      if (last?.state.status !== "failed") return;
      const undoable = last.steps.filter((_, index) => pipeline.steps[index]?.rollback !== undefined);
      const rolledBack = [...new Set(calls.filter((call) => call.startsWith("rollback ")))];
      assert.deepEqual(rolledBack, undoable.map(({ name }) => `rollback ${name}`).toReversed());
      assert.ok(last.steps.every((step) => undoable.includes(step) === (step.rollbackTimeMs !== null)));
    }),
  );
});

test("times never run backwards in an order, whatever the clock does", () => {
  fc.assert(
    fc.property(pipelines, happenings, clocks, (pipeline, what, clock) => {
      const last = live(pipeline, [...what, ...GOOD_ENDING], clock).states.at(-1);
      assert.ok(last !== undefined);
      let beforeMs = last.startTimeMs;
      for (const step of last.steps) {
        assert.ok(step.startTimeMs >= beforeMs);
        beforeMs = step.completeTimeMs ?? step.startTimeMs;
        assert.ok(beforeMs >= step.startTimeMs);
      }
      if ("completeTimeMs" in last.state) assert.ok(last.state.completeTimeMs >= beforeMs);
    }),
  );
});

test("a step is tried as often as its policy says, and attempts that a crash cut short are not held against it", () => {
  const pipeline = pipelineOf([{ undoable: false, attemptsMax: 3 }]);
  const failure: Happening = { kind: "ended", ok: false, permanent: false };
  const { states, calls } = live(pipeline, [failure, { kind: "crash" }, failure, { kind: "crash" }, failure], () => 0);
  assert.equal(states.at(-1)?.state.status, "failed");
  assert.equal(calls.length, 5);
});

test("a permanent error ends the attempts at once", () => {
  const pipeline = pipelineOf([{ undoable: true, attemptsMax: 3 }]);
  const { states } = live(pipeline, [{ kind: "ended", ok: false, permanent: true }], () => 0);
  assert.equal(states.at(-1)?.state.status, "rolling_back");
});

test("a rollback that fails for good leaves the order to an operator, owned but not final", () => {
  const pipeline = pipelineOf([{ undoable: true, attemptsMax: 1 }]);
  const failure: Happening = { kind: "ended", ok: false, permanent: false };
  const last = live(pipeline, [failure, failure], () => 0).states.at(-1);
  assert.equal(last?.state.status, "rollback_incomplete");
  assert.equal(last?.steps[0]?.error, "it failed");
  assert.equal(evolve(last, { kind: "owner_changed", atMs: 1, owner: 2 }).owner, 2);
});

test("a retry that still waits when the owner changes goes on waiting", () => {
  const pipeline = pipelineOf([{ undoable: true, attemptsMax: 2 }]);
  const order = createdOrder(ORDER_ID, decideCreation(pipeline, 1, 0));
  const failed = decide(order, pipeline, { ...FAILURE, atMs: 5, error: "no" });
  assert.deepEqual(failed, { kind: "attempt_failed", atMs: 5, error: "no", retryAtMs: 15 });
  assert.ok(failed.kind === "attempt_failed");
  const waiting = evolve(order, failed);
  const given = evolve(waiting, { kind: "owner_changed", atMs: 6, owner: 2, callBegun: false });
  assert.deepEqual(given.state, waiting.state);
  const taken = evolve(waiting, { kind: "owner_changed", atMs: 6, owner: 2 });
  assert.deepEqual(callOf(taken), { attempt: 3, failures: 1, notBeforeMs: 15, isUnknown: true });
  const takenLate = evolve(waiting, { kind: "owner_changed", atMs: 16, owner: 2 });
  assert.deepEqual(callOf(takenLate), { attempt: 3, failures: 1, notBeforeMs: null, isUnknown: true });
});

function callOf(order: Order): object {
  const call = currentCall(order);
  assert.ok(call !== null, "the order is at a call");
  const { attempt, failures, notBeforeMs, isUnknown } = call;
  return { attempt, failures, notBeforeMs, isUnknown };
}
