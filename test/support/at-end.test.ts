import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { test } from "node:test";
import { atEnd } from "./at-end.ts";
import { temporaryFolder } from "./service.ts";

test("what a test has started last ends first, and its folder is there until then", async (t) => {
  const seen: string[] = [];
  let folder = "";
  await t.test("a test", (tt) => {
    folder = temporaryFolder(tt);
    atEnd(tt, () => seen.push(`first, folder ${existsSync(folder)}`));
    atEnd(tt, () => seen.push(`second, folder ${existsSync(folder)}`));
  });
  assert.deepEqual(seen, ["second, folder true", "first, folder true"]);
  assert.ok(!existsSync(folder));
});
