/** What somebody asks of an order, at the moments at which it meets something else: a call that begins, a write that is lost. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Engine } from "../../src/engine/engine.ts";
import type { Incarnation } from "../../src/order/events.ts";
import type { StepContext } from "../../src/order/pipeline.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { buildPipeline } from "../../src/pipelines/define-pipeline.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import { type Store, StoreUnavailableError } from "../../src/store/store.ts";
import { makeEngine, registerNode } from "../support/engine.ts";
import { ManualClock } from "../support/manual-clock.ts";
import { temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

interface Call {
  readonly name: string;
  readonly attempt: number;
  readonly fence: number;
  readonly signal: AbortSignal;
  readonly end: (error?: Error) => void;
  hasEnded: boolean;
}

interface Scene {
  readonly engine: Engine;
  readonly clock: ManualClock;
  /** Resolves when everything has happened that needs no time to pass. */
  readonly settled: () => Promise<void>;
  /** Lets time pass, a little whenever everything else has happened, until it is so. */
  readonly passUntil: (isSo: () => unknown, what: string) => Promise<void>;
  readonly node: { mayStart: boolean };
  /** What becomes of the next commit: it waits until it is let go, or its answer is lost. */
  readonly commits: { next: "sound" | "held" | "lost"; release: (() => void) | null };
  readonly calls: Call[];
  readonly called: (name: string, attempt?: number) => Promise<Call>;
  readonly submit: () => Promise<string>;
  readonly status: (orderId: string) => Promise<string | undefined>;
  readonly revision: (orderId: string) => Promise<number | undefined>;
  /** Another node is alive. */
  readonly join: () => Promise<Incarnation>;
}

const BY = { by: "ann" } as const;

const RETRY_DELAY_MS = 20;

/** Two engine turns and a commit take fewer turns of the event loop. */
const SETTLED_TURNS = 20;

