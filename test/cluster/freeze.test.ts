/** Nodes that stand still and wake up: stopped by a signal, or with an event loop that a step has blocked. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { temporaryFolder } from "../support/service.ts";
import { monotonicMs, waitFor } from "../support/wait.ts";
import { confirmedDeaths, entriesOf } from "./cluster-checker.ts";
import { ClusterRig, type RigNode } from "./cluster-rig.ts";
import { assertMovedAgain } from "./judgement.ts";

/** Short, as whole TTLs of silence are waited for. */
const TTL_MS = 1_000;

for (const whom of ["worker", "leader"] as const) {
  test(`a ${whom} that is frozen for three TTLs under load changes nothing when it wakes up, and joins again by itself`, async (t) => {
    const rig = await ClusterRig.start(t, { ttlMs: TTL_MS });
    await rig.startLoad();
    const leader = await rig.settled();
    const node = whom === "leader" ? leader : (await rig.workers())[0];
    const former = rig.incarnationOf(node);
    const { askedMs, surelyMs } = await rig.freeze(node);
    await rig.ownsNothing(former);
    await hasPassed(surelyMs + 3 * TTL_MS);
    rig.wake(node);
    await rig.says(node, /was taken for dead: .* joins again/);
    await rig.says(node, /Joined again/);
    await rig.settled();
    await rig.goesOn();
    const judgement = await rig.expectSound();
    assertMovedAgain(judgement);
    const { record } = judgement.evidence;
    assert.ok(rig.incarnationOf(node) > former, "it has a new incarnation");
    assert.equal(confirmedDeaths(record).filter(({ incarnation }) => incarnation === former).length, 1);
    const late = entriesOf(record, "write").filter((write) => write.owner === former && write.endMs > askedMs);
    t.diagnostic(`writes of the former incarnation that were answered after it froze: ${late.length}`);
  });
}

test("late writes of a node that wakes up are refused, each of them", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: TTL_MS, answerMs: 0 });
  const [worker] = await rig.workers();
  rig.receiver.hold();
  const orderIds = await Promise.all(Array.from({ length: 20 }, () => rig.submit(worker)));
  await waitFor(() => rig.receiver.held.length === orderIds.length, { what: "the first steps are called" });
  const former = rig.incarnationOf(worker);
  const calls = [...rig.receiver.held];
  await rig.freeze(worker);
  await rig.ownsNothing(former);
  // Answered while it sleeps: when it wakes up, it hears that its steps are done, and writes so.
  for (const call of calls) call.answer();
  rig.wake(worker);
  await rig.says(worker, /Joined again/);
  const { evidence } = await rig.expectSound();
  const late = entriesOf(evidence.record, "write").filter(({ owner, follows }) => owner === former && follows > 0);
  assert.deepEqual(
    late.filter(({ outcome }) => outcome === "applied"),
    [],
  );
  t.diagnostic(`late writes: ${late.length}`);
});

test("a node that is frozen for less than its TTL keeps its orders", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: 4 * TTL_MS });
  await rig.startLoad();
  const [worker] = await rig.workers();
  const { surelyMs } = await rig.freeze(worker);
  await hasPassed(surelyMs + TTL_MS);
  rig.wake(worker);
  rig.faults.splice(0); // nobody has a reason to take it for dead, unless the machine keeps it asleep for three times as long
  await rig.goesOn();
  await rig.settled();
  const { evidence } = await rig.expectSound();
  const registrations = entriesOf(evidence.record, "registered").length;
  assert.equal(registrations, rig.nodes.length + confirmedDeaths(evidence.record).length, "nobody leaves by himself");
});

test("a node whose event loop a step blocks for three TTLs loses its orders, and joins again when it is free", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: TTL_MS });
  await rig.startLoad();
  const [worker] = await rig.workers();
  await expectDeathByBlockedStep(t, rig, worker);
});

test("a leader whose event loop a step blocks for three TTLs is replaced, and joins again when it is free", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: TTL_MS });
  await rig.startLoad();
  await expectDeathByBlockedStep(t, rig, await rig.settled());
});

async function expectDeathByBlockedStep(t: TestContext, rig: ClusterRig, node: RigNode): Promise<void> {
  const former = rig.incarnationOf(node);
  const fault = rig.noteFault(node);
  const free = join(temporaryFolder(t), "free");
  const orderId = await rig.submit(node, { block_at: "Charge", block_until: free });
  const { atMs } = await rig.call("the blocking step", (call) => call.orderId === orderId && call.step === "Charge");
  await rig.ownsNothing(former);
  await hasPassed(atMs + 3 * TTL_MS);
  writeFileSync(free, "");
  await rig.says(node, /was taken for dead: .* joins again/);
  await rig.says(node, /Joined again/);
  fault.surelyMs = monotonicMs();
  await rig.settled();
  await rig.goesOn();
  const judgement = await rig.expectSound();
  assertMovedAgain(judgement);
  const { record } = judgement.evidence;
  assert.equal(confirmedDeaths(record).filter(({ incarnation }) => incarnation === former).length, 1);
  const again = rig.receiver.calls.find((call) => call.orderId === orderId && call.incarnation !== former);
  assert.ok(again !== undefined, "another node has made the step again");
}

/** What happens meanwhile is the test's own subject: that time passes. */
function hasPassed(dueMs: number): Promise<boolean> {
  return waitFor(() => monotonicMs() >= dueMs, { what: "the time has passed" });
}
