/**
 * What can be done to an order, in every state that it can be in, on a real store: what the pure rules (order/actions.ts) say must be
 * what happens, whatever was under way, and whoever owns the order meanwhile.
 */
import assert from "node:assert/strict";
import { after as afterAll, before as beforeAll, describe, test, type TestContext } from "node:test";
import type { Engine, Submission } from "../../src/engine/engine.ts";
import { createLogger } from "../../src/log.ts";
import { type Action, type ActionRequest, ACTIONS } from "../../src/order/actions.ts";
import type { Incarnation } from "../../src/order/events.ts";
import { replay } from "../../src/order/evolve.ts";
import type { Order } from "../../src/order/order.ts";
import { isFinal, type OrderStatus } from "../../src/order/status.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { permanent } from "../../src/order/step-error.ts";
import { buildPipeline, type PlainStepOptions } from "../../src/pipelines/define-pipeline.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import type { Store } from "../../src/store/store.ts";
import { makeEngine, registerNode } from "../support/engine.ts";
import { waitFor } from "../support/wait.ts";

/** A call of a step that the test ends as it likes. */
interface OpenCall {
  readonly succeed: (result?: unknown) => void;
  readonly fail: (error: unknown) => void;
  readonly signal: AbortSignal;
  readonly key: string;
}

/** Steps whose calls wait for the test. */
class Steps {
  /** Every call that was made: "Reserve:run", "Reserve:rollback". */
  readonly made: string[] = [];
  readonly #open = new Map<string, OpenCall>();

  get open(): ReadonlyMap<string, OpenCall> {
    return this.#open;
  }

  async call(name: string): Promise<OpenCall> {
    return waitFor(() => this.#open.get(name), { what: () => `${name} is called; made: ${this.made.join(", ")}` });
  }

  options(): PlainStepOptions[] {
    const step = (name: string, change: Partial<PlainStepOptions> = {}): PlainStepOptions => ({
      name,
      run: (context) => this.#opened(`${name}:run`, context.signal, context.idempotencyKey),
      rollback: (context) => this.#opened(`${name}:rollback`, context.signal, context.idempotencyKey),
      retry: { attempts: 2, delay: "1h", delayMax: "1h", jitter: 0 },
      ...change,
    });
    return [
      step("Reserve"),
      step("Approve", { wait: { deadline: "1h" } }),
      step("Pay", { commit: true }),
      step("Send"),
    ];
  }

  #opened(name: string, signal: AbortSignal, key: string): Promise<unknown> {
    this.made.push(name);
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): void => {
        this.#open.delete(name);
        settle();
      };
      this.#open.set(name, {
        signal,
        key,
        succeed: (result) => end(() => resolve(result)),
        fail: (error) => end(() => reject(error)),
      });
    });
  }
}

interface Rig {
  readonly steps: Steps;
  readonly engine: Engine;
  readonly incarnation: Incarnation;
  readonly submit: (options?: Submission["options"]) => Promise<string>;
  readonly order: (orderId: string) => Promise<Order>;
  readonly reaches: (orderId: string, what: string, isReached: (order: Order) => boolean) => Promise<Order>;
  readonly act: (orderId: string, action: Action, change?: Partial<ActionRequest>) => Promise<string>;
  /** Another incarnation takes the orders over, as after a crash; the former engine is gone. */
  readonly takenOver: () => Promise<Rig>;
}

const HOUR_MS = 3_600_000;

function rigOn(t: TestContext, store: Store): Promise<Rig> {
  const start = async (): Promise<Rig> => {
    const steps = new Steps();
    const pipeline = buildPipeline({ name: "steered", version: 1, steps: steps.options() });
    const incarnation = await registerNode(store, Date.now());
    const logged: string[] = [];
    const engine = makeEngine({
      store,
      incarnation,
      pipelines: new PipelineSet([pipeline]),
      log: createLogger("debug", "logfmt", (line) => void logged.push(line)),
      clock: systemClock(),
    });
    t.after(() => engine.abandon());
    const order = async (orderId: string): Promise<Order> => {
      const stored = await store.readOrder(orderId);
      assert.ok(stored !== null);
      const made = replay(orderId, stored.history);
      assert.deepEqual([stored.status, stored.owner, stored.revision], [made.state.status, made.owner, made.revision]);
      return made;
    };
    return {
      steps,
      engine,
      incarnation,
      order,
      submit: async (options) => {
        const outcome = await engine.submit({
          user: "ann",
          body: "{}",
          idempotencyKey: null,
          pipeline,
          ...(options === undefined ? {} : { options }),
        });
        assert.ok(outcome.kind === "accepted", outcome.kind);
        return outcome.orderId;
      },
      reaches: (orderId, what, isReached) =>
        waitFor(
          async () => {
            const found = await order(orderId);
            return isReached(found) ? found : undefined;
          },
          {
            what: () => `the order is ${what}; made: ${steps.made.join(", ")}; logged:\n${logged.join("")}`,
          },
        ),
      act: async (orderId, action, change = {}) => {
        const outcome = await engine.act(orderId, { ...requestOf(action), ...change } as ActionRequest);
        return outcome?.kind ?? "not here";
      },
      takenOver: async () => {
        engine.abandon();
        const next = await start();
        const row = (await store.cluster.read()).nodes.find((each) => each.incarnation === incarnation);
        await store.cluster.markDead(incarnation, row?.heartbeat ?? 0);
        await next.engine.takeOver(incarnation, 100);
        return next;
      },
    };
  };
  return start();
}

