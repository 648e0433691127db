/**
 * The rules between nodes, each broken on purpose: the checker must see it. Each situation is played once with the nodes as they are,
 * too, where nothing may be wrong: else the control would prove nothing.
 */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import type { BrokenGuarantee } from "../crash/fault-stores.ts";
import { waitFor } from "../support/wait.ts";
import { confirmedDeaths, entriesOf } from "./cluster-checker.ts";
import { ClusterRig } from "./cluster-rig.ts";
import type { Judgement } from "./judgement.ts";
import { askAsNode } from "./node-proof.ts";
import type { EntryOf } from "./node-record.ts";

const HOUR_MS = 3_600_000;

/** Short, as whole TTLs of silence are waited for. */
const TTL_MS = 1_000;

test("a node that was frozen in the middle of a step writes nothing when it wakes up", async (t) => {
  expectNothing(await wakeAfterTakeover(t));
});

test("control: without the comparison of owner and revision, late writes are accepted, and seen", async (t) => {
  expectRules(await wakeAfterTakeover(t, "no-owner-check"), ["confirmed_write_missing"]);
});

test("a request of one node to take over another's orders, which lives, takes none", async (t) => {
  expectNothing(await takeFromLiving(t));
});

test("control: without the look at the owner's row, orders are taken from the living, and that is seen", async (t) => {
  expectRules(await takeFromLiving(t, "claims-from-living"), ["claimed_from_living"]);
});

test("a node that shows that it lives at the moment at which it is to be marked dead stays alive", async (t) => {
  expectNothing(await wakeBeforeDeath(t));
});

test("control: without the comparison of the heartbeat, a node dies that has shown that it lives, and that is seen", async (t) => {
  expectRules(await wakeBeforeDeath(t, "no-heartbeat-compare"), ["dead_despite_heartbeat"]);
});

test("a leader whose clock is an hour ahead takes nobody for dead", async (t) => {
  expectNothing(await leadWithWrongClock(t));
});

test("control: with leases by the wall clock, a clock that is an hour ahead kills the living, and that is seen", async (t) => {
  expectRules(await leadWithWrongClock(t, "wall-clock-leases"), ["false_failover"]);
});

test("control: a node that does not say that it lives, though nothing keeps it from it, is taken for dead, and that is seen", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}], ttlMs: TTL_MS, answerMs: 0 });
  await rig.addNode({ broken: "no-heartbeats" });
  await waitFor(() => confirmedDeaths(rig.record()).length > 0, { what: "it is taken for dead" });
  expectRules(await rig.judgeAsItIs(), ["false_failover"]);
});

/**
 * A node is frozen in the middle of an order's first step, another takes the order over and is in the middle of the same step
 * when the former wakes up and its call ends well. Only then does the latter's.
 */
async function wakeAfterTakeover(t: TestContext, broken?: BrokenGuarantee): Promise<Judgement> {
  const node = broken === undefined ? {} : { broken };
  const rig = await ClusterRig.start(t, { nodes: [{}, node], answerMs: 0 });
  const [, former] = rig.nodes;
  assert.ok(former !== undefined);
  rig.receiver.hold();
  await rig.submit(former);
  const formerCall = await rig.heldCall("the first step", ({ attempt }) => attempt === 1);
  await rig.freeze(former);
  const latterCall = await rig.heldCall("the first step again", ({ attempt }) => attempt === 2);
  rig.wake(former);
  formerCall.answer();
  if (broken !== undefined) {
    const isLate = ({ owner, follows, outcome }: EntryOf<"write">): boolean =>
      owner === formerCall.incarnation && follows > 0 && outcome === "applied";
    await waitFor(() => entriesOf(rig.record(), "write").some(isLate), { what: "a late write is accepted" });
    return rig.judgeAsItIs();
  }
  await rig.says(former, /joins again/);
  latterCall.answer();
  await rig.heldCall("the second step", ({ step }) => step === "Charge");
  return rig.judge();
}

/** A node is asked, as nodes ask each other, to take over the orders of one that is well and in the middle of a step. */
async function takeFromLiving(t: TestContext, broken?: BrokenGuarantee): Promise<Judgement> {
  const node = broken === undefined ? {} : { broken };
  const rig = await ClusterRig.start(t, { nodes: [node, {}], ttlMs: 10 * TTL_MS, answerMs: 0 });
  const [taker, living] = rig.nodes;
  assert.ok(taker !== undefined && living !== undefined);
  rig.receiver.hold();
  await rig.submit(living);
  await rig.heldCall("the first step", ({ attempt }) => attempt === 1);
  const body = JSON.stringify({ service_id: living.serviceId, incarnation: rig.incarnationOf(living) });
  const answer = await askAsNode(rig, living, taker, "/service/transfer", body);
  assert.equal(answer.status, 200, answer.text);
  return rig.judge();
}

/** The leader decides that a node is dead, and says so only when that one has woken up and has written a heartbeat. */
async function wakeBeforeDeath(t: TestContext, broken?: BrokenGuarantee): Promise<Judgement> {
  const late = { lateDeath: true, ...(broken === undefined ? {} : { broken }) };
  const rig = await ClusterRig.start(t, { nodes: [late], ttlMs: TTL_MS, answerMs: 0 });
  const sleeper = await rig.addNode();
  await rig.settled();
  await rig.freeze(sleeper);
  await rig.says(rig.nodes[0] ?? sleeper, /is to be marked dead/);
  rig.wake(sleeper);
  await waitFor(() => entriesOf(rig.record(), "death").length > 0, { what: "the leader has said that it is dead" });
  await rig.settled();
  return rig.judge();
}

/** A leader whose clock is an hour ahead, and two nodes whose clocks are right, for some TTLs. */
async function leadWithWrongClock(t: TestContext, broken?: BrokenGuarantee): Promise<Judgement> {
  const ahead = { clockMs: HOUR_MS, ...(broken === undefined ? {} : { broken }) };
  const rig = await ClusterRig.start(t, { nodes: [ahead], ttlMs: TTL_MS });
  await Promise.all([rig.addNode(), rig.addNode()]);
  const load = await rig.startLoad();
  const beats = (): number => entriesOf(rig.record(), "beat").filter(({ alive }) => alive).length;
  // Fifteen of each are three TTLs.
  await waitFor(() => (broken === undefined ? beats() > 3 * 15 : confirmedDeaths(rig.record()).length > 0), {
    what: "three TTLs have passed, or somebody is taken for dead",
  });
  await load.stop();
  return rig.judge();
}

function expectNothing({ lines }: Judgement): void {
  assert.deepEqual(lines, []);
}

function expectRules({ rules }: Judgement, due: readonly string[]): void {
  for (const rule of due) assert.ok(rules.has(rule), `expected ${rule}, found ${[...rules].join(", ") || "nothing"}`);
}
