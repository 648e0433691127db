/** A node that the others can't reach, and that reaches the store: it is alive, and what it can't be asked for others do. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { falseFailovers } from "./cluster-checker.ts";
import { ClusterRig, type RigNode } from "./cluster-rig.ts";
import { PortProxy } from "./port-proxy.ts";

for (const [how, cut] of [
  [
    "refuses connections",
    (proxy: PortProxy, rig: ClusterRig, node: RigNode): Promise<void> => {
      rig.noteRefusal(node);
      return proxy.refuse();
    },
  ],
  ["answers nothing", (proxy: PortProxy): void => proxy.silence()],
] as const) {
  test(`a node whose address ${how} is not taken for dead while it says in the store that it lives`, async (t) => {
    const [rig, cutOff, proxy] = await startWithProxy(t);
    await rig.startLoad();
    await cut(proxy, rig, cutOff);
    await rig.goesOn();
    await rig.goesOn();
    await rig.settled();
    const { evidence } = await rig.expectSound();
    assert.deepEqual(falseFailovers(evidence), []);
  });

  test(`a dead node's orders go to the others when one of them ${how}, also when that one has the least to do`, async (t) => {
    const [rig, cutOff, proxy] = await startWithProxy(t);
    const victim = await rig.addNode();
    const leader = await rig.settled();
    rig.receiver.hold();
    // The leader has much to do, the one that can't be asked nothing: by load alone, all would be that one's.
    await Promise.all(Array.from({ length: 40 }, () => rig.submit(leader)));
    await Promise.all(Array.from({ length: 20 }, () => rig.submit(victim)));
    await cut(proxy, rig, cutOff);
    const dead = rig.incarnationOf(victim);
    await rig.kill(victim);
    await rig.ownsNothing(dead);
    await rig.expectSound();
  });

  test(`the orders of a node that stops go to one that hears of it, when another one with less to do ${how}`, async (t) => {
    const [rig, cutOff, proxy] = await startWithProxy(t);
    const stopping = await rig.addNode({ args: ["--grace", "500ms"] });
    const leader = await rig.settled();
    rig.receiver.hold(({ attempt }) => attempt === 1);
    await Promise.all(Array.from({ length: 40 }, () => rig.submit(leader)));
    await Promise.all(Array.from({ length: 20 }, () => rig.submit(stopping)));
    await cut(proxy, rig, cutOff);
    const incarnation = rig.incarnationOf(stopping);
    assert.equal(await stopping.end("SIGTERM"), 0);
    await rig.ownsNothing(incarnation);
    assert.equal(await rig.backend.countOpen(rig.incarnationOf(cutOff)), 0, "it has none that nobody told it of");
    await rig.expectSound();
  });
}

test("a dead node's orders go to the others when one of them has no room, also when that one has the least to do", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}], answerMs: 0 });
  const full = await rig.addNode({ args: ["--in-flight", "5"] });
  const victim = await rig.addNode();
  const leader = await rig.settled();
  rig.receiver.hold();
  await Promise.all(Array.from({ length: 40 }, () => rig.submit(leader)));
  await Promise.all(Array.from({ length: 5 }, () => rig.submit(full)));
  await Promise.all(Array.from({ length: 20 }, () => rig.submit(victim)));
  await rig.seesInFlight(leader, full, 5);
  const dead = rig.incarnationOf(victim);
  await rig.kill(victim);
  await rig.ownsNothing(dead);
  await rig.expectSound();
});

/** A leader, and a node that the others reach through a proxy. */
async function startWithProxy(t: TestContext): Promise<[ClusterRig, cutOff: RigNode, PortProxy]> {
  const rig = await ClusterRig.start(t, { nodes: [{}] });
  const proxy = await PortProxy.start(t);
  const cutOff = await rig.addNode({ args: ["--advertise", proxy.address] });
  proxy.targetPort = Number(new URL(cutOff.url).port);
  await rig.settled();
  return [rig, cutOff, proxy];
}
