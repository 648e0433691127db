import assert from "node:assert/strict";
import { test } from "node:test";
import type { OrderEvent } from "../../src/order/events.ts";
import type { StoreRow } from "../crash/store-content.ts";
import { type ClusterEvidence, type ClusterRule, findClusterViolations, moveAgainMs } from "./cluster-checker.ts";
import type { RecordEntry } from "./node-record.ts";

/** Process 11 is incarnation 1, of service a; process 22 is incarnation 2, of service b. */
const A = 11;
const B = 22;

const CREATED: OrderEvent = { kind: "created", atMs: 1, owner: 1, stepName: "A" };
const TO_B: OrderEvent = { kind: "owner_changed", atMs: 2, owner: 2 };
const STEP: OrderEvent = { kind: "step_completed", atMs: 3, nextStepName: "B" };
const END: OrderEvent = { kind: "step_completed", atMs: 4, nextStepName: null };

const ROW: StoreRow = {
  orderId: "1",
  idempotencyKey: null,
  status: "completed",
  owner: 2,
  revision: 4,
  history: [CREATED, TO_B, STEP, END],
  body: "{}",
};

const REGISTERED: readonly RecordEntry[] = [
  { kind: "registered", pid: A, serviceId: "a", incarnation: 1, startMs: 0, endMs: 1 },
  { kind: "registered", pid: B, serviceId: "b", incarnation: 2, startMs: 0, endMs: 1 },
];
const BEATS: readonly RecordEntry[] = [
  { kind: "beat", pid: A, incarnation: 1, alive: true, startMs: 5, endMs: 6 },
  { kind: "beat", pid: B, incarnation: 2, alive: true, startMs: 25, endMs: 26 },
];
const CREATION: RecordEntry = write(A, 1, 0, CREATED, 7);
const ASKED: RecordEntry = { kind: "death_asked", pid: B, incarnation: 1, heartbeat: 2, startMs: 20 };
const DEATH: RecordEntry = { ...ASKED, kind: "death", done: true, endMs: 21 };
const CLAIM: RecordEntry = {
  kind: "claim",
  pid: B,
  from: 1,
  to: 2,
  outcome: "claimed",
  orderIds: ["1"],
  wasLast: true,
  startMs: 22,
  endMs: 23,
};
const WRITES: readonly RecordEntry[] = [write(B, 2, 2, STEP, 24), write(B, 2, 3, END, 25)];

/** Incarnation 1 is killed with an order, and incarnation 2 goes on with it: nothing is wrong. */
const WELL: ClusterEvidence = {
  stored: [ROW],
  record: [...REGISTERED, ...BEATS, CREATION, ASKED, DEATH, CLAIM, ...WRITES],
  faults: [{ pid: A, askedMs: 10, surelyMs: 11 }],
  ttlMs: 10,
};

test("finds nothing wrong with a takeover after a kill", () => {
  assert.deepEqual(findClusterViolations(WELL), []);
});

test("finds nothing wrong with late writes that were refused", () => {
  const late: RecordEntry = { ...write(A, 1, 1, STEP, 30), outcome: "fenced" };
  assert.deepEqual(findClusterViolations({ ...WELL, record: [...WELL.record, late] }), []);
});

test("finds nothing wrong with a claim whose asker was killed before it heard that the death was written", () => {
  const record = WELL.record.filter((entry) => entry !== DEATH);
  assert.deepEqual(findClusterViolations({ ...WELL, record }), []);
});

test("finds nothing wrong with a death of a node whose last heartbeat came between the order to kill it and its end", () => {
  const beat: RecordEntry = { kind: "beat", pid: A, incarnation: 1, alive: true, startMs: 12, endMs: 13 };
  const record = [...REGISTERED, ...BEATS, beat, CREATION, { ...ASKED, heartbeat: 3 }, { ...DEATH, heartbeat: 3 }];
  const evidence = { ...WELL, record: [...record, CLAIM, ...WRITES] };
  const faultUntil = (surelyMs: number): ClusterEvidence => ({
    ...evidence,
    faults: [{ pid: A, askedMs: 10, surelyMs }],
  });
  assert.deepEqual(findClusterViolations(faultUntil(12)), []);
  assert.deepEqual(findClusterViolations(faultUntil(Number.POSITIVE_INFINITY)), []);
  assert.deepEqual(rulesIn(faultUntil(11)), ["false_failover"], "a heartbeat after its end proves that it lived");
});

test("finds that a node that joined again after a fault is dead without one", () => {
  const again: RecordEntry = { kind: "registered", pid: A, serviceId: "a", incarnation: 3, startMs: 30, endMs: 31 };
  const asked: RecordEntry = { ...ASKED, incarnation: 3, heartbeat: 1, startMs: 33 };
  const death: RecordEntry = { ...DEATH, incarnation: 3, heartbeat: 1, startMs: 33, endMs: 34 };
  assert.deepEqual(rulesIn({ ...WELL, record: [...WELL.record, again, asked, death] }), ["false_failover"]);
});

/** Incarnation 1, to which nothing is done, whose last heartbeat is asked at 5 and which is taken for dead at 20. */
const SILENT: ClusterEvidence = { ...WELL, faults: [] };

