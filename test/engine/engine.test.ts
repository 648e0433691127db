/** The engine on a real embedded store, in process. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import type { EngineLimits } from "../../src/engine/capacity.ts";
import type { Engine, Submission } from "../../src/engine/engine.ts";
import type { Successors } from "../../src/engine/hand-off.ts";
import { createLogger } from "../../src/log.ts";
import type { Incarnation } from "../../src/order/events.ts";
import { replay } from "../../src/order/evolve.ts";
import type { StepContext } from "../../src/order/pipeline.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { permanent, StepError, uncertain } from "../../src/order/step-error.ts";
import { buildPipeline, type PlainStepOptions } from "../../src/pipelines/define-pipeline.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import { type AdvanceWrite, type Store, type StoredOrder, StoreUnavailableError } from "../../src/store/store.ts";
import { ENGINE_LIMITS, makeEngine, registerNode } from "../support/engine.ts";
import { temporaryFolder } from "../support/service.ts";
import { claimTimes } from "../support/claim-times.ts";
import { waitFor } from "../support/wait.ts";

interface Harness {
  readonly engine: Engine;
  /** Submits an order of the pipeline that the harness was given. */
  readonly submit: (change?: Partial<Submission>) => ReturnType<Engine["submit"]>;
  readonly incarnation: Incarnation;
  /** What the node's membership says to the engine, and hears of it. */
  readonly node: { mayStart: boolean; fenced: number };
  readonly store: FaultyStore;
  readonly logged: string[];
  /** Submits an order and returns its id. */
  readonly accepted: (change?: Partial<Submission>) => Promise<string>;
  readonly order: (orderId: string) => Promise<StoredOrder>;
  /** The order when it has the status. */
  readonly reaches: (orderId: string, status: string) => Promise<StoredOrder>;
}

/** A real store whose commits can be made to fail, before or after they are done. */
type FaultyStore = Store & { fault: "none" | "before" | "after"; commits: number };

const submission: Omit<Submission, "pipeline"> = { user: "user", body: "{}", idempotencyKey: null };
const NO_RETRY = { attempts: 1, delay: 1, factor: 1, delayMax: 1, jitter: 0 };
const noop = (): void => undefined;
const SERVICE_ID = "8cc227c0-8dac-42cf-983e-f7bcb95bf455";
const OTHER_SERVICE_ID = "0b0d1f5e-3f5f-4b62-8b0e-6a5f6f0f2c11";
const ALONE: Successors = { choose: () => Promise.resolve(null), tell: () => Promise.resolve() };

/** Lets the event loop turn, so that what is due now happens. */
async function waitForTurns(turns: number): Promise<void> {
  for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate);
}

function faulty(store: Store): FaultyStore {
  const failing = (): never => {
    throw new StoreUnavailableError("the disk is full");
  };
  const state: Pick<FaultyStore, "fault" | "commits"> = { fault: "none", commits: 0 };
  const wrapper: FaultyStore = Object.assign(Object.create(store) as Store, state, {
    commit: async (writes: Parameters<Store["commit"]>[0]) => {
      if (wrapper.fault === "before") failing();
      const outcomes = await store.commit(writes);
      wrapper.commits++;
      return wrapper.fault === "after" ? failing() : outcomes;
    },
    probe: async () => (wrapper.fault === "before" ? failing() : await store.probe()),
    readOrder: store.readOrder.bind(store),
    // The private parts of the real one are its own.
    claimOrders: store.claimOrders.bind(store),
    listOwners: store.listOwners.bind(store),
    listOrderIds: store.listOrderIds.bind(store),
    readOwned: store.readOwned.bind(store),
    cluster: store.cluster,
    close: store.close.bind(store),
  });
  return wrapper;
}

async function harness(
  t: TestContext,
  steps: readonly PlainStepOptions[],
  { limits, path, serviceId = SERVICE_ID }: { limits?: Partial<EngineLimits>; path?: string; serviceId?: string } = {},
): Promise<Harness> {
  const store = faulty(
    await openSqliteStore({
      path: path ?? join(temporaryFolder(t), "orders.sqlite"),
      now: Date.now,
      onBroken: (error) => {
        throw error;
      },
    }),
  );
  const logged: string[] = [];
  const node = { mayStart: true, fenced: 0 };
  const incarnation = await registerNode(store, Date.now(), serviceId);
  const pipeline = buildPipeline({ name: "test", version: 1, steps });
  const engine = makeEngine({
    store,
    incarnation,
    pipelines: new PipelineSet([pipeline]),
    log: createLogger("debug", "logfmt", (line) => void logged.push(line)),
    clock: systemClock(),
    mayStart: () => node.mayStart,
    onFenced: () => node.fenced++,
    limits: { ...ENGINE_LIMITS, ...limits },
  });
  t.after(async () => {
    await engine.drain(0, ALONE);
    await store.close();
  });
  const submit: Harness["submit"] = (change) => engine.submit({ ...submission, pipeline, ...change });
  const order = async (orderId: string): Promise<StoredOrder> => {
    const found = await store.readOrder(orderId);
    assert.ok(found !== null, `order ${orderId} is in the store`);
    return found;
  };
  return {
    engine,
    incarnation,
    node,
    store,
    logged,
    order,
    submit,
    accepted: async (change) => {
      const outcome = await submit(change);
      assert.ok(outcome.kind === "accepted", outcome.kind);
      return outcome.orderId;
    },
    reaches: (orderId, status) =>
      waitFor(
        async () => {
          const found = await order(orderId);
          return found.status === status ? found : undefined;
        },
        { what: `order ${orderId} is ${status}; logged:\n${logged.join("")}` },
      ),
  };
}

