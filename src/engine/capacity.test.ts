import assert from "node:assert/strict";
import { test } from "node:test";
import { Capacity, type PlacesTaken } from "./capacity.ts";

const LIMITS = { ordersMax: 100, bodyBytesMax: 10_000, callBytesMax: 10_000, largestOrderBytes: 1_000 };
const PARKED_MAX = 400;

interface Taken {
  readonly inFlight?: number;
  readonly parked?: Record<string, number>;
  readonly unread?: number;
}

function capacityWith({ inFlight = 0, parked = {}, unread = 0 }: Taken, limits = LIMITS): Capacity {
  const taken: PlacesTaken = {
    inFlight,
    unread,
    parked: Object.values(parked).reduce((sum, count) => sum + count, 0),
    parkingUsers: Object.keys(parked).length,
    parkedOf: (user) => parked[user] ?? 0,
  };
  return new Capacity(limits, () => taken);
}

const now = { bytes: 10, isForLater: false };
const later = { bytes: 10, isForLater: true };

test("one user's parked orders fill no more than half of the places, and the others go on", () => {
  const capacity = capacityWith({ parked: { ann: PARKED_MAX / 2 } });
  assert.equal(capacity.admits({ ...later, user: "ann" }), false);
  assert.equal(capacity.admits({ ...now, user: "ann" }), false);
  assert.equal(capacity.admits({ ...now, user: "bob" }), true);
  assert.equal(capacity.admits({ ...later, user: "bob" }), true);
  assert.equal(capacityWith({ parked: { ann: PARKED_MAX / 2 - 1 } }).admits({ ...later, user: "ann" }), true);
});

test("above half of the places, who has most parked orders is refused first", () => {
  const capacity = capacityWith({ parked: { ann: 150, bob: 60 } });
  assert.equal(capacity.admits({ ...now, user: "ann" }), false);
  assert.equal(capacity.admits({ ...now, user: "bob" }), true);
});

test("orders for later of any number of users leave a quarter of the places to those that run at once", () => {
  const parked = Object.fromEntries(Array.from({ length: 300 }, (_, at) => [`user ${at}`, 1]));
  const capacity = capacityWith({ parked });
  assert.equal(capacity.admits({ ...later, user: "new" }), false);
  assert.equal(capacity.admits({ ...now, user: "new" }), true);
  assert.equal(capacity.roomForUnread, 10, "as many as there is memory for, at their largest");
});

test("what is in flight, parked or read together takes no more places and memory than there are", () => {
  assert.equal(capacityWith({ inFlight: 100 }).admits({ ...now, user: "ann" }), false);
  assert.equal(capacityWith({ inFlight: 99 }).admits({ ...now, user: "ann" }), true);
  const capacity = capacityWith({});
  capacity.take(9_991);
  assert.equal(capacity.admits({ ...now, user: "ann" }), false);
  assert.equal(capacity.roomForUnread, 0);
  assert.equal(capacityWith({ unread: 4 }).roomForGiven, 6);
});

test("however many are parked, those whose time has come find all places free that no order in flight has", () => {
  const parked = { ann: PARKED_MAX / 2, bob: PARKED_MAX };
  const limits = { ...LIMITS, largestOrderBytes: 100 };
  const room = (inFlight: number): number => capacityWith({ inFlight, parked }, limits).roomForUnread;
  assert.deepEqual([room(0), room(24), room(99), room(100)], [100, 76, 1, 0]);
  assert.equal(capacityWith({ parked }).admits({ ...now, user: "eve" }), false);
  assert.equal(capacityWith({ parked: { ann: 4 } }, { ...LIMITS, ordersMax: 1 }).roomForUnread, 1);
});

test("orders that are to be read get the places and the memory that become free, before new ones do", () => {
  assert.equal(capacityWith({ inFlight: 96, unread: 3 }).admits({ ...now, user: "ann" }), true);
  assert.equal(capacityWith({ inFlight: 96, unread: 4 }).admits({ ...now, user: "ann" }), false);
  const capacity = capacityWith({ unread: 1 });
  capacity.take(8_990);
  assert.equal(capacity.admits({ ...now, user: "ann" }), true);
  capacity.take(1);
  assert.equal(capacity.admits({ ...now, user: "ann" }), false);
  assert.equal(capacity.roomForUnread, 1);
});
