/** The engine on a real embedded store, and on a clock that the test owns: what a wall clock does that is set changes no wait. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Engine } from "../../src/engine/engine.ts";
import { replay } from "../../src/order/evolve.ts";
import { permanent } from "../../src/order/step-error.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { buildPipeline, type PlainStepOptions } from "../../src/pipelines/define-pipeline.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import type { StoredOrder } from "../../src/store/store.ts";
import { makeEngine, registerNode } from "../support/engine.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

interface Rig {
  readonly engine: Engine;
  readonly clock: ManualClock;
  readonly submit: (startAtMs?: number) => Promise<string>;
  readonly order: (orderId: string) => Promise<StoredOrder>;
  /** The order, when it has so many events. */
  readonly reaches: (orderId: string, revision: number) => Promise<StoredOrder>;
}

async function start(t: TestContext, steps: readonly PlainStepOptions[]): Promise<Rig> {
  const clock = new ManualClock();
  const path = join(temporaryFolder(t), "orders.sqlite");
  const pipeline = buildPipeline({ name: "test", version: 1, steps });
  const store = await openSqliteStore({ path, now: clock.now, onBroken: assert.ifError });
  const engine = makeEngine({
    store,
    incarnation: await registerNode(store, clock.now()),
    pipelines: new PipelineSet([pipeline]),
    clock,
    random: () => 0,
  });
  t.after(async () => {
    engine.abandon();
    await store.close();
  });
  const order = async (orderId: string): Promise<StoredOrder> => {
    const stored = await store.readOrder(orderId);
    assert.ok(stored !== null);
    return stored;
  };
  return {
    engine,
    clock,
    order,
    submit: async (startAtMs) => {
      const options = startAtMs === undefined ? {} : { startAtMs };
      const outcome = await engine.submit({ user: "ann", body: "{}", idempotencyKey: null, pipeline, options });
      assert.ok(outcome.kind === "accepted");
      return outcome.orderId;
    },
    reaches: (orderId, revision) =>
      waitFor(
        async () => {
          const stored = await order(orderId);
          return stored.revision >= revision ? stored : undefined;
        },
        { what: `order ${orderId} has ${revision} events` },
      ),
  };
}

const failing = (): never => {
  throw new Error("no");
};

for (const jumpMs of [-2 * HOUR_MS, 2 * HOUR_MS]) {
  const set = jumpMs < 0 ? "back" : "forward";

  test(`a rollback that keeps failing waits as long as it is to between its attempts when the clock is set ${set}`, async (t) => {
    const retry = { attempts: 15, delay: "10s", factor: 1, delayMax: "10s", jitter: 0 } as const;
    const { clock, submit, reaches, order } = await start(t, [
      {
        name: "A",
        run: () => {
          throw permanent("no");
        },
        rollback: failing,
        retry,
      },
    ]);
    const orderId = await submit();
    // created, step_failed, attempt_failed; then attempt_started and attempt_failed for each attempt.
    for (let revision = 3; revision <= 3 + 2 * 3; revision += 2) {
      await reaches(orderId, revision);
      clock.setWall(jumpMs);
      clock.advance(10 * SECOND_MS - 1);
      assert.equal((await order(orderId)).revision, revision, "no attempt comes early");
      clock.advance(1);
    }
    assert.equal((await reaches(orderId, 11)).status, "rolling_back");
  });

  test(`a retry deadline of an hour is not used up, nor does it last for ever, when the clock is set ${set}`, async (t) => {
    const retry = { attempts: 1_000, delay: "20m", factor: 1, delayMax: "20m", jitter: 0, deadline: "1h" } as const;
    const { clock, submit, reaches } = await start(t, [{ name: "A", run: failing, retry }]);
    const orderId = await submit();
    await reaches(orderId, 2);
    clock.setWall(jumpMs);
    for (const revision of [4, 6]) {
      clock.advance(20 * MINUTE_MS);
      assert.equal(
        (await reaches(orderId, revision)).history.at(-1)?.kind,
        revision === 6 ? "step_failed" : "attempt_failed",
      );
    }
  });

  test(`a step waits for its signal as long as it is to when the clock is set ${set}`, async (t) => {
    const { clock, submit, reaches, order } = await start(t, [
      { name: "A", run: () => undefined, wait: { deadline: "60s" } },
    ]);
    const orderId = await submit();
    await reaches(orderId, 2);
    clock.setWall(jumpMs);
    clock.advance(MINUTE_MS - 1);
    assert.equal((await order(orderId)).status, "waiting");
    clock.advance(1);
    const { history } = await reaches(orderId, 3);
    assert.deepEqual(history.at(-1), {
      kind: "step_failed",
      atMs: clock.now(),
      error: "no signal came within 60000 ms",
      rollbackIndex: null,
    });
  });
}

for (const jumpMs of [-2 * HOUR_MS, 2 * HOUR_MS]) {
  test(`what is left of a wait is written down by the clock as it is when that is set by ${jumpMs} ms, and is waited for`, async (t) => {
    const retry = { attempts: 3, delay: "60s", factor: 1, delayMax: "60s", jitter: 0 } as const;
    for (const [step, left] of [
      [{ name: "A", run: () => undefined, wait: { deadline: "60s" } }, "limitMs"],
      [{ name: "A", run: failing, retry }, "waitMs"],
    ] as const) {
      const { engine, clock, submit, reaches, order } = await start(t, [step]);
      const orderId = await submit();
      await reaches(orderId, 2);
      const sinceMs = clock.now();
      clock.advance(20 * SECOND_MS);
      engine.goOn();
      clock.setWall(jumpMs);
      engine.goOn();
      const stored = await reaches(orderId, 3);
      const { state } = replay(orderId, stored.history);
      const atMs = clock.now();
      assert.deepEqual(stored.history.at(-1), {
        kind: "owner_changed",
        atMs,
        owner: 1,
        callBegun: false,
        formerAtMs: sinceMs + 20 * SECOND_MS,
      });
      const waits = state.status === "running" ? state.call : state;
      assert.deepEqual({ sinceMs: 0, ...waits, [left]: 40 * SECOND_MS }, { ...waits, sinceMs: atMs });
      engine.goOn();
      clock.advance(40 * SECOND_MS - 1);
      assert.equal((await order(orderId)).revision, 3, "it is written down once, and nothing comes early");
      clock.advance(1);
      await reaches(orderId, 4);
    }
  });
}

test("an order starts at the time of day that it is to start at, within a minute of the clock being set past it", async (t) => {
  const { clock, submit, reaches, order } = await start(t, [{ name: "A", run: () => undefined }]);
  const orderId = await submit(clock.now() + 3 * HOUR_MS);
  clock.advance(HOUR_MS);
  assert.equal((await order(orderId)).status, "scheduled");
  clock.setWall(2 * HOUR_MS);
  clock.advance(MINUTE_MS);
  assert.equal((await reaches(orderId, 3)).status, "completed");
});