async function scene(t: TestContext): Promise<Scene> {
  const clock = new ManualClock();
  const real = await openSqliteStore({
    path: join(temporaryFolder(t), "orders.sqlite"),
    now: clock.now,
    onBroken: (error) => {
      throw error;
    },
  });
  const commits: Scene["commits"] = { next: "sound", release: null };
  let underWay = 0;
  const counted = async <T>(asked: Promise<T>): Promise<T> => {
    underWay++;
    try {
      return await asked;
    } finally {
      underWay--;
    }
  };
  const commit: Store["commit"] = async (writes) => {
    const fate = commits.next;
    commits.next = "sound";
    if (fate === "held") await new Promise<void>((resolve) => (commits.release = resolve));
    const outcomes = await counted(real.commit(writes));
    if (fate === "lost") throw new StoreUnavailableError("the answer is lost");
    return outcomes;
  };
  const readOwned: Store["readOwned"] = (owner, orderIds) => counted(real.readOwned(owner, orderIds));
  const store = new Proxy(real, {
    get: (target, name: keyof Store) => {
      if (name === "commit") return commit;
      if (name === "readOwned") return readOwned;
      const value: unknown = target[name];
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
  const settled = async (): Promise<void> => {
    for (let turns = 0; turns < SETTLED_TURNS; turns = underWay > 0 ? 0 : turns + 1) await new Promise(setImmediate);
  };
  const calls: Call[] = [];
  const call = (name: string, { attempt, fence, signal }: StepContext): Promise<void> =>
    new Promise((resolve, reject) => {
      const made: Call = {
        name,
        attempt,
        fence,
        signal,
        hasEnded: false,
        end: (error) => {
          made.hasEnded = true;
          if (error === undefined) resolve();
          else reject(error);
        },
      };
      calls.push(made);
    });
  const pipeline = buildPipeline({
    name: "raced",
    version: 1,
    steps: ["Reserve", "Charge"].map((name) => ({
      name,
      run: (context) => call(`${name} run`, context),
      rollback: (context) => call(`${name} rollback`, context),
      retry: { attempts: 3, delay: RETRY_DELAY_MS, delayMax: RETRY_DELAY_MS, jitter: 0 },
    })),
  });
  const node = { mayStart: true };
  const register = (): Promise<Incarnation> => registerNode(real, clock.now());
  const engine = makeEngine({
    store,
    incarnation: await register(),
    pipelines: new PipelineSet([pipeline]),
    clock,
    mayStart: () => node.mayStart,
  });
  t.after(async () => {
    engine.abandon();
    await real.close();
  });
  return {
    engine,
    clock,
    settled,
    passUntil: (isSo, what) =>
      waitFor(
        async () => {
          await settled();
          if (isSo()) return true;
          clock.advance(RETRY_DELAY_MS);
          return false;
        },
        { what },
      ).then(() => undefined),
    node,
    commits,
    calls,
    called: (name, attempt = 1) =>
      waitFor(() => calls.find((each) => each.name === name && each.attempt === attempt), {
        what: () => `${name} ${attempt} is called; called: ${calls.map((each) => each.name).join(", ")}`,
      }),
    submit: async () => {
      const outcome = await engine.submit({ user: "ann", body: "{}", idempotencyKey: null, pipeline });
      assert.ok(outcome.kind === "accepted");
      return outcome.orderId;
    },
    status: async (orderId) => (await real.readOrder(orderId))?.status,
    join: register,
    revision: async (orderId) => (await real.readOrder(orderId))?.revision,
  };
}

/** Brings the order to its second step, whose retry is due and held. */
async function heldOrder({ node, clock, called, submit, revision }: Scene): Promise<string> {
  const orderId = await submit();
  (await called("Reserve run")).end();
  const charge = await called("Charge run");
  node.mayStart = false;
  charge.end(new Error("not yet"));
  await waitFor(async () => (await revision(orderId)) === 3, { what: "the attempt has failed" });
  clock.advance(RETRY_DELAY_MS);
  node.mayStart = true;
  return orderId;
}

for (const action of ["cancel", "pause"] as const) {
  test(`a call that was held does not begin while a ${action} is being written`, async (t) => {
    const its = await scene(t);
    const orderId = await heldOrder(its);
    its.commits.next = "held";
    const acted = its.engine.act(orderId, action === "cancel" ? { action, ...BY, reason: null } : { action, ...BY });
    await waitFor(() => its.commits.release, { what: "it is being written" });
    its.engine.goOn();
    await its.settled();
    assert.deepEqual(
      its.calls.map(({ name }) => name),
      ["Reserve run", "Charge run"],
      "nothing is called meanwhile",
    );
    its.commits.release?.();
    assert.equal((await acted)?.kind, "done");
    if (action === "pause") return assert.equal(await its.status(orderId), "paused");
    (await its.called("Charge rollback")).end();
    (await its.called("Reserve rollback")).end();
    await waitFor(async () => (await its.status(orderId)) === "canceled", { what: "the order is canceled" });
    assert.equal(its.calls.filter(({ name }) => name === "Charge run").length, 1);
  });

  test(`a ${action} during a call whose answer is lost waits for the call all the same`, async (t) => {
    const its = await scene(t);
    const orderId = await its.submit();
    const call = await its.called("Reserve run");
    its.commits.next = "lost";
    void its.engine.act(orderId, action === "cancel" ? { action, ...BY, reason: null } : { action, ...BY });
    await waitFor(() => its.engine.storeFailure, { what: "the answer is lost" });
    await its.passUntil(() => its.engine.storeFailure === null, "the write is made again, and refused");
    await its.settled(); // the order is read
    assert.deepEqual(
      its.calls.map(({ name }) => name),
      ["Reserve run"],
      "the call goes on alone",
    );
    assert.equal(call.signal.aborted, action === "cancel");
    call.end();
    if (action === "pause") {
      await waitFor(async () => (await its.status(orderId)) === "paused", { what: "the order is paused" });
      assert.equal((await its.engine.act(orderId, { action: "resume", ...BY }))?.kind, "done");
      await its.called("Charge run");
      return;
    }
    (await its.called("Reserve rollback")).end();
    await waitFor(async () => (await its.status(orderId)) === "canceled", { what: "the order is canceled" });
    const fences = its.calls.map(({ fence }) => fence);
    assert.deepEqual(
      fences,
      [...new Set(fences)].toSorted((one, other) => one - other),
      "each call is later",
    );
  });
}

test("two actions at once on an order that waits for a retry have it made once", async (t) => {
  const its = await scene(t);
  const orderId = await its.submit();
  const first = await its.called("Reserve run");
  assert.equal((await its.engine.act(orderId, { action: "pause", ...BY }))?.kind, "done");
  first.end(new Error("not yet"));
  await waitFor(async () => (await its.status(orderId)) === "paused", { what: "the order is paused" });
  const refused = { action: "complete", stepName: "Reserve", result: "1", ...BY } as const;
  const acted = await Promise.all([
    its.engine.act(orderId, { action: "resume", ...BY }),
    its.engine.act(orderId, refused),
    its.engine.act(orderId, refused),
  ]);
  assert.deepEqual(
    acted.map((outcome) => outcome?.kind),
    ["done", "refused", "refused"],
  );
  its.clock.advance(RETRY_DELAY_MS);
  (await its.called("Reserve run", 2)).end();
  await its.called("Charge run");
  its.clock.advance(3 * RETRY_DELAY_MS);
  await its.settled();
  assert.equal(its.calls.filter(({ name, attempt }) => name === "Reserve run" && attempt === 2).length, 1);
});

test("an order that a stopping node can't give away is read again, and counted as left", async (t) => {
  const its = await scene(t);
  const orderId = await heldOrder(its);
  // Of nobody: whoever gets it is not alive, and the store refuses. No time passes: it does not wait for its grace.
  const drained = await its.engine.drain(5_000, {
    choose: () => Promise.resolve({ incarnation: 999, room: 10 }),
    tell: () => assert.fail("nobody got it"),
  });
  assert.deepEqual([drained.givenAway, drained.left], [0, 1]);
  assert.equal(await its.status(orderId), "running");
});

test("who gets an order from a stopping node is told of it, though the answer of the store is lost", async (t) => {
  const its = await scene(t);
  const orderId = await heldOrder(its);
  const successor = await its.join();
  its.commits.next = "lost";
  const told: string[] = [];
  const draining = its.engine.drain(8_000, {
    choose: () => Promise.resolve({ incarnation: successor, room: 10 }),
    tell: (_, orderIds) => Promise.resolve(void told.push(...orderIds)),
  });
  await waitFor(() => its.engine.storeFailure, { what: "the answer is lost" });
  await its.passUntil(() => its.engine.storeFailure === null, "the write is made again");
  // No more time passes: it does not wait for its grace.
  const drained = await draining;
  assert.deepEqual([drained.givenAway, drained.left, told], [1, 0, [orderId]]);
});

test("what a call did counts though the answer of a pause is lost while the node stops", async (t) => {
  const its = await scene(t);
  const orderId = await its.submit();
  const call = await its.called("Reserve run");
  const drained = its.engine.drain(4_000, { choose: () => Promise.resolve(null), tell: () => Promise.resolve() });
  its.commits.next = "lost";
  void its.engine.act(orderId, { action: "pause", ...BY });
  await waitFor(() => its.engine.storeFailure, { what: "the answer is lost" });
  await its.passUntil(() => its.engine.storeFailure === null, "the write is made again, and refused");
  call.end();
  let cut: number | null = null;
  void drained.then((outcome) => (cut = outcome.cut));
  await its.passUntil(() => cut !== null, "the node has stopped");
  assert.equal(cut, 0);
  assert.equal(await its.status(orderId), "paused");
});

test("while the store fails nobody waits for an action", async (t) => {
  const its = await scene(t);
  const orderId = await its.submit();
  await its.called("Reserve run");
  its.commits.next = "lost";
  const first = its.engine.act(orderId, { action: "pause", ...BY });
  await waitFor(() => its.engine.storeFailure, { what: "the store has failed" });
  await assert.rejects(its.engine.act(orderId, { action: "cancel", ...BY, reason: null }), StoreUnavailableError);
  let kind: string | undefined;
  void first.then((outcome) => (kind = outcome?.kind));
  await its.passUntil(() => kind, "the first one is answered");
  assert.equal(kind, "unknown");
});
