import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { type CallOutcome, decide, decideCrashed, decideCreation } from "./decide.ts";
import type { OrderEvent } from "./events.ts";
import { createdOrder, evolve, replay } from "./evolve.ts";
import { currentCall, listedStatus, type Order } from "./order.ts";
import { isFinal } from "./status.ts";
import type { Pipeline } from "./pipeline.ts";
import { DEFAULT_RETRY } from "./retry.ts";

/** An attempt that failed and will be made again. */
const FAILURE = {
  kind: "failed",
  error: "it failed",
  permanent: false,
  unknown: false,
  formerNotDone: false,
  shortage: false,
  lingers: false,
  retryAfterMs: null,
  elapsedMs: 0,
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
        ? ({ kind: "owner_changed", atMs: clock(), owner: order.owner + 1, callBegun: true, former: "died" } as const)
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

/** An order whose first attempt has failed: the next one is due after 10 ms. */
function waitingForRetry(atMs: number, traits: { readonly unknown?: true } = {}): Order {
  const order = createdOrder(ORDER_ID, decideCreation(RETRYING, 1, 0));
  const failed = decide(order, RETRYING, { ...FAILURE, ...traits, atMs, elapsedMs: 5, error: "no" });
  assert.deepEqual(failed, { kind: "attempt_failed", atMs, error: "no", delayMs: 10, elapsedMs: 5, ...traits });
  return evolve(order, failed);
}

const RETRYING = pipelineOf([{ undoable: true, attemptsMax: 2 }]);

const PATIENT = pipelineOf([{ undoable: true, attemptsMax: 9 }]);

test("a call that waits for its retry has not begun: a takeover leaves it as it is, and counts no attempt", () => {
  const waiting = waitingForRetry(5);
  assert.deepEqual(callOf(waiting), {
    attempt: 2,
    failures: 1,
    crashes: 0,
    waitMs: 10,
    hasBegun: false,
    isUnknown: false,
  });
  assert.equal(waiting.steps[0]?.attempts, 1);
  const taken = evolve(waiting, { kind: "owner_changed", atMs: 8, owner: 2, callBegun: true, former: "died" });
  assert.deepEqual(callOf(taken), {
    attempt: 2,
    failures: 1,
    crashes: 0,
    waitMs: 7,
    hasBegun: false,
    isUnknown: false,
  });
});

test("a call that has begun is made again after a takeover, and only then is it an attempt that may be done", () => {
  const begun = evolve(waitingForRetry(5), { kind: "attempt_started", atMs: 15 });
  assert.equal(begun.steps[0]?.attempts, 2);
  const taken = evolve(begun, { kind: "owner_changed", atMs: 20, owner: 2, callBegun: true, former: "died" });
  assert.deepEqual(callOf(taken), { attempt: 3, failures: 1, crashes: 1, waitMs: 0, hasBegun: false, isUnknown: true });
  assert.equal(taken.steps[0]?.attempts, 2);
  assert.equal(evolve(taken, { kind: "attempt_started", atMs: 21 }).steps[0]?.attempts, 3);
});

test("a takeover counts what was waited on the former owner's clock, however far that was off", () => {
  for (const offMs of [-7_200_000, 0, 7_200_000]) {
    const waiting = waitingForRetry(1_000_000_000 + offMs);
    const event = { kind: "owner_changed", atMs: 1_000_000_004, owner: 2, callBegun: true } as const;
    const taken = evolve(waiting, { ...event, formerAtMs: 1_000_000_004 + offMs });
    assert.equal(currentCall(taken)?.waitMs, 6);
    assert.equal(currentCall(taken)?.elapsedMs, 9);
  }
});

test("whatever two clocks show, a wait that is taken over lasts neither less than nothing nor longer than it was", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 9e12 }),
      fc.integer({ min: 0, max: 9e12 }),
      fc.nat(9e12),
      (at, former, claimed) => {
        const waiting = waitingForRetry(at);
        const event = { kind: "owner_changed", atMs: claimed, owner: 2, callBegun: true, formerAtMs: former } as const;
        const waitMs = currentCall(evolve(waiting, event))?.waitMs ?? -1;
        assert.ok(waitMs >= 0 && waitMs <= 10, String(waitMs));
      },
    ),
  );
});

