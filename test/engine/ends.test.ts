/** What an engine holds is given back, however what it holds it for ends. On a real embedded store, and on a clock that the test owns. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Engine } from "../../src/engine/engine.ts";
import type { Successors } from "../../src/engine/hand-off.ts";
import { replay } from "../../src/order/evolve.ts";
import { type Pipeline, pipelineShape } from "../../src/order/pipeline.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { buildPipeline, type PlainStepOptions } from "../../src/pipelines/define-pipeline.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import { type Store, StoreUnavailableError } from "../../src/store/store.ts";
import { makeEngine, registerNode } from "../support/engine.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const IDLE: PlainStepOptions = { name: "A", run: () => undefined };

const ALONE: Successors = { choose: () => Promise.resolve(null), tell: () => Promise.resolve() };

/** What the test does to the store. */
interface Faults {
  /** What each commit waits for, when it has been made. */
  afterCommit: (() => Promise<void>) | null;
  commitFails: boolean;
  readOwned: Store["readOwned"] | null;
}

interface Rig {
  readonly engine: Engine;
  readonly clock: ManualClock;
  readonly store: Store;
  readonly faults: Faults;
  readonly submit: (startAtMs?: number) => Promise<string>;
  readonly revisionOf: (orderId: string) => Promise<number>;
  /** An order that waits, and was given to the engine by another node. */
  readonly given: () => Promise<string>;
}

/** Lets the event loop turn, so that what is due now happens. */
async function waitForTurns(): Promise<void> {
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
}

async function start(
  t: TestContext,
  steps: readonly PlainStepOptions[],
  pipelines: (pipeline: Pipeline) => readonly Pipeline[] = (pipeline) => [pipeline],
): Promise<Rig> {
  const clock = new ManualClock();
  const path = join(temporaryFolder(t), "orders.sqlite");
  const real = await openSqliteStore({ path, now: clock.now, onBroken: assert.ifError });
  const faults: Faults = { afterCommit: null, commitFails: false, readOwned: null };
  const store = changed(real, {
    commit: async (writes) => {
      if (faults.commitFails) throw new StoreUnavailableError("the disk is full");
      const outcomes = await real.commit(writes);
      await faults.afterCommit?.();
      return outcomes;
    },
    readOwned: (owner, orderIds) => faults.readOwned?.(owner, orderIds) ?? real.readOwned(owner, orderIds),
  });
  const pipeline = buildPipeline({ name: "test", version: 1, steps });
  await real.cluster.pipelineShape(pipeline.name, pipeline.version, pipelineShape(pipeline));
  const incarnation = await registerNode(real, clock.now());
  const engine = makeEngine({
    store,
    incarnation,
    pipelines: new PipelineSet(pipelines(pipeline)),
    clock,
    random: () => 0,
  });
  t.after(async () => {
    engine.abandon();
    await real.close();
  });
  return {
    engine,
    clock,
    store: real,
    faults,
    submit: async (startAtMs) => {
      const options = startAtMs === undefined ? {} : { startAtMs };
      const outcome = await engine.submit({ user: "ann", body: "{}", idempotencyKey: null, pipeline, options });
      assert.ok(outcome.kind === "accepted", outcome.kind);
      return outcome.orderId;
    },
    given: async () => {
      const orderId = newOrderId("ann", null);
      await real.commit([
        {
          kind: "create",
          orderId,
          user: "ann",
          idempotencyKey: null,
          pipelineName: pipeline.name,
          pipelineVersion: pipeline.version,
          event: { kind: "created", atMs: clock.now(), owner: incarnation, stepName: "A" },
          body: "{}",
        },
      ]);
      await engine.adopt([orderId]);
      return orderId;
    },
    revisionOf: async (orderId) => (await real.readOrder(orderId))?.revision ?? 0,
  };
}

/** The store with some of its methods changed; the others are called on itself. */
function changed(store: Store, methods: Partial<Store>): Store {
  return new Proxy(store, {
    get: (_, name) => {
      const value: unknown = Reflect.get(name in methods ? methods : store, name, store);
      return typeof value === "function" ? (value.bind(store) as unknown) : value;
    },
  });
}