test("an order is in the store before it is accepted, and its step is called after its start is", async (t) => {
  let revisionAtCall: number | undefined;
  const { accepted, order, reaches, store } = await harness(t, [
    {
      name: "A",
      run: async ({ order: { orderId } }) => {
        revisionAtCall = (await store.readOrder(orderId))?.revision;
      },
    },
    { name: "B", run: noop },
  ]);
  const orderId = await accepted();
  assert.equal((await order(orderId)).history[0]?.kind, "created");
  assert.equal((await reaches(orderId, "completed")).revision, 3);
  assert.equal(revisionAtCall, 1);
});

test("every attempt gets the body anew, and the key of its run", async (t) => {
  const seen: [number, string, unknown][] = [];
  const run = (context: StepContext): void => {
    seen.push([context.attempt, context.idempotencyKey, { ...context.body }]);
    Object.assign(context.body, { spoilt: true });
    if (seen.length < 3) throw new Error("not yet");
  };
  const retry = { ...NO_RETRY, attempts: 3 };
  const { accepted, reaches } = await harness(t, [{ name: "A", run, retry }]);
  const orderId = await accepted({ body: '{"item":"book"}' });
  const { history } = await reaches(orderId, "completed");
  const key = `${orderId}:A:run`;
  assert.deepEqual(
    seen,
    [1, 2, 3].map((attempt) => [attempt, key, { item: "book" }]),
  );
  assert.equal(history.filter(({ kind }) => kind === "attempt_failed").length, 2);
});

test("a step that fails for good rolls back the started steps, last first, itself included", async (t) => {
  const calls: string[] = [];
  const undo = ({ idempotencyKey }: StepContext): void => void calls.push(idempotencyKey.split(":").slice(1).join(":"));
  const { accepted, reaches } = await harness(t, [
    { name: "A", run: noop, rollback: undo },
    { name: "B", run: noop },
    {
      name: "C",
      run: () => {
        throw permanent("no");
      },
      rollback: undo,
    },
    { name: "D", run: noop, rollback: undo },
  ]);
  await reaches(await accepted(), "failed");
  assert.deepEqual(calls, ["C:rollback", "A:rollback"]);
});

test("a rollback that uses up its attempts leaves the order incomplete, and out of the engine's memory", async (t) => {
  const fail = (): never => {
    throw new Error("no");
  };
  const { accepted, reaches, engine } = await harness(t, [{ name: "A", run: fail, rollback: fail, retry: NO_RETRY }]);
  const { history } = await reaches(await accepted(), "rollback_incomplete");
  assert.deepEqual(history.at(-1)?.kind, "rollback_abandoned");
  assert.equal(engine.ordersInFlight, 0);
});

test("an attempt that takes too long is aborted and counts as failed, and what it says later is not heard", async (t) => {
  let aborted = false;
  let release = noop;
  const { accepted, reaches, order } = await harness(t, [
    {
      name: "A",
      timeout: 20,
      retry: NO_RETRY,
      run: ({ signal }) =>
        new Promise<void>((resolve) => {
          release = resolve;
          signal.addEventListener("abort", () => (aborted = true));
        }),
    },
  ]);
  const orderId = await accepted();
  const { revision } = await reaches(orderId, "failed");
  assert.equal(aborted, true);
  release();
  await new Promise(setImmediate);
  assert.equal((await order(orderId)).revision, revision);
});

for (const [what, thrown, said] of [
  ["an Error", new Error("out of stock"), "out of stock"],
  ["a string", "out of stock", "out of stock"],
  ["undefined", undefined, "undefined"],
  ["a huge text", "x".repeat(5_000), `${"x".repeat(1_000)}…`],
  ["an object that can't be shown", Object.create(null), "something was thrown that can't be shown"],
] as const) {
  test(`a step that throws ${what} has failed with a text that can be shown`, async (t) => {
    const run = (): never => {
      // eslint-disable-next-line typescript/only-throw-error -- what is tested
      throw thrown;
    };
    const { accepted, reaches } = await harness(t, [{ name: "A", run, retry: NO_RETRY }]);
    const { history } = await reaches(await accepted(), "failed");
    const failure = history.at(-1);
    assert.equal(failure?.kind === "step_failed" && failure.error, said);
  });
}

test("what is in flight is bounded in number, and there is room again when an order is final", async (t) => {
  let release = noop;
  const gate = new Promise<void>((resolve) => (release = resolve));
  const { engine, accepted, reaches, submit } = await harness(t, [{ name: "A", run: () => gate }], {
    limits: { ordersMax: 2 },
  });
  const [one] = [await accepted(), await accepted()];
  assert.deepEqual(await submit(), { kind: "too_many_in_flight" });
  release();
  await reaches(one, "completed");
  await waitFor(() => engine.ordersInFlight === 0, { what: "both orders are forgotten" });
  await accepted();
});

