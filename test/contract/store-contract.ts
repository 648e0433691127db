/** What every store must do (src/store/store.ts), as one suite that each store runs on the real thing. */
import assert from "node:assert/strict";
import { randomUUIDv7 } from "node:crypto";
import { test, type TestContext } from "node:test";
import type { Incarnation } from "../../src/order/events.ts";
import { type LeaderRow, type NodeDescription } from "../../src/store/cluster-store.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import {
  type AdvanceWrite,
  type ChangePage,
  type CreateWrite,
  type OrderFilter,
  type OrderPage,
  type OwnedOrder,
  type Store,
  StoreUnavailableError,
  type WriteOutcome,
} from "../../src/store/store.ts";

import { claimTimes } from "../support/claim-times.ts";
import { waitFor } from "../support/wait.ts";
import { ALL_ORDERS } from "../support/all-orders.ts";

/** Gives a store with nothing in it; a second one on the same data with `again`. Both end with the test. */
export type OpenStores = (t: TestContext) => Promise<{ readonly store: Store; readonly again: () => Promise<Store> }>;

const SERVICE_ID = "8cc227c0-8dac-42cf-983e-f7bcb95bf455";
const OTHER_SERVICE_ID = "0b0d1f5e-3f5f-4b62-8b0e-6a5f6f0f2c11";
const AT_MS = 1_700_000_000_000;

function node(serviceId: string): NodeDescription {
  return {
    serviceId,
    url: "http://127.0.0.1:8080",
    version: "1.2.3",
    ttlMs: 5_000,
    process: { host: "host", pid: 7, startTicks: 11 },
  };
}

function register(store: Store, serviceId = SERVICE_ID): Promise<Incarnation> {
  return store.cluster.register(node(serviceId), AT_MS);
}

/** Marks it dead, whatever its heartbeat. */
async function kill(store: Store, incarnation: Incarnation): Promise<void> {
  const { nodes } = await store.cluster.read();
  const row = nodes.find((each) => each.incarnation === incarnation);
  assert.ok(row !== undefined && (await store.cluster.markDead(incarnation, row.heartbeat)));
}

async function claim(store: Store, from: Incarnation, to: Incarnation, limit: number): Promise<readonly OwnedOrder[]> {
  const outcome = await store.claimOrders(from, to, claimTimes(AT_MS + 5), limit);
  assert.ok(outcome.kind === "claimed", outcome.kind);
  assert.deepEqual(outcome.damaged, []);
  return outcome.orders;
}

async function allOrderIds(store: Store, owner: Incarnation, limit: number): Promise<string[]> {
  const ids: string[] = [];
  for (let cursor: string | null = null, first = true; first || cursor !== null; first = false) {
    const page = await store.listOrderIds(owner, cursor, limit);
    ids.push(...page.orderIds);
    cursor = page.next;
  }
  return ids;
}

function creation(owner: number, change: Partial<CreateWrite> = {}): CreateWrite {
  const { user = "user", idempotencyKey = null } = change;
  return {
    kind: "create",
    orderId: newOrderId(user, idempotencyKey),
    user,
    idempotencyKey,
    pipelineName: "default",
    pipelineVersion: 1,
    event: { kind: "created", atMs: AT_MS, owner, stepName: "A" },
    body: '{"item":"book"}',
    ...change,
  };
}

function advance(
  orderId: string,
  owner: number,
  expectedRevision: number,
  change: Partial<AdvanceWrite> = {},
): AdvanceWrite {
  const event = {
    kind: "step_completed",
    atMs: AT_MS + expectedRevision,
    nextStepName: `S${expectedRevision}`,
  } as const;
  return {
    kind: "advance",
    orderId,
    owner,
    expectedRevision,
    event,
    newStatus: null,
    formerStatus: "running",
    user: "user",
    ...change,
  };
}

const completion = {
  event: { kind: "step_completed", atMs: AT_MS + 9, nextStepName: null },
  newStatus: "completed",
} as const;

const kinds = (outcomes: readonly WriteOutcome[]): string[] => outcomes.map(({ kind }) => kind);

