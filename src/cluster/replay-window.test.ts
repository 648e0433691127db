import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { ReplayWindow, WINDOW_COUNTERS } from "./replay-window.ts";

test("each counter is admitted once, in whatever order they come, and what is too far behind the highest one never", () => {
  // Near each other, near the window's ends, and far away.
  const counter = fc.oneof(
    fc.integer({ min: 1, max: 80 }),
    fc.integer({ min: WINDOW_COUNTERS - 40, max: WINDOW_COUNTERS + 80 }),
    fc.integer({ min: 3 * WINDOW_COUNTERS - 3, max: 4 * WINDOW_COUNTERS }),
    fc.integer({ min: Number.MAX_SAFE_INTEGER - WINDOW_COUNTERS - 40, max: Number.MAX_SAFE_INTEGER }),
  );
  fc.assert(
    fc.property(fc.array(counter, { maxLength: 400 }), (counters) => {
      const window = new ReplayWindow();
      const used = new Set<number>();
      let highest = 0;
      for (const next of counters) {
        const due = !used.has(next) && next > highest - WINDOW_COUNTERS;
        assert.equal(window.admit(next), due, `${next} after ${[...used].join(", ")}`);
        if (due) used.add(next);
        highest = Math.max(highest, next);
      }
    }),
  );
});

test("what is no counter is refused, and changes nothing", () => {
  const window = new ReplayWindow();
  for (const none of [0, -1, 1.5, Number.NaN, Infinity, 2 ** 53]) assert.equal(window.admit(none), false, String(none));
  assert.equal(window.admit(1), true);
  assert.equal(window.admit(1), false);
});

test("a whole window of counters is admitted backwards, and not once more", () => {
  const window = new ReplayWindow();
  const counters = Array.from({ length: WINDOW_COUNTERS }, (_, index) => 5 * WINDOW_COUNTERS - index);
  assert.ok(counters.every((counter) => window.admit(counter)));
  assert.ok(counters.every((counter) => !window.admit(counter)));
});
