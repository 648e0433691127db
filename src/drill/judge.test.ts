import assert from "node:assert/strict";
import { test } from "node:test";
import type { OrderEvent } from "../order/events.ts";
import type { OrderStatus } from "../order/status.ts";
import { BUILT_IN_STEPS } from "../pipelines/built-in.ts";
import type { StoredOrder } from "../store/store.ts";
import { judgeOrders, type Verdict } from "./judge.ts";

const AT_MS = 1_700_000_000_000;
const [FIRST = "", SECOND = ""] = BUILT_IN_STEPS;
const CREATED: OrderEvent = { kind: "created", atMs: AT_MS, owner: 1, stepName: FIRST };
const TAKEN: OrderEvent = { kind: "owner_changed", atMs: AT_MS, owner: 2 };
const RUN: readonly OrderEvent[] = [...BUILT_IN_STEPS.slice(1), null].map((nextStepName) => ({
  kind: "step_completed",
  atMs: AT_MS,
  nextStepName,
}));
const FAILED: readonly OrderEvent[] = [
  { kind: "step_completed", atMs: AT_MS, nextStepName: SECOND },
  { kind: "step_failed", atMs: AT_MS, error: "as asked", rollbackIndex: 0 },
  { kind: "step_rolled_back", atMs: AT_MS, rollbackIndex: null },
];

function stored(status: OrderStatus, history: readonly OrderEvent[], revision = history.length): StoredOrder {
  return {
    orderId: "order",
    user: "",
    pipelineName: "built-in",
    pipelineVersion: 1,
    status,
    owner: 1,
    ownerServiceId: "service",
    revision,
    history,
  };
}

async function judge(order: StoredOrder | null, failAt: string | null = null): Promise<Verdict> {
  return judgeOrders({ readOrder: () => Promise.resolve(order) }, [{ orderId: "order", failAt }]);
}

test("an order that went through all steps is completed, also when it changed hands", async () => {
  assert.equal((await judge(stored("completed", [CREATED, ...RUN]))).completed, 1);
  assert.equal((await judge(stored("completed", [CREATED, TAKEN, ...RUN]))).completed, 1);
});

test("an order that was asked to fail, and was rolled back to its first step, is just that", async () => {
  assert.equal((await judge(stored("failed", [CREATED, ...FAILED]), SECOND)).rolledBack, 1);
});

test("an acknowledged order that the store does not have is lost", async () => {
  const { lost, complaints } = await judge(null);
  assert.equal(lost, 1);
  assert.match(complaints.join(), /Order order: it was acknowledged and is not in the store/);
});

test("an order that still runs is not final", async () => {
  assert.equal((await judge(stored("running", [CREATED]))).notFinal, 1);
});

for (const [what, order, failAt] of [
  ["an event after the last", stored("completed", [CREATED, ...RUN, TAKEN]), null],
  ["a step that ended twice", stored("completed", [CREATED, ...RUN.slice(0, 1), ...RUN]), null],
  ["a step left out", stored("completed", [CREATED, ...RUN.slice(1)]), null],
  ["a revision that is not its history's length", stored("completed", [CREATED, ...RUN], RUN.length + 2), null],
  ["an order that failed without being asked to", stored("failed", [CREATED, ...FAILED]), null],
  ["an order that was asked to fail and did not", stored("completed", [CREATED, ...RUN]), BUILT_IN_STEPS.at(-1)],
] as const) {
  test(`only a late write explains ${what}`, async () => {
    const verdict = await judge(order, failAt ?? null);
    assert.equal(verdict.lateWritesAccepted, 1, JSON.stringify(verdict));
    assert.equal(verdict.complaints.length, 1);
  });
}
