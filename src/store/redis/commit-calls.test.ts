import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { keyDigest, newOrderId } from "../order-id.ts";
import type { AdvanceWrite, CreateWrite, Write } from "../store.ts";
import { type CommitCall, commitCalls, userDigest } from "./commit-calls.ts";
import {
  changesKey,
  idempotencyKeysKey,
  indexKeys,
  openKey,
  orderKey,
  partitionKey,
  partitionOf,
  userKey,
} from "./keys.ts";
import { OrderLengths, planWrites } from "./order-lengths.ts";
import { encodeNextEvent, encodeOrder } from "./order-text.ts";

const AT_MS = 1_700_000_000_000;

function creation(idempotencyKey: string | null = null): CreateWrite {
  return {
    kind: "create",
    orderId: newOrderId("alice", idempotencyKey),
    user: "alice",
    idempotencyKey,
    pipelineName: "default",
    pipelineVersion: 1,
    event: { kind: "created", atMs: AT_MS, owner: 3, stepName: "A" },
    body: "{}",
  };
}

function advance(orderId: string, owner: number, expectedRevision = 1): AdvanceWrite {
  const event = { kind: "step_completed", atMs: AT_MS, nextStepName: null } as const;
  return {
    kind: "advance",
    orderId,
    owner,
    expectedRevision,
    event,
    newStatus: "completed",
    formerStatus: "running",
    user: "alice",
  };
}

/** The calls for writes of which some states are known, by order id: owner, revision, length. */
function callsFor(
  writes: readonly Write[],
  perPartition: boolean,
  known: Readonly<Record<string, readonly [number, number, number]>> = {},
): CommitCall[] {
  const lengths = new OrderLengths();
  for (const [id, [owner, revision, length]] of Object.entries(known)) lengths.note(id, { owner, revision, length });
  return commitCalls(planWrites(writes, lengths), {
    clusterId: "cluster",
    perPartition,
    entriesKept: 50,
    writesByUser: false,
  });
}

const ID = "01a20555-a213-7a8a-bcda-8ef5fa480007";

test("writes become the keys and arguments that the script describes", () => {
  const keyed = { ...creation("key"), orderId: ID.slice(0, -4) + keyDigest("alice", "key").slice(-4) };
  const there = partitionOf(keyed.orderId) ?? -1;
  assert.notEqual(there, 7);
  const owned = { kind: "owner_changed", atMs: AT_MS, owner: 9 } as const;
  const writes: Write[] = [
    { ...creation(), orderId: ID },
    keyed,
    { ...advance(ID, 3), event: { kind: "step_completed", atMs: AT_MS, nextStepName: "B" }, newStatus: null },
    { ...advance(ID, 3, 2), event: owned, newStatus: null },
    advance(ID, 9, 3),
  ];
  const [call, ...others] = callsFor(writes, false);
  assert.deepEqual(others, []);
  const [create, , next, given] = writes;
  assert.ok(create?.kind === "create" && next?.kind === "advance" && given?.kind === "advance");
  const lengths = [Buffer.byteLength(encodeOrder(create))];
  lengths.push((lengths[0] ?? 0) + Buffer.byteLength(encodeNextEvent(next.event)));
  assert.deepEqual(
    { keys: call?.keys, args: call?.args, places: call?.writes.map(({ place }) => place) },
    {
      keys: [
        [partitionKey(7), partitionKey(there), partitionKey(7)],
        [openKey(7), idempotencyKeysKey(7), ...indexKeys(7)],
        [orderKey(7, ID), userKey(7, userDigest("alice")), orderKey(7, ID), orderKey(7, ID)],
        [openKey(there), idempotencyKeysKey(there), ...indexKeys(there)],
        [orderKey(there, keyed.orderId), userKey(there, userDigest("alice"))],
        [openKey(7), idempotencyKeysKey(7), ...indexKeys(7), orderKey(7, ID)],
        [changesKey(0)],
      ].flat(),
      args: [
        ["cluster", "3", "50"],
        [`"${ID}",1,"alice","${ID}",2,"alice","${ID}",3,"alice","${keyed.orderId}",1,"alice"`],
        ["3", "3", "9"],
        ["3", "c", encodeOrder(create), "running", userDigest("alice")],
        ["a", String(lengths[0]), `,["step_completed",${AT_MS},"B"]`],
        ["o", String(lengths[1]), `,["owner_changed",${AT_MS},9]`, "9"],
        ["1", "k", encodeOrder(keyed), "running", userDigest("alice")],
        [keyDigest("alice", "key")],
        ["1", "n"],
      ].flat(),
      places: [0, 2, 3, 1, 4],
    },
  );
});

test("an advance names the length that its order had at its owner and revision, in bytes, or none where it is in no such state", () => {
  const known = { [ID]: [3, 1, 100] } as const;
  const argsOf = (write: Write): readonly string[] => callsFor([write], false, known)[0]?.args.slice(6) ?? [];
  const event = { kind: "step_completed", atMs: AT_MS, nextStepName: "Ünïcode" } as const;
  assert.deepEqual(argsOf(advance(ID, 3)).slice(0, 3), ["f", "100", `,["step_completed",${AT_MS}]`]);
  assert.deepEqual(argsOf(advance(ID, 3)).slice(3), ["running", "completed", userDigest("alice")]);
  assert.deepEqual(argsOf(advance(ID, 3, 2)), ["n"]);
  assert.deepEqual(argsOf(advance(ID, 4)), ["n"]);
  const text = `,["step_completed",${AT_MS},"Ünïcode"]`;
  const [call] = callsFor([{ ...advance(ID, 3), event, newStatus: null }, advance(ID, 3, 2)], false, known);
  assert.deepEqual(call?.args.slice(6, 9), ["a", "100", text]);
  assert.equal(call?.args[10], String(100 + Buffer.byteLength(text)));
});

test("every write has one place, writes to one partition keep their order, and a call of a cluster has one partition", () => {
  const ids = Array.from({ length: 12 }, () => newOrderId("alice", null));
  const write = fc.record({ id: fc.nat(11), owner: fc.integer({ min: 1, max: 3 }) });
  fc.assert(
    fc.property(fc.array(write, { minLength: 1, maxLength: 60 }), fc.boolean(), (drawn, perPartition) => {
      const writes = drawn.map(({ id, owner }) => advance(ids[id] ?? "", owner));
      const calls = callsFor(writes, perPartition);
      const places = calls.flatMap((call) => call.writes.map(({ place }) => place));
      assert.deepEqual(
        places.toSorted((one, other) => one - other),
        writes.map((_, place) => place),
      );
      for (const call of calls) {
        const last = new Map<number, number>();
        for (const { place } of call.writes) {
          const partition = partitionOf(writes[place]?.orderId ?? "") ?? -1;
          assert.ok((last.get(partition) ?? -1) < place);
          last.set(partition, place);
        }
        if (perPartition) assert.equal(last.size, 1);
      }
      if (!perPartition) assert.equal(calls.length, 1);
    }),
  );
});

test("ids that can't be right are a mistake of the caller", () => {
  assert.throws(() => callsFor([advance("unknown", 1)], false), /not an order id/);
  const digestEnd = Number.parseInt(keyDigest("alice", "key").slice(-4), 16);
  const elsewhere = ID.slice(0, -4) + ((digestEnd + 1) % 0x10000).toString(16).padStart(4, "0");
  assert.throws(() => callsFor([{ ...creation("key"), orderId: elsewhere }], false), /newOrderId/);
});
