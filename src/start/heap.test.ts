import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { bufferCollector } from "./heap.ts";

const MIB = 1024 ** 2;

test("buffers are collected when there are more than planned, and again only when more have come", (t) => {
  const { gc } = globalThis;
  let collected = 0;
  globalThis.gc = (() => void collected++) as unknown as NonNullable<typeof gc>;
  t.after(() => (globalThis.gc = gc));
  const received = bufferCollector({
    bufferBytes: 32 * MIB,
    oldGenerationBytes: 0,
    semiSpaceBytes: 0,
    storeCacheBytes: 0,
    totalBytes: 0,
  });
  received(8 * MIB);
  assert.equal(collected, 0, "there are few");
  const kept = [Buffer.alloc(40 * MIB)];
  received(7 * MIB);
  assert.equal(collected, 0, "too little was received to look");
  received(MIB);
  assert.equal(collected, 1);
  received(8 * MIB);
  assert.equal(collected, 1, "all of it is in use");
  kept.push(Buffer.alloc(16 * MIB));
  received(8 * MIB);
  assert.equal(collected, 2);
  assert.equal(kept.length, 2);
});

const CHURN = `
  const { setImmediate: turn } = require("node:timers/promises");
  const { getHeapSpaceStatistics } = require("node:v8");
  const { PerformanceObserver, constants } = require("node:perf_hooks");
  const oldGenerationMib = () => getHeapSpaceStatistics()
    .filter(({ space_name }) => !space_name.startsWith("new_"))
    .reduce((bytes, { space_used_size }) => bytes + space_used_size, 0) / 1024 ** 2;
  const make = (count) => Array.from({ length: count }, (_, at) => ({ at, list: [at] }));
  let collections = 0;
  new PerformanceObserver((list) => {
    for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) collections++;
  }).observe({ entryTypes: ["gc"] });
  /** Makes much that lives for a moment; returns how often the old generation was collected. */
  const churn = async () => {
    const before = collections;
    for (let round = 0, held = []; round < 500; round++) {
      held = round % 20 === 0 ? [] : [...held, make(10_000)];
      await turn();
    }
    return collections - before;
  };`;

/** Runs a script in a process of its own, and returns what it says. */
function run(script: string): unknown {
  const url = JSON.stringify(new URL("heap.ts", import.meta.url).href);
  const source = `${CHURN} void (async () => { const { boundGrowth } = await import(${url}); ${script} })();`;
  return JSON.parse(
    execFileSync(process.execPath, ["--expose-gc", "--max-semi-space-size=2", "-e", source]).toString(),
  );
}

test("a heap of which much is in use grows by some half of it, and is collected more often", () => {
  const { before, bound } = run(`
    const inUse = make(1_200_000);
    const before = await churn();
    boundGrowth();
    gc();
    const bound = await churn();
    console.log(JSON.stringify({ before, bound, kept: inUse.length }));`) as { before: number; bound: number };
  assert.ok(bound > before, `${before} collections where V8 chooses, ${bound} where it grows by some half`);
});

test("where a collection has left much that is not in use any more, another one is made", () => {
  const { left, now } = run(`
    boundGrowth();
    let inUse = make(1_200_000);
    gc();
    const left = oldGenerationMib();
    inUse = null;
    for (let turns = 0; turns < 10; turns++) await turn();
    console.log(JSON.stringify({ left, now: oldGenerationMib() }));`) as { left: number; now: number };
  assert.ok(left > 100, `${left} MiB were left by the first`);
  assert.ok(now < 32, `${now} MiB were left by the second`);
});
