/** What every store must do (src/store/store.ts), as one suite that each store runs on the real thing. */
import assert from "node:assert/strict";
import { randomUUIDv7 } from "node:crypto";
import { test, type TestContext } from "node:test";
import type { AdvanceWrite, CreateWrite, Store, WriteOutcome } from "../../src/store/store.ts";

/** Gives a store with nothing in it; a second one on the same data with `again`. Both end with the test. */
export type OpenStores = (t: TestContext) => Promise<{ readonly store: Store; readonly again: () => Promise<Store> }>;

const SERVICE_ID = "8cc227c0-8dac-42cf-983e-f7bcb95bf455";
const AT_MS = 1_700_000_000_000;

function creation(owner: number, change: Partial<CreateWrite> = {}): CreateWrite {
  return {
    kind: "create",
    orderId: randomUUIDv7(),
    user: "user",
    idempotencyKey: null,
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
  return { kind: "advance", orderId, owner, expectedRevision, event, newStatus: null, ...change };
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
    const first = await store.registerIncarnation(SERVICE_ID, AT_MS);
    const second = await store.registerIncarnation(SERVICE_ID, AT_MS);
    const third = await store.registerIncarnation("another", AT_MS);
    assert.ok(first > 0 && second > first && third > second);
    assert.equal(await store.hasService(SERVICE_ID), true);
    assert.equal(await store.hasService("unknown"), false);
  });

  contract("a created order is read back as it was written, by another connection, too", async (store, again) => {
    const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
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
  });

  contract(
    "an advance adds one event and one revision, and changes the status only where it says so",
    async (store) => {
      const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
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
      const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
      const { orderId } = await created(store, owner);
      const before = await store.readOrder(orderId);
      const outcomes = await store.commit([
        advance(orderId, owner + 1, 1),
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
    const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
    const { orderId } = await created(store, owner);
    const write = advance(orderId, owner, 1);
    assert.deepEqual(kinds(await store.commit([write, write])), ["applied", "conflict"]);
    assert.deepEqual(kinds(await store.commit([write])), ["conflict"]);
    assert.equal((await store.readOrder(orderId))?.revision, 2);
  });

  contract("nothing changes a final order", async (store) => {
    const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
    for (const status of ["completed", "failed"] as const) {
      const { orderId } = await created(store, owner);
      await store.commit([advance(orderId, owner, 1, { ...completion, newStatus: status })]);
      assert.deepEqual(kinds(await store.commit([advance(orderId, owner, 2)])), ["conflict"]);
      const other = await store.registerIncarnation(SERVICE_ID, AT_MS);
      assert.deepEqual(await store.claimOrders(owner, other, AT_MS, 10), { orders: [], damaged: [] });
      assert.equal((await store.readOrder(orderId))?.revision, 2);
    }
  });

  contract("of many writers of one revision exactly one wins", async (store, again) => {
    const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
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
      const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
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
    "claiming gives an owner's open orders to another, page by page, and the former owner's writes are refused",
    async (store) => {
      const former = await store.registerIncarnation(SERVICE_ID, AT_MS);
      const writes = Array.from({ length: 5 }, () => creation(former));
      const final = creation(former);
      await store.commit([...writes, final, advance(final.orderId, former, 1, completion)]);
      const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
      assert.deepEqual(await store.listOwners(), [{ incarnation: former, serviceId: SERVICE_ID }]);

      const pages = [
        await store.claimOrders(former, owner, AT_MS + 5, 3),
        await store.claimOrders(former, owner, AT_MS + 5, 3),
        await store.claimOrders(former, owner, AT_MS + 5, 3),
      ];
      assert.deepEqual(
        pages.map(({ orders }) => orders.length),
        [3, 2, 0],
      );
      const claimed = pages.flatMap(({ orders }) => orders);
      assert.deepEqual(new Set(claimed.map(({ orderId }) => orderId)), new Set(writes.map(({ orderId }) => orderId)));
      for (const order of claimed) {
        assert.equal(order.owner, owner);
        assert.equal(order.revision, 2);
        assert.equal(order.body, '{"item":"book"}');
        assert.deepEqual(order.history.at(-1), { kind: "owner_changed", atMs: AT_MS + 5, owner });
        assert.deepEqual(
          kinds(await store.commit([advance(order.orderId, former, 1), advance(order.orderId, former, 2)])),
          ["conflict", "conflict"],
        );
        assert.deepEqual(kinds(await store.commit([advance(order.orderId, owner, 2)])), ["applied"]);
      }
      assert.deepEqual(await store.listOwners(), [{ incarnation: owner, serviceId: SERVICE_ID }]);
    },
  );

  contract("two claims of one owner's orders at once share them without overlap", async (store, again) => {
    const former = await store.registerIncarnation(SERVICE_ID, AT_MS);
    await store.commit(Array.from({ length: 40 }, () => creation(former)));
    const other = await again();
    const [one, two] = [await store.registerIncarnation("one", AT_MS), await other.registerIncarnation("two", AT_MS)];
    const pages = await Promise.all(
      Array.from({ length: 10 }, (_, turn) =>
        turn % 2 === 0 ? store.claimOrders(former, one, AT_MS, 7) : other.claimOrders(former, two, AT_MS, 7),
      ),
    );
    const ids = pages.flatMap(({ orders }) => orders).map(({ orderId }) => orderId);
    assert.equal(ids.length, 40);
    assert.equal(new Set(ids).size, 40);
  });

  contract("an order that waits for an operator has an owner and can be claimed", async (store) => {
    const former = await store.registerIncarnation(SERVICE_ID, AT_MS);
    const { orderId } = await created(store, former);
    const event = { kind: "rollback_abandoned", atMs: AT_MS, error: "no" } as const;
    await store.commit([advance(orderId, former, 1, { event, newStatus: "rollback_incomplete" })]);
    const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
    const { orders: claimed } = await store.claimOrders(former, owner, AT_MS, 10);
    assert.deepEqual(
      claimed.map((order) => [order.orderId, order.status]),
      [[orderId, "rollback_incomplete"]],
    );
  });

  contract("a batch of thousands of writes answers each in its place", async (store) => {
    const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
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
    const owner = await store.registerIncarnation(SERVICE_ID, AT_MS);
    const write = creation(owner);
    const asked = store.commit([write]);
    await store.close();
    assert.deepEqual(kinds(await asked), ["applied"]);
    assert.equal((await (await again()).readOrder(write.orderId))?.revision, 1);
  });
}

async function created(store: Store, owner: number): Promise<CreateWrite> {
  const write = creation(owner);
  assert.deepEqual(kinds(await store.commit([write])), ["applied"]);
  return write;
}
