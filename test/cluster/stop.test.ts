/** Nodes that are stopped in good order (SIGTERM): they give their orders away, and nobody has to find out that they are gone. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { finalOrder, send } from "../support/client.ts";
import { DEADLINE_MS, monotonicMs, waitFor } from "../support/wait.ts";
import { falseFailovers, moveAgainMs } from "./cluster-checker.ts";
import { ClusterRig } from "./cluster-rig.ts";
import { assertMovedAgain } from "./judgement.ts";

/** So long that what was not handed over is found when the test is over, and not by a sweep for what the dead have left. */
const LONG_TTL_MS = 25_000;

/** So long that no sweep comes by itself before the test has given up. */
const NO_SWEEP_TTL_MS = 2 * DEADLINE_MS;

/** Longer than a stop takes on a busy machine. */
const SCHEDULED_MS = 15_000;

/** Their ids together are longer than the largest order of that test. */
const ORDERS_GIVEN = 300;

for (const whom of ["worker", "leader"] as const) {
  test(`a ${whom} that is told to stop under load gives its orders to the others at once and exits with 0`, async (t) => {
    const rig = await ClusterRig.start(t, { ttlMs: LONG_TTL_MS });
    await rig.startLoad();
    const leader = await rig.settled();
    const node = whom === "leader" ? leader : (await rig.workers())[0];
    const incarnation = rig.incarnationOf(node);
    const stop = await rig.stop(node);
    assert.equal(await rig.backend.countOpen(incarnation), 0, "it has given everything away before it is gone");
    await rig.goesOn();
    const { evidence } = await rig.expectSound();
    assert.deepEqual(falseFailovers(evidence), [], "nobody is taken for dead");
    assertMovedAgain({ moveAgainMs: moveAgainMs(evidence, rig.receiver.calls, stop) });
    assert.match(node.output(), /orders given to other nodes: [1-9]/);
  });
}

test("nodes that are told to stop one after the other, until none is left, lose no order", async (t) => {
  const rig = await ClusterRig.start(t);
  const load = await rig.startLoad();
  const [first, second, third] = rig.nodes;
  assert.ok(first !== undefined && second !== undefined && third !== undefined);
  assert.equal(await first.end("SIGTERM"), 0);
  await rig.goesOn();
  assert.deepEqual(await Promise.all([second.end("SIGTERM"), third.end("SIGTERM")]), [0, 0]);
  await rig.addNode({ data: second.data });
  await rig.goesOn();
  await load.stop();
  await rig.expectSound();
});

test("a step that outlasts the grace time is cut, and made again by another node", async (t) => {
  const rig = await ClusterRig.start(t, {
    nodes: [{ args: ["--grace", "200ms"] }, {}],
    ttlMs: LONG_TTL_MS,
    answerMs: 0,
  });
  const [first] = rig.nodes;
  assert.ok(first !== undefined);
  rig.receiver.hold(({ attempt }) => attempt === 1);
  await rig.submit(first);
  await rig.heldCall("the first step", ({ step }) => step === "Reserve");
  assert.equal(await first.end("SIGTERM"), 0);
  assert.match(first.output(), /orders given to other nodes: 1; steps cut short, to be called again: 1/);
  await rig.call("the first step again", ({ step, attempt }) => step === "Reserve" && attempt === 2);
  await rig.expectSound();
});

test("what waits at a node that stops is another's as soon as the leader reads that the node has left", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}], ttlMs: NO_SWEEP_TTL_MS, answerMs: 0 });
  const [worker] = await rig.workers();
  const leader = await rig.settled();
  const startAt = new Date(Date.now() + SCHEDULED_MS).toISOString();
  const { status, json } = await send(`${worker.url}/orders?start_at=${startAt}`, {
    method: "POST",
    headers: { authorization: "user", "content-type": "application/json" },
    body: "{}",
  });
  assert.equal(status, 201);
  const incarnation = rig.incarnationOf(worker);
  assert.equal(await worker.end("SIGTERM"), 0);
  assert.match(worker.output(), /orders left in the store, for the next start or another node: 1/);
  await rig.ownsNothing(incarnation);
  assert.equal((await finalOrder(leader.url, String(json?.["order_id"]))).status, "completed");
});

test("nodes that take small orders only give many of them away at once, all the same", async (t) => {
  const small = { args: ["--body-limit", "4KiB", "--grace", "0ms"] };
  const rig = await ClusterRig.start(t, { nodes: [small, small], ttlMs: LONG_TTL_MS, answerMs: 0 });
  const [first] = rig.nodes;
  assert.ok(first !== undefined);
  rig.receiver.hold(({ attempt }) => attempt === 1);
  const orderIds: string[] = [];
  while (orderIds.length < ORDERS_GIVEN) {
    orderIds.push(...(await Promise.all(Array.from({ length: 20 }, () => rig.submit(first)))));
  }
  await waitFor(() => rig.receiver.held.length === orderIds.length, { what: "every order's first step is under way" });
  const stop = { pid: first.pid, askedMs: monotonicMs() };
  assert.equal(await first.end("SIGTERM"), 0);
  assert.match(first.output(), new RegExp(`orders given to other nodes: ${orderIds.length}`));
  assert.doesNotMatch(first.output(), /can't be told/);
  const { evidence } = await rig.expectSound();
  assertMovedAgain({ moveAgainMs: moveAgainMs(evidence, rig.receiver.calls, stop) });
});
