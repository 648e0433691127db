/**
 * Many orders queue for few slots while nodes crash and stop and people steer: no limit is passed, every order becomes final, and every
 * slot is free in the end.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import type { Engine } from "../../src/engine/engine.ts";
import type { Successors } from "../../src/engine/hand-off.ts";
import type { ActionRequest } from "../../src/order/actions.ts";
import type { Incarnation } from "../../src/order/events.ts";
import { isFinal } from "../../src/order/status.ts";
import type { StepContext } from "../../src/order/pipeline.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { permanent } from "../../src/order/step-error.ts";
import { buildPipeline, type PlainStepOptions } from "../../src/pipelines/define-pipeline.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import type { Store, StoredOrder } from "../../src/store/store.ts";
import { seededRandom } from "../crash/seeded-random.ts";
import { makeEngine, registerNode } from "../support/engine.ts";
import { temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const SEED = Number(process.env["ORDER_PROCESS_SEED"] ?? Math.floor(Math.random() * 2 ** 32));
const ORDERS = 150;
const LIMIT = 3;
/** What befalls the two nodes while the orders go on. */
const BLOWS = 12;
/** What people do between two of them. */
const TURNS_PER_BLOW = 20;
const BY = { by: "ann" } as const;
const CLUSTER_STEPS = ["Shared", "Both"];

/** The calls that are under way, by step and node, and the most there were at once. */
class Calls {
  readonly #random: () => number;
  readonly #underWay = new Map<string, number>();
  readonly tooMany: string[] = [];
  /** The step whose calls don't end, while all others succeed at once; null: calls take a moment, and some fail. */
  held: string | null = null;

  constructor(random: () => number) {
    this.#random = random;
  }

  of(name: string, node: string): number {
    return this.#underWay.get(this.#key(name, node)) ?? 0;
  }

  async make(name: string, node: string, { signal }: StepContext): Promise<void> {
    const key = this.#key(name, node);
    const underWay = this.of(name, node) + 1;
    this.#underWay.set(key, underWay);
    if (underWay > LIMIT) this.tooMany.push(`${key}: ${underWay}`);
    try {
      if (this.held === null) await delay(this.#random() * 15, null, { signal });
      while (this.held === name && !signal.aborted) await delay(5);
    } finally {
      this.#underWay.set(key, this.of(name, node) - 1);
    }
    if (this.held !== null) return;
    const fate = this.#random();
    if (fate < 0.05) throw permanent("no");
    if (fate < 0.2) throw new Error("not yet");
  }

  #key(name: string, node: string): string {
    return CLUSTER_STEPS.includes(name) ? name : `${name} at ${node}`;
  }
}

interface Life {
  readonly engine: Engine;
  readonly incarnation: Incarnation;
  readonly end: () => void;
}

/** A service whose engine can be ended in either way, and begins again. */
class Service {
  readonly #id = randomUUID();
  readonly #store: Store;
  readonly #calls: Calls;
  readonly #random: () => number;
  readonly #name: string;
  #life: Life | null = null;

  constructor(name: string, store: Store, calls: Calls, random: () => number) {
    this.#name = name;
    this.#store = store;
    this.#calls = calls;
    this.#random = random;
  }

