/** Nodes whose wall clocks differ: nothing between nodes may rest on them (cluster rule 2). */
import assert from "node:assert/strict";
import { test } from "node:test";
import { confirmedDeaths } from "./cluster-checker.ts";
import { replay } from "../../src/order/evolve.ts";
import { send } from "../support/client.ts";
import { monotonicMs, waitFor } from "../support/wait.ts";
import { ClusterRig, type RigNode } from "./cluster-rig.ts";

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

type Remaining = Readonly<Record<"signal" | "attempt", number>>;

/** How long two orders still wait, by the record in the store: one for its signal, one for its next attempt. */
async function remaining(rig: ClusterRig, orders: { signal: string; attempt: string }): Promise<Remaining | null> {
  const rows = await rig.backend.readContent();
  const stateOf = (id: string): ReturnType<typeof replay>["state"] | null => {
    const row = rows.find(({ orderId }) => orderId === id);
    return row === undefined ? null : replay(id, row.history).state;
  };
  const [signal, attempt] = [stateOf(orders.signal), stateOf(orders.attempt)];
  if (signal?.status !== "waiting" || attempt?.status !== "running" || attempt.call.attempt !== 2) return null;
  return { signal: signal.limitMs ?? 0, attempt: attempt.call.waitMs };
}

const ENDS: Readonly<Record<string, (rig: ClusterRig, node: RigNode) => Promise<unknown>>> = {
  stops: (_, node) => node.end("SIGTERM"),
  "is killed": (rig, node) => rig.kill(node),
  "is frozen": (rig, node) => rig.freeze(node),
};

for (const [what, clockMs] of [
  ["ahead", 3 * HOUR_MS],
  ["behind", -3 * HOUR_MS],
] as const) {
  for (const [ends, end] of Object.entries(ENDS)) {
    test(`waits keep their lengths when a node whose clock is three hours ${what} ${ends}`, async (t) => {
      const rig = await ClusterRig.start(t, { nodes: [{ clockMs }, {}, {}], waiting: true, answerMs: 0 });
      const [off, other] = rig.nodes;
      assert.ok(off !== undefined && other !== undefined);
      const startMs = monotonicMs();
      const orders = { signal: await rig.submit(off), attempt: await rig.submit(off, { flaky_at: "Reserve" }) };
      await waitFor(() => remaining(rig, orders), { what: "both orders wait" });
      await end(rig, off);
      await rig.ownsNothing(rig.incarnationOf(off));
      const left = await remaining(rig, orders);
      assert.ok(left !== null, "both orders still wait");
      const passedMs = monotonicMs() - startMs;
      for (const [wait, leftMs] of Object.entries(left)) {
        assert.ok(
          leftMs <= HOUR_MS && leftMs >= HOUR_MS - passedMs - rig.ttlMs,
          `${wait}: ${HOUR_MS - leftMs} ms passed`,
        );
      }
      const answer = await send(`${other.url}/orders/${orders.signal}/complete`, {
        method: "POST",
        headers: { authorization: "user", "content-type": "application/json" },
        body: JSON.stringify({ step: "Approve", result: {} }),
      });
      assert.equal(answer.json?.["status"], "completed", answer.text);
    });
  }
}
