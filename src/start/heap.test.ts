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
  const settle = async () => {
    gc();
    for (let turns = 0; turns < 10; turns++) await turn();
  };
  let collections = 0;
  new PerformanceObserver((list) => {
    for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) collections++;
  }).observe({ entryTypes: ["gc"] });
  /** Makes much that lives for a moment; returns how often the old generation was collected meanwhile. */
  const churn = async () => {
    await settle();
    const before = collections;
    for (let round = 0, held = []; round < 500; round++) {
      held = round % 20 === 0 ? [] : [...held, make(10_000)];
      await turn();
    }
    return collections - before;
  };`;

/** Runs a script in a process of its own, and returns what it says. */
function run(script: string, heapMib = 4_096): unknown {
  const url = JSON.stringify(new URL("heap.ts", import.meta.url).href);
  const source = `${CHURN} void (async () => { const { boundGrowth } = await import(${url}); ${script} })();`;
  const flags = ["--expose-gc", "--max-semi-space-size=2", `--max-old-space-size=${heapMib}`];
  return JSON.parse(execFileSync(process.execPath, [...flags, "-e", source]).toString());
}

interface Collections {
  readonly muchInUse: number;
  readonly littleInUse: number;
  readonly ended: number;
}

/** How often a heap is collected of which much is in use, then little, then much again after the bound has ended. */
function countCollections(bound: string): Collections {
  return run(`
    const end = ${bound};
    let inUse = make(1_200_000);
    const muchInUse = await churn();
    inUse = null;
    const littleInUse = await churn();
    inUse = make(1_200_000);
    await settle();
    end();
    const ended = await churn();
    console.log(JSON.stringify({ muchInUse, littleInUse, ended, kept: inUse.length }));`) as Collections;
}

test("a heap grows by some half while much of it is in use, and otherwise as V8 finds right", () => {
  const bound = countCollections("boundGrowth()");
  const free = countCollections("() => undefined");
  const seen = `bound: ${JSON.stringify(bound)}, not bound: ${JSON.stringify(free)}`;
  assert.ok(bound.muchInUse > free.muchInUse, seen);
  assert.ok(bound.littleInUse < 2 * free.littleInUse, seen);
  assert.ok(bound.ended < bound.muchInUse, seen);
});

interface Left {
  readonly left: number;
  readonly later: number;
}

/** What a collection has left that is not in use any more, in MiB, and how much of it is there a moment later. */
function leave(heapMib?: number): Left {
  return run(
    `boundGrowth();
    let inUse = make(1_200_000);
    gc();
    const left = oldGenerationMib();
    inUse = null;
    for (let turns = 0; turns < 10; turns++) await turn();
    console.log(JSON.stringify({ left, later: oldGenerationMib() }));`,
    heapMib,
  ) as Left;
}

test("where a collection has left much that is not in use any more, another one is made", () => {
  const { left, later } = leave();
  assert.ok(left > 100, `${left} MiB were left`);
  assert.ok(later < 32, `${later} MiB are there`);
});

test("a heap of less than 2 GiB is collected as V8 finds right", () => {
  const { left, later } = leave(1_024);
  assert.ok(later > left - 16, `${left} MiB were left, ${later} MiB are there`);
});