test("what is in flight is bounded in the size of its bodies", async (t) => {
  const { accepted, submit } = await harness(t, [{ name: "A", run: () => new Promise(noop) }], {
    limits: { bodyBytesMax: 100 },
  });
  await accepted({ body: JSON.stringify({ text: "x".repeat(60) }) });
  assert.deepEqual(await submit({ body: JSON.stringify({ text: "x".repeat(60) }) }), {
    kind: "too_many_in_flight",
  });
  await accepted();
});

test("what calls under way keep is bounded: the others wait, which is on record, and one after another is made", async (t) => {
  const gates: (() => void)[] = [];
  const { accepted, reaches, order, engine } = await harness(
    t,
    [
      {
        name: "A",
        run: ({ body }) =>
          new Promise((resolve) => {
            gates.push(() => resolve(Object.keys(body)));
          }),
      },
    ],
    { limits: { callBytesMax: 2_000 } },
  );
  const body = JSON.stringify({ list: Array.from({ length: 30 }, () => ({})) });
  const ids = [await accepted({ body }), await accepted({ body }), await accepted({ body })];
  for (const [at, id] of ids.slice(1).entries()) {
    await waitFor(async () => (await order(id)).history.at(-1)?.kind === "attempt_queued", {
      what: `order ${at + 2} waits`,
    });
  }
  for (const [at, id] of ids.entries()) {
    await waitFor(() => gates.length === at + 1, { what: `the call of order ${at + 1} is made` });
    assert.equal(engine.ordersInFlight, 3 - at);
    gates[at]?.();
    await reaches(id, "completed");
    await waitFor(() => engine.ordersInFlight === 2 - at, { what: "it is forgotten" });
  }
  const small = await accepted({ body: "{}" });
  await waitFor(() => gates.length === 4, { what: "nothing is kept any more" });
  gates[3]?.();
  await reaches(small, "completed");
  const kinds = (await order(ids[1] ?? "")).history.map(({ kind }) => kind);
  assert.deepEqual(kinds, ["created", "attempt_queued", "attempt_started", "step_completed"]);
});

test("a call that goes on when its time is over, and asks only then for the body, keeps no other from being made", async (t) => {
  const late = Promise.withResolvers<undefined>();
  let asked = 0;
  const { accepted, reaches } = await harness(
    t,
    [
      {
        name: "A",
        timeout: 20,
        retry: { attempts: 1 },
        run: async (context) => {
          await late.promise;
          asked += Object.keys(context.body).length + Object.keys(context.results).length;
        },
      },
    ],
    { limits: { callBytesMax: 1 } },
  );
  const body = JSON.stringify({ a: "x".repeat(100) });
  const ids = [await accepted({ body }), await accepted({ body })];
  for (const id of ids) await reaches(id, "failed");
  late.resolve(undefined);
  await waitFor(() => asked === 2, { what: "both have asked" });
  await reaches(await accepted({ body }), "completed");
});

test("an order that is canceled while it waits for memory waits no longer, and its call is not made", async (t) => {
  const gates: (() => void)[] = [];
  const run = ({ body }: StepContext): Promise<unknown> =>
    new Promise((resolve) => {
      gates.push(() => resolve(Object.keys(body)));
    });
  const { accepted, reaches, order, engine } = await harness(t, [{ name: "A", run }], { limits: { callBytesMax: 1 } });
  const body = JSON.stringify({ a: "x".repeat(100) });
  const [first, second, third] = [await accepted({ body }), await accepted({ body }), await accepted({ body })];
  await waitFor(async () => (await order(second)).history.at(-1)?.kind === "attempt_queued", { what: "one waits" });
  assert.deepEqual(await engine.act(second, { action: "cancel", by: "user", reason: null }), { kind: "done" });
  await reaches(second, "canceled");
  gates[0]?.();
  await reaches(first, "completed");
  await waitFor(() => gates.length === 2, { what: "the third is called" });
  gates[1]?.();
  await reaches(third, "completed");
  assert.equal(gates.length, 2);
});

test("while the store fails nothing is accepted, and when it works again the orders under way go on", async (t) => {
  let release = noop;
  const gate = new Promise<void>((resolve) => (release = resolve));
  const { engine, store, accepted, reaches, logged, submit } = await harness(t, [{ name: "A", run: () => gate }]);
  const orderId = await accepted();
  store.fault = "before";
  assert.deepEqual(await submit(), { kind: "store_unavailable", reason: "the disk is full" });
  assert.equal(engine.storeFailure, "the disk is full");
  const refusedAtOnce = await submit();
  assert.equal(refusedAtOnce.kind, "store_unavailable");
  release();
  store.fault = "none";
  await reaches(orderId, "completed");
  assert.equal(engine.storeFailure, null);
  await accepted();
  assert.ok(logged.some((line) => line.includes("The store failed: the disk is full")));
  assert.ok(logged.some((line) => line.includes("The store works again")));
});

test("a store that had failed while nothing was under way is found to work again", async (t) => {
  const { engine, store, accepted, submit } = await harness(t, [{ name: "A", run: noop }]);
  store.fault = "before";
  await submit();
  store.fault = "none";
  await waitFor(() => engine.storeFailure === null, { what: "the probe has succeeded" });
  await accepted();
});

