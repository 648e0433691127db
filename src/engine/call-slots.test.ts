import assert from "node:assert/strict";
import { test } from "node:test";
import { CallSlots } from "./call-slots.ts";
import { Slots } from "./slots.ts";

const ALONE = { key: "alone", scope: "node", callsMax: 1 } as const;
const STEP = { key: "step", scope: "node", callsMax: 1 } as const;

test("a call that was given up holds the one slot until it has ended, and no other", () => {
  const slots = new Slots(() => undefined);
  const granted: string[] = [];
  const [first, alone, step] = ["first", "alone", "step"].map((name) => new CallSlots(slots, () => granted.push(name)));
  const call = {};
  assert.ok(first?.take([ALONE, STEP]) === true);
  assert.deepEqual([alone?.take([ALONE]), step?.take([STEP])], [false, false]);
  first.keepFor(call, ALONE.key);
  first.ended({});
  assert.deepEqual(granted, ["step"]);
  first.ended(call);
  assert.deepEqual(granted, ["step", "alone"]);
});

test("one that holds it on takes its turn behind others when it is called again, and gives it back when it is let go", () => {
  const slots = new Slots(() => undefined);
  const granted: string[] = [];
  const [first, second] = ["first", "second"].map((name) => new CallSlots(slots, () => granted.push(name)));
  assert.ok(first !== undefined && second !== undefined);
  assert.ok(first.take([ALONE]));
  assert.equal(second.take([ALONE]), false);
  first.keepFor({}, ALONE.key);
  assert.equal(first.take([ALONE]), false);
  assert.deepEqual(granted, ["second"]);
  second.keepFor({}, ALONE.key);
  second.giveBack();
  assert.deepEqual(granted, ["second", "first"]);
});