function requestOf(action: Action): ActionRequest {
  const by = "ann";
  switch (action) {
    case "cancel":
      return { action, by, reason: "changed her mind" };
    case "skip":
      return { action, by, reason: "undone by hand" };
    case "complete":
      return { action, by, stepName: "Approve", result: '{"ok":true}' };
    default:
      return { action, by };
  }
}

type Bring = (rig: Rig) => Promise<string>;

const has = (status: OrderStatus) => (order: Order) => order.state.status === status;

const scheduled: Bring = (rig) => rig.submit({ startAtMs: Date.now() + HOUR_MS });
const running: Bring = async (rig) => {
  const orderId = await rig.submit();
  await rig.steps.call("Reserve:run");
  return orderId;
};
const retryWait: Bring = async (rig) => {
  const orderId = await running(rig);
  (await rig.steps.call("Reserve:run")).fail(new Error("not yet"));
  await rig.reaches(orderId, "waiting for its next attempt", ({ revision }) => revision === 2);
  return orderId;
};
const approving: Bring = async (rig) => {
  const orderId = await running(rig);
  (await rig.steps.call("Reserve:run")).succeed({ id: "r-1" });
  await rig.steps.call("Approve:run");
  return orderId;
};
const waiting: Bring = async (rig) => {
  const orderId = await approving(rig);
  (await rig.steps.call("Approve:run")).succeed();
  await rig.reaches(orderId, "waiting", has("waiting"));
  return orderId;
};
const paying: Bring = async (rig) => {
  const orderId = await waiting(rig);
  assert.equal(await rig.act(orderId, "complete"), "done");
  await rig.steps.call("Pay:run");
  return orderId;
};
const sending: Bring = async (rig) => {
  const orderId = await paying(rig);
  (await rig.steps.call("Pay:run")).succeed();
  await rig.steps.call("Send:run");
  return orderId;
};
const rollingBack: Bring = async (rig) => {
  const orderId = await running(rig);
  (await rig.steps.call("Reserve:run")).fail(permanent("no"));
  await rig.steps.call("Reserve:rollback");
  return orderId;
};
const incomplete: Bring = async (rig) => {
  const orderId = await rollingBack(rig);
  (await rig.steps.call("Reserve:rollback")).fail(permanent("no"));
  await rig.reaches(orderId, "left to an operator", has("rollback_incomplete"));
  return orderId;
};
const failed: Bring = async (rig) => {
  const orderId = await rollingBack(rig);
  (await rig.steps.call("Reserve:rollback")).succeed();
  await rig.reaches(orderId, "failed", has("failed"));
  return orderId;
};
const completed: Bring = async (rig) => {
  const orderId = await sending(rig);
  (await rig.steps.call("Send:run")).succeed();
  await rig.reaches(orderId, "completed", has("completed"));
  return orderId;
};
const canceled: Bring = async (rig) => {
  const orderId = await scheduled(rig);
  assert.equal(await rig.act(orderId, "cancel"), "done");
  await rig.reaches(orderId, "canceled", has("canceled"));
  return orderId;
};
const and =
  (bring: Bring, action: Action): Bring =>
  async (rig) => {
    const orderId = await bring(rig);
    assert.equal(await rig.act(orderId, action), "done");
    return orderId;
  };

