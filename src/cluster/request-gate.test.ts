import assert from "node:assert/strict";
import { test } from "node:test";
import type { Incarnation } from "../order/events.ts";
import type { NodeRow } from "../store/cluster-store.ts";
import { isSameSignature, proofFor, type ProvenRequest, signAnswer, signRequest } from "./proof.ts";
import { WINDOW_COUNTERS } from "./replay-window.ts";
import { RequestGate } from "./request-gate.ts";

const SECRET = "the cluster's secret";
const SENDER = 7;
const TARGET = 8;
const REQUEST: ProvenRequest = {
  method: "POST",
  path: "/cluster/orders",
  body: "{}",
  sender: SENDER,
  target: TARGET,
  counter: 1,
};

function row(incarnation: Incarnation, alive = true): NodeRow {
  return {
    serviceId: `service-${incarnation}`,
    url: "http://127.0.0.1:1",
    version: "0.0.0",
    ttlMs: 1_000,
    process: null,
    incarnation,
    alive,
    heartbeat: 1,
    ordersInFlight: 0,
    lastHeartbeatMs: 0,
  };
}

const BOTH = [row(SENDER), row(TARGET)];

/** What came in, and the proof that came with it. */
function ask(
  gate: RequestGate,
  change: Partial<ProvenRequest>,
  rows: readonly NodeRow[] = BOTH,
  target = TARGET,
): boolean {
  const { method, path, body, ...signed } = { ...REQUEST, ...change };
  const proof = proofFor(SECRET, { method, path, body, ...signed });
  return gate.admit({ method, path, body, proof }, target, rows) !== null;
}

test("a request is let in once, and its answer is signed for this request", () => {
  const gate = new RequestGate(SECRET);
  const { method, path, body } = REQUEST;
  const request = { method, path, body, proof: proofFor(SECRET, REQUEST) };
  const sign = gate.admit(request, TARGET, BOTH);
  const answer = { status: 202, body: '{"room":1}' };
  assert.ok(sign !== null);
  assert.ok(isSameSignature(signAnswer(SECRET, signRequest(SECRET, REQUEST), answer), sign(answer)));
  for (const other of [
    { ...answer, status: 200 },
    { ...answer, body: '{"room":2}' },
  ])
    assert.notEqual(sign(other), sign(answer));
  assert.equal(gate.admit(request, TARGET, BOTH), null);
});

test("no signature stands for another request, nor for an answer", () => {
  const changes: readonly Partial<ProvenRequest>[] = [
    { method: "PUT" },
    { path: "/cluster/actions" },
    { body: "{ }" },
    { sender: 9 },
    { target: 9 },
    { counter: 2 },
    // The same characters, parted elsewhere.
    { path: "/cluster/order", body: "s{}" },
    { sender: 78, target: 8 },
  ];
  const due = signRequest(SECRET, REQUEST);
  for (const change of changes) assert.notEqual(signRequest(SECRET, { ...REQUEST, ...change }), due);
  assert.notEqual(signAnswer(SECRET, due, { status: 200, body: "" }), due);
});

test("requests that overtake each other are let in, and what is far behind is not", () => {
  const gate = new RequestGate(SECRET);
  for (const counter of [3, 1, 2, WINDOW_COUNTERS]) assert.ok(ask(gate, { counter }), String(counter));
  assert.ok(ask(gate, { counter: 2 * WINDOW_COUNTERS }));
  for (const counter of [4, WINDOW_COUNTERS]) assert.ok(!ask(gate, { counter }), String(counter));
  assert.ok(ask(gate, { counter: WINDOW_COUNTERS + 1 }));
});

test("a sender's counters are its own, and a forged proof uses none up", () => {
  const gate = new RequestGate(SECRET);
  const { method, path, body } = REQUEST;
  const forged = proofFor("another secret", { ...REQUEST, counter: 10 * WINDOW_COUNTERS });
  assert.equal(gate.admit({ method, path, body, proof: forged }, TARGET, BOTH), null);
  assert.ok(ask(gate, { counter: 1 }));
  const rows = [...BOTH, row(9)];
  assert.ok(ask(gate, { sender: 9, counter: 1 }, rows));
  assert.ok(!ask(gate, { sender: 9, counter: 1 }, rows));
});

test("a node that is dead or has left is not let in, with a request of before neither, though its window is forgotten", () => {
  for (const rows of [[row(SENDER, false), row(TARGET)], [row(TARGET)]]) {
    const gate = new RequestGate(SECRET);
    assert.ok(ask(gate, { counter: 1 }));
    assert.ok(!ask(gate, { counter: 1 }, rows));
    assert.ok(!ask(gate, { counter: 2 }, rows));
  }
});

test("a node that no row shows yet is let in as one that has just joined, until rows show that it is not there", () => {
  const gate = new RequestGate(SECRET);
  assert.ok(ask(gate, { sender: 20 }));
  assert.ok(!ask(gate, { sender: 20 }), "once each, too");
  assert.ok(ask(gate, { sender: 20, counter: 2 }, [...BOTH, row(20)]));
  assert.ok(!ask(gate, { sender: 20, counter: 1 }, [...BOTH, row(20)]));
  assert.ok(ask(gate, { sender: 21 }));
  assert.ok(!ask(gate, { sender: 21, counter: 2 }, [...BOTH, row(22)]));
  assert.ok(!ask(gate, { sender: 21, counter: 3 }), "nor when the newest row is gone again");
});

test("no more nodes that no row shows are remembered than may just have joined", () => {
  const gate = new RequestGate(SECRET);
  const senders = Array.from({ length: 200 }, (_, index) => 100 + index);
  const admitted = senders.filter((sender) => ask(gate, { sender }));
  assert.equal(admitted.length, 64);
  assert.ok(
    admitted.every((sender) => !ask(gate, { sender })),
    "each once",
  );
  assert.ok(ask(gate, { sender: 400 }, [...BOTH, row(399)]), "they are forgotten when rows show newer ones");
});

test("a later incarnation of the node that is asked lets in nothing that was signed for the former one", () => {
  const gate = new RequestGate(SECRET);
  assert.ok(ask(gate, { counter: 1 }));
  const later = 30;
  const rows = [row(SENDER), row(later)];
  assert.ok(!ask(gate, { counter: 2 }, rows, later));
  assert.ok(ask(gate, { counter: 1, target: later }, rows, later), "counters are those towards one incarnation");
});

test("what a node has signed is not let in by itself", () => {
  const gate = new RequestGate(SECRET);
  assert.ok(!ask(gate, { sender: TARGET }));
  assert.ok(!ask(gate, { sender: TARGET, target: SENDER }));
});
