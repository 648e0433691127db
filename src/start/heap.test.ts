import assert from "node:assert/strict";
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
