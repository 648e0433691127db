import assert from "node:assert/strict";
import { test } from "node:test";
import { decodePermits, divide, encodePermits, type PermitRecord, type Share } from "./permits.ts";

const EMPTY: PermitRecord = { version: 0, shares: [] };

function record(...shares: readonly Share[]): PermitRecord {
  return { version: 9, shares };
}

test("who is alone has what it wants, up to the limit", () => {
  assert.equal(divide(EMPTY, 1, 5, { underWay: 0, wanted: 3 }).allowed, 3);
  assert.equal(divide(EMPTY, 1, 5, { underWay: 0, wanted: 100 }).allowed, 5);
});

test("what another has is left to it, and what it wants of its part is kept for it", () => {
  const other: Share = { incarnation: 2, calls: 4, wanted: 4, turn: 1 };
  assert.equal(divide(record(other), 1, 5, { underWay: 0, wanted: 5 }).allowed, 1);
  assert.equal(divide(record({ ...other, calls: 0, wanted: 9 }), 1, 10, { underWay: 0, wanted: 10 }).allowed, 5);
});

test("who has more than its part may begin nothing until it has given back what another waits for", () => {
  const waiting: Share = { incarnation: 2, calls: 0, wanted: 4, turn: 2 };
  const mine: Share = { incarnation: 1, calls: 4, wanted: 4, turn: 1 };
  const { allowed, record: after } = divide(record(mine, waiting), 1, 4, { underWay: 3, wanted: 4 });
  assert.equal(allowed, 2);
  assert.equal(after.shares.find(({ incarnation }) => incarnation === 1)?.calls, 3, "what is under way counts");
});

test("a record is unchanged where nothing is new, and has no share of who wants nothing", () => {
  const first = divide(EMPTY, 1, 5, { underWay: 0, wanted: 3 });
  assert.deepEqual([first.isNew, first.isListed], [true, true]);
  assert.equal(divide(first.record, 1, 5, { underWay: 1, wanted: 3 }).isNew, false);
  const last = divide(first.record, 1, 5, { underWay: 0, wanted: 0 });
  assert.deepEqual([last.isNew, last.isListed, last.record.shares], [true, false, []]);
  assert.ok(last.record.version > first.record.version, "no record comes twice");
});

test("a record is read as it was written, without those who are dead; what is none is refused", () => {
  const written = record(
    { incarnation: 1, calls: 2, wanted: 3, turn: 4 },
    { incarnation: 7, calls: 0, wanted: 1, turn: 8 },
  );
  assert.deepEqual(decodePermits(encodePermits(written), [7, 1]), written);
  assert.deepEqual(decodePermits(encodePermits(written), [7]).shares, written.shares.slice(1));
  assert.deepEqual(decodePermits(null, [7]), EMPTY);
  for (const text of ["{}", "[1]", '["1",[]]']) assert.throws(() => decodePermits(text, []), /not a record of permits/);
});

for (const [nodes, limit] of [
  [2, 1],
  [3, 1],
  [3, 2],
  [3, 7],
  [5, 4],
] as const) {
  test(`${nodes} nodes that divide ${limit} calls never have more under way, and each gets its part`, () => {
    // Each turn one node looks at the record, and then some calls of it end and others begin.
    let present = EMPTY;
    const alive = Array.from({ length: nodes }, (_, at) => at + 1);
    const state = new Map(alive.map((each) => [each, { underWay: 0, allowed: 0, made: 0 }]));
    let seed = nodes * 31 + limit;
    const random = (): number => (seed = (seed * 48_271) % 2_147_483_647) / 2_147_483_647;
    for (let turn = 0; turn < 4_000; turn++) {
      const self = alive[Math.floor(random() * nodes)] ?? 1;
      const node = state.get(self);
      assert.ok(node !== undefined);
      const division = divide(present, self, limit, { underWay: node.underWay, wanted: limit * 2 });
      present = decodePermits(encodePermits(division.record), alive);
      node.allowed = division.allowed;
      for (const each of state.values()) {
        while (each.underWay > 0 && random() < 0.5) each.underWay--;
        while (each.underWay < each.allowed) {
          each.underWay++;
          each.made++;
        }
      }
      const underWay = Array.from(state.values(), (each) => each.underWay).reduce((sum, each) => sum + each, 0);
      assert.ok(underWay <= limit, `turn ${turn}: ${underWay} under way`);
    }
    const made = Array.from(state.values(), (each) => each.made);
    assert.ok(Math.min(...made) * 3 > Math.max(...made), `calls made: ${made.join(", ")}`);
  });
}