test("a commit that was done but reported as failed is found out, not made twice", async (t) => {
  let release = noop;
  const gate = new Promise<void>((resolve) => (release = resolve));
  const calls: string[] = [];
  const { store, accepted, reaches } = await harness(t, [
    { name: "A", run: () => gate },
    { name: "B", run: ({ idempotencyKey }) => void calls.push(idempotencyKey) },
  ]);
  const orderId = await accepted();
  store.fault = "after";
  const commitsBefore = store.commits;
  release();
  await waitFor(() => store.commits > commitsBefore, { what: "the advance is committed" });
  store.fault = "none";
  const { history, revision } = await reaches(orderId, "completed");
  assert.equal(revision, history.length);
  assert.deepEqual(calls, [`${orderId}:B:run`]);
});

test("once another incarnation has its orders, nothing that an engine does changes anything, and its node hears of it", async (t) => {
  let release = noop;
  const gate = new Promise<void>((resolve) => (release = resolve));
  const path = join(temporaryFolder(t), "orders.sqlite");
  const old = await harness(t, [{ name: "A", run: () => gate }], { path });
  const orderId = await old.accepted();
  const next = await harness(t, [{ name: "A", run: () => new Promise(noop) }], { path });
  assert.equal(await next.engine.resume(SERVICE_ID), 1);
  const before = await waitFor(
    async () => {
      const order = await next.order(orderId);
      return order.history.at(-1)?.kind === "attempt_started" ? order : undefined;
    },
    { what: "the new owner calls the step" },
  );
  release();
  await waitFor(() => old.node.fenced === 1, { what: "the former owner hears that it is dead" });
  assert.equal((await old.submit()).kind, "store_unavailable");
  assert.deepEqual(await next.order(orderId), before);
  old.engine.abandon();
  assert.equal(old.engine.ordersInFlight, 0);
});

test("while its node may have been taken for dead, an engine begins no call and takes no order, and goes on later", async (t) => {
  const called: string[] = [];
  const { engine, node, accepted, order, reaches, submit } = await harness(t, [
    { name: "A", run: () => void (node.mayStart = false) },
    { name: "B", run: () => void called.push("B") },
  ]);
  const orderId = await accepted();
  await waitFor(async () => (await order(orderId)).revision === 2, { what: "the first step has ended" });
  assert.equal((await submit()).kind, "store_unavailable");
  engine.goOn();
  assert.deepEqual(called, []);
  node.mayStart = true;
  engine.goOn();
  await reaches(orderId, "completed");
  assert.deepEqual(called, ["B"]);
});

test("a creation that was reported as failed and was committed is found and run, without another word", async (t) => {
  const { engine, store, reaches, submit } = await harness(t, [{ name: "A", run: noop }]);
  store.fault = "after";
  assert.equal((await submit()).kind, "store_unavailable");
  const [created] = (await store.listOwners()).map(({ orders }) => orders);
  assert.equal(created, 1);
  const { orderIds } = await store.listOrderIds((await store.listOwners())[0]?.incarnation ?? 0, null, 10);
  store.fault = "none";
  await waitFor(() => engine.storeFailure === null, { what: "the store works again" });
  engine.goOn();
  await reaches(orderIds[0] ?? "", "completed");
});

test("orders that were claimed or given, and nobody told of, are found by the audit, once", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const old = await harness(t, [{ name: "A", run: () => new Promise(noop) }], { path });
  const ids = await Promise.all(Array.from({ length: 5 }, () => old.accepted()));
  let calls = 0;
  const next = await harness(t, [{ name: "A", run: () => void calls++ }], { path });
  const claim = await next.store.claimOrders(old.incarnation, next.incarnation, claimTimes(Date.now()), 3);
  assert.ok(claim.kind === "claimed" && claim.orders.length === 3);
  assert.deepEqual(await Promise.all([next.engine.audit(), next.engine.audit()]), [3, 0]);
  assert.equal(await next.engine.resume(SERVICE_ID), 2);
  for (const id of ids) await next.reaches(id, "completed");
  assert.equal(calls, 5);
  assert.equal(await next.engine.audit(), 0);
});

test("a node that stops gives its orders to a live one: those that wait at once, those under way when their step has ended", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  let release = noop;
  const gate = new Promise<void>((resolve) => (release = resolve));
  const fail = (): never => {
    throw new Error("not yet");
  };
  const retry = { ...NO_RETRY, attempts: 2, delay: 3_600_000, delayMax: 3_600_000 };
  const steps = (name: string): PlainStepOptions[] => [
    { name: "A", run: ({ body }) => (name === "old" ? (body["fails"] === true ? fail() : gate) : undefined), retry },
    { name: "B", run: noop },
  ];
  const old = await harness(t, steps("old"), { path });
  const next = await harness(t, steps("next"), { path, serviceId: OTHER_SERVICE_ID });
  const waiting = await old.accepted({ body: '{"fails":true}' });
  await waitFor(async () => (await old.order(waiting)).revision === 2, { what: "the first attempt has failed" });
  const underWay = await old.accepted();
  const told: string[] = [];
  const drained = old.engine.drain(60_000, {
    choose: () => Promise.resolve({ incarnation: next.incarnation, room: next.engine.room }),
    tell: async (_, orderIds) => {
      told.push(...orderIds);
      await next.engine.adopt(orderIds);
    },
  });
  await waitFor(() => told.includes(waiting), { what: "the waiting order is given away" });
  assert.ok(!told.includes(underWay));
  release();
  assert.deepEqual(await drained, { cut: 0, givenAway: 2, left: 0 });
  const { history } = await next.reaches(underWay, "completed");
  assert.deepEqual(
    history.map(({ kind }) => kind),
    ["created", "step_completed", "owner_changed", "attempt_started", "step_completed"],
  );
  assert.deepEqual(
    replay(underWay, history).steps.map(({ attempts }) => attempts),
    [1, 1],
  );
  assert.equal((await next.order(waiting)).owner, next.incarnation);
});

