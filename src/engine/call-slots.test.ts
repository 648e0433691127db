import assert from "node:assert/strict";
import { test } from "node:test";
import { CallMemory } from "./call-memory.ts";
import { CallSlots } from "./call-slots.ts";
import { Slots } from "./slots.ts";

const ALONE = { key: "alone", scope: "node", callsMax: 1 } as const;
const noBytes = (): number => 0;
const STEP = { key: "step", scope: "node", callsMax: 1 } as const;

test("a call that was given up holds the one slot until it has ended, and no other", () => {
  const slots = new Slots(() => undefined);
  const granted: string[] = [];
  const [first, alone, step] = ["first", "alone", "step"].map(
    (name) => new CallSlots(slots, new CallMemory(1), "ann", () => granted.push(name)),
  );
  const call = {};
  assert.ok(first?.take([ALONE, STEP], noBytes) === true);
  assert.deepEqual([alone?.take([ALONE], noBytes), step?.take([STEP], noBytes)], [false, false]);
  first.keepFor(call, ALONE.key);
  first.ended({});
  assert.deepEqual(granted, ["step"]);
  first.ended(call);
  assert.deepEqual(granted, ["step", "alone"]);
});

test("one that holds it on takes its turn behind others when it is called again, and gives it back when it is let go", () => {
  const slots = new Slots(() => undefined);
  const granted: string[] = [];
  const [first, second] = ["first", "second"].map(
    (name) => new CallSlots(slots, new CallMemory(1), "ann", () => granted.push(name)),
  );
  assert.ok(first !== undefined && second !== undefined);
  assert.ok(first.take([ALONE], noBytes));
  assert.equal(second.take([ALONE], noBytes), false);
  first.keepFor({}, ALONE.key);
  assert.equal(first.take([ALONE], noBytes), false);
  assert.deepEqual(granted, ["second"]);
  second.keepFor({}, ALONE.key);
  second.giveBack();
  assert.deepEqual(granted, ["second", "first"]);
});

test("calls wait for memory one behind the other, with their slots, and what one may need is kept for it until it has begun", () => {
  const slots = new Slots(() => undefined);
  const memory = new CallMemory(200);
  const granted: string[] = [];
  const [first, second, third] = ["first", "second", "third"].map(
    (name) => new CallSlots(slots, memory, "ann", () => granted.push(name)),
  );
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  assert.ok(first.take([STEP], () => assert.fail("nothing is to be known of it while there is memory")));
  memory.changed("ann", 150);
  first.giveBack(); // its slot
  assert.equal(
    second.take([STEP], () => 120),
    false,
  );
  assert.equal(second.isQueued, true);
  assert.equal(
    third.take([], () => 30),
    false,
  );
  memory.changed("ann", -50);
  assert.deepEqual(granted, [], "there are 100 in use");
  memory.changed("ann", -1);
  assert.deepEqual(granted, ["second"]);
  assert.equal(memory.bytes, 99 + 120);
  assert.equal(second.take([STEP], noBytes), true, "it has its turn");
  memory.changed("ann", -99);
  memory.changed("ann", 80); // it has begun, and keeps less than it might
  second.begun();
  assert.deepEqual(granted, ["second", "third"]);
  assert.equal(memory.bytes, 80 + 30);
  third.giveBack(); // it is not made after all
  assert.equal(memory.bytes, 80);
  second.giveBack();
  assert.equal(slots.underWay(STEP.key), 0);
  memory.changed("ann", -80);
  assert.equal(memory.isFree("ann"), true);
});

test("a call that waits no longer for memory lets others pass", () => {
  const slots = new Slots(() => undefined);
  const memory = new CallMemory(100);
  const granted: string[] = [];
  const [first, second] = ["first", "second"].map(
    (name) => new CallSlots(slots, memory, "ann", () => granted.push(name)),
  );
  memory.changed("ann", 1_000);
  assert.equal(
    first?.take([], () => 10),
    false,
  );
  assert.equal(
    second?.take([], () => 10),
    false,
  );
  first?.giveBack();
  memory.changed("ann", -1_000);
  assert.deepEqual(granted, ["second"]);
  assert.equal(memory.bytes, 10);
});
