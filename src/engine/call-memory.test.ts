import assert from "node:assert/strict";
import { test } from "node:test";
import { CallMemory, type MemoryTaker } from "./call-memory.ts";

function takerOf(memory: CallMemory, granted: string[], user: string, bytes: number): MemoryTaker {
  const taker = { user, memoryGranted: () => void granted.push(user) };
  memory.wait(taker, bytes);
  return taker;
}

test("one user's calls fill half of the memory, and another's begin meanwhile", () => {
  const memory = new CallMemory(1_000);
  for (let call = 0; memory.isFree("mallory") && call < 100; call++) memory.changed("mallory", 100);
  assert.equal(memory.bytes, 500);
  for (let call = 0; memory.isFree("bob") && call < 100; call++) memory.changed("bob", 10);
  assert.equal(memory.bytes, 750, "he has half of the rest");
  assert.equal(memory.isFree("carol"), true);
});

test("however many users there are, there is no more than the bound, and one call that is begun", () => {
  const memory = new CallMemory(1_000);
  let calls = 0;
  for (let user = 0; user < 10_000; user++) {
    if (!memory.isFree(`user ${user}`)) continue;
    memory.changed(`user ${user}`, 30);
    calls++;
  }
  assert.ok(calls > 30 && memory.bytes < 1_030, `${calls} calls, ${memory.bytes} bytes`);
});

test("a call may begin whatever it keeps while no other keeps anything", () => {
  const memory = new CallMemory(10);
  const granted: string[] = [];
  assert.equal(memory.isFree("ann"), true);
  memory.changed("ann", 1_000_000);
  takerOf(memory, granted, "ann", 1_000_000);
  memory.changed("ann", -1_000_000);
  assert.deepEqual(granted, ["ann"]);
});

test("users take turns, and of one who waits no longer nothing is kept", () => {
  const memory = new CallMemory(100);
  const granted: string[] = [];
  memory.changed("zoe", 1_000);
  for (let call = 0; call < 3; call++) takerOf(memory, granted, "ann", 10);
  const left = takerOf(memory, granted, "carol", 10);
  for (let call = 0; call < 2; call++) takerOf(memory, granted, "bob", 10);
  memory.leave(left);
  assert.equal(memory.isFree("carol"), false, "there is no room");
  memory.changed("zoe", -1_000);
  assert.deepEqual(granted, ["ann", "bob", "ann", "bob", "ann"]);
  assert.equal(memory.bytes, 50);
  memory.changed("ann", -30);
  memory.changed("bob", -20);
  assert.equal(memory.bytes, 0);
});

test("in a long run of calls that begin, wait, leave and end nothing is left over, and nobody waits for ever", () => {
  const memory = new CallMemory(1_000);
  let seed = 7;
  const random = (below: number): number => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    return Math.floor((seed / 2 ** 31) * below);
  };
  const underWay: { user: string; bytes: number }[] = [];
  const waiting = new Set<MemoryTaker>();
  for (let step = 0; step < 20_000; step++) {
    const user = `user ${random(5)}`;
    const bytes = 1 + random(400);
    const what = random(10);
    if (what < 5) {
      if (memory.isFree(user)) {
        memory.changed(user, bytes);
        underWay.push({ user, bytes });
      } else {
        const taker: MemoryTaker = {
          user,
          memoryGranted: (kept) => {
            waiting.delete(taker);
            underWay.push({ user, bytes: kept });
          },
        };
        waiting.add(taker);
        memory.wait(taker, bytes);
      }
    } else if (what < 6) {
      const [taker] = waiting;
      if (taker === undefined) continue;
      waiting.delete(taker);
      memory.leave(taker);
    } else {
      const [ended] = underWay.splice(random(underWay.length), 1);
      if (ended !== undefined) memory.changed(ended.user, -ended.bytes);
    }
    assert.ok(underWay.length > 0 || waiting.size === 0, `${waiting.size} wait for nothing`);
    assert.ok(memory.bytes < 1_400, `${memory.bytes} bytes`);
  }
  while (underWay.length > 0) {
    const [ended] = underWay.splice(0, 1);
    if (ended !== undefined) memory.changed(ended.user, -ended.bytes);
  }
  assert.equal(waiting.size, 0);
  assert.equal(memory.bytes, 0);
});