/** Every state of an order, how it comes into it, and what can be done to it then. Else it is refused. */
const STATES: readonly (readonly [string, Bring, readonly Action[]])[] = [
  ["scheduled", scheduled, ["cancel", "pause"]],
  ["scheduled and paused", and(scheduled, "pause"), ["cancel", "pause", "resume"]],
  ["running", running, ["cancel", "pause"]],
  ["running, to be paused", and(running, "pause"), ["cancel", "pause", "resume"]],
  ["running, to be canceled", and(running, "cancel"), ["cancel"]],
  ["between two attempts", retryWait, ["cancel", "pause"]],
  ["paused between two attempts", and(retryWait, "pause"), ["cancel", "pause", "resume"]],
  ["running a step that will wait", approving, ["cancel", "pause", "complete"]],
  ["running a step whose signal has come", and(approving, "complete"), ["cancel", "pause", "complete"]],
  ["waiting", waiting, ["cancel", "pause", "complete"]],
  ["waiting and paused", and(waiting, "pause"), ["cancel", "pause", "resume", "complete"]],
  ["running the commit", paying, ["pause", "complete"]],
  ["running after the commit", sending, ["pause", "complete"]],
  ["rolling back", rollingBack, ["pause"]],
  ["rolling back, to be paused", and(rollingBack, "pause"), ["pause", "resume"]],
  ["rollback incomplete", incomplete, ["retry", "skip"]],
];

/** Of these the engine has let go: what can be done to them makes a new order, or nothing. */
const FINAL: readonly (readonly [string, Bring])[] = [
  ["completed", completed],
  ["failed", failed],
  ["canceled", canceled],
];

/** Ends whatever is open, as well as it can be ended, until the order is final. */
async function finish(rig: Rig, orderId: string): Promise<Order> {
  return waitFor(
    async () => {
      const order = await rig.order(orderId);
      if (isFinal(order.state.status)) return order;
      for (const call of rig.steps.open.values()) call.succeed();
      if (order.state.status === "paused") await rig.act(orderId, "resume");
      if (order.state.status === "waiting") await rig.act(orderId, "complete");
      if (order.state.status === "rollback_incomplete") await rig.act(orderId, "skip");
      if (order.state.status === "scheduled") await rig.act(orderId, "cancel");
      const call = "call" in order.state ? order.state.call : null;
      if (call?.hasBegun === false && call.waitMs > 0 && order.state.status === "running")
        await rig.act(orderId, "cancel");
      return undefined;
    },
    { what: () => `the order ends; made: ${rig.steps.made.join(", ")}` },
  );
}

/** G3, and the sense of a saga: all the way forward, or back from where it came to. */
function assertSound(order: Order): void {
  const { status } = order.state;
  const names = order.steps.map(({ name }) => name);
  if (status === "completed") {
    assert.deepEqual(names, ["Reserve", "Approve", "Pay", "Send"]);
    assert.ok(order.steps.every((step) => step.completeTimeMs !== null && step.rollbackTimeMs === null));
  } else {
    assert.ok(!names.includes("Send"), "nothing is rolled back from behind the commit");
    assert.ok(order.steps.every((step) => step.rollbackTimeMs !== null || step.skipReason !== null));
  }
}

/** All on one store, as each test has orders and nodes of its own. */
export function steeringContract(name: string, openStore: () => Promise<Store>): void {
  describe(`steering on ${name}`, () => {
    let opened: Store | null = null;
    beforeAll(async () => {
      opened = await openStore();
    });
    afterAll(async () => opened?.close());
    steeringTests((title, body) => {
      test(title, async (t) => {
        assert.ok(opened !== null);
        await body(await rigOn(t, opened));
      });
    });
  });
}