test("finds nothing wrong with the death of a node that the machine kept from its heartbeats for the whole TTL", () => {
  const stalled = (startMs: number, endMs: number): RecordEntry => ({ kind: "stall", pid: A, startMs, endMs });
  const slowBeat: RecordEntry = { kind: "beat", pid: A, incarnation: 1, alive: false, startMs: 8, endMs: 24 };
  const withEntry = (entry: RecordEntry, ttlMs = 10): ClusterEvidence => ({
    ...SILENT,
    record: [...SILENT.record, entry],
    ttlMs,
  });
  assert.deepEqual(findClusterViolations(withEntry(stalled(7, 25))), []);
  assert.deepEqual(findClusterViolations(withEntry(slowBeat)), [], "its heartbeat was under way all the time");
  assert.deepEqual(rulesIn(withEntry(stalled(7, 25), 16)), ["false_failover"], "it was silent for less than the TTL");
  assert.deepEqual(rulesIn(withEntry(stalled(7, 9))), ["false_failover"], "it could have told that it lives");
  assert.deepEqual(rulesIn(withEntry({ ...stalled(7, 25), pid: B })), ["false_failover"], "another one was kept");
});

test("finds that a node is dead for its silence while nobody reached the store", () => {
  const record: readonly RecordEntry[] = [...SILENT.record, { kind: "stall", pid: A, startMs: 7, endMs: 25 }];
  assert.deepEqual(findClusterViolations({ ...SILENT, record, storeBackMs: 9 }), []);
  assert.deepEqual(rulesIn({ ...SILENT, record, storeBackMs: 11 }), ["false_failover"]);
});

test("a node whose port refuses connections may be dead after one and a half heartbeats, if the machine kept it from them", () => {
  const record: readonly RecordEntry[] = [...SILENT.record, { kind: "stall", pid: A, startMs: 7, endMs: 25 }];
  const refuses = { pid: A, startMs: 2, endMs: 50 };
  assert.deepEqual(findClusterViolations({ ...SILENT, record, ttlMs: 40, refusals: [refuses] }), []);
  assert.deepEqual(rulesIn({ ...SILENT, record, ttlMs: 40 }), ["false_failover"]);
  assert.deepEqual(rulesIn({ ...SILENT, record, ttlMs: 60, refusals: [refuses] }), ["false_failover"]);
});

expectRule("written_by_non_owner", "a write that was confirmed to the former owner", {
  record: [...WELL.record, write(A, 1, 2, STEP, 30)],
});

expectRule("confirmed_write_missing", "a confirmed write in whose place the history has another event", {
  record: [...WELL.record, write(A, 1, 1, STEP, 21)],
});

expectRule("confirmed_write_missing", "a confirmed creation of an order that is not there", { stored: [] });

expectRule("written_after_fence", "a write that was confirmed after a claim had found nothing left", {
  record: [...WELL.record, write(A, 1, 0, CREATED, 30)],
});

expectRule("confirmed_claim_missing", "a claim of which the history knows nothing", {
  stored: [{ ...ROW, owner: 1, revision: 3, history: [CREATED, STEP, END] }],
});

expectRule("claimed_from_living", "a claim without a death", {
  record: WELL.record.filter((entry) => entry !== DEATH && entry !== ASKED),
});

expectRule("claimed_from_living", "a claim after a death that was refused", {
  record: WELL.record.map((entry) => (entry === DEATH ? { ...entry, done: false } : entry)),
});

expectRule("false_failover", "the death of a node to which nothing was done", { faults: [] });

expectRule("false_failover", "the death of a node that had said that it lives since something was done to it", {
  faults: [{ pid: A, askedMs: 2, surelyMs: 3 }],
});

expectRule("false_failover", "the death of another node than the one to which something was done", {
  faults: [{ pid: B, askedMs: 10, surelyMs: 11 }],
});

expectRule("dead_despite_heartbeat", "a death by a heartbeat that was not the last", {
  record: WELL.record.map((entry) => (entry === DEATH ? { ...entry, heartbeat: 1 } : entry)),
});

expectRule("revived", "a heartbeat that was confirmed after the death", {
  record: [...WELL.record, { kind: "beat", pid: A, incarnation: 1, alive: true, startMs: 30, endMs: 31 }],
});

expectRule("term_given_twice", "two elections that made one term", {
  record: [
    ...WELL.record,
    { kind: "leadership", pid: A, incarnation: 1, term: 1, done: true, startMs: 1, endMs: 2 },
    { kind: "leadership", pid: B, incarnation: 2, term: 1, done: true, startMs: 1, endMs: 2 },
  ],
});

test("tells how long after a fault the last order that changed hands was worked on again", () => {
  const call = {
    step: "A",
    direction: "run",
    attempt: 2,
    key: "",
    durableRevision: 2,
    fence: 2,
    hadEffect: false,
  } as const;
  const calls = [
    { ...call, orderId: "1", incarnation: 1, atMs: 8, sequence: 1 },
    { ...call, orderId: "1", incarnation: 2, atMs: 24, sequence: 2 },
    { ...call, orderId: "1", incarnation: 2, atMs: 90, sequence: 3 },
  ];
  assert.equal(moveAgainMs(WELL, calls, { pid: A, askedMs: 10 }), 14);
  assert.equal(moveAgainMs(WELL, calls, { pid: B, askedMs: 10 }), null);
});

/** A test that the evidence, which is good but for `wrong`, breaks the rule. */
function expectRule(rule: ClusterRule, what: string, wrong: Partial<ClusterEvidence>): void {
  test(`finds ${what}`, () => {
    const rules = rulesIn({ ...WELL, ...wrong });
    assert.ok(rules.includes(rule), `expected ${rule}, found ${rules.join(", ") || "nothing"}`);
  });
}

function rulesIn(evidence: ClusterEvidence): ClusterRule[] {
  return findClusterViolations(evidence).map(({ rule }) => rule);
}

function write(
  pid: number,
  owner: number,
  follows: number,
  event: OrderEvent,
  startMs: number,
): Extract<RecordEntry, { kind: "write" }> {
  return {
    kind: "write",
    pid,
    orderId: "1",
    owner,
    follows,
    event,
    outcome: "applied",
    startMs,
    endMs: startMs + 1,
  };
}
