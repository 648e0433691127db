import assert from "node:assert/strict";
import { test } from "node:test";
import { ALL_PARTITIONS, CLUSTER_KEYS, idempotencyKeysKey, openKey, orderKey, partitionKey, probeKey } from "./keys.ts";
import { parseRedirection, parseSlotMap, slotOf } from "./slots.ts";

const ASKED = { host: "10.0.0.1", port: 7000 };

test("slots are those of Redis's specification", () => {
  assert.equal(slotOf("123456789"), 0x31c3); // the checksum's own example
  assert.equal(slotOf("foo"), 12_182);
  assert.equal(slotOf("{user1000}.following"), slotOf("{user1000}.followers"));
  assert.equal(slotOf("foo{bar}{zap}"), slotOf("bar"));
  assert.equal(slotOf("foo{{bar}}zap"), slotOf("{bar"));
  assert.notEqual(slotOf("foo{}{bar}"), slotOf("bar"));
});

test("all keys of a partition are in one slot, and all of the cluster's rows", () => {
  for (const partition of ALL_PARTITIONS) {
    const keys = [partitionKey, openKey, idempotencyKeysKey, probeKey].map((keyOf) => keyOf(partition));
    const slots = new Set([...keys, orderKey(partition, "id")].map(slotOf));
    assert.equal(slots.size, 1);
  }
  assert.equal(new Set(Object.values(CLUSTER_KEYS).map(slotOf)).size, 1);
});

test("redirections are read", () => {
  assert.deepEqual(parseRedirection("MOVED 3999 10.0.0.2:6381", ASKED), {
    kind: "moved",
    slot: 3_999,
    server: { host: "10.0.0.2", port: 6_381 },
  });
  assert.deepEqual(parseRedirection("ASK 3999 redis-2.example:6381", ASKED), {
    kind: "ask",
    slot: 3_999,
    server: { host: "redis-2.example", port: 6_381 },
  });
  assert.deepEqual(parseRedirection("MOVED 1 ::1:6381", ASKED)?.server, { host: "::1", port: 6_381 });
  assert.deepEqual(parseRedirection("MOVED 1 :6381", ASKED)?.server, { host: "10.0.0.1", port: 6_381 });
  assert.equal(parseRedirection("ERR MOVED", ASKED), null);
});

test("the map of slots is read, with servers that don't say where they are", () => {
  const map = parseSlotMap(
    [
      [0, 5460, ["10.0.0.2", 7000, "id-a", []], ["10.0.0.5", 7001, "id-d", []]],
      [5461, 16_383, [null, 7002, "id-b", []]],
    ],
    ASKED,
  );
  assert.deepEqual(map.ranges, [
    { first: 0, last: 5_460, server: { host: "10.0.0.2", port: 7_000 } },
    { first: 5_461, last: 16_383, server: { host: "10.0.0.1", port: 7_002 } },
  ]);
  assert.equal(map.servers.length, 3);
  assert.throws(() => parseSlotMap("no", ASKED));
  assert.throws(() => parseSlotMap([[0, 1]], ASKED));
});