function steeringTests(contract: (title: string, body: (rig: Rig) => Promise<void>) => void): void {
  for (const [state, bring, allowed] of STATES) {
    for (const action of Object.keys(ACTIONS) as Action[]) {
      const may = allowed.includes(action);
      contract(
        `an order that is ${state} ${may ? "takes" : "refuses"} ${action}, and ends as it should`,
        async (rig) => {
          const orderId = await bring(rig);
          const before = await rig.order(orderId);
          assert.equal(await rig.act(orderId, action), may ? "done" : "refused");
          const after = await rig.order(orderId);
          if (may) assert.ok(after.revision - before.revision <= 2);
          else assert.deepEqual(after, before, "what is refused changes nothing");
          const end = await finish(rig, orderId);
          assertSound(end);
          if (may && action === "cancel") assert.equal(end.state.status, "canceled");
        },
      );
    }
    contract(`an order that is ${state} is the same to the next owner`, async (rig) => {
      const orderId = await bring(rig);
      const before = await rig.order(orderId);
      const next = await rig.takenOver();
      const after = await next.order(orderId);
      assert.equal(after.owner, next.incarnation);
      if (before.asked === "pause") await next.reaches(orderId, "paused", has("paused"));
      const end = await finish(next, orderId);
      assertSound(end);
      if (before.asked === "cancel") assert.equal(end.state.status, "canceled");
    });
  }

  for (const [state, bring] of FINAL) {
    for (const action of Object.keys(ACTIONS) as Action[]) {
      contract(`an order that is ${state} is none of the engine's: ${action} changes nothing`, async (rig) => {
        const orderId = await bring(rig);
        const before = await rig.order(orderId);
        await waitFor(() => rig.engine.ordersInFlight === 0, { what: "it is let go" });
        assert.equal(await rig.act(orderId, action), "not here");
        assert.deepEqual(await rig.order(orderId), before);
      });
    }
  }

  contract("a cancellation that races with the last step ends completed or canceled, never both", async (rig) => {
    for (let round = 0; round < 20; round++) {
      const orderId = await running(rig);
      const call = await rig.steps.call("Reserve:run");
      const asked = round % 2 === 0 ? rig.act(orderId, "cancel") : null;
      call.succeed();
      await (asked ?? rig.act(orderId, "cancel"));
      const end = await finish(rig, orderId);
      assert.equal(end.state.status, "canceled");
      assertSound(end);
    }
    const orderId = await sending(rig);
    const call = await rig.steps.call("Send:run");
    call.succeed();
    assert.ok(["refused", "not here"].includes(await rig.act(orderId, "cancel")));
    assert.equal((await finish(rig, orderId)).state.status, "completed");
  });

  contract("of two signals the first one counts, also when both come at once", async (rig) => {
    for (const bring of [waiting, approving]) {
      const orderId = await bring(rig);
      const outcomes = await Promise.all([
        rig.act(orderId, "complete", { result: '"first"' }),
        rig.act(orderId, "complete", { result: '"second"' }),
        rig.act(orderId, "complete", { result: '"first"' }),
      ]);
      assert.deepEqual(outcomes, ["done", "refused", "done"]);
      const end = await finish(rig, orderId);
      assert.equal(end.steps[1]?.result, '"first"');
      assert.equal(end.steps[1].by, "ann");
    }
  });

  contract("a canceled order's call hears of it, and what it has done is recorded and undone", async (rig) => {
    const orderId = await running(rig);
    const call = await rig.steps.call("Reserve:run");
    assert.equal(await rig.act(orderId, "cancel"), "done");
    assert.equal(call.signal.aborted, true);
    assert.equal((await rig.order(orderId)).state.status, "running", "until the call has ended");
    call.succeed({ id: "r-1" });
    await rig.steps.call("Reserve:rollback");
    const [step] = (await rig.order(orderId)).steps;
    assert.deepEqual([step?.outcome, step?.result], ["done", '{"id":"r-1"}']);
    assert.equal((await finish(rig, orderId)).state.status, "canceled");
  });

  contract("a step that timed out, or was cut short, after it had done its work is rolled back", async (rig) => {
    const orderId = await running(rig);
    const next = await rig.takenOver();
    const again = await next.steps.call("Reserve:run");
    assert.equal(again.key, `${orderId}:Reserve:run`, "the same key, on another node");
    again.fail(permanent("no"));
    await next.steps.call("Reserve:rollback");
    assert.equal((await next.order(orderId)).steps[0]?.outcome, "unknown");
    assert.equal((await finish(next, orderId)).state.status, "failed");
  });

  contract("a rollback that an operator has tried again goes on, and one that he skips is left out", async (rig) => {
    const orderId = await incomplete(rig);
    assert.equal(await rig.act(orderId, "retry"), "done");
    (await rig.steps.call("Reserve:rollback")).fail(permanent("still no"));
    await rig.reaches(orderId, "left to an operator again", has("rollback_incomplete"));
    assert.equal(await rig.act(orderId, "skip"), "done");
    const { state, steps } = await rig.order(orderId);
    assert.equal(state.status, "failed");
    assert.deepEqual([steps[0]?.rollbackTimeMs, steps[0]?.by, steps[0]?.skipReason], [null, "ann", "undone by hand"]);
  });

  contract("a scheduled order starts when its time has come, and a paused one does not", async (rig) => {
    // What is done to them before their time must be over by then, on a slow machine, too.
    const startAtMs = Date.now() + 2_000;
    const [orderId, held] = [await rig.submit({ startAtMs }), await rig.submit({ startAtMs })];
    assert.equal(await rig.act(held, "pause"), "done");
    assert.equal((await rig.order(orderId)).state.status, "scheduled");
    await rig.steps.call("Reserve:run");
    const order = await rig.order(orderId);
    assert.ok((order.steps[0]?.startTimeMs ?? 0) >= startAtMs);
    assert.equal((await rig.order(held)).state.status, "paused");
    assert.deepEqual(rig.steps.made, ["Reserve:run"]);
  });
}
