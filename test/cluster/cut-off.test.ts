/** A node that the others can't reach, and that reaches the store: it is alive, and what it can't be asked for others do. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { confirmedDeaths } from "./cluster-checker.ts";
import { ClusterRig, type RigNode, TTL_MS } from "./cluster-rig.ts";
import { PortProxy } from "./port-proxy.ts";

/** It takes half a minute: that is how often a node looks for orders that nobody told it of. */
const SOAK = { skip: process.env["ORDER_PROCESS_SOAK"] === "1" ? false : "set ORDER_PROCESS_SOAK=1" };

for (const [how, cut] of [
  ["refuses connections", (proxy: PortProxy) => proxy.refuse()],
  ["answers nothing", (proxy: PortProxy) => proxy.silence()],
] as const) {
  test(`a node whose address ${how} is not taken for dead while it says in the store that it lives`, async (t) => {
    const [rig, , proxy] = await startWithProxy(t);
    await rig.startLoad();
    await cut(proxy);
    await rig.goesOn();
    await rig.goesOn();
    await rig.settled();
    const { evidence } = await rig.expectSound();
    assert.deepEqual(confirmedDeaths(evidence.record), []);
  });

  test(`a dead node's orders go to the others when one of them ${how}, also when that one has the least to do`, async (t) => {
    const [rig, , proxy] = await startWithProxy(t);
    const victim = await rig.addNode();
    const leader = await rig.settled();
    rig.receiver.hold();
    // The leader has much to do, the one that can't be reached nothing: by load alone, all would be that one's.
    await Promise.all(Array.from({ length: 40 }, () => rig.submit(leader)));
    await Promise.all(Array.from({ length: 20 }, () => rig.submit(victim)));
    await cut(proxy);
    const dead = rig.incarnationOf(victim);
    await rig.kill(victim);
    await rig.ownsNothing(dead, 5 * TTL_MS);
    await rig.expectSound();
  });
}

test("orders given to a node that could not be told of them are found by it in time", SOAK, async (t) => {
  const [rig, cutOff, proxy] = await startWithProxy(t);
  const stopping = await rig.addNode({ args: ["--grace", "200ms"] });
  const leader = await rig.settled();
  rig.receiver.hold(({ attempt }) => attempt === 1);
  await Promise.all(Array.from({ length: 40 }, () => rig.submit(leader)));
  await Promise.all(Array.from({ length: 20 }, () => rig.submit(stopping)));
  await proxy.refuse();
  assert.equal(await stopping.end("SIGTERM"), 0);
  assert.match(stopping.output(), /could not be told of orders that are its own now/);
  await rig.says(cutOff, /Orders of this node that it did not run are gone on with: 20/, 45_000);
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