test("a node that stops cuts what outlasts the grace time, and gives that away, too", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const old = await harness(t, [{ name: "A", run: () => new Promise(noop) }], { path });
  const next = await harness(t, [{ name: "A", run: noop }], { path, serviceId: OTHER_SERVICE_ID });
  const orderId = await old.accepted();
  const successors = {
    choose: () => Promise.resolve({ incarnation: next.incarnation, room: next.engine.room }),
    tell: (_: Incarnation, orderIds: readonly string[]) => next.engine.adopt(orderIds),
  };
  assert.deepEqual(await old.engine.drain(10, successors), { cut: 1, givenAway: 1, left: 0 });
  const { history } = await next.reaches(orderId, "completed");
  assert.deepEqual(
    replay(orderId, history).steps.map(({ attempts }) => attempts),
    [2],
  );
});

test("resume takes over orders only as there is room for them", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const old = await harness(t, [{ name: "A", run: () => new Promise(noop) }], { path });
  const ids = await Promise.all(Array.from({ length: 25 }, () => old.accepted()));
  await old.engine.drain(0, ALONE);
  let most = 0;
  const next: Harness = await harness(
    t,
    [{ name: "A", run: () => void (most = Math.max(most, next.engine.ordersInFlight)) }],
    {
      path,
      limits: { ordersMax: 10 },
    },
  );
  assert.equal(await next.engine.resume(SERVICE_ID), 25);
  for (const id of ids) await next.reaches(id, "completed");
  assert.ok(most <= 10);
});

test("a takeover takes no more orders at once than fit in memory, should each have the largest body", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const old = await harness(t, [{ name: "A", run: () => new Promise(noop) }], { path });
  for (let count = 0; count < 40; count++) await old.accepted();
  await old.engine.drain(0, ALONE);
  await old.store.cluster.leave(old.incarnation);
  const limits = { bodyBytesMax: 20_000, largestOrderBytes: 1_000 };
  const next = await harness(t, [{ name: "A", run: () => new Promise(noop) }], {
    path,
    limits,
    serviceId: OTHER_SERVICE_ID,
  });
  const pages: number[] = [];
  const claimOrders = next.store.claimOrders.bind(next.store);
  next.store.claimOrders = (from, to, atMs, limit) => {
    pages.push(limit);
    return claimOrders(from, to, atMs, limit);
  };
  // Half of what there may be is taken already.
  await next.accepted({ body: JSON.stringify({ text: "x".repeat(9_900) }) });
  const taken = await next.engine.takeOver(old.incarnation, 100);
  assert.ok(Math.max(...pages) <= 5, `a quarter of what there may be, at 1,000 bytes each: ${pages.join()}`);
  assert.ok(taken.orders > 0);
  // One that takes almost all of the rest: there may still be room for one of the usual size, and nobody knows it is one.
  await next.accepted({ body: JSON.stringify({ text: "x".repeat(9_500) }) });
  pages.length = 0;
  assert.deepEqual(await next.engine.takeOver(old.incarnation, 100), { orders: 0, mayBeMore: true });
  assert.deepEqual(pages, []);
  assert.equal(next.engine.room, 0);
});

test("orders that are given to a node beyond its room wait until there is room", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const old = await harness(t, [{ name: "A", run: () => new Promise(noop) }], { path });
  const ids = await Promise.all(Array.from({ length: 25 }, () => old.accepted()));
  const releases: (() => void)[] = [];
  const hold = (): Promise<void> => new Promise((resolve) => releases.push(resolve));
  const next = await harness(t, [{ name: "A", run: hold }], {
    path,
    limits: { ordersMax: 10 },
    serviceId: OTHER_SERVICE_ID,
  });
  let adopted: Promise<void> = Promise.resolve();
  await old.engine.drain(0, {
    // As a node that has not heard of the other's room would.
    choose: () => Promise.resolve({ incarnation: next.incarnation, room: 1_000 }),
    tell: (_, orderIds) => {
      adopted = next.engine.adopt(orderIds);
      return Promise.resolve();
    },
  });
  assert.equal(next.engine.room, 0, "what was given counts before it is read");
  await waitFor(() => releases.length === 10, { what: "there are as many in flight as there may be" });
  assert.equal(await next.engine.audit(), 0, "nor does the audit take more");
  assert.equal(next.engine.ordersInFlight, 10);
  const released = setInterval(() => releases.splice(0).forEach((release) => release()), 10);
  t.after(() => clearInterval(released));
  for (const id of ids) await next.reaches(id, "completed");
  await adopted;
  assert.equal(next.engine.room, 10);
});

