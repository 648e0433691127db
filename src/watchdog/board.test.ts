import assert from "node:assert/strict";
import { test } from "node:test";
import { Board } from "./board.ts";

const ORDER_ID = "01a204a2-22c8-7b5a-94c7-d2d300214792";

test("what the main thread shows, another thread sees in the same memory", () => {
  const shown = new Board();
  const seen = new Board(shown.memory);
  assert.equal(seen.lastCall, null);
  shown.tick(5_000);
  shown.noteCall(ORDER_ID, "Charge card");
  assert.deepEqual([seen.ticks, seen.limitMs], [1, 5_000]);
  assert.deepEqual(seen.lastCall, { orderId: ORDER_ID, stepName: "Charge card" });
});

test("a step's name of any length and content is shown as far as there is room", () => {
  const board = new Board();
  board.noteCall(ORDER_ID, "Ünïcode ".repeat(100));
  assert.ok(board.lastCall?.stepName.startsWith("Ünïcode Ünïcode"));
  board.noteCall(ORDER_ID, "B");
  assert.equal(board.lastCall?.stepName, "B");
});
