import assert from "node:assert/strict";
import { test } from "node:test";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { ParkedOrders } from "./parked-orders.ts";

const HOUR_MS = 3_600_000;
const MINUTE_MS = 60_000;

function parkedOn(clock: ManualClock): { readonly parked: ParkedOrders; readonly due: string[] } {
  const due: string[] = [];
  return { parked: new ParkedOrders({ clock, onDue: (orderIds) => void due.push(...orderIds) }), due };
}

test("an order that is parked until a time of day is due within a minute of the wall clock being set past it", () => {
  const clock = new ManualClock();
  const { parked, due } = parkedOn(clock);
  parked.park("a", "ann", { clock: "wall", atMs: clock.now() + 3 * HOUR_MS });
  clock.advance(HOUR_MS);
  clock.setWall(2 * HOUR_MS);
  assert.deepEqual(due, []);
  clock.advance(MINUTE_MS);
  assert.deepEqual(due, ["a"]);
});

test("an order that is parked until a time of day waits for it when the wall clock is set back", () => {
  const clock = new ManualClock();
  const { parked, due } = parkedOn(clock);
  parked.park("a", "ann", { clock: "wall", atMs: clock.now() + HOUR_MS });
  clock.setWall(-HOUR_MS);
  clock.advance(2 * HOUR_MS - 1);
  assert.deepEqual(due, []);
  clock.advance(1);
  assert.deepEqual(due, ["a"]);
});

test("an order that is parked for a length is due after it, wherever the wall clock is set meanwhile", () => {
  for (const jumpMs of [-2 * HOUR_MS, 2 * HOUR_MS]) {
    const clock = new ManualClock();
    const { parked, due } = parkedOn(clock);
    parked.park("a", "ann", { clock: "monotonic", atMs: clock.monotonic() + HOUR_MS });
    clock.setWall(jumpMs);
    clock.advance(HOUR_MS - 1);
    assert.deepEqual(due, []);
    clock.advance(1);
    assert.deepEqual(due, ["a"]);
  }
});

test("an order whose time has come stays parked, and counted, until it has been read again", () => {
  const clock = new ManualClock();
  const { parked, due } = parkedOn(clock);
  parked.park("late", "ann", { clock: "monotonic", atMs: 20 });
  parked.park("soon", "ann", { clock: "monotonic", atMs: 10 });
  parked.park("never", "bob", null);
  clock.advance(10);
  assert.deepEqual(due, ["soon"]);
  assert.ok(parked.isDue("soon") && !parked.isDue("late"));
  assert.deepEqual([parked.size, parked.countOf("ann"), parked.users], [3, 2, 2]);
  parked.unpark("soon");
  parked.unpark("never");
  assert.deepEqual([parked.size, parked.countOf("ann"), parked.users], [1, 1, 1]);
  parked.unpark("late");
  clock.advance(HOUR_MS);
  assert.deepEqual(due, ["soon"]);
});
