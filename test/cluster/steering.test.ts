/** Orders that people cancel, pause, resume and complete while nodes are killed, frozen and stopped: what they were told stays true. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { readOrder, send } from "../support/client.ts";
import { waitFor } from "../support/wait.ts";
import { ClusterRig } from "./cluster-rig.ts";
import type { Judgement } from "./judgement.ts";

test("what was asked of orders is done, once, though a worker and then the leader are killed", async (t) => {
  const rig = await ClusterRig.start(t, { steered: true });
  await rig.startLoad(3);
  const [worker] = await rig.workers();
  await rig.kill(worker);
  await rig.ownsNothing(rig.incarnationOf(worker));
  await rig.addNode();
  const leader = await rig.settled();
  await rig.goesOn();
  await rig.kill(leader);
  await rig.ownsNothing(rig.incarnationOf(leader));
  await rig.goesOn();
  assertSteered(await rig.expectSound());
});

test("what was asked of orders is done, once, though a node is frozen until it is taken for dead", async (t) => {
  const rig = await ClusterRig.start(t, { steered: true });
  await rig.startLoad(3);
  const [worker] = await rig.workers();
  await rig.freeze(worker);
  await rig.ownsNothing(rig.incarnationOf(worker));
  await rig.goesOn();
  rig.wake(worker);
  await rig.settled();
  await rig.goesOn();
  assertSteered(await rig.expectSound());
});

test("what was asked of orders is done, once, while a node stops and starts again", async (t) => {
  const rig = await ClusterRig.start(t, { steered: true });
  await rig.startLoad(3);
  const [worker] = await rig.workers();
  assert.equal(await worker.end("SIGTERM"), 0);
  await rig.addNode({ data: worker.data });
  await rig.settled();
  await rig.goesOn();
  assertSteered(await rig.expectSound());
});

test("a cluster that is killed whole goes on with what was asked of its orders", async (t) => {
  const rig = await ClusterRig.start(t, { steered: true });
  await rig.startLoad(3);
  const killed = rig.running;
  await rig.kill(...killed);
  await Promise.all(killed.map(({ data }) => rig.addNode({ data })));
  await rig.settled();
  await rig.goesOn();
  assertSteered(await rig.expectSound());
});

test("who asks something of an order whose node was killed a moment before hears that it was done, or was not, and no doubt", async (t) => {
  const rig = await ClusterRig.start(t, { waiting: true, answerMs: 0 });
  const [owner, other] = rig.nodes;
  assert.ok(owner !== undefined && other !== undefined);
  const orderIds = await Promise.all(Array.from({ length: 5 }, () => rig.submit(owner)));
  for (const orderId of orderIds) {
    await waitFor(async () => (await readOrder(other.url, orderId)).status === "waiting", { what: "it waits" });
  }
  await rig.kill(owner);
  const done = orderIds.map((orderId) =>
    waitFor(
      async () => {
        const answer = await send(`${other.url}/orders/${orderId}/cancel`, {
          method: "POST",
          headers: { authorization: "user" },
        });
        assert.doesNotMatch(answer.text, /is not known/);
        return answer.status === 200;
      },
      { what: "it is canceled" },
    ),
  );
  await Promise.all(done);
});

/** Orders that were steered have ended in every way: nothing is proved otherwise. */
function assertSteered({ evidence }: Judgement): void {
  const kinds = new Set(evidence.stored.flatMap(({ history }) => history.map(({ kind }) => kind)));
  for (const kind of [
    "canceled",
    "cancel_requested",
    "paused",
    "pause_requested",
    "resumed",
    "signal_received",
  ] as const) {
    assert.ok(kinds.has(kind), `an order was ${kind}`);
  }
  const statuses = new Set(evidence.stored.map(({ status }) => status));
  assert.deepEqual([...statuses].toSorted(), ["canceled", "completed", "failed"]);
}