test("a node that stops gives no more orders to another than that has room for, and leaves the rest in the store", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const old = await harness(t, [{ name: "A", run: () => new Promise(noop) }], { path });
  for (let count = 0; count < 25; count++) await old.accepted();
  const next = await harness(t, [{ name: "A", run: () => new Promise(noop) }], {
    path,
    limits: { ordersMax: 10 },
    serviceId: OTHER_SERVICE_ID,
  });
  const drained = await old.engine.drain(0, {
    choose: () => {
      const { room } = next.engine;
      return Promise.resolve(room === 0 ? null : { incarnation: next.incarnation, room });
    },
    tell: (_, orderIds) => next.engine.adopt(orderIds),
  });
  assert.deepEqual(drained, { cut: 25, givenAway: 10, left: 15 });
  const owners = await next.store.listOwners();
  assert.deepEqual(
    owners.map(({ incarnation, orders }) => [incarnation, orders]),
    [
      [old.incarnation, 15],
      [next.incarnation, 10],
    ],
  );
});

test("an order whose pipeline this node lacks, or whose history is damaged, waits and is named in the log", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const old = await harness(t, [{ name: "A", run: () => new Promise(noop) }], { path });
  const orderId = await old.accepted();
  await old.store.commit([
    {
      kind: "create",
      orderId: newOrderId("user", null),
      user: "user",
      idempotencyKey: null,
      pipelineName: "other",
      pipelineVersion: 7,
      event: { kind: "created", atMs: 1, owner: 1, stepName: "X" },
      body: "{}",
    },
  ]);
  const damagedId = await old.accepted();
  const impossibleId = await old.accepted();
  await old.engine.drain(0, ALONE);
  const db = new DatabaseSync(path);
  db.prepare("UPDATE orders SET history = 'noise' WHERE order_id = ?").run(damagedId);
  db.prepare(`UPDATE orders SET history = '["owner_changed",1,1]' WHERE order_id = ?`).run(impossibleId);
  db.close();
  const next = await harness(t, [{ name: "A", run: noop }], { path });
  assert.equal(await next.engine.resume(SERVICE_ID), 3);
  await next.reaches(orderId, "completed");
  for (const words of [
    "pipeline other v7",
    `Order ${damagedId} is left alone`,
    `Order ${impossibleId} is left alone`,
  ]) {
    assert.ok(
      next.logged.some((line) => line.includes(words)),
      words,
    );
  }
});

for (const [what, reason, outcome] of [
  ["and says that it has sent nothing was not done", permanent("no connection"), "not_done"],
  ["and says nothing of that may have been done", new Error("aborted"), "unknown"],
] as const) {
  test(`a call that times out ${what}`, async (t) => {
    const { accepted, reaches } = await harness(t, [
      {
        name: "A",
        timeout: 20,
        retry: NO_RETRY,
        run: ({ signal }) =>
          new Promise((_, reject) => {
            signal.addEventListener("abort", () => reject(reason));
          }),
      },
    ]);
    const orderId = await accepted();
    const { history } = await reaches(orderId, "failed");
    assert.equal(replay(orderId, history).steps[0]?.outcome, outcome);
  });
}

test("a parked order that is another's by now is no longer this engine's, and is not called damaged", async (t) => {
  const { engine, store, incarnation, accepted, reaches } = await harness(t, [{ name: "A", run: noop, wait: {} }]);
  const orderId = await accepted();
  await reaches(orderId, "waiting");
  const other = await registerNode(store, Date.now(), OTHER_SERVICE_ID);
  const gift: AdvanceWrite = {
    kind: "advance",
    orderId,
    owner: incarnation,
    expectedRevision: 2,
    event: { kind: "owner_changed", atMs: Date.now(), owner: other, callBegun: false },
    newStatus: null,
    formerStatus: "waiting",
    user: "user",
  };
  assert.deepEqual(await store.commit([gift]), [{ kind: "applied" }]);
  assert.equal(await engine.act(orderId, { action: "pause", by: "user" }), null);
});

test("who is given an order is told of it, also when that becomes durable only after the grace time", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const retry = { ...NO_RETRY, attempts: 2, delay: 3_600_000, delayMax: 3_600_000 };
  const fails = (): never => {
    throw new Error("not yet");
  };
  const old = await harness(t, [{ name: "A", run: fails, retry }], { path });
  const next = await harness(t, [{ name: "A", run: noop, retry }], { path, serviceId: OTHER_SERVICE_ID });
  const orderId = await old.accepted();
  await waitFor(async () => (await old.order(orderId)).revision === 2, { what: "the first attempt has failed" });
  const commit = old.store.commit.bind(old.store);
  let release = noop;
  const gate = new Promise<void>((resolve) => (release = resolve));
  let isAsked = false;
  old.store.commit = async (writes) => {
    isAsked = true;
    await gate;
    return commit(writes);
  };
  const told: string[] = [];
  const GRACE_MS = 20;
  const drained = old.engine.drain(GRACE_MS, {
    choose: () => Promise.resolve({ incarnation: next.incarnation, room: next.engine.room }),
    tell: (_, orderIds) => Promise.resolve(void told.push(...orderIds)),
  });
  await waitFor(() => isAsked, { what: "the order is on its way to the store" });
  const overMs = performance.now() + 2 * GRACE_MS;
  await waitFor(() => performance.now() > overMs, { what: "the grace time is over" });
  release();
  assert.deepEqual(await drained, { cut: 0, givenAway: 1, left: 0 });
  assert.deepEqual(told, [orderId]);
});

