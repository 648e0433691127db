import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { FailureDetector, isDeadly } from "./failure-detector.ts";

const TTL_MS = 5_000;
const HEARTBEAT_MS = 1_000;

/** Reads one node's heartbeat at each of these times; a read takes no time. */
function observed(reads: readonly { readonly atMs: number; readonly beat: number }[]): FailureDetector {
  const detector = new FailureDetector(HEARTBEAT_MS);
  for (const { atMs, beat } of reads) detector.observe([{ id: "node", beat: String(beat) }], atMs, atMs);
  return detector;
}

test("a node whose heartbeat has not changed for the TTL is dead, and not a moment before", () => {
  const reads = Array.from({ length: 21 }, (_, turn) => ({ atMs: turn * 250, beat: 7 }));
  assert.equal(isDeadly(observed(reads).silenceOf("node"), TTL_MS), true);
  assert.equal(isDeadly(observed(reads.slice(0, -1)).silenceOf("node"), TTL_MS), false);
});

test("a heartbeat that changes starts the silence anew", () => {
  const detector = observed([
    { atMs: 0, beat: 1 },
    { atMs: 4_900, beat: 1 },
    { atMs: 5_000, beat: 2 },
  ]);
  assert.deepEqual(detector.silenceOf("node"), { silentMs: 0, reads: 1 });
});

test("reads that fail, or an observer that sleeps, make nobody dead: of a long gap one heartbeat's time counts", () => {
  const detector = observed([
    { atMs: 0, beat: 1 },
    { atMs: 250, beat: 1 },
    { atMs: 60_000, beat: 1 },
    { atMs: 120_000, beat: 1 },
  ]);
  assert.deepEqual(detector.silenceOf("node"), { silentMs: 2_250, reads: 4 });
});

test("no silence is deadly before three reads have seen it", () => {
  assert.equal(isDeadly({ silentMs: 60_000, reads: 2 }, TTL_MS), false);
  assert.equal(isDeadly({ silentMs: 60_000, reads: 3 }, TTL_MS), true);
});

test("who was never seen, or is seen no longer, is not silent", () => {
  const detector = observed([
    { atMs: 0, beat: 1 },
    { atMs: 1_000, beat: 1 },
  ]);
  assert.equal(detector.silenceOf("another").reads, 0);
  detector.observe([], 2_000, 2_000);
  assert.equal(detector.silenceOf("node").reads, 0);
});

test("after a reset all silence begins anew", () => {
  const detector = observed(Array.from({ length: 21 }, (_, turn) => ({ atMs: turn * 250, beat: 7 })));
  detector.reset();
  assert.equal(isDeadly(detector.silenceOf("node"), TTL_MS), false);
  detector.observe([{ id: "node", beat: "7" }], 60_000, 60_000);
  assert.deepEqual(detector.silenceOf("node"), { silentMs: 0, reads: 1 });
});

test("what a read itself takes is no silence", () => {
  const detector = new FailureDetector(HEARTBEAT_MS);
  detector.observe([{ id: "node", beat: "1" }], 0, 900);
  detector.observe([{ id: "node", beat: "1" }], 1_000, 1_900);
  assert.deepEqual(detector.silenceOf("node"), { silentMs: 100, reads: 2 });
});

test("a node that beats in time is never dead, however the observer's reads fall", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 30_000 }), { maxLength: 200 }), (gapsMs) => {
      let atMs = 0;
      const detector = new FailureDetector(HEARTBEAT_MS);
      for (const gapMs of gapsMs) {
        atMs += gapMs;
        detector.observe([{ id: "node", beat: String(Math.floor(atMs / HEARTBEAT_MS)) }], atMs, atMs);
        assert.equal(isDeadly(detector.silenceOf("node"), TTL_MS), false);
      }
    }),
  );
});