test("a retry deadline is used up by the time that passed, not by what the clock shows", () => {
  const [step] = RETRYING.steps;
  assert.ok(step !== undefined);
  const pipeline = { ...RETRYING, steps: [{ ...step, retry: { ...step.retry, deadlineMs: 3_600_000 } }] };
  const order = createdOrder(ORDER_ID, decideCreation(pipeline, 1, 0));
  assert.equal(decide(order, pipeline, { ...FAILURE, atMs: 7_200_000, elapsedMs: 5 }).kind, "attempt_failed");
  assert.equal(decide(order, pipeline, { ...FAILURE, atMs: 1, elapsedMs: 3_600_000 }).kind, "step_failed");
});

test("nodes that die during calls of one order count until the order makes progress, and then it is set aside", () => {
  const died = { kind: "owner_changed", atMs: 9, callBegun: true, former: "died" } as const;
  const started = { kind: "attempt_started", atMs: 9 } as const;
  const order = createdOrder(ORDER_ID, decideCreation(RETRYING, 1, 0));
  const twice = [{ ...died, owner: 2 }, started, { ...died, owner: 3 }].reduce(evolve, order);
  assert.equal(decideCrashed(twice, 3, 10), null);
  const thrice = [started, { ...died, owner: 4 }].reduce(evolve, twice);
  const aside = decideCrashed(thrice, 3, 10);
  assert.deepEqual(aside, { kind: "set_aside", atMs: 10, reason: "crashes" });
  assert.ok(aside !== null);
  assert.equal(evolve(thrice, aside).state.status, "set_aside");
  // Stopped in good order, or the call not begun: that counts nothing.
  for (const harmless of [[started, { ...died, owner: 4, former: "drained" as const }], [{ ...died, owner: 4 }]]) {
    assert.equal(decideCrashed(harmless.reduce<Order>(evolve, twice), 3, 10), null);
  }
  const progress = evolve(evolve(twice, started), decide(evolve(twice, started), RETRYING, { ...FAILURE, atMs: 10 }));
  assert.equal(currentCall(progress)?.crashes, 0);
});

test("a call that was given up and goes on counts as under way when its node dies", () => {
  const started = { kind: "attempt_started", atMs: 9 } as const;
  const died = { kind: "owner_changed", atMs: 9, callBegun: true, former: "died" } as const;
  const begun = createdOrder(ORDER_ID, decideCreation(RETRYING, 1, 0));
  const failed = decide(begun, RETRYING, { ...FAILURE, atMs: 9, unknown: true, lingers: true });
  assert.ok(failed.kind === "attempt_failed" && failed.lingers === true);
  const given = evolve(begun, failed);
  const taken = evolve(given, { ...died, owner: 2 });
  assert.deepEqual([currentCall(taken)?.crashes, currentCall(taken)?.isLingering], [1, false]);
  assert.equal(currentCall(evolve(given, { ...died, owner: 2, former: "drained" }))?.crashes, 0);
  // Its code is gone with the node: another death is another's.
  assert.equal(currentCall(evolve(taken, { ...died, owner: 3 }))?.crashes, 1);
  // A further one that goes on takes nothing back, one that has ended does.
  const again = evolve(taken, started);
  assert.equal(currentCall(evolve(again, failed))?.crashes, 1);
  assert.equal(currentCall(evolve(again, decide(again, PATIENT, { ...FAILURE, atMs: 9 })))?.crashes, 0);
  // The next attempt has begun, and is what counts.
  assert.equal(currentCall(evolve(given, started))?.isLingering, false);
});

test("a shortage of the node's own uses up no attempt, and is a person's when it comes again and again", () => {
  let order = createdOrder(ORDER_ID, decideCreation(RETRYING, 1, 0));
  for (let count = 1; count <= 12; count++) {
    const event = decide(order, RETRYING, { ...FAILURE, atMs: count, shortage: true, elapsedMs: count });
    assert.equal(event.kind, "attempt_failed");
    order = evolve(evolve(order, event), { kind: "attempt_started", atMs: count });
    assert.equal(currentCall(order)?.failures, 0);
    assert.equal(listedStatus(order), count < 10 ? "running" : "retrying");
  }
});