test("draining lets running steps end, starts none, and takes no order", async (t) => {
  let release = noop;
  const gate = new Promise<void>((resolve) => (release = resolve));
  const called: string[] = [];
  const { engine, accepted, order, submit } = await harness(t, [
    { name: "A", run: () => gate },
    { name: "B", run: () => void called.push("B") },
  ]);
  const orderId = await accepted();
  const drained = engine.drain(60_000, ALONE);
  assert.deepEqual(await submit(), { kind: "shutting_down" });
  release();
  assert.deepEqual(await drained, { cut: 0, givenAway: 0, left: 1 });
  const { history } = await order(orderId);
  assert.deepEqual(
    history.slice(1).map(({ kind }) => kind),
    ["step_completed", "attempt_queued"],
    "that the second step has not begun is on record",
  );
  assert.deepEqual(called, []);
});

test("an order whose creation the store has not taken when the grace time is over is refused, not left hanging", async (t) => {
  const { engine, store, submit } = await harness(t, [{ name: "A", run: noop }]);
  const commit = store.commit.bind(store);
  let release = noop;
  const gate = new Promise<void>((resolve) => (release = resolve));
  store.commit = async (writes) => gate.then(() => commit(writes));
  const first = [submit(), submit()];
  await waitForTurns(3);
  const second = submit();
  await waitForTurns(3);
  const third = submit();
  await engine.drain(10, ALONE);
  assert.equal((await third).kind, "store_unavailable");
  release();
  assert.deepEqual(
    (await Promise.all([...first, second])).map(({ kind }) => kind),
    ["accepted", "accepted", "accepted"],
  );
});

test("draining gives up steps that outlast the grace time, and aborts them", async (t) => {
  let aborted = false;
  const { engine, accepted, order } = await harness(t, [
    {
      name: "A",
      run: ({ signal }) =>
        new Promise(() => {
          signal.addEventListener("abort", () => (aborted = true));
        }),
    },
  ]);
  const orderId = await accepted();
  assert.deepEqual(await engine.drain(10, ALONE), { cut: 1, givenAway: 0, left: 1 });
  assert.equal(aborted, true);
  assert.equal((await order(orderId)).revision, 1);
});

test("what a step returns is given to later steps and to its rollback, as JSON, anew for each", async (t) => {
  const seen: unknown[] = [];
  const { accepted, reaches } = await harness(t, [
    {
      name: "A",
      run: () => ({ when: new Date(0), list: [1] }),
      rollback: ({ result, results }) => void seen.push(["A", result, results]),
    },
    { name: "B", run: ({ results }) => void Object.assign(results["A"] as object, { spoilt: true }) },
    {
      name: "C",
      run: ({ results }) => {
        seen.push(results);
        throw permanent("no");
      },
      rollback: ({ result, results }) => void seen.push(["C", result, results]),
    },
  ]);
  const { history } = await reaches(await accepted(), "failed");
  const a = { when: "1970-01-01T00:00:00.000Z", list: [1] };
  assert.deepEqual(seen, [{ A: a }, ["C", undefined, { A: a }], ["A", a, {}]]);
  assert.equal(replay("x", history).steps[0]?.result, JSON.stringify(a));
});

for (const [what, returned, message] of [
  ["a function", noop, /^the step returned a function/],
  ["10 MiB", "x".repeat(10 * 1024 * 1024), /^the step returned 10485762 characters/],
] as const) {
  test(`a step that returns ${what} has failed for good, and is rolled back, as it may have done its work`, async (t) => {
    const calls: string[] = [];
    const { accepted, reaches } = await harness(t, [
      { name: "A", run: () => Promise.resolve(returned), rollback: () => void calls.push("undone") },
    ]);
    const { history } = await reaches(await accepted(), "failed");
    const [step] = replay("x", history).steps;
    assert.match(step?.error ?? "", message);
    assert.deepEqual([step?.outcome, step?.attempts, calls], ["unknown", 1, ["undone"]]);
  });
}

test("a step that rejects after its time is over is not heard, and harms nobody", async (t) => {
  let reject = (_error: Error): void => undefined;
  const { accepted, reaches } = await harness(t, [
    { name: "A", timeout: 20, retry: NO_RETRY, run: () => new Promise((_, late) => (reject = late)) },
  ]);
  const orderId = await accepted();
  const { revision } = await reaches(orderId, "failed");
  reject(new Error("too late"));
  await waitForTurns(3);
  assert.equal((await reaches(orderId, "failed")).revision, revision);
});

test("a step that blocks the event loop past its time has ended, if it has", async (t) => {
  const { accepted, reaches } = await harness(t, [
    {
      name: "A",
      timeout: 10,
      retry: NO_RETRY,
      run: async () => {
        await Promise.resolve();
        Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 50);
      },
    },
  ]);
  await reaches(await accepted(), "completed");
});