for (const end of ["abandoned", "drained"] as const) {
  test(`no timer is left of an engine that is ${end} while what a call has led to is on its way to the store`, async (t) => {
    const committed = Promise.withResolvers<void>();
    const heard = Promise.withResolvers<void>();
    const failing: PlainStepOptions = {
      name: "A",
      run: () => {
        rig.faults.afterCommit = () => {
          committed.resolve();
          return heard.promise;
        };
        throw new Error("not yet");
      },
      retry: { attempts: 5, delay: "1h", factor: 1, delayMax: "1h", jitter: 0 },
    };
    const rig = await start(t, [failing]);
    const { engine, clock, submit } = rig;
    await submit(clock.now() + 3_600_000);
    await submit();
    await committed.promise;
    const ending = end === "drained" ? engine.drain(0, ALONE) : Promise.resolve(engine.abandon());
    heard.resolve();
    await ending;
    await waitForTurns();
    assert.equal(clock.waits, 0);
    assert.equal(engine.ordersInFlight, 0);
  });
}

for (const [asked, request, due] of [
  ["paused", { action: "pause", by: "ann" }, ["created", "pause_requested"]],
  ["canceled", { action: "cancel", by: "ann", reason: null }, ["created", "cancel_requested", "step_canceled"]],
] as const) {
  test(`a call that is cut while it is written that its order is to be ${asked} counts as one that was made`, async (t) => {
    const called = Promise.withResolvers<void>();
    const committed = Promise.withResolvers<void>();
    const heard = Promise.withResolvers<void>();
    const endless: PlainStepOptions = {
      name: "A",
      run: () => {
        called.resolve();
        return new Promise(() => undefined);
      },
      rollback: () => undefined,
    };
    const { engine, store, faults, submit } = await start(t, [endless]);
    const orderId = await submit();
    await called.promise;
    faults.afterCommit = () => {
      committed.resolve();
      return heard.promise;
    };
    const answered = engine.act(orderId, request);
    await committed.promise;
    const drained = engine.drain(0, ALONE);
    await waitForTurns();
    faults.afterCommit = null;
    heard.resolve();
    await Promise.all([answered, drained]);
    const stored = await store.readOrder(orderId);
    assert.deepEqual(
      stored?.history.map(({ kind }) => kind),
      due,
    );
    const step = replay(orderId, stored.history).steps.at(-1);
    assert.equal(step?.attempts, 1);
    assert.equal(step.outcome, asked === "canceled" ? "unknown" : null);
  });
}

for (const end of ["answered when the store works again", "left when the node is taken for dead"] as const) {
  test(`who cancels an order whose pipeline the node lacks is not kept waiting by a store that fails, and it is ${end}`, async (t) => {
    const { engine, clock, faults, store, revisionOf, given } = await start(t, [IDLE], () => []);
    const orderId = await given();
    faults.commitFails = true;
    const answered = engine.act(orderId, { action: "cancel", by: "ann", reason: null });
    await waitFor(() => engine.storeFailure !== null, { what: "the store has failed" });
    clock.advance(5_000);
    assert.deepEqual(await Promise.race([answered, waitForTurns()]), { kind: "unknown" });
    if (end === "left when the node is taken for dead") {
      engine.abandon();
      assert.equal(clock.waits, 0);
      assert.equal(await revisionOf(orderId), 1);
      return;
    }
    faults.commitFails = false;
    clock.advance(500);
    await waitFor(async () => (await store.readOrder(orderId))?.status === "canceled", { what: "it is canceled" });
    await waitFor(async () => (await engine.act(orderId, { action: "cancel", by: "ann", reason: null })) === null, {
      what: "the engine has let it go",
    });
  });
}

test("orders that were given, and can't be read for a reason that nobody foresaw, take no room for ever", async (t) => {
  const { engine, faults } = await start(t, [IDLE]);
  const { room } = engine;
  faults.readOwned = () => Promise.reject(new Error("a defect"));
  await engine.adopt([]);
  const adopted = engine.adopt([randomUUID(), randomUUID()]);
  assert.equal(engine.room, room - 2);
  await assert.rejects(adopted, /a defect/);
  assert.equal(engine.room, room);
});