for (const [what, traits, expected] of [
  ["after an attempt that may be done, without verify", { isUnknown: true }, "set_aside"],
  ["that never may have been done", { isUnknown: false }, "step_failed"],
  ["after verify has found nothing done", { isUnknown: true, verified: true }, "step_failed"],
] as const) {
  test(`a permanent failure of a point of no return ${what} leads to ${expected}`, () => {
    const [step] = RETRYING.steps;
    assert.ok(step !== undefined);
    const pipeline = { ...RETRYING, steps: [{ ...step, isCommit: true }] };
    const started = { kind: "attempt_started", atMs: 9 } as const;
    const waiting = waitingForRetry(5, traits.isUnknown ? { unknown: true } : {});
    const order = evolve(waiting, started);
    const formerNotDone = "verified" in traits;
    const event = decide(order, pipeline, { ...FAILURE, atMs: 10, permanent: true, formerNotDone });
    assert.equal(event.kind, expected);
    if (event.kind === "set_aside") assert.equal(event.reason, "unknown_commit");
  });
}

test("what is past a point of no return and has used up its retries goes on, found as retrying", () => {
  const [step] = RETRYING.steps;
  assert.ok(step !== undefined);
  const pipeline = {
    ...RETRYING,
    steps: [
      { ...step, isCommit: true },
      { ...step, name: "S1" },
    ],
  };
  let order = createdOrder(ORDER_ID, decideCreation(pipeline, 1, 0));
  order = evolve(order, decide(order, pipeline, { kind: "succeeded", atMs: 1, result: null }));
  assert.equal(listedStatus(order), "running");
  for (const permanent of [false, true]) {
    const event = decide(order, pipeline, { ...FAILURE, atMs: 2, permanent });
    assert.equal(event.kind, "attempt_failed");
    order = evolve(evolve(order, event), { kind: "attempt_started", atMs: 3 });
  }
  assert.equal(listedStatus(order), "retrying");
  const done = evolve(order, decide(order, pipeline, { kind: "succeeded", atMs: 4, result: null }));
  assert.equal(listedStatus(done), "completed");
});

test("a second commit that fails for good is tried again without end: what is past the first one is never a question", () => {
  const [step] = RETRYING.steps;
  assert.ok(step !== undefined);
  const commit = { ...step, isCommit: true };
  const pipeline = { ...RETRYING, steps: [commit, { ...commit, name: "S1" }] };
  const order = createdOrder(ORDER_ID, decideCreation(pipeline, 1, 0));
  const atSecond = evolve(order, decide(order, pipeline, { kind: "succeeded", atMs: 1, result: null }));
  for (const unknown of [false, true]) {
    const event = decide(atSecond, pipeline, { ...FAILURE, atMs: 2, permanent: true, unknown });
    assert.equal(event.kind, "attempt_failed");
    assert.equal(listedStatus(evolve(atSecond, event)), "retrying");
  }
});

test("an attempt that a store of before has waiting at a takeover counts as not made, though nothing proves it", () => {
  const order = createdOrder(ORDER_ID, decideCreation(RETRYING, 1, 0));
  // Without what has elapsed: stores of before have no event when the attempt begins.
  const waiting = evolve(order, { kind: "attempt_failed", atMs: 5, error: "no", delayMs: 10 });
  const died = { kind: "owner_changed", owner: 2, callBegun: true, former: "died" } as const;
  const [before, after] = [evolve(waiting, { ...died, atMs: 8 }), evolve(waiting, { ...died, atMs: 15 })];
  const call = { failures: 1, hasBegun: false, isUnknown: true };
  assert.deepEqual(callOf(before), { ...call, attempt: 2, crashes: 0, waitMs: 7 });
  assert.equal(evolve(before, { kind: "attempt_started", atMs: 15 }).steps[0]?.attempts, 2);
  assert.deepEqual(callOf(after), { ...call, attempt: 3, crashes: 1, waitMs: 0 });
});

test("an attempt that has begun has, and waits for nothing, when the clock was set back before a takeover", () => {
  const begun = evolve(waitingForRetry(5), { kind: "attempt_started", atMs: 15 });
  const taken = evolve(begun, { kind: "owner_changed", atMs: -20, owner: 2, callBegun: true, former: "died" });
  assert.deepEqual(callOf(taken), { attempt: 3, failures: 1, crashes: 1, waitMs: 0, hasBegun: false, isUnknown: true });
});

function callOf(order: Order): object {
  const call = currentCall(order);
  assert.ok(call !== null, "the order is at a call");
  const { attempt, failures, crashes, waitMs, hasBegun, isUnknown } = call;
  return { attempt, failures, crashes, waitMs, hasBegun, isUnknown };
}
