/** Nodes that are killed (kill -9) under load: their orders go on elsewhere, soon, each of them, and nothing is done twice that counts. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ClusterRig, TTL_MS } from "./cluster-rig.ts";
import { assertMovedAgain } from "./judgement.ts";

test("the orders of a worker that is killed under load go on at the other nodes", async (t) => {
  const rig = await ClusterRig.start(t);
  await rig.startLoad();
  const [worker] = await rig.workers();
  await rig.kill(worker);
  await rig.ownsNothing(rig.incarnationOf(worker));
  await rig.goesOn();
  assertMovedAgain(await rig.expectSound());
  const said = new RegExp(`Node ${worker.serviceId} .* is dead: silent for (\\d+) ms`).exec(
    rig.nodes.map(({ output }) => output()).join(""),
  );
  assert.ok(Number(said?.[1]) < TTL_MS, `a process that is gone is not waited for as a silent one is: ${said?.[0]}`);
});

test("the orders of a leader that is killed under load go on at the other nodes, of which one leads", async (t) => {
  const rig = await ClusterRig.start(t);
  await rig.startLoad();
  const leader = await rig.settled();
  await rig.kill(leader);
  await rig.ownsNothing(rig.incarnationOf(leader));
  assert.notEqual(await rig.settled(), leader);
  await rig.goesOn();
  assertMovedAgain(await rig.expectSound());
});

test("the orders of a leader and a worker that are killed at once go on at the last node", async (t) => {
  const rig = await ClusterRig.start(t);
  await rig.startLoad();
  const [worker] = await rig.workers();
  const leader = await rig.settled();
  await rig.kill(leader, worker);
  await rig.ownsNothing(rig.incarnationOf(leader));
  await rig.ownsNothing(rig.incarnationOf(worker));
  await rig.goesOn();
  assertMovedAgain(await rig.expectSound());
});

test("a cluster that is killed whole under load goes on with every order when it is started again", async (t) => {
  const rig = await ClusterRig.start(t);
  await rig.startLoad();
  const killed = rig.running;
  await rig.kill(...killed);
  await Promise.all(killed.map(({ data }) => rig.addNode({ data })));
  await rig.settled();
  await Promise.all(killed.map((node) => rig.ownsNothing(rig.incarnationOf(node))));
  await rig.goesOn();
  await rig.expectSound();
});

test("of a cluster that is killed whole, one node alone goes on with every order", async (t) => {
  const rig = await ClusterRig.start(t);
  await rig.startLoad();
  const killed = rig.running;
  await rig.kill(...killed);
  await rig.addNode({ data: killed[0]?.data ?? "" });
  await Promise.all(killed.map((node) => rig.ownsNothing(rig.incarnationOf(node))));
  await rig.goesOn();
  await rig.expectSound();
});

for (const moment of ["before", "after"] as const) {
  for (const whom of ["worker", "leader"] as const) {
    test(`orders go on when a ${whom} that takes them over is killed right ${moment} its claim is committed`, async (t) => {
      const kill = { kill: { moment, write: 1, kind: "claimOrders" } } as const;
      const rig = await ClusterRig.start(t, { nodes: [whom === "leader" ? kill : {}], answerMs: 0 });
      const taker = whom === "leader" ? await rig.settled() : await rig.addNode(kill);
      const [victim] = await Promise.all([rig.addNode(), ...(whom === "leader" ? [rig.addNode()] : [])]);
      await rig.settled();
      rig.receiver.hold();
      await Promise.all(Array.from({ length: 40 }, () => rig.submit(victim)));
      rig.noteFault(taker);
      await rig.kill(victim);
      await rig.isKilled(taker);
      await rig.ownsNothing(rig.incarnationOf(victim));
      await rig.ownsNothing(rig.incarnationOf(taker));
      await rig.expectSound();
    });
  }
}

test("an order whose owner is killed at each of its rollbacks is rolled back once each, last step first", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}, {}, {}], answerMs: 0 });
  rig.receiver.hold(({ direction, attempt }) => direction === "rollback" && attempt === 1);
  const [first] = rig.nodes;
  assert.ok(first !== undefined);
  await rig.submit(first, { fail_at: "Ship" });
  for (const step of ["Ship", "Charge", "Reserve"]) {
    const held = await rig.heldCall(`the rollback of ${step}`, (call) => call.step === step);
    const owner = rig.nodes.find((node) => rig.incarnationOf(node) === held.incarnation);
    assert.ok(owner !== undefined);
    await rig.kill(owner);
    await rig.call(`the rollback of ${step} again`, (call) => {
      return call.step === step && call.direction === "rollback" && call.attempt === 2;
    });
  }
  const { evidence } = await rig.expectSound();
  assert.deepEqual(
    evidence.stored.map(({ status }) => status),
    ["failed"],
  );
  assert.equal(rig.receiver.repeatedCalls, 3, "each rollback was cut once");
});
