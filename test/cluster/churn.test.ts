/** Nodes that come and go, again and again: what stays of them is bounded. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { DEAD_ROWS_MAX } from "../../src/store/cluster-store.ts";
import { seededRandom } from "../crash/seeded-random.ts";
import { heartbeatStatus } from "../support/checks.ts";
import { waitFor } from "../support/wait.ts";
import { ClusterRig, type RigNode, SEED } from "./cluster-rig.ts";

/** Joins, each followed by a leave; a thousand with ORDER_PROCESS_SOAK=1. */
const JOINS = Number(process.env["ORDER_PROCESS_JOINS"] ?? (process.env["ORDER_PROCESS_SOAK"] === "1" ? 1_000 : 10));

/** Joiners at once. */
const LANES = 2;

/** What a node may have in memory more after all joins than after the first third: some more orders in flight, some more code compiled. */
const GROWTH_BYTES_MAX = 8 * 1024 ** 2;

test(`a cluster stays sound and small while nodes join and leave it ${JOINS} times`, async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}] });
  const stayers = rig.running;
  await rig.startLoad(2);
  const random = seededRandom(SEED);
  let joins = 0;
  let killed = 0;
  let heapBytes: readonly number[] | null = null;
  const runLane = async (): Promise<void> => {
    let data: string | null = null;
    while (joins < JOINS) {
      joins++;
      const joiner: RigNode = await rig.addNode(data === null ? {} : { data });
      const own = rig.incarnationOf(joiner);
      await rig.call("a step by it", ({ incarnation }) => incarnation === own);
      // Some come back, most are never seen again.
      data = random() < 0.3 ? joiner.data : null;
      if (random() < 0.5) {
        assert.equal(await joiner.end("SIGTERM"), 0);
      } else {
        killed++;
        await rig.kill(joiner);
      }
      if (joins >= JOINS / 3) heapBytes ??= await heapsOf(rig, stayers);
    }
  };
  try {
    await Promise.all(Array.from({ length: LANES }, runLane));
  } finally {
    joins = JOINS; // a lane that failed ends the others
  }
  await rig.settled();
  for (const node of rig.nodes) await rig.ownsNothingIfGone(node);
  await rig.goesOn();
  const grownBytes = (await heapsOf(rig, stayers)).map((bytes, index) => bytes - (heapBytes?.[index] ?? 0));
  for (const node of stayers) {
    await rig.settled();
    const { nodes_count: count } = await rig.view(node);
    assert.ok(count <= stayers.length + Math.min(killed, DEAD_ROWS_MAX), `${count} nodes are listed`);
    await waitFor(async () => (await heartbeatStatus(node.url)) === "OK", { what: "the node is well" });
  }
  await rig.expectSound();
  t.diagnostic(
    `${JOINS} joins, ${killed} ended by a kill; the nodes that stayed grew by ${grownBytes.map(mebibytes).join(" and ")}`,
  );
  assert.ok(Math.max(...grownBytes) < GROWTH_BYTES_MAX, "memory does not grow with every join");
});

function mebibytes(bytes: number): string {
  return `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

function heapsOf(rig: ClusterRig, nodes: readonly RigNode[]): Promise<number[]> {
  return Promise.all(nodes.map((node) => rig.heapBytes(node)));
}