export function storeContract(name: string, open: OpenStores): void {
  const contract = (what: string, body: (store: Store, again: () => Promise<Store>) => Promise<void>): void => {
    test(`${name}: ${what}`, async (t) => {
      const { store, again } = await open(t);
      await body(store, again);
    });
  };

  contract("each start of any service gets a higher incarnation", async (store) => {
    const first = await register(store);
    const second = await register(store);
    const third = await register(store, OTHER_SERVICE_ID);
    assert.ok(first > 0 && second > first && third > second);
    assert.equal(await store.cluster.hasService(SERVICE_ID), true);
    assert.equal(await store.cluster.hasService("unknown"), false);
  });

  contract("a created order is read back as it was written, by another connection, too", async (store, again) => {
    const owner = await register(store);
    const write = creation(owner, { user: "Ünïcode 名 \u0000" });
    assert.deepEqual(kinds(await store.commit([write])), ["applied"]);
    const expected = {
      orderId: write.orderId,
      user: write.user,
      pipelineName: "default",
      pipelineVersion: 1,
      status: "running",
      owner,
      ownerServiceId: SERVICE_ID,
      revision: 1,
      history: [write.event],
    };
    assert.deepEqual(await store.readOrder(write.orderId), expected);
    assert.deepEqual(await (await again()).readOrder(write.orderId), expected);
    assert.equal(await store.readOrder(randomUUIDv7()), null);
    assert.deepEqual(await store.readOwned(owner, [write.orderId]), {
      orders: [{ ...expected, body: write.body }],
      damaged: [],
    });
  });

  contract(
    "what nodes divide is changed by who has seen it last, and read with those who are alive",
    async (store, again) => {
      const [one, two] = [await register(store), await register(store, OTHER_SERVICE_ID)];
      assert.deepEqual((await store.cluster.permits("a limit")).record, null);
      assert.equal(await store.cluster.changePermits("a limit", "other", "first"), false, "there is none yet");
      assert.equal(await store.cluster.changePermits("a limit", null, "first"), true);
      assert.equal(await store.cluster.changePermits("a limit", null, "again"), false);
      assert.equal(await store.cluster.changePermits("a limit", "first", "second"), true);
      assert.equal(await store.cluster.changePermits("a limit", "first", "late"), false);
      assert.deepEqual((await store.cluster.permits("another")).record, null);
      await kill(store, one);
      assert.deepEqual(await (await again()).cluster.permits("a limit"), { record: "second", alive: [two] });
      await store.cluster.leave(two);
      assert.deepEqual((await store.cluster.permits("a limit")).alive, []);
    },
  );

  contract(
    "of orders that are asked for by their ids, an owner gets those that are its own and not final",
    async (store, again) => {
      const [owner, other] = [await register(store), await register(store, OTHER_SERVICE_ID)];
      const own = Array.from({ length: 100 }, () => creation(owner));
      const [others, final] = [creation(other), creation(owner)];
      await store.commit([...own, others, final]);
      const completed = advance(final.orderId, owner, 1, completion);
      assert.deepEqual(kinds(await store.commit([completed])), ["applied"]);
      const ids = [...own, others, final].map(({ orderId }) => orderId);
      const { orders, damaged } = await (await again()).readOwned(owner, [...ids, randomUUIDv7(), "nonsense"]);
      assert.deepEqual(damaged, []);
      assert.deepEqual(
        new Map(orders.map(({ orderId, body, history }) => [orderId, { body, history }])),
        new Map(own.map(({ orderId, body, event }) => [orderId, { body, history: [event] }])),
      );
      assert.deepEqual(await store.readOwned(owner, []), { orders: [], damaged: [] });
    },
  );

  contract(
    "an advance adds one event and one revision, and changes the status only where it says so",
    async (store) => {
      const owner = await register(store);
      const { orderId } = await created(store, owner);
      assert.deepEqual(kinds(await store.commit([advance(orderId, owner, 1)])), ["applied"]);
      assert.equal((await store.readOrder(orderId))?.status, "running");
      assert.deepEqual(kinds(await store.commit([advance(orderId, owner, 2, completion)])), ["applied"]);
      const order = await store.readOrder(orderId);
      assert.equal(order?.status, "completed");
      assert.equal(order?.revision, 3);
      assert.deepEqual(
        order?.history.map((event) => event.kind),
        ["created", "step_completed", "step_completed"],
      );
    },
  );

  contract(
    "a write of another owner, at another revision or to no order is refused and changes nothing",
    async (store) => {
      const owner = await register(store);
      const { orderId } = await created(store, owner);
      const other = await register(store, OTHER_SERVICE_ID);
      const before = await store.readOrder(orderId);
      const outcomes = await store.commit([
        advance(orderId, other, 1),
        advance(orderId, owner, 2),
        advance(orderId, owner, 0),
        advance(randomUUIDv7(), owner, 1),
        creation(owner, { orderId }),
      ]);
      assert.deepEqual(kinds(outcomes), ["conflict", "conflict", "conflict", "conflict", "conflict"]);
      assert.deepEqual(await store.readOrder(orderId), before);
    },
  );

  contract("the same advance made twice is applied once", async (store) => {
    const owner = await register(store);
    const { orderId } = await created(store, owner);
    const write = advance(orderId, owner, 1);
    assert.deepEqual(kinds(await store.commit([write, write])), ["applied", "conflict"]);
    assert.deepEqual(kinds(await store.commit([write])), ["conflict"]);
    assert.equal((await store.readOrder(orderId))?.revision, 2);
  });

  contract("nothing changes a final order", async (store) => {
    const owner = await register(store);
    for (const status of ["completed", "failed"] as const) {
      const { orderId } = await created(store, owner);
      await store.commit([advance(orderId, owner, 1, { ...completion, newStatus: status })]);
      assert.deepEqual(kinds(await store.commit([advance(orderId, owner, 2)])), ["conflict"]);
      assert.equal((await store.readOrder(orderId))?.revision, 2);
    }
    assert.deepEqual(await store.listOwners(), []);
    assert.deepEqual(await store.listOrderIds(owner, null, 10), { orderIds: [], next: null });
    await kill(store, owner);
    const other = await register(store, OTHER_SERVICE_ID);
    assert.deepEqual(await store.claimOrders(owner, other, claimTimes(AT_MS), 10), {
      kind: "claimed",
      orders: [],
      damaged: [],
    });
  });

  contract("of many writers of one revision exactly one wins", async (store, again) => {
    const owner = await register(store);
    const { orderId } = await created(store, owner);
    const stores = [store, await again()];
    for (let revision = 1; revision <= 20; revision++) {
      const outcomes = await Promise.all(
        Array.from({ length: 10 }, (_, writer) =>
          (stores[writer % 2] ?? store).commit([advance(orderId, owner, revision)]),
        ),
      );
      assert.equal(outcomes.flat().filter(({ kind }) => kind === "applied").length, 1);
    }
    assert.equal((await store.readOrder(orderId))?.revision, 21);
  });

  contract(
    "a user's idempotency key makes one order, also when two requests race in one batch or in two",
    async (store, again) => {
      const owner = await register(store);
      const write = (): CreateWrite => creation(owner, { idempotencyKey: "key-1" });
      const first = write();
      const outcomes = [
        ...(await store.commit([first, write()])),
        ...(await Promise.all([store.commit([write()]), (await again()).commit([write()])])).flat(),
      ];
      assert.deepEqual(kinds(outcomes), ["applied", "key_taken", "key_taken", "key_taken"]);
      for (const outcome of outcomes.slice(1)) {
        assert.deepEqual(outcome, { kind: "key_taken", orderId: first.orderId, startTimeMs: AT_MS, body: first.body });
      }
      assert.deepEqual(kinds(await store.commit([creation(owner, { idempotencyKey: "key-1", user: "another" })])), [
        "applied",
      ]);
    },
  );

  contract(
    "claiming gives a dead owner's open orders to another, page by page, and the former owner's writes are refused",
    async (store) => {
      const former = await register(store);
      const writes = Array.from({ length: 5 }, () => creation(former));
      const final = creation(former);
      await store.commit([...writes, final, advance(final.orderId, former, 1, completion)]);
      assert.deepEqual(await store.listOwners(), [{ incarnation: former, serviceId: SERVICE_ID, orders: 5 }]);
      await kill(store, former);
      const owner = await register(store, OTHER_SERVICE_ID);

      const pages = [
        await claim(store, former, owner, 3),
        await claim(store, former, owner, 3),
        await claim(store, former, owner, 3),
      ];
      assert.deepEqual(
        pages.map(({ length }) => length),
        [3, 2, 0],
      );
      const claimed = pages.flat();
      assert.deepEqual(new Set(claimed.map(({ orderId }) => orderId)), new Set(writes.map(({ orderId }) => orderId)));
      for (const order of claimed) {
        assert.equal(order.owner, owner);
        assert.equal(order.ownerServiceId, OTHER_SERVICE_ID);
        assert.equal(order.revision, 2);
        assert.equal(order.body, '{"item":"book"}');
        assert.deepEqual(order.history.at(-1), {
          kind: "owner_changed",
          atMs: AT_MS + 5,
          owner,
          callBegun: true,
          former: "died",
        });
        assert.deepEqual({ ...(await store.readOrder(order.orderId)), body: order.body }, order);
        assert.deepEqual(
          kinds(await store.commit([advance(order.orderId, former, 1), advance(order.orderId, former, 2)])),
          ["fenced", "fenced"],
        );
        assert.deepEqual(kinds(await store.commit([advance(order.orderId, owner, 2)])), ["applied"]);
      }
      assert.deepEqual(await store.listOwners(), [{ incarnation: owner, serviceId: OTHER_SERVICE_ID, orders: 5 }]);
    },
  );

  contract(
    "nothing is claimed from an incarnation that never was: it may be given to a node that lives",
    async (store) => {
      const owner = await register(store);
      assert.deepEqual(await store.claimOrders(owner + 1, owner, claimTimes(AT_MS), 10), { kind: "owner_alive" });
    },
  );

  contract("nothing is claimed from a live owner, nor by a dead one", async (store) => {
    const owner = await register(store);
    const { orderId } = await created(store, owner);
    const other = await register(store, OTHER_SERVICE_ID);
    assert.deepEqual(await store.claimOrders(owner, other, claimTimes(AT_MS), 10), { kind: "owner_alive" });
    await kill(store, other);
    await kill(store, owner);
    assert.deepEqual(await store.claimOrders(owner, other, claimTimes(AT_MS), 10), { kind: "fenced" });
    assert.equal((await store.readOrder(orderId))?.owner, owner);
  });

  contract("once a claim has found nothing left, the dead incarnation makes no order any more", async (store) => {
    const former = await register(store);
    await kill(store, former);
    const owner = await register(store, OTHER_SERVICE_ID);
    assert.deepEqual(await claim(store, former, owner, 10), []);
    const late = Array.from({ length: 50 }, (_, index) =>
      creation(former, index % 2 === 0 ? {} : { idempotencyKey: `late-${index}` }),
    );
    assert.deepEqual(new Set(kinds(await store.commit(late))), new Set(["fenced"]));
    for (const { orderId } of late) assert.equal(await store.readOrder(orderId), null);
    const again = late.map(({ user, idempotencyKey }) => creation(owner, { user, idempotencyKey }));
    assert.deepEqual(new Set(kinds(await store.commit(again))), new Set(["applied"]));
  });

  contract("a service that starts again has its former incarnation dead, and takes its orders", async (store) => {
    const former = await register(store);
    const { orderId } = await created(store, former);
    const owner = await register(store);
    assert.deepEqual(
      (await claim(store, former, owner, 10)).map((order) => order.orderId),
      [orderId],
    );
  });

  contract("a claim says whether the former owner has stopped in good order, or died", async (store, again) => {
    const ends: Record<"drained" | "died", ((owner: Incarnation, serviceId: string) => Promise<unknown>)[]> = {
      drained: [
        (owner) => store.cluster.leave(owner),
        async (owner) => {
          await store.cluster.leave(owner);
          await store.cluster.leave(owner);
        },
        async (owner, serviceId) => {
          await store.cluster.leave(owner);
          await register(store, serviceId);
        },
      ],
      died: [
        (owner) => kill(store, owner),
        (_, serviceId) => register(store, serviceId),
        async (owner, serviceId) => {
          await kill(store, owner);
          await register(store, serviceId);
          await store.cluster.leave(owner); // too late: it is its service's former start
        },
      ],
    };
    const other = await again();
    const heir = await register(other, OTHER_SERVICE_ID);
    for (const [former, cases] of Object.entries(ends)) {
      for (const [index, end] of cases.entries()) {
        const serviceId = `${former}-${index}`;
        const owner = await register(store, serviceId);
        await created(store, owner);
        await end(owner, serviceId);
        const [order] = await claim(other, owner, heir, 10);
        assert.deepEqual(order?.history.at(-1), {
          kind: "owner_changed",
          atMs: AT_MS + 5,
          owner: heir,
          callBegun: true,
          former,
        });
      }
    }
  });

  contract("the shape of a pipeline's version is the one that was recorded first", async (store, again) => {
    const { cluster } = await again();
    const label = "a shop's \n 名";
    assert.equal(await cluster.recordedShape(label, 1), null);
    assert.equal(await store.cluster.pipelineShape(label, 1, "[1]"), "[1]");
    assert.equal(await cluster.pipelineShape(label, 1, "[2]"), "[1]");
    assert.equal(await cluster.recordedShape(label, 1), "[1]");
    assert.equal(await cluster.recordedShape(label, 2), null);
  });

  contract("two claims of one owner's orders at once share them without overlap", async (store, again) => {
    const former = await register(store);
    await store.commit(Array.from({ length: 40 }, () => creation(former)));
    await kill(store, former);
    const other = await again();
    const [one, two] = [await register(store, "one"), await register(other, "two")];
    const pages = await Promise.all(
      Array.from({ length: 10 }, (_, turn) =>
        turn % 2 === 0 ? claim(store, former, one, 7) : claim(other, former, two, 7),
      ),
    );
    const ids = pages.flat().map(({ orderId }) => orderId);
    assert.equal(ids.length, 40);
    assert.equal(new Set(ids).size, 40);
  });

  contract("an owner gives orders away by a write of its own, to a node that is alive", async (store) => {
    const owner = await register(store);
    const other = await register(store, OTHER_SERVICE_ID);
    const { orderId } = await created(store, owner);
    const event = { kind: "owner_changed", atMs: AT_MS, owner: other } as const;
    assert.deepEqual(kinds(await store.commit([advance(orderId, owner, 1, { event }), advance(orderId, owner, 2)])), [
      "applied",
      "conflict",
    ]);
    assert.deepEqual(kinds(await store.commit([advance(orderId, other, 2)])), ["applied"]);
    assert.deepEqual(await store.listOwners(), [{ incarnation: other, serviceId: OTHER_SERVICE_ID, orders: 1 }]);
    assert.deepEqual(await allOrderIds(store, other, 10), [orderId]);

    await kill(store, owner);
    await claim(store, owner, other, 10);
    const back = { kind: "owner_changed", atMs: AT_MS, owner } as const;
    assert.deepEqual(kinds(await store.commit([advance(orderId, other, 3, { event: back })])), ["conflict"]);
  });

  contract("an owner's open orders are listed page by page, each once", async (store) => {
    const owner = await register(store);
    const writes = Array.from({ length: 300 }, () => creation(owner));
    const other = await register(store, OTHER_SERVICE_ID);
    await store.commit([...writes, creation(other)]);
    const ids = await allOrderIds(store, owner, 50);
    assert.equal(ids.length, 300);
    assert.deepEqual(new Set(ids), new Set(writes.map(({ orderId }) => orderId)));
  });

  contract("an order that waits for an operator has an owner and can be claimed", async (store) => {
    const former = await register(store);
    const { orderId } = await created(store, former);
    const failed = { kind: "step_failed", atMs: AT_MS, error: "no", rollbackIndex: 0 } as const;
    const abandoned = { kind: "rollback_abandoned", atMs: AT_MS, error: "no" } as const;
    await store.commit([
      advance(orderId, former, 1, { event: failed, newStatus: "rolling_back" }),
      advance(orderId, former, 2, { event: abandoned, newStatus: "rollback_incomplete" }),
    ]);
    const owner = await register(store);
    assert.deepEqual(
      (await claim(store, former, owner, 10)).map((order) => [order.orderId, order.status]),
      [[orderId, "rollback_incomplete"]],
    );
  });

  contract("a store has one cluster identity, whoever asks first", async (store, again) => {
    const other = await again();
    const [one, two] = await Promise.all([store.cluster.identity(), other.cluster.identity()]);
    assert.deepEqual(one, two);
    assert.match(one.clusterId, /^[0-9a-f-]{36}$/);
    assert.ok(one.secret.length >= 32);
    assert.deepEqual(await store.cluster.identity(), one);
  });

  contract("a node's row is read as it was registered, and its heartbeat grows by one", async (store, again) => {
    const incarnation = await register(store);
    const expected = {
      ...node(SERVICE_ID),
      incarnation,
      alive: true,
      heartbeat: 1,
      ordersInFlight: 0,
      lastHeartbeatMs: AT_MS,
    };
    assert.deepEqual((await store.cluster.read()).nodes, [expected]);
    assert.equal(await store.cluster.beat(incarnation, 42, AT_MS + 1), true);
    assert.deepEqual((await (await again()).cluster.read()).nodes, [
      { ...expected, heartbeat: 2, ordersInFlight: 42, lastHeartbeatMs: AT_MS + 1 },
    ]);
    assert.equal(await store.cluster.beat(incarnation + 1, 0, AT_MS), false);
  });

  contract("a node is marked dead only at the heartbeat that was seen, and is never revived", async (store) => {
    const incarnation = await register(store);
    await store.cluster.beat(incarnation, 0, AT_MS);
    assert.equal(await store.cluster.markDead(incarnation, 1), false);
    assert.equal(await store.cluster.markDead(incarnation, 2), true);
    assert.equal(await store.cluster.markDead(incarnation, 2), false);
    assert.equal(await store.cluster.beat(incarnation, 0, AT_MS), false);
    const [row] = (await store.cluster.read()).nodes;
    assert.deepEqual([row?.incarnation, row?.alive, row?.heartbeat], [incarnation, false, 2]);
    const next = await register(store);
    assert.deepEqual(
      (await store.cluster.read()).nodes.map((each) => [each.incarnation, each.alive]),
      [[next, true]],
    );
    assert.equal(await store.cluster.beat(incarnation, 0, AT_MS), false);
  });

  contract("of many that mark a node dead exactly one has done it", async (store, again) => {
    const incarnation = await register(store);
    const stores = [store, await again()];
    const done = await Promise.all(
      Array.from({ length: 10 }, (_, turn) => (stores[turn % 2] ?? store).cluster.markDead(incarnation, 1)),
    );
    assert.equal(done.filter(Boolean).length, 1);
  });

  contract("a node that leaves is dead, is listed no longer, and leads nothing", async (store) => {
    const incarnation = await register(store);
    assert.equal(await store.cluster.claimLeadership(incarnation, (await store.cluster.read()).leader), true);
    await store.cluster.leave(incarnation);
    const { nodes, leader } = await store.cluster.read();
    assert.deepEqual(nodes, []);
    assert.deepEqual([leader.incarnation, leader.term], [null, 1]);
    assert.equal(await store.cluster.beat(incarnation, 0, AT_MS), false);
    assert.equal(await store.cluster.hasService(SERVICE_ID), true);
    const other = await register(store, OTHER_SERVICE_ID);
    assert.deepEqual(await claim(store, incarnation, other, 10), []);
  });

  contract("of all that claim the leadership at once one has it, in the next term", async (store, again) => {
    const other = await again();
    const candidates: Incarnation[] = [];
    for (let index = 0; index < 10; index++) candidates.push(await register(store, `service-${index}`));
    let seen: LeaderRow = (await store.cluster.read()).leader;
    assert.deepEqual([seen.term, seen.incarnation], [0, null]);
    for (let term = 1; term <= 5; term++) {
      const won = await Promise.all(
        candidates.map((candidate, index) =>
          (index % 2 === 0 ? store : other).cluster.claimLeadership(candidate, seen),
        ),
      );
      assert.equal(won.filter(Boolean).length, 1);
      const { leader } = await store.cluster.read();
      assert.deepEqual([leader.term, leader.incarnation], [term, candidates[won.indexOf(true)]]);
      seen = leader;
    }
  });

  contract(
    "a leader renews in its own term only; a renewal that was not seen keeps others from taking over",
    async (store) => {
      const [one, two] = [await register(store, "one"), await register(store, "two")];
      assert.equal(await store.cluster.claimLeadership(one, (await store.cluster.read()).leader), true);
      const seen = (await store.cluster.read()).leader;
      assert.equal(await store.cluster.renewLeadership(one, 1), true);
      assert.equal(await store.cluster.claimLeadership(two, seen), false);
      assert.equal(await store.cluster.renewLeadership(two, 1), false);
      assert.equal(await store.cluster.claimLeadership(two, (await store.cluster.read()).leader), true);
      assert.equal(await store.cluster.renewLeadership(one, 1), false);
      assert.equal(await store.cluster.renewLeadership(two, 2), true);
      await kill(store, one);
      assert.equal(await store.cluster.claimLeadership(one, (await store.cluster.read()).leader), false);
    },
  );

  contract("a service that starts again no longer leads", async (store) => {
    const former = await register(store);
    await store.cluster.claimLeadership(former, (await store.cluster.read()).leader);
    await register(store);
    assert.equal((await store.cluster.read()).leader.incarnation, null);
  });

  contract("its report names the durability", async (store) => {
    const { durability, advice } = await store.report();
    assert.equal(durability, "fsync-always");
    assert.deepEqual(advice, []);
  });

  contract("a batch of thousands of writes answers each in its place", async (store) => {
    const owner = await register(store);
    const writes = Array.from({ length: 3_000 }, () => creation(owner));
    await store.commit(writes);
    const outcomes = await store.commit(
      writes.map(({ orderId }, index) => advance(orderId, owner, index % 3 === 0 ? 7 : 1)),
    );
    assert.ok(outcomes.every(({ kind }, index) => kind === (index % 3 === 0 ? "conflict" : "applied")));
    assert.deepEqual(await store.commit([]), []);
  });

  contract("a probe succeeds on a store that works, again and again", async (store) => {
    await store.probe();
    await store.probe();
  });

  contract("what was asked before the store is closed is done", async (store, again) => {
    const owner = await register(store);
    const write = creation(owner);
    const asked = store.commit([write]);
    await store.close();
    assert.deepEqual(kinds(await asked), ["applied"]);
    assert.equal((await (await again()).readOrder(write.orderId))?.revision, 1);
  });

  contract(
    "what is asked of a store that closes, or is closed, is answered or refused, and no defect",
    async (store) => {
      const { orderId } = creation(await register(store));
      const closing = store.close();
      const meanwhile = store.readOrder(orderId).then(
        (found) => assert.equal(found, null),
        (error: unknown) => assert.ok(error instanceof StoreUnavailableError),
      );
      await closing;
      await meanwhile;
      await assert.rejects(store.readOrder(orderId), StoreUnavailableError);
    },
  );

  contract("orders are listed newest first, page by page, each once, also while others are made", async (store) => {
    const owner = await register(store);
    const ids: string[] = [];
    for (let count = 0; count < 7; count++) ids.push((await created(store, owner)).orderId);
    ids.sort(); // those of one millisecond have no sequence
    const nowMs = Date.now();
    await waitFor(() => Date.now() > nowMs, { what: "the next millisecond" });
    const first = await store.listOrders(ALL_ORDERS, null, 3);
    assert.deepEqual(idsOf(first), ids.toReversed().slice(0, 3));
    const later = (await created(store, owner)).orderId;
    const second = await store.listOrders(ALL_ORDERS, first.next, 3);
    const third = await store.listOrders(ALL_ORDERS, second.next, 3);
    assert.deepEqual([...idsOf(second), ...idsOf(third)], ids.toReversed().slice(3));
    assert.equal(third.next, null);
    assert.deepEqual(idsOf(await store.listOrders(ALL_ORDERS, null, 1)), [later]);
    const [order] = first.orders;
    assert.deepEqual(order, await store.readOrder(ids.at(-1) ?? ""));
  });

  contract("orders are found by user, status, pipeline, step, node and time, alone and together", async (store) => {
    const [owner, other] = [await register(store), await register(store, OTHER_SERVICE_ID)];
    const make = async (change: Partial<CreateWrite> = {}, by = owner): Promise<string> => {
      const write = creation(by, change);
      assert.deepEqual(kinds(await store.commit([write])), ["applied"]);
      return write.orderId;
    };
    const plain = await make();
    const anns = await make({ user: "ann" });
    const elsewhere = await make({}, other);
    const shop = await make({
      pipelineName: "shop",
      event: { kind: "created", atMs: AT_MS, owner, stepName: 'B "x"' },
    });
    const late = await make({ event: { kind: "created", atMs: AT_MS + 5, owner, stepName: "A" } });
    const done = await make();
    const failed = await make({ user: "ann" });
    await store.commit([
      advance(done, owner, 1, completion),
      advance(failed, owner, 1, { event: { ...failure.event, rollbackIndex: null }, newStatus: "failed", user: "ann" }),
    ]);
    const found = async (change: Partial<OrderFilter>): Promise<string[]> =>
      idsOf(await store.listOrders({ ...ALL_ORDERS, ...change }, null, 50));
    const newestFirst = (...orderIds: string[]): string[] => orderIds.toSorted().toReversed();
    assert.deepEqual(await found({ user: "ann" }), newestFirst(anns, failed));
    assert.deepEqual(await found({ user: "nobody" }), []);
    assert.deepEqual(await found({ status: "failed" }), [failed]);
    assert.deepEqual(await found({ status: "failed", user: "ann" }), [failed]);
    assert.deepEqual(await found({ status: "failed", user: "user" }), []);
    assert.deepEqual(await found({ status: "completed" }), [done]);
    assert.deepEqual(await found({ status: "running" }), newestFirst(plain, anns, elsewhere, shop, late));
    assert.deepEqual(await found({ pipelineName: "shop" }), [shop]);
    assert.deepEqual(await found({ ownerServiceId: OTHER_SERVICE_ID }), [elsewhere]);
    assert.deepEqual(await found({ stepName: 'B "x"' }), [shop]);
    assert.deepEqual(await found({ stepName: "Failed" }), [failed]);
    assert.deepEqual(await found({ stepName: "Completed" }), [done]);
    assert.deepEqual(await found({ fromMs: AT_MS + 1, toMs: AT_MS + 6 }), []);
  });

  contract("orders are found by the time of their creation, to the millisecond", async (store) => {
    const owner = await register(store);
    const nowMs = Date.now();
    const ids: string[] = [];
    for (let count = 0; count < 4; count++) {
      const write = creation(owner, { event: { kind: "created", atMs: nowMs + count, owner, stepName: "A" } });
      await store.commit([write]);
      ids.push(write.orderId);
    }
    const page = await store.listOrders({ ...ALL_ORDERS, fromMs: nowMs + 1, toMs: nowMs + 3 }, null, 50);
    // Ids of one millisecond are in no particular order.
    assert.deepEqual(new Set(idsOf(page)), new Set(ids.slice(1, 3)));
  });

  contract("a page looks at so many orders only, and says where to go on", async (store) => {
    const owner = await register(store);
    const wanted = creation(owner, { pipelineName: "wanted" });
    await store.commit([wanted, ...Array.from({ length: 2_500 }, () => creation(owner))]);
    const filter = { ...ALL_ORDERS, pipelineName: "wanted" };
    let pages = 0;
    const found: string[] = [];
    for (let next: string | null = null, first = true; first || next !== null; first = false) {
      const page: OrderPage = await store.listOrders(filter, next, 10);
      found.push(...idsOf(page));
      next = page.next;
      pages++;
    }
    assert.deepEqual(found, [wanted.orderId]);
    assert.ok(pages > 1 && pages < 10, `${pages} pages`);
  });

  contract("orders of a status that few have are found among those of many users, and of each", async (store) => {
    const owner = await register(store);
    const orders = Array.from({ length: 40 }, (_, number) => {
      const event = { kind: "created", atMs: AT_MS, owner, stepName: "A", startAtMs: AT_MS + 9 } as const;
      return creation(owner, { user: `user-${number}`, event });
    });
    await store.commit(orders);
    const all = await store.listOrders({ ...ALL_ORDERS, status: "scheduled" }, null, 50);
    assert.deepEqual(
      idsOf(all),
      orders
        .map(({ orderId }) => orderId)
        .toSorted()
        .toReversed(),
    );
    for (const { user, orderId } of orders) {
      assert.deepEqual(idsOf(await store.listOrders({ ...ALL_ORDERS, status: "scheduled", user }, null, 50)), [
        orderId,
      ]);
    }
  });

  contract("orders are counted by status, for each user and for all, as their writes are applied", async (store) => {
    const owner = await register(store);
    const orders = Array.from({ length: 5 }, () => creation(owner));
    const anns = creation(owner, {
      user: "ann",
      event: { kind: "created", atMs: AT_MS, owner, stepName: "A", startAtMs: AT_MS + 9 },
    });
    await store.commit([...orders, anns]);
    assert.deepEqual(await store.countOrders(null), { running: 5, scheduled: 1 });
    const [one, two, three] = orders.map(({ orderId }) => orderId);
    await store.commit([
      advance(one ?? "", owner, 1, completion),
      advance(one ?? "", owner, 1, completion), // refused
      advance(two ?? "", owner, 1, failure),
      advance(two ?? "", owner, 2, { ...ending, formerStatus: "rolling_back" }),
      advance(three ?? "", owner, 1),
    ]);
    assert.deepEqual(await store.countOrders("user"), { running: 3, completed: 1, failed: 1 });
    assert.deepEqual(await store.countOrders("ann"), { scheduled: 1 });
    assert.deepEqual(await store.countOrders("nobody"), {});
  });

  contract(
    "orders that a person should look at are found page by page, each once, whatever is wrong",
    async (store) => {
      const owner = await register(store);
      const kindsOfOrders = Object.entries(FOR_PEOPLE);
      const orders = Array.from({ length: 120 }, (_, number) => {
        const [kind, events] = kindsOfOrders[number % kindsOfOrders.length] ?? ["", []];
        const write = creation(owner, { user: `user-${number % 3}` });
        return { kind, write, events };
      });
      await store.commit([...orders.map(({ write }) => write), ...Array.from({ length: 50 }, () => creation(owner))]);
      for (const { write, events } of orders) {
        const { orderId, user } = write;
        await store.commit(events.map((event, at) => advance(orderId, owner, at + 1, { ...event, user })));
      }
      const found = async (change: Partial<OrderFilter>): Promise<string[]> => {
        const ids: string[] = [];
        for (let next: string | null = null, first = true; first || next !== null; first = false) {
          const page: OrderPage = await store.listOrders({ ...ALL_ORDERS, ...change }, next, 7);
          ids.push(...idsOf(page));
          next = page.next;
        }
        return ids;
      };
      const due = (which: (order: (typeof orders)[number]) => boolean): string[] =>
        orders
          .filter(which)
          .map(({ write }) => write.orderId)
          .toSorted()
          .toReversed();
      assert.deepEqual(
        await found({ needsPerson: true }),
        due(() => true),
      );
      assert.deepEqual(
        await found({ needsPerson: true, user: "user-1" }),
        due(({ write }) => write.user === "user-1"),
      );
      const shown = { retrying: "running", retrying_rollback: "rolling_back" } as const;
      for (const kind of ["retrying", "retrying_rollback", "set_aside", "rollback_incomplete"] as const) {
        const status = kind in shown ? shown[kind as keyof typeof shown] : (kind as "set_aside");
        const expected = due((order) => order.kind === kind);
        assert.deepEqual(await found({ needsPerson: true, status }), expected, `${kind} for a person`);
        if (status !== "running") assert.deepEqual(await found({ status }), expected, kind);
      }
      const running = await found({ status: "running" });
      assert.equal(running.length, 30 + 50, "those that are tried again without end run, too");
      assert.equal(new Set(running).size, running.length);
      assert.deepEqual(await store.countOrders(null), {
        running: 80,
        rolling_back: 30,
        set_aside: 30,
        rollback_incomplete: 30,
      });
      assert.deepEqual(await store.countOrders("user-0"), {
        running: 10,
        rolling_back: 10,
        set_aside: 10,
        rollback_incomplete: 10,
      });

      for (const { kind, write, events } of orders.slice(0, 4)) {
        const back = { retrying: "running", retrying_rollback: "rolling_back", set_aside: "running" }[kind];
        const event =
          kind === "set_aside"
            ? ({ kind: "retried", atMs: AT_MS, by: "ann" } as const)
            : kind === "rollback_incomplete"
              ? ({ kind: "rollback_retried", atMs: AT_MS, by: "ann" } as const)
              : completion.event;
        const formerStatus = events.at(-1)?.newStatus ?? "running";
        const { orderId, user } = write;
        const newStatus = back === "running" && kind === "retrying" ? "completed" : (back ?? "rolling_back");
        const change =
          kind === "retrying_rollback" ? { ...ending, formerStatus } : ({ event, newStatus, formerStatus } as const);
        const outcomes = await store.commit([
          advance(orderId, owner, events.length + 1, { ...change, user } as Partial<AdvanceWrite>),
        ]);
        assert.deepEqual(kinds(outcomes), ["applied"], kind);
      }
      const gone = new Set(orders.slice(0, 4).map(({ write }) => write.orderId));
      assert.deepEqual(
        await found({ needsPerson: true }),
        due(({ write }) => !gone.has(write.orderId)),
      );
    },
  );

  contract(
    "changes are read in the order of the commits, without gaps or repeats, from wherever one was",
    async (store, again) => {
      const owner = await register(store);
      const start = await changes(store, null);
      assert.deepEqual(start.changes, []);
      const orders = Array.from({ length: 4 }, () => creation(owner));
      await store.commit(orders);
      const [one = "", two = ""] = orders.map(({ orderId }) => orderId);
      await store.commit([advance(one, owner, 1), advance(two, owner, 7), advance(two, owner, 1, completion)]);
      const all = await changes(store, start.next);
      const told = all.changes.map(({ orderId, revision, user }) => [orderId, revision, user]);
      const made = orders.map(({ orderId }) => `${orderId} 1`);
      // On a Redis Cluster only the changes of one partition have an order.
      assert.deepEqual(
        told.map(([id, revision]) => `${id} ${revision}`).toSorted(),
        [...made, `${one} 2`, `${two} 2`].toSorted(),
      );
      for (const id of [one, two])
        assert.deepEqual(
          told.filter(([each]) => each === id).map(([, revision]) => revision),
          [1, 2],
        );
      assert.ok(told.every(([, , user]) => user === "user"));
      const other = await again();
      for (const [at, { cursor }] of all.changes.entries()) {
        assert.deepEqual((await changes(other, cursor)).changes, all.changes.slice(at + 1), "from each change on");
      }
      const bit = await store.readChanges(start.next, 2);
      assert.ok(bit.kind === "changes");
      assert.deepEqual(bit.changes, all.changes.slice(0, 2));
      assert.deepEqual((await changes(store, bit.next)).changes, all.changes.slice(2));
      assert.deepEqual((await changes(store, all.next)).changes, []);
    },
  );

  contract("of a commit of which a part is refused, the rest has changed, whatever users are named", async (store) => {
    const owner = await register(store);
    const keyed = creation(owner, { idempotencyKey: "key", user: 'ann "x" \n é/\u2028' });
    await store.commit([keyed]);
    const { next } = await changes(store, null);
    const again = creation(owner, { idempotencyKey: "key", user: keyed.user, body: "{}" });
    const [one, other] = [creation(owner), creation(owner, { user: keyed.user })];
    const outcomes = await store.commit([one, again, other]);
    assert.deepEqual(kinds(outcomes), ["applied", "key_taken", "applied"]);
    const { changes: seen } = await changes(store, next);
    assert.deepEqual(
      seen.map(({ orderId, revision, user }) => `${orderId} ${revision} ${user}`).toSorted(),
      [one, other].map(({ orderId, user }) => `${orderId} 1 ${user}`).toSorted(),
    );
  });

  contract("an order that is made and final in one commit is nobody's to go on with, and is listed", async (store) => {
    const owner = await register(store);
    const write = creation(owner);
    const outcomes = await store.commit([write, advance(write.orderId, owner, 1, completion)]);
    assert.deepEqual(kinds(outcomes), ["applied", "applied"]);
    assert.deepEqual(await allOrderIds(store, owner, 10), []);
    assert.deepEqual(idsOf(await store.listOrders(ALL_ORDERS, null, 10)), [write.orderId]);
    assert.deepEqual(idsOf(await store.listOrders({ ...ALL_ORDERS, user: "user" }, null, 10)), [write.orderId]);
    assert.deepEqual(await store.countOrders(null), { completed: 1 });
  });

  contract("a page of changes is short only where there are no more, however small the commits were", async (store) => {
    const owner = await register(store);
    const { next } = await changes(store, null);
    for (let count = 0; count < 120; count++) await created(store, owner);
    const first = await changes(store, next);
    assert.equal(first.changes.length, 100);
    assert.equal((await changes(store, first.next)).changes.length, 20);
  });

  contract("an order that is claimed has changed, as any other that changes hands", async (store) => {
    const owner = await register(store);
    const write = creation(owner, { user: 'ann "x" \n é', body: '{\n"item":\n"bök"}' });
    await store.commit([write]);
    const { next } = await changes(store, null);
    const heir = await register(store, OTHER_SERVICE_ID);
    await kill(store, owner);
    await claim(store, owner, heir, 10);
    const { changes: seen } = await changes(store, next);
    assert.deepEqual(
      seen.map(({ orderId, revision, user }) => [orderId, revision, user]),
      [[write.orderId, 2, write.user]],
    );
  });

  contract("a cursor that is none, or was never given out, is gone", async (store) => {
    const owner = await register(store);
    await created(store, owner);
    for (const cursor of [
      "",
      "x",
      "-1",
      "1.5",
      "999999999",
      "9999999999999-0.1",
      "1-1.1",
      "0-0",
      "\u0000",
      "99999999999999999999-1.0",
      "1-99999999999999999999.0",
    ]) {
      assert.deepEqual(await store.readChanges(cursor, 10), { kind: "gone" }, JSON.stringify(cursor));
      const ofEach = Array.from({ length: 32 }, () => cursor).join(",");
      assert.deepEqual(await store.readChanges(ofEach, 10), { kind: "gone" }, ofEach);
    }
  });
}

