/** Nodes of a new cluster are often started together: none may fail because another one is making their store at that moment. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { atEnd } from "../support/at-end.ts";
import { temporaryFolder } from "../support/service.ts";

const OPENER = fileURLToPath(new URL("opener.ts", import.meta.url));

/** Without patience for each other some opening fails within the first dozens. */
const STORES = 60;
const PROCESSES = 4;

test("of several processes that open a new store at the same moment each succeeds", async (t) => {
  const folder = temporaryFolder(t);
  const openers = Array.from({ length: PROCESSES }, () => {
    const child: ChildProcess = spawn(process.execPath, [OPENER], { stdio: ["pipe", "pipe", "inherit"] });
    atEnd(t, () => child.kill("SIGKILL"));
    const { stdin, stdout } = child;
    assert.ok(stdin !== null && stdout !== null);
    const answers = createInterface({ input: stdout })[Symbol.asyncIterator]();
    return async (path: string): Promise<unknown> => {
      stdin.write(`${path}\n`);
      return (await answers.next()).value;
    };
  });
  for (let store = 0; store < STORES; store++) {
    const path = join(folder, `${store}.sqlite`);
    const outcomes = await Promise.all(openers.map((open) => open(path)));
    assert.deepEqual(new Set(outcomes), new Set(["opened"]));
  }
});
