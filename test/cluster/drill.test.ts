/** `order_process drill`: what it shows, and that it leaves nothing behind. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test, type TestContext } from "node:test";
import { setTimeout } from "node:timers/promises";
import { atEnd } from "../support/at-end.ts";
import { redisIsMissing, startRedis } from "../support/redis.ts";
import { spawnService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const DEADLINE_MS = 120_000;

interface Drill {
  readonly said: () => string;
  readonly signal: (signal: NodeJS.Signals) => void;
  readonly exited: Promise<number | NodeJS.Signals | null>;
  /** What it has left in the folder for temporary files. */
  readonly leftFiles: () => readonly string[];
}

function startDrill(t: TestContext, args: readonly string[] = []): Drill {
  const folder = temporaryFolder(t);
  const child = spawnService({ env: { TMPDIR: folder } }, ["drill", "--node-ttl", "1s", ...args]);
  let said = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (said += text));
  const exited = new Promise<number | NodeJS.Signals | null>((resolve) => {
    child.once("close", (code, signal) => resolve(code ?? signal));
  });
  atEnd(t, async () => {
    child.kill("SIGKILL");
    await exited;
  });
  return {
    said: () => said,
    signal: (signal) => child.kill(signal),
    exited,
    leftFiles: () => readdirSync(folder),
  };
}

/** A node of the drill that still runs, though the drill has ended. */
async function nodeThatAnswers(said: string): Promise<string | null> {
  for (const url of said.match(/http:\/\/[\d.]+:\d+/g) ?? []) {
    const answers = await fetch(url).then(
      () => true,
      () => false,
    );
    if (answers) return url;
  }
  return null;
}

test("a drill shows what it does to its nodes, passes, and leaves nothing behind", async (t) => {
  const drill = startDrill(t);
  assert.equal(await drill.exited, 0, drill.said());
  const said = drill.said();
  for (const blow of [/kill -9 \w, a follower/, /kill -9 \w, the leader/, /SIGSTOP \w/, /SIGTERM \w/])
    assert.match(said, blow);
  assert.match(said, /orders acknowledged +[1-9]\d*\n/);
  assert.match(said, /completed +[1-9]\d*\n/);
  assert.match(said, / lost +0\n +late writes accepted +0\n/);
  assert.match(said, /Passed: nothing was lost/);
  assert.deepEqual(drill.leftFiles(), []);
  assert.equal(await nodeThatAnswers(said), null);
});

test("a drill that is interrupted leaves nothing behind, and Redis as empty as it was", async (t) => {
  const redis = redisIsMissing === false ? await startRedis(t) : null;
  const drill = startDrill(t, redis === null ? [] : ["--store", `redis://127.0.0.1:${redis.port}`]);
  await waitFor(() => drill.said().includes("kill -9"), { deadlineMs: DEADLINE_MS, what: "the drill is under way" });
  assert.notEqual(await redis?.command("DBSIZE"), 0);
  drill.signal("SIGHUP");
  await setTimeout(5);
  drill.signal("SIGINT"); // by somebody who can't wait
  assert.equal(await drill.exited, 1);
  assert.match(drill.said(), /order_process: the drill was stopped by SIGHUP/);
  assert.deepEqual(drill.leftFiles(), []);
  assert.equal(await nodeThatAnswers(drill.said()), null);
  assert.equal((await redis?.command("DBSIZE")) ?? 0, 0);
});
