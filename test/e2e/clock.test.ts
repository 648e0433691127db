/** The machine's clock is set back while orders are under way (a wrong time is corrected, a virtual machine is restored). */
import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { readInvocation } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { type Node, startNode } from "../../src/main.ts";
import { permanent } from "../../src/order/step-error.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { buildPipeline, type PlainStepOptions } from "../../src/pipelines/define-pipeline.ts";
import { atEnd } from "../support/at-end.ts";
import { acceptedOrderId, finalOrder, type OrderAnswer, readOrder } from "../support/client.ts";
import { temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const HOUR_MS = 3_600_000;

const RETRY = { attempts: 2, delay: 200, factor: 1, delayMax: 200, jitter: 0 };

test("an order completes, and its times never run backwards, when the clock is set back an hour during a step", async (t) => {
  const clock = new Clock();
  const node = await startNodeWith(t, clock, [
    idleStep("First"),
    { name: "Second", run: () => clock.setBack(HOUR_MS) },
    idleStep("Third"),
  ]);
  const order = await finalOrder(node.url, await acceptedOrderId(node.url));
  assert.equal(order.status, "completed");
  assertTimesInOrder(forwardTimes(order));
  assert.equal(order.steps.length, 4);
});

test("an order fails with every rollback made, and its times never run backwards, when the clock is set back during a rollback", async (t) => {
  const clock = new Clock();
  const node = await startNodeWith(t, clock, [
    { ...idleStep("First"), rollback: () => undefined },
    { ...idleStep("Second"), rollback: () => clock.setBack(HOUR_MS) },
    {
      name: "Third",
      run: () => {
        throw permanent("no");
      },
    },
  ]);
  const order = await finalOrder(node.url, await acceptedOrderId(node.url));
  assert.equal(order.status, "failed");
  assertTimesInOrder(forwardTimes(order));
  const rollbacks = order.steps.toReversed().flatMap((step) => step.step_rollback_time ?? []);
  assert.equal(rollbacks.length, 2);
  assertTimesInOrder([order.start_time, ...rollbacks, order.complete_time]);
});

test("a step's next attempt comes in its time when the clock is set back an hour during the wait for it", async (t) => {
  const clock = new Clock();
  const node = await startNodeWith(t, clock, [
    {
      name: "Flaky",
      retry: RETRY,
      run: ({ attempt }) => {
        if (attempt > 1) return;
        // When the wait has begun: the failure has been recorded by then, its next attempt not yet been made.
        setTimeout(() => clock.setBack(HOUR_MS), RETRY.delay / 2);
        throw new Error("not yet");
      },
    },
  ]);
  const order = await finalOrder(node.url, await acceptedOrderId(node.url));
  assert.equal(order.status, "completed");
  assert.equal(order.steps[0]?.attempts, 2);
  assertTimesInOrder(forwardTimes(order));
});

test("an order that waits for its next attempt goes on after a restart on a clock that was set back an hour", async (t) => {
  const clock = new Clock();
  const data = temporaryFolder(t);
  const steps: PlainStepOptions[] = [
    {
      name: "Flaky",
      retry: RETRY,
      run: ({ attempt }) => {
        if (attempt > 1) return;
        throw new Error("not yet");
      },
    },
  ];
  const before = await startNodeWith(t, clock, steps, data);
  const orderId = await acceptedOrderId(before.url);
  await waitFor(async () => (await readOrder(before.url, orderId)).steps[0]?.error, {
    what: "the failure is recorded",
  });
  await before.stop();
  clock.setBack(HOUR_MS);
  const after = await startNodeWith(t, clock, steps, data);
  const order = await finalOrder(after.url, orderId);
  assert.equal(order.status, "completed");
  assertTimesInOrder(forwardTimes(order));
});

class Clock {
  #offsetMs = 0;

  now(): number {
    return Date.now() + this.#offsetMs;
  }

  setBack(byMs: number): void {
    this.#offsetMs -= byMs;
  }
}

async function startNodeWith(
  t: TestContext,
  clock: Clock,
  steps: readonly PlainStepOptions[],
  data = temporaryFolder(t),
): Promise<Node> {
  const pipeline = buildPipeline({ name: "clock", version: 1, steps });
  const invocation = readInvocation(["--port", "0", "--data", data, "--grace", "0s"], {}, "0.0.0");
  assert.equal(invocation.kind, "run");
  const log = createLogger("silent", "logfmt", () => undefined);
  const broken = (error: Error): never => {
    throw error;
  };
  const node = await startNode(invocation.config, log, broken, { pipeline, clock: systemClock(() => clock.now()) });
  const state = { stopped: false };
  const stop = async (): Promise<void> => {
    if (state.stopped) return;
    state.stopped = true;
    await node.stop();
  };
  atEnd(t, stop);
  return { ...node, stop };
}

function idleStep(name: string): PlainStepOptions {
  return { name, run: () => undefined };
}

/** The times of a run forward, in the order in which they were recorded. */
function forwardTimes(order: OrderAnswer): (string | undefined)[] {
  return [
    order.start_time,
    ...order.steps.flatMap((step) =>
      [step.step_start_time, step.step_complete_time].filter((time) => time !== undefined),
    ),
    order.complete_time,
  ];
}

function assertTimesInOrder(times: readonly (string | undefined)[]): void {
  const known = times.map((time) => {
    assert.ok(time !== undefined, "the order is final");
    return Date.parse(time);
  });
  assert.deepEqual(
    known,
    known.toSorted((one, other) => one - other),
    `times run backwards: ${times.join(", ")}`,
  );
}
