/** What an operator sees of a cluster: the same from every node, and in the log in the earlier system's words. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { ClusterRig } from "./cluster-rig.ts";

/** Long enough that no machine is so busy that a node which lives is taken for dead: each has to be seen as it is, at once. */
const TTL_MS = 6_000;

const LONG_TTL_MS = 30_000;

test("every node shows the same cluster, before and after a death, with who is connected and who leads", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: TTL_MS, answerMs: 0 });
  const leader = await rig.settled();
  const [victim] = await rig.workers();
  const names = rig.nodes.map(({ serviceId }) => serviceId).toSorted();
  const before = await Promise.all(rig.running.map((node) => rig.view(node)));
  for (const view of before) {
    assert.deepEqual(view.nodes.map(({ name }) => name).toSorted(), names);
    assert.deepEqual(
      view.nodes.map(({ connection_string: url }) => url).toSorted(),
      rig.nodes.map(({ url }) => url).toSorted(),
    );
    assert.equal(view.nodes_count, 3);
    assert.equal(view.leader_name, leader.serviceId);
    assert.equal(view.term, before[0]?.term);
    assert.equal(view.cluster_id, before[0]?.cluster_id);
    assert.deepEqual(view.transfers, []);
  }

  rig.receiver.hold();
  await Promise.all(Array.from({ length: 7 }, () => rig.submit(victim)));
  await rig.seesInFlight(leader, victim, 7);
  await rig.kill(victim);
  await rig.ownsNothing(rig.incarnationOf(victim));
  await rig.settled();
  for (const node of rig.running) {
    const view = await rig.view(node);
    assert.deepEqual(
      view.nodes.filter(({ connected }) => !connected).map(({ name }) => name),
      [victim.serviceId],
    );
    assert.equal(view.leader_name, leader.serviceId);
    assert.equal(view.nodes_count, 3);
    const seen = view.nodes.find(({ name }) => name === victim.serviceId);
    assert.ok(Math.abs(Date.parse(seen?.last_activity ?? "") - Date.now()) < 60_000);
  }
  const { transfers } = await rig.view(leader);
  assert.equal(
    transfers.reduce((sum, { orders_transferred: orders }) => sum + orders, 0),
    7,
  );
  assert.ok(transfers.every(({ service_id: serviceId }) => serviceId === victim.serviceId));
  await rig.says(leader, new RegExp(`Node ${victim.serviceId} \\(${victim.url}\\) is dead: silent for \\d+ ms`));
  await rig.says(leader, new RegExp(`Orders of ${victim.serviceId} transferred: \\d+, to \\d node`));

  const again = await rig.addNode({ data: victim.data });
  await rig.settled();
  assert.equal((await rig.view(again)).nodes_count, 3, "it has come back, and is listed once");
  await rig.expectSound();
});

test("a change of leader is in every node's log and view, with the next term", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: TTL_MS });
  const former = await rig.settled();
  const { term } = await rig.view(former);
  await rig.kill(former);
  const leader = await rig.settled();
  assert.notEqual(leader, former);
  assert.equal((await rig.view(leader)).term, term + 1);
  for (const node of rig.running) {
    await rig.says(node, new RegExp(`\\[${node.serviceId}\\] termChange ${term} -> ${term + 1}`));
    await rig.says(node, new RegExp(`\\[${node.serviceId}\\] leaderChange ${former.serviceId} -> ${leader.serviceId}`));
  }
  await rig.says(leader, new RegExp(`\\[${leader.serviceId}\\] stateChange follower -> leader`));
  await rig.says(leader, /Start to perform leader tasks\./);
  await rig.expectSound();
});

test("a leader that is told to stop is replaced at once, without a wait for silence, and is listed no longer", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: LONG_TTL_MS });
  const former = await rig.settled();
  const { term } = await rig.view(former);
  assert.equal(await former.end("SIGTERM"), 0);
  // Before the time is over after which silence would be a death.
  const leader = await rig.settled(LONG_TTL_MS);
  const view = await rig.view(leader);
  assert.deepEqual([view.term, view.nodes_count], [term + 1, 2]);
  await rig.expectSound();
});
