import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { Turns } from "./turns.ts";

test("kinds take turns, each of them in the order in which they came", async () => {
  const served: string[] = [];
  const turns = new Turns<string>(
    (item) => served.push(item),
    () => false,
  );
  for (let at = 0; at < 3; at++) turns.add(`fresh ${at}`, "fresh");
  turns.add("ahead", "ahead");
  turns.add("body", "bodies");
  turns.add("first", "checks");
  turns.add("gone", "checks");
  turns.delete("gone", "checks");
  while (served.length < 6) await nextTurn();
  assert.deepEqual(served, ["first", "fresh 0", "ahead", "body", "fresh 1", "fresh 2"]);
});

test("what is served in a turn takes 5 ms at the most, with what it causes", async () => {
  let nowMs = 0;
  const served: number[] = [];
  const turns = new Turns<number>(
    (item) =>
      void Promise.resolve().then(() => {
        nowMs += 4;
        served.push(item);
      }),
    () => false,
    { now: () => nowMs, work: () => nowMs },
  );
  for (let at = 0; at < 10; at++) turns.add(at, "fresh");
  assert.equal(turns.mayServe(), false);
  const lengths: number[] = [];
  while (served.length < 10) {
    await nextTurn();
    lengths.push(served.length);
  }
  for (const [at, length] of lengths.entries()) assert.ok(length - (lengths[at - 1] ?? 0) <= 2, lengths.join());
  assert.deepEqual(served, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
});

test("something may be done at once while nobody waits, for 5 ms, and for 80 more where much waits", () => {
  let nowMs = 0;
  let isFull = false;
  const turns = new Turns<number>(
    () => undefined,
    () => isFull,
    { now: () => nowMs, work: () => nowMs },
  );
  assert.equal(turns.mayServe(), true);
  nowMs = 4;
  assert.equal(turns.mayServe(), true);
  nowMs = 5;
  assert.equal(turns.mayServe(), false);
  isFull = true;
  assert.equal(turns.mayServe(), true);
  nowMs = 84;
  assert.equal(turns.mayServe(), true);
  nowMs = 85;
  assert.equal(turns.mayServe(), false);
});

test("while connections come, what is received waits, and gets a part of the time", async () => {
  let nowMs = 1_000;
  const served: number[] = [];
  const turns = new Turns<number>(
    (item) => {
      nowMs += 5;
      served.push(item);
    },
    () => false,
    { now: () => nowMs, work: () => nowMs },
  );
  assert.equal(turns.mayServe(), true);
  for (let at = 0; at < 100; at++) turns.add(at, "fresh");
  for (let connections = 0; connections < 100; connections++) {
    turns.accepted();
    assert.equal(turns.mayServe(), false);
    nowMs += 1;
    await nextTurn();
  }
  // 5 ms that were left, 0.1 ms of each connection, a sixteenth of what they took: some 21 ms.
  assert.ok(served.length >= 3 && served.length <= 7, `${served.length}`);
  while (served.length < 100) await nextTurn();
  assert.ok(nowMs >= 1_600);
});

test("what takes long while connections come does not have all others wait for as long as it would take to make up for it", async () => {
  let nowMs = 1_000;
  const served: number[] = [];
  const turns = new Turns<number>(
    (takesMs) => {
      nowMs += takesMs;
      served.push(takesMs);
    },
    () => false,
    { now: () => nowMs, work: () => nowMs },
  );
  turns.accepted();
  turns.add(500, "bodies");
  for (let turn = 0; served.length === 0 && turn < 1_000; turn++) {
    turns.accepted();
    nowMs += 1;
    await nextTurn();
  }
  turns.add(1, "checks");
  const fromMs = nowMs;
  while (served.length < 2 && nowMs < fromMs + 10_000) {
    turns.accepted();
    nowMs += 1;
    await nextTurn();
  }
  assert.ok(nowMs - fromMs < 100, `it waited for ${nowMs - fromMs} ms`);
});

test("large answers take turns with what is received", async () => {
  const served: string[] = [];
  const turns = new Turns<string>(
    (item) => served.push(item),
    () => false,
  );
  for (const item of ["answer 1", "answer 2"]) turns.add(item, "large");
  for (const item of ["request 1", "request 2"]) turns.add(item, "fresh");
  for (let turn = 0; turn < 5 && served.length < 4; turn++) await nextTurn();
  assert.deepEqual(served, ["request 1", "answer 1", "request 2", "answer 2"]);
});
