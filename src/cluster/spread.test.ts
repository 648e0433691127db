import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { spreadOrders } from "./spread.ts";

test("orders go to who has least, until all have as much", () => {
  const nodes = [
    { node: "a", ordersInFlight: 100 },
    { node: "b", ordersInFlight: 0 },
    { node: "c", ordersInFlight: 500 },
  ];
  assert.deepEqual(spreadOrders(50, nodes), [{ node: "b", orders: 50 }]);
  assert.deepEqual(spreadOrders(200, nodes), [
    { node: "b", orders: 150 },
    { node: "a", orders: 50 },
  ]);
  assert.deepEqual(spreadOrders(1_000, [{ node: "a", ordersInFlight: 7 }]), [{ node: "a", orders: 1_000 }]);
  assert.deepEqual(spreadOrders(10, []), []);
  assert.deepEqual(spreadOrders(0, nodes), []);
});

test("every order goes to some node, and no two nodes end further apart than they began or than one order", () => {
  const loads = fc.array(fc.nat(1_000), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(loads, fc.nat(5_000), (ordersInFlight, orders) => {
      const nodes = ordersInFlight.map((load, node) => ({ node, ordersInFlight: load }));
      const shares = spreadOrders(orders, nodes);
      const given = shares.reduce((sum, share) => sum + share.orders, 0);
      assert.equal(given, orders);
      const after = new Map(ordersInFlight.entries());
      for (const share of shares) after.set(share.node, (after.get(share.node) ?? 0) + share.orders);
      const takers = shares.map((share) => after.get(share.node) ?? 0);
      if (takers.length > 0) assert.ok(Math.max(...takers) - Math.min(...takers) <= takers.length);
      for (const [node, load] of after) {
        const tookNothing = !shares.some((share) => share.node === node);
        if (tookNothing && takers.length > 0) assert.ok(load >= Math.max(...takers) - takers.length);
      }
    }),
  );
});