  get life(): Life {
    assert.ok(this.#life !== null);
    return this.#life;
  }

  get pipeline(): ReturnType<typeof buildPipeline> {
    const step = (name: string, concurrency: NonNullable<PlainStepOptions["concurrency"]>): PlainStepOptions => ({
      name,
      run: (context) => this.#calls.make(name, this.#name, context),
      rollback: (context) => this.#calls.make(name, this.#name, context),
      retry: { attempts: 4, delay: 5, delayMax: 5, jitter: 0 },
      concurrency,
    });
    const steps = [step("Own", LIMIT), step("Shared", { cluster: LIMIT }), step("Both", { cluster: LIMIT })];
    return buildPipeline({ name: "slots", version: 1, steps });
  }

  async begin(): Promise<void> {
    const store = this.#store;
    const incarnation = await registerNode(store, Date.now(), this.#id);
    const engine = makeEngine({
      store,
      incarnation,
      pipelines: new PipelineSet([this.pipeline]),
      clock: systemClock(),
      random: this.#random,
    });
    const timer = setInterval(() => engine.goOn(), 50);
    this.#life = { engine, incarnation, end: () => clearInterval(timer) };
    await engine.resume(this.#id);
  }

  async crash(): Promise<void> {
    this.life.end();
    this.life.engine.abandon();
    await this.begin();
  }

  async stop(other: Service): Promise<void> {
    const { engine, incarnation, end } = this.life;
    const successors: Successors = {
      choose: () => Promise.resolve({ incarnation: other.life.incarnation, room: 1_000 }),
      tell: (_, orderIds) => other.life.engine.adopt(orderIds),
    };
    end();
    await engine.drain(Math.floor(this.#random() * 20), successors);
    await this.#store.cluster.leave(incarnation);
    await this.begin();
  }
}

test("no slot is lost, and no limit passed, whatever happens to orders that queue for them", async (t: TestContext) => {
  t.diagnostic(`seed ${SEED}`);
  const random = seededRandom(SEED);
  const path = join(temporaryFolder(t), "orders.sqlite");
  const open = (): Promise<Store> => openSqliteStore({ path, now: Date.now, onBroken: assert.ifError });
  const stores = [await open(), await open()] as const;
  const calls = new Calls(random);
  const [left, right] = [
    new Service("left", stores[0], calls, random),
    new Service("right", stores[1], calls, random),
  ] as const;
  await Promise.all([left.begin(), right.begin()]);
  t.after(async () => {
    for (const { life } of [left, right]) {
      life.end();
      life.engine.abandon();
    }
    await Promise.all(stores.map((store) => store.close()));
  });
  const submit = async ({ life, pipeline }: Service): Promise<string> => {
    const outcome = await life.engine.submit({ user: "ann", body: "{}", idempotencyKey: null, pipeline });
    assert.ok(outcome.kind === "accepted", outcome.kind);
    return outcome.orderId;
  };
  const read = async (orderId: string): Promise<StoredOrder> => {
    const order = await stores[0].readOrder(orderId);
    assert.ok(order !== null);
    return order;
  };
  const act = async (orderId: string, request: ActionRequest): Promise<void> => {
    for (const { life } of [left, right]) await life.engine.act(orderId, request);
  };
  const orderIds = await Promise.all(Array.from({ length: ORDERS }, (_, index) => submit(index % 2 ? left : right)));
  for (let turn = 1; turn <= BLOWS * TURNS_PER_BLOW; turn++) {
    const orderId = orderIds[Math.floor(random() * ORDERS)] ?? "";
    const die = random();
    if (die < 0.3) await act(orderId, { action: "cancel", reason: null, ...BY });
    else await act(orderId, { action: die < 0.65 ? "pause" : "resume", ...BY });
    if (turn % TURNS_PER_BLOW > 0) continue;
    const [hit, other] = random() < 0.5 ? [left, right] : [right, left];
    if (random() < 0.6) await hit.crash();
    else await hit.stop(other);
  }

  /** Frees what people and crashes hold up, and resolves when all are final. */
  const allFinal = async (): Promise<boolean> => {
    const orders = await Promise.all(orderIds.map(read));
    const unfinished = orders.filter(({ status }) => !isFinal(status));
    for (const { orderId, status, history } of unfinished) {
      if (status === "paused") await act(orderId, { action: "resume", ...BY });
      if (status === "set_aside" || status === "rollback_incomplete") await act(orderId, { action: "retry", ...BY });
      assert.ok(history.length < 1_000);
    }
    return unfinished.length === 0;
  };
  await waitFor(allFinal, { what: "every order is final" });
  assert.deepEqual(calls.tooMany, []);

  // As many calls as there are slots are under way at once: what is gone holds none of them.
  for (const name of ["Own", ...CLUSTER_STEPS]) {
    calls.held = name;
    orderIds.splice(0);
    orderIds.push(...(await Promise.all(Array.from({ length: 3 * LIMIT }, (_, at) => submit(at % 2 ? left : right)))));
    for (const node of ["left", "right"]) {
      await waitFor(() => calls.of(name, node) === LIMIT, {
        what: () => `all slots of ${name} are taken; ${calls.of(name, node)} are at ${node}; seed ${SEED}`,
      });
    }
    calls.held = "none of them";
    await waitFor(allFinal, { what: "every order is final" });
  }
  assert.deepEqual(calls.tooMany, []);
});