test("an attempt of which nobody knows what it did is verified before it is made again", async (t) => {
  const asked: string[] = [];
  let isDone = false;
  const { accepted, reaches } = await harness(t, [
    {
      name: "A",
      timeout: 20,
      retry: { ...NO_RETRY, attempts: 3 },
      run: ({ attempt }) => {
        asked.push(`run ${attempt}`);
        return new Promise(noop);
      },
      onUnknown: {
        verify: ({ attempt, idempotencyKey }) => {
          asked.push(`verify ${attempt} ${idempotencyKey.split(":").slice(1).join(":")}`);
          if (attempt === 2) return { done: false };
          isDone = true;
          return { done: true, result: { id: 7 } };
        },
      },
    },
    { name: "B", run: ({ results }) => results["A"] },
  ]);
  const { history } = await reaches(await accepted(), "completed");
  assert.deepEqual(asked, ["run 1", "verify 2 A:run", "run 2", "verify 3 A:run"]);
  assert.ok(isDone);
  assert.deepEqual(
    replay("x", history).steps.map(({ result }) => result),
    ['{"id":7}', '{"id":7}'],
  );
});

test("a verification of a commit that can't find out whether it was done sets the order aside", async (t) => {
  let calls = 0;
  const { accepted, reaches } = await harness(t, [
    {
      name: "Pay",
      commit: true,
      retry: { ...NO_RETRY, attempts: 3 },
      run: () => {
        calls++;
        throw uncertain("it broke off");
      },
      // As an answer that is no JSON, which may mean anything.
      onUnknown: { verify: () => Promise.reject(new StepError("what?", { permanent: true, unknown: true })) },
    },
  ]);
  const { history } = await reaches(await accepted(), "set_aside");
  assert.equal(calls, 1);
  assert.deepEqual(
    history.map(({ kind }) => kind),
    ["created", "attempt_failed", "attempt_started", "set_aside"],
  );
});

for (const [what, failure] of [
  ["once and for all", new StepError("what?", { permanent: true, unknown: true })],
  ["as often as it may", uncertain("what?")],
] as const) {
  test(`a commit that has failed ${what} is called no more when its verification finds that it was not done`, async (t) => {
    let calls = 0;
    const { accepted, reaches } = await harness(t, [
      {
        name: "Pay",
        commit: true,
        retry: { ...NO_RETRY, attempts: 2 },
        run: () => {
          calls++;
          throw failure;
        },
        onUnknown: { verify: () => ({ done: false }) },
      },
    ]);
    const { history } = await reaches(await accepted(), "failed");
    assert.equal(calls, failure.permanent ? 1 : 2);
    const [step] = replay("x", history).steps;
    assert.deepEqual([step?.error, step?.outcome], ["what?", "not_done"]);
  });
}

test("past the point of no return a step is called again when its verification finds that it was not done", async (t) => {
  let calls = 0;
  const { accepted, reaches } = await harness(t, [
    { name: "Pay", run: noop, commit: true },
    {
      name: "Send",
      retry: { ...NO_RETRY, attempts: 2 },
      run: () => {
        if (++calls < 5) throw uncertain("what?");
      },
      onUnknown: { verify: () => ({ done: false }) },
    },
  ]);
  await reaches(await accepted(), "completed");
  assert.equal(calls, 5);
});

test("behind the point of no return a step is tried again for as long as it takes, whatever it throws", async (t) => {
  let calls = 0;
  const { accepted, reaches } = await harness(t, [
    { name: "Pay", run: noop, commit: true, rollback: () => assert.fail("it is not to be undone") },
    {
      name: "Send",
      retry: { ...NO_RETRY, attempts: 2 },
      run: () => {
        if (++calls < 20) throw permanent("no");
      },
    },
  ]);
  const { history } = await reaches(await accepted(), "completed");
  assert.equal(history.filter(({ kind }) => kind === "attempt_failed").length, 19);
});

test("of a step's calls as many are under way as its limit says, and a wait for the next attempt takes no slot", async (t) => {
  let [underWay, most, calls] = [0, 0, 0];
  const { accepted, reaches } = await harness(t, [
    {
      name: "A",
      concurrency: 2,
      retry: { ...NO_RETRY, attempts: 2, delay: 30, delayMax: 30 },
      run: async ({ attempt }) => {
        calls++;
        most = Math.max(most, ++underWay);
        await new Promise((resolve) => setTimeout(resolve, 5));
        underWay--;
        if (attempt === 1) throw new Error("not yet");
      },
    },
    { name: "B", concurrency: 1, run: noop },
  ]);
  const ids = await Promise.all(Array.from({ length: 20 }, () => accepted()));
  for (const id of ids) await reaches(id, "completed");
  assert.deepEqual([most, calls], [2, 40]);
});

test("a thousand orders that wait for one slot of a step that does nothing don't run out of stack", async (t) => {
  const { accepted, reaches } = await harness(t, [{ name: "A", concurrency: 1, run: noop }]);
  const ids = await Promise.all(Array.from({ length: 900 }, () => accepted()));
  for (const id of ids) await reaches(id, "completed");
});

test("who asks something of an order whose node is taken for dead meanwhile is told that it is not known", async (t) => {
  const { engine, store, accepted } = await harness(t, [{ name: "A", run: () => new Promise(noop) }]);
  const orderId = await accepted();
  store.commit = () => new Promise(noop);
  const asked = [
    engine.act(orderId, { action: "pause", by: "ann" }),
    engine.act(orderId, { action: "resume", by: "ann" }),
  ];
  await waitForTurns(3);
  engine.abandon();
  assert.deepEqual(await Promise.all(asked), [{ kind: "unknown" }, { kind: "unknown" }]);
});
