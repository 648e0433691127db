/** Nodes whose wall clocks differ: nothing between nodes may rest on them (cluster rule 2). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { confirmedDeaths } from "./cluster-checker.ts";
import { ClusterRig } from "./cluster-rig.ts";

const HOUR_MS = 3_600_000;

for (const [what, clockMs] of [
  ["ahead", HOUR_MS],
  ["behind", -HOUR_MS],
] as const) {
  test(`nobody is taken for dead because a leader's clock is an hour ${what}, and its orders go on when it dies`, async (t) => {
    const rig = await ClusterRig.start(t, { nodes: [{ clockMs }] });
    const [off] = rig.nodes;
    await Promise.all([rig.addNode(), rig.addNode()]);
    assert.equal(await rig.settled(), off);
    assert.ok(off !== undefined);
    await rig.startLoad();
    await rig.goesOn();
    await rig.kill(off);
    const incarnation = rig.incarnationOf(off);
    await rig.ownsNothing(incarnation);
    await rig.goesOn();
    const { evidence } = await rig.expectSound();
    assert.equal(confirmedDeaths(evidence.record).filter((death) => death.incarnation === incarnation).length, 1);
  });

  test(`a node whose clock is an hour ${what} finds the dead, takes their orders over and goes on with them`, async (t) => {
    const rig = await ClusterRig.start(t, { nodes: [{ clockMs }] });
    const victim = await rig.addNode();
    await rig.settled();
    await rig.startLoad();
    await rig.kill(victim);
    await rig.ownsNothing(rig.incarnationOf(victim));
    await rig.goesOn();
    await rig.expectSound();
  });
}
