/**
 * The embedded store has one write lock for all its nodes, and the operating system gives it back only when the process ends:
 * what happens when whoever has it is frozen.
 */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { test, type TestContext } from "node:test";
import { atEnd } from "../support/at-end.ts";
import { isStopped } from "../support/freeze.ts";
import { waitFor } from "../support/wait.ts";
import { confirmedDeaths, falseFailovers } from "./cluster-checker.ts";
import { ClusterRig } from "./cluster-rig.ts";
import { assertMovedAgain } from "./judgement.ts";

for (const whom of ["worker", "leader"] as const) {
  test(`a ${whom} that is frozen while it holds the store's write lock is ended, and its orders go on elsewhere`, async (t) => {
    const rig = await ClusterRig.start(t);
    if (rig.backend.path === null) return t.skip("the store has no lock of its nodes");
    await rig.startLoad();
    const leader = await rig.settled();
    const node = whom === "leader" ? leader : (await rig.workers())[0];
    const incarnation = rig.incarnationOf(node);
    await rig.freeze(node, "within a write");
    await rig.isKilled(node);
    await rig.ownsNothing(incarnation);
    await rig.goesOn();
    const judgement = await rig.expectSound();
    assertMovedAgain(judgement);
    const deaths = confirmedDeaths(judgement.evidence.record);
    assert.equal(deaths.filter((death) => death.incarnation === incarnation).length, 1);
    const said = rig.nodes.map(({ output }) => output()).join("");
    assert.match(said, new RegExp(`Process ${node.pid}, a node of this store, was frozen while it held .* was ended`));
  });
}

test("a frozen process that holds the store's write lock and is no node of it is left alone; all goes on when it wakes up", async (t) => {
  const rig = await ClusterRig.start(t);
  const { path } = rig.backend;
  if (path === null) return t.skip("the store has no lock of its nodes");
  await rig.startLoad();
  const pid = await startForeignWriter(t, path);
  process.kill(pid, "SIGSTOP");
  // Each write is refused after five seconds; then intake is, too, and the heartbeats stop.
  await Promise.all(rig.running.map((node) => rig.says(node, /The store failed: another process holds its lock/)));
  assert.ok(isStopped(pid), "it lives: it is none of theirs");
  rig.noteStoreBack();
  process.kill(pid, "SIGCONT");
  await rig.settled();
  await rig.goesOn();
  const { evidence } = await rig.expectSound();
  assert.deepEqual(falseFailovers(evidence), [], "nobody is taken for dead because nobody could write");
});

/** A process that is no node, in the middle of a transaction on the store; it ends with the test. */
async function startForeignWriter(t: TestContext, path: string): Promise<number> {
  const script = `
    const { DatabaseSync } = require("node:sqlite");
    const db = new DatabaseSync(${JSON.stringify(path)}, { timeout: 5000 });
    db.exec("BEGIN IMMEDIATE");
    process.on("SIGCONT", () => { db.exec("ROLLBACK"); process.exit(); });
    setInterval(() => undefined, 1000);
    process.stdout.write("locked");
  `;
  const child = spawn(process.execPath, ["-e", script], { stdio: ["ignore", "pipe", "inherit"] });
  atEnd(t, () => child.kill("SIGKILL"));
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (said += text));
  await waitFor(() => said === "locked", { what: "the foreign process has the lock" });
  assert.ok(child.pid !== undefined);
  return child.pid;
}