async function created(store: Store, owner: number): Promise<CreateWrite> {
  const write = creation(owner);
  assert.deepEqual(kinds(await store.commit([write])), ["applied"]);
  return write;
}

const failure = {
  event: { kind: "step_failed", atMs: AT_MS, error: "no", rollbackIndex: 0 },
  newStatus: "rolling_back",
} as const satisfies Partial<AdvanceWrite>;

const ending = {
  event: { kind: "step_rolled_back", atMs: AT_MS, rollbackIndex: null },
  newStatus: "failed",
} as const satisfies Partial<AdvanceWrite>;

const endless = {
  kind: "attempt_failed",
  atMs: AT_MS,
  error: "no",
  delayMs: 1,
  elapsedMs: 1,
  endless: true,
} as const;

/** What leads from a new order to each kind of those that a person should look at. */
const FOR_PEOPLE: Readonly<Record<string, readonly Partial<AdvanceWrite>[]>> = {
  retrying: [{ event: endless, newStatus: "retrying" }],
  retrying_rollback: [failure, { event: endless, newStatus: "retrying_rollback", formerStatus: "rolling_back" }],
  set_aside: [{ event: { kind: "set_aside", atMs: AT_MS, reason: "crashes" }, newStatus: "set_aside" }],
  rollback_incomplete: [
    failure,
    {
      event: { kind: "rollback_abandoned", atMs: AT_MS, error: "no" },
      newStatus: "rollback_incomplete",
      formerStatus: "rolling_back",
    },
  ],
};

function idsOf({ orders }: OrderPage): string[] {
  return orders.map(({ orderId }) => orderId);
}

async function changes(store: Store, cursor: string | null): Promise<Extract<ChangePage, { kind: "changes" }>> {
  const page = await store.readChanges(cursor, 100);
  assert.ok(page.kind === "changes");
  return page;
}
