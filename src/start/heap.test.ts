import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { test } from "node:test";
import { boundGrowth, bufferCollector } from "./heap.ts";

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

test("the heap grows slowly while there are many connections, and as V8 finds right before and afterwards", () => {
  const flags: string[] = [];
  const connections = boundGrowth((flag) => void flags.push(flag));
  for (let count = 0; count < 300; count++) connections(count);
  assert.deepEqual(flags, []);
  connections(300);
  connections(301);
  connections(150);
  assert.deepEqual(flags, ["--heap-growing-percent=60"]);
  for (const count of [149, 200, 299]) connections(count);
  assert.deepEqual(flags, ["--heap-growing-percent=60", "--heap-growing-percent=0"]);
});

test("V8 hears while it runs how its heap is to grow", () => {
  const script = `
    const { setFlagsFromString } = require("node:v8");
    const { PerformanceObserver, constants } = require("node:perf_hooks");
    const kept = Array.from({ length: 400_000 }, (_, at) => ({ at, list: [at] }));
    const collections = (flag) => new Promise((resolve) => {
      setFlagsFromString(flag);
      gc();
      let count = 0;
      const observer = new PerformanceObserver((list) => {
        for (const { detail } of list.getEntries()) if (detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR) count++;
      });
      observer.observe({ entryTypes: ["gc"] });
      let hold = [];
      for (let made = 0; made < 6_000_000; made++) {
        hold.push({ made, list: [made] });
        if (hold.length > 300_000) hold = [];
      }
      setTimeout(() => { observer.disconnect(); resolve(count); }, 100);
    });
    void (async () => {
      const [few, many] = [await collections("--heap-growing-percent=0"), await collections("--heap-growing-percent=60")];
      console.log(JSON.stringify({ few, many, kept: kept.length }));
    })();`;
  const { few, many } = JSON.parse(execFileSync(process.execPath, ["--expose-gc", "-e", script]).toString()) as {
    few: number;
    many: number;
  };
  assert.ok(many > few, `${few} collections where V8 chooses, ${many} where it grows by 60 %`);
});
