/** Limits of concurrent calls that hold for a whole cluster: engines of several nodes on one real store. */
import assert from "node:assert/strict";
import { setTimeout as delay } from "node:timers/promises";
import { after as afterAll, before as beforeAll, describe, test, type TestContext } from "node:test";
import type { Engine } from "../../src/engine/engine.ts";
import type { Successors } from "../../src/engine/hand-off.ts";
import { decodePermits } from "../../src/engine/permits.ts";
import type { Incarnation } from "../../src/order/events.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { buildPipeline } from "../../src/pipelines/define-pipeline.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import { type Store, StoreUnavailableError } from "../../src/store/store.ts";
import { makeEngine, registerNode } from "../support/engine.ts";
import { waitFor } from "../support/wait.ts";

interface Node {
  readonly engine: Engine;
  readonly incarnation: Incarnation;
  readonly submit: (orders: number) => Promise<void>;
}

/** What all nodes' calls of the limited step have come to. */
class Calls {
  underWay = 0;
  most = 0;
  readonly made = new Map<Incarnation, number>();
  readonly #tookMs: () => number;
  readonly #mostDue: number;

  /** @param mostDue no call ends before so many have been under way at once */
  constructor(tookMs: () => number, mostDue = 0) {
    this.#tookMs = tookMs;
    this.#mostDue = mostDue;
  }

  async make(incarnation: Incarnation, signal: AbortSignal): Promise<void> {
    this.underWay++;
    this.most = Math.max(this.most, this.underWay);
    this.made.set(incarnation, (this.made.get(incarnation) ?? 0) + 1);
    try {
      do await delay(this.#tookMs(), undefined, { signal });
      while (this.most < this.#mostDue);
    } finally {
      this.underWay--;
    }
  }

  get count(): number {
    return Array.from(this.made.values()).reduce((sum, each) => sum + each, 0);
  }
}

const NOBODY: Successors = { choose: () => Promise.resolve(null), tell: () => Promise.resolve() };

async function nodeOn(t: TestContext, store: Store, calls: Calls, callsMax: number, name: string): Promise<Node> {
  const incarnation = await registerNode(store, Date.now());
  const limited = {
    name: "Limited",
    concurrency: { cluster: callsMax },
    run: ({ signal }: { signal: AbortSignal }) => calls.make(incarnation, signal),
    retry: { attempts: 1_000, delay: 1, delayMax: 1 },
  };
  const pipeline = buildPipeline({ name, version: 1, steps: [limited] });
  const engine = makeEngine({
    store,
    incarnation,
    pipelines: new PipelineSet([pipeline]),
    clock: systemClock(),
  });
  t.after(() => engine.abandon());
  const submission = { user: "ann", body: "{}", idempotencyKey: null, pipeline };
  return {
    engine,
    incarnation,
    submit: async (orders) => {
      const outcomes = await Promise.all(Array.from({ length: orders }, () => engine.submit(submission)));
      assert.ok(outcomes.every(({ kind }) => kind === "accepted"));
    },
  };
}

/** Fails now and then, before or after what it was asked for is done; or does it a while later. */
function moody(store: Store): Store {
  let asked = 0;
  let changes = 0;
  const fail = (): never => {
    throw new StoreUnavailableError("the answer is lost");
  };
  const cluster = Object.assign(Object.create(store.cluster) as Store["cluster"], {
    register: store.cluster.register.bind(store.cluster),
    permits: async (key: string) => (++asked % 7 === 0 ? fail() : await store.cluster.permits(key)),
    changePermits: async (key: string, seen: string | null, record: string) => {
      const change = ++changes;
      const write = (): Promise<boolean> => store.cluster.changePermits(key, seen, record);
      if (change % 5 === 0) {
        setTimeout(() => void write().catch(() => undefined), 1 + Math.random() * 60);
        fail();
      }
      const isWritten = await write();
      return change % 3 === 0 ? fail() : isWritten;
    },
  });
  return new Proxy(store, {
    get: (target, name: keyof Store) => {
      if (name === "cluster") return cluster;
      const value: unknown = target[name];
      return typeof value === "function" ? (value.bind(target) as unknown) : value;
    },
  });
}

/** @param openStore each call makes another connection to the same data */
export function permitsContract(name: string, openStore: () => Promise<Store>): void {
  describe(`${name}: limits of the whole cluster`, () => {
    let store: Store;
    beforeAll(async () => {
      store = await openStore();
    });
    afterAll(() => store.close());

    for (const [callsMax, mood] of [
      [4, "sound"],
      [1, "sound"],
      [3, "moody"],
    ] as const) {
      test(`three nodes make ${callsMax} calls at once together, and all get their part (${mood} store)`, async (t) => {
        const calls = new Calls(() => 2 + Math.random() * 8, callsMax);
        const limit = `three nodes, ${callsMax}, ${mood}`;
        const on = mood === "moody" ? moody(store) : store;
        const nodes = await Promise.all([1, 2, 3].map(() => nodeOn(t, on, calls, callsMax, limit)));
        const each = callsMax === 1 ? 20 : 60;
        await Promise.all(nodes.map((node) => node.submit(each)));
        await waitFor(() => calls.count === 3 * each && calls.underWay === 0, {
          what: () => `${calls.count} calls, ${calls.underWay} under way`,
        });
        assert.equal(calls.most, callsMax);
        assert.deepEqual(Array.from(calls.made.values()), [each, each, each]);
      });
    }

    test("what a node had that stopped, or died, others have", async (t) => {
      const calls = new Calls(() => 60_000);
      const [one, two, three] = await Promise.all(
        [1, 2, 3].map(() => nodeOn(t, store, calls, 2, "those who are gone")),
      );
      assert.ok(one !== undefined && two !== undefined && three !== undefined);
      const made = (node: Node, count: number): Promise<unknown> =>
        waitFor(() => calls.made.get(node.incarnation) === count, { what: `${count} calls of ${node.incarnation}` });
      const isHeardToWant = ({ incarnation }: Node): Promise<boolean> =>
        waitFor(
          async () => {
            const { record } = await store.cluster.permits("those who are gone v1\nLimited");
            return decodePermits(record, [incarnation]).shares.some(({ wanted }) => wanted > 0);
          },
          { what: `all know that ${incarnation} wants calls` },
        );
      await one.submit(2);
      await made(one, 2);
      await two.submit(2);
      await isHeardToWant(two);
      assert.equal(calls.made.get(two.incarnation), undefined, "one has them all");
      await one.engine.drain(0, NOBODY);
      await store.cluster.leave(one.incarnation);
      await made(two, 2);
      await three.submit(2);
      two.engine.abandon();
      await isHeardToWant(three);
      assert.equal(calls.made.get(three.incarnation), undefined, "two is not dead for the store");
      const row = (await store.cluster.read()).nodes.find(({ incarnation }) => incarnation === two.incarnation);
      assert.ok(row !== undefined && (await store.cluster.markDead(two.incarnation, row.heartbeat)));
      await made(three, 2);
    });

    test("who wants nothing any more keeps nothing", async (t) => {
      const calls = new Calls(() => 5);
      const node = await nodeOn(t, store, calls, 2, "idle");
      await node.submit(10);
      const key = "idle v1\nLimited";
      await waitFor(
        async () => {
          const { record } = await store.cluster.permits(key);
          return calls.count === 10 && record !== null && record.endsWith(",[]]");
        },
        { what: "the record is empty" },
      );
    });
  });
}
