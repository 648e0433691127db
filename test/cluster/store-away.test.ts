/** A store that nobody reaches for a while: nothing is acknowledged meanwhile, and nobody is taken for dead for it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { send } from "../support/client.ts";
import { monotonicMs, waitFor } from "../support/wait.ts";
import { falseFailovers } from "./cluster-checker.ts";
import { ClusterRig } from "./cluster-rig.ts";

const TTL_MS = 1_000;

test("nobody is taken for dead because the store was frozen for three TTLs, and all goes on when it is back", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: TTL_MS });
  const { serverPid } = rig.backend;
  if (serverPid === null) return t.skip("the store has no process of its own");
  const load = await rig.startLoad();
  process.kill(serverPid, "SIGSTOP");
  const atMs = monotonicMs();
  await waitFor(() => monotonicMs() >= atMs + 3 * TTL_MS, { what: "the time has passed" });
  const acknowledged = load.acknowledged.length;
  for (const { url } of rig.running) {
    assert.equal((await send(`${url}/diagnostic/heartbeat`)).json?.["status"], "STORE_UNAVAILABLE");
  }
  assert.equal(load.acknowledged.length, acknowledged, "nothing is acknowledged meanwhile");
  rig.noteStoreBack();
  process.kill(serverPid, "SIGCONT");
  await rig.settled();
  await rig.goesOn();
  const { evidence } = await rig.expectSound();
  assert.deepEqual(falseFailovers(evidence), []);
});

test("nobody is taken for dead because the store took no writes for three TTLs, and all goes on when it does again", async (t) => {
  const rig = await ClusterRig.start(t, { ttlMs: TTL_MS });
  const { refuseWrites } = rig.backend;
  if (refuseWrites === null) return t.skip("the store can't be told to take no writes");
  await rig.startLoad();
  await refuseWrites(true);
  const atMs = monotonicMs();
  await waitFor(() => monotonicMs() >= atMs + 3 * TTL_MS, { what: "the time has passed" });
  rig.noteStoreBack();
  await refuseWrites(false);
  await rig.settled();
  await rig.goesOn();
  const { evidence } = await rig.expectSound();
  assert.deepEqual(falseFailovers(evidence), []);
});
