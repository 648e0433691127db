import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { handOverTimes, readingOf } from "./clock-reading.ts";

const HOUR_MS = 3_600_000;

for (const jumpMs of [-2 * HOUR_MS, 0, 2 * HOUR_MS]) {
  test(`an order that is given away has waited as long as it has, when the clock was set by ${jumpMs} ms meanwhile`, () => {
    const clock = new ManualClock();
    const sinceMs = clock.now();
    const since = readingOf(clock, sinceMs, null);
    clock.setWall(jumpMs);
    clock.advance(7_000);
    const ownerNowMs = clock.now() + HOUR_MS;
    assert.deepEqual(handOverTimes(clock, since, ownerNowMs), { atMs: ownerNowMs, formerAtMs: sinceMs + 7_000 });
  });
}

test("what is given to a node whose clock is not known is given at this node's time", () => {
  const clock = new ManualClock();
  assert.deepEqual(handOverTimes(clock, null, null), { atMs: clock.now() });
});
