/** Orders that wait, as many as there may be: they keep nobody from going on whose time has come. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Engine } from "../../src/engine/engine.ts";
import type { Incarnation } from "../../src/order/events.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { buildPipeline } from "../../src/pipelines/define-pipeline.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import type { Store } from "../../src/store/store.ts";
import { ENGINE_LIMITS, makeEngine, registerNode } from "../support/engine.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const SERVICE_ID = "8cc227c0-8dac-42cf-983e-f7bcb95bf455";
const DEADLINE_MS = 60_000;
const ORDERS_MAX = 4;
/** As many as take all places: the first of each four takes one. */
const PARKED_MAX = 4 * (ORDERS_MAX - 1) + 1;

interface Rig {
  readonly clock: ManualClock;
  readonly store: Store;
  readonly incarnation: Incarnation;
  readonly engine: Engine;
  /** Another node of the same service, which is started after this one has died. */
  readonly restart: (ordersMax: number) => Promise<Engine>;
  readonly submit: (pipeline: "waits" | "works", user: string) => Promise<string | null>;
  readonly status: (orderId: string) => Promise<string | undefined>;
}

const waits = buildPipeline({
  name: "waits",
  version: 1,
  steps: [{ name: "A", run: () => undefined, wait: { deadline: DEADLINE_MS } }],
});

async function start(t: TestContext, ordersMax: number, work: () => Promise<void>): Promise<Rig> {
  const clock = new ManualClock();
  const works = buildPipeline({ name: "works", version: 1, steps: [{ name: "A", run: work }] });
  const store = await openSqliteStore({
    path: join(temporaryFolder(t), "orders.sqlite"),
    now: clock.now,
    onBroken: assert.ifError,
  });
  const engines: Engine[] = [];
  t.after(async () => {
    for (const engine of engines) engine.abandon();
    await store.close();
  });
  const make = async (max: number): Promise<{ engine: Engine; incarnation: Incarnation }> => {
    const incarnation = await registerNode(store, clock.now(), SERVICE_ID);
    const engine = makeEngine({
      store,
      incarnation,
      pipelines: new PipelineSet([waits, works]),
      clock,
      limits: { ...ENGINE_LIMITS, ordersMax: max },
    });
    engines.push(engine);
    return { engine, incarnation };
  };
  const { engine, incarnation } = await make(ordersMax);
  return {
    clock,
    store,
    incarnation,
    engine,
    restart: async (max) => {
      engine.abandon();
      return (await make(max)).engine;
    },
    submit: async (name, user) => {
      const pipeline = name === "waits" ? waits : works;
      const outcome = await engine.submit({ user, body: "{}", idempotencyKey: null, pipeline });
      return outcome.kind === "accepted" ? outcome.orderId : null;
    },
    status: async (orderId) => (await store.readOrder(orderId))?.status,
  };
}

/** Orders of many users that wait; how many it is depends on the node. */
async function submitWaiting({ submit, status }: Rig, countMax: number): Promise<string[]> {
  const orderIds: string[] = [];
  while (orderIds.length < countMax) {
    const orderId = await submit("waits", `user ${orderIds.length}`);
    if (orderId === null) break;
    await waitFor(async () => (await status(orderId)) === "waiting", { what: "it waits" });
    orderIds.push(orderId);
  }
  return orderIds;
}

/** Ends when all have the status; the clock goes on meanwhile. */
async function reach({ clock, status }: Rig, orderIds: readonly string[], wanted: string): Promise<void> {
  for (const orderId of orderIds) {
    await waitFor(
      async () => {
        clock.advance(10);
        return (await status(orderId)) === wanted;
      },
      { what: `order ${orderId} is ${wanted}` },
    );
  }
}

test("orders whose deadline comes are gone on with, though parked orders take every place", async (t) => {
  const rig = await start(t, ORDERS_MAX, () => Promise.resolve());
  const orderIds = await submitWaiting(rig, 2 * PARKED_MAX);
  assert.equal(orderIds.length, PARKED_MAX, "no more are taken in");
  rig.clock.advance(DEADLINE_MS);
  await reach(rig, orderIds, "failed");
  assert.ok((await rig.submit("works", "ann")) !== null, "the places are free again");
});

test("orders whose deadline comes are gone on with beside orders that take long", async (t) => {
  const rig = await start(t, ORDERS_MAX, () => new Promise(() => undefined));
  for (const user of ["ann", "bob"]) assert.ok((await rig.submit("works", user)) !== null);
  const orderIds = await submitWaiting(rig, PARKED_MAX);
  assert.ok(orderIds.length < PARKED_MAX, "no more are taken in");
  rig.clock.advance(DEADLINE_MS);
  await reach(rig, orderIds, "failed");
});

test("a node with fewer places than orders wait takes all of them over, and goes on with those that run", async (t) => {
  let isFirst = true;
  const rig = await start(t, 100, () => (isFirst ? new Promise(() => undefined) : Promise.resolve()));
  const waiting = await submitWaiting(rig, 3 * PARKED_MAX);
  const running = await Promise.all(["ann", "bob", "eve"].map((user) => rig.submit("works", user)));
  isFirst = false;
  const next = await rig.restart(ORDERS_MAX);
  let resumed = 0;
  void next.resume(SERVICE_ID).then((orders) => (resumed = orders));
  await reach(
    rig,
    running.map((orderId) => orderId ?? "refused"),
    "completed",
  );
  await waitFor(
    () => {
      rig.clock.advance(10);
      return resumed > 0;
    },
    { what: "all are taken over" },
  );
  assert.equal(resumed, waiting.length + running.length);
  rig.clock.advance(DEADLINE_MS);
  await reach(rig, waiting, "failed");
});

test("two takeovers at once bring all orders to one of them", async (t) => {
  const rig = await start(t, 100, () => Promise.resolve());
  const orderIds = await submitWaiting(rig, 40);
  const next = await rig.restart(ORDERS_MAX);
  const [resumed, taken] = await Promise.all([next.resume(SERVICE_ID), next.takeOver(rig.incarnation, 1_000)]);
  assert.equal(Math.max(resumed, taken.orders), orderIds.length);
  assert.equal(Math.min(resumed, taken.orders), 0);
});

test("an order that is to be read gets the place that becomes free, however many others want it", async (t) => {
  const releases: (() => void)[] = [];
  const rig = await start(t, ORDERS_MAX, () => new Promise((resolve) => releases.push(resolve)));
  const [waiting = ""] = await submitWaiting(rig, 1);
  while ((await rig.submit("works", "ann")) !== null);
  rig.clock.advance(DEADLINE_MS);
  releases.shift()?.();
  await waitFor(
    async () => {
      await rig.submit("works", "ann");
      rig.clock.advance(10);
      return (await rig.status(waiting)) === "failed";
    },
    { what: "its deadline is noticed" },
  );
});
