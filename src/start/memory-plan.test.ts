import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { neededBytes, planConnections, planIntake, planMemory } from "./memory-plan.ts";

const MIB = 1024 ** 2;
const LARGEST_ORDER_BYTES = 512 * 1024;
const CONFIG = { inFlightMax: 200_000, bodyBytesMax: 256 * 1024 };

function ordersAt(limitMib: number): number {
  const plan = planMemory(limitMib * MIB, LARGEST_ORDER_BYTES);
  return plan === null ? 0 : planIntake(plan.oldGenerationBytes, CONFIG).ordersMax;
}

test("whatever the limit and the largest body, all parts together stay within 90 % of it", () => {
  const mib = fc.integer({ min: 1, max: 64 * 1024 });
  fc.assert(
    fc.property(mib, fc.integer({ min: 2, max: 65 * MIB }), (limitMib, largestOrderBytes) => {
      const plan = planMemory(limitMib * MIB, largestOrderBytes);
      if (plan === null) return;
      assert.ok(plan.totalBytes <= 0.9 * limitMib * MIB);
      const parts = plan.oldGenerationBytes + 6 * plan.semiSpaceBytes + plan.storeCacheBytes + plan.bufferBytes;
      assert.ok(parts < plan.totalBytes, "what a node has when idle comes on top");
      for (const part of [plan.semiSpaceBytes, plan.storeCacheBytes, plan.bufferBytes]) assert.ok(part >= MIB);
      const intake = planIntake(plan.oldGenerationBytes, CONFIG);
      const promised = intake.ordersMax * 4096 + intake.bodyBytesMax;
      assert.ok(promised <= plan.oldGenerationBytes / 2, "half of the heap is for what is not promised");
      assert.ok(intake.bodyBytesMax >= 2 * largestOrderBytes, "two of the largest orders fit");
    }),
  );
});

test("clients may hold no more than the buffers that are planned for them, nor more than is of use", () => {
  const most = { connectionsMax: 12_288, receivedBytesMax: 8 * MIB, outgoingBytesMax: 16 * MIB };
  fc.assert(
    fc.property(fc.integer({ min: MIB, max: 1024 * MIB }), (bufferBytes) => {
      const { connectionsMax, receivedBytesMax, outgoingBytesMax } = planConnections(bufferBytes, most);
      assert.ok(connectionsMax * 8 * 1024 + receivedBytesMax + outgoingBytesMax <= bufferBytes);
      assert.ok(connectionsMax >= 64 && connectionsMax <= most.connectionsMax);
      assert.ok(receivedBytesMax > 0 && receivedBytesMax <= most.receivedBytesMax);
      assert.ok(outgoingBytesMax > 0 && outgoingBytesMax <= most.outgoingBytesMax);
    }),
  );
});

test("the table in the docs is what nodes of that size do", () => {
  const page = readFileSync(new URL("../../docs/operations.md", import.meta.url), "utf8");
  const rows = Array.from(
    page.matchAll(/^\| (\d+) MiB.*? \| ([\d,]+) MiB +\| ([\d,]+) +\| ([\d,]+) MiB +\|$/gm),
    (cells) => cells.slice(1).map((cell) => Number(cell.replaceAll(",", ""))),
  );
  assert.ok(rows.length >= 7);
  for (const [limitMib = 0, ...told] of rows) {
    const plan = planMemory(limitMib * MIB, LARGEST_ORDER_BYTES);
    assert.ok(plan !== null);
    const { ordersMax, bodyBytesMax } = planIntake(plan.oldGenerationBytes, CONFIG);
    assert.deepEqual(told, [plan.oldGenerationBytes / MIB, ordersMax, Math.floor(bodyBytesMax / MIB)]);
  }
  const [[least = 0] = []] = rows;
  assert.equal(neededBytes(LARGEST_ORDER_BYTES), least * MIB);
});

test("more memory never means less of anything that is promised", () => {
  let before = 0;
  for (let mib = 16; mib <= 16_384; mib += 16) {
    const orders = ordersAt(mib);
    // A young generation that doubles takes a step from the heap.
    assert.ok(orders >= before * 0.8, `${mib} MiB: ${orders} orders, after ${before}`);
    before = Math.max(before, orders);
  }
  assert.equal(before, 200_000);
});

test("a limit below what is needed is refused, and what is needed is the least, to 16 MiB", () => {
  for (const largestOrderBytes of [1_000, LARGEST_ORDER_BYTES, 8 * MIB, 65 * MIB]) {
    const needed = neededBytes(largestOrderBytes);
    assert.notEqual(planMemory(needed, largestOrderBytes), null);
    assert.equal(planMemory(needed - 16 * MIB, largestOrderBytes), null);
  }
  assert.equal(planMemory(0, LARGEST_ORDER_BYTES), null);
  assert.ok(neededBytes(LARGEST_ORDER_BYTES) < 256 * MIB, "a node starts in a small container");
});

test("a large machine has what it had before there was a plan", () => {
  const plan = planMemory(32 * 1024 * MIB, LARGEST_ORDER_BYTES);
  assert.equal(plan?.semiSpaceBytes, 64 * MIB);
  assert.equal(plan.storeCacheBytes, 64 * MIB);
  assert.ok(plan.oldGenerationBytes >= 4096 * MIB);
});

test("intake promises what was asked for at the most, and something on any heap", () => {
  assert.equal(planIntake(4096 * MIB, { ...CONFIG, inFlightMax: 100 }).ordersMax, 100);
  const tiny = planIntake(16 * MIB, CONFIG);
  assert.ok(tiny.ordersMax > 100 && tiny.incomingBytesMax >= CONFIG.bodyBytesMax);
});
