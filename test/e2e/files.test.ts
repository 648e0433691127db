/** Files that others could read, change, or lead elsewhere. */
import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { execFileSync } from "node:child_process";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { openDataFolder } from "../../src/data-folder.ts";
import { StartError } from "../../src/order/errors.ts";
import { requireStoreFiles } from "../../src/start/store-files.ts";
import { assertRefused } from "../support/checks.ts";
import { acceptedOrderId } from "../support/client.ts";
import { runCommand, startService, temporaryFolder } from "../support/service.ts";

/** Somebody else. */
const OTHER_USER = 54_321;

function modeOf(path: string): string {
  return (statSync(path).mode & 0o7777).toString(8);
}

/** Only the administrator can give a file to somebody else. */
function needsRoot(t: TestContext): boolean {
  const isRoot = process.geteuid?.() === 0;
  if (!isRoot) t.skip("only the administrator can give files away");
  return isRoot;
}

test("what a node writes is its user's alone, in a folder of any mode and under any umask", async (t) => {
  const data = join(temporaryFolder(t), "a", "b");
  mkdirSync(data, { recursive: true });
  chmodSync(data, 0o777);
  const service = await startService(t, { data });
  await acceptedOrderId(service.url);
  assert.equal(modeOf(data), "700");
  for (const name of ["node.json", "node.lock", "orders.sqlite", "orders.sqlite-wal", "orders.sqlite-shm"]) {
    assert.equal(modeOf(join(data, name)), "600", name);
  }
  assert.match(service.output(), /level=warn msg="\S+\/b could be changed by others \(mode 0777\), .*\(mode 0700\)"/);
});

test("files that have become readable or writable to others are taken back, with one line each", async (t) => {
  const first = await startService(t);
  const { data } = first;
  await acceptedOrderId(first.url);
  await first.end("SIGKILL");
  for (const name of ["node.json", "node.lock", "orders.sqlite", "orders.sqlite-wal"])
    chmodSync(join(data, name), 0o666);
  chmodSync(join(data, "orders.sqlite"), 0o640);
  const service = await startService(t, { data });
  for (const name of ["node.json", "node.lock", "orders.sqlite", "orders.sqlite-wal"]) {
    assert.equal(modeOf(join(data, name)), "600", name);
    const lines = service
      .output()
      .split("\n")
      .filter((line) => line.includes(`/${name} could be `));
    assert.equal(lines.length, 1, `${name}: ${service.output()}`);
  }
  assert.match(service.output(), /orders\.sqlite could be read by others \(mode 0640\)/);
});

test("a private folder is no matter for the log", async (t) => {
  assert.doesNotMatch((await startService(t)).output(), /level=warn/);
});

test("what belongs to another user is told of", async (t) => {
  if (!needsRoot(t)) return;
  const first = await startService(t);
  await first.end("SIGTERM");
  for (const path of [first.data, join(first.data, "orders.sqlite")]) chownSync(path, OTHER_USER, OTHER_USER);
  const service = await startService(t, { data: first.data });
  assert.match(service.output(), new RegExp(`orders\\.sqlite belongs to user ${OTHER_USER}, who can change it`));
  assert.match(service.output(), new RegExp(`${first.data} belongs to user ${OTHER_USER}`));
});

/** Does something as somebody who may not look into a folder. */
function lockedOutOf<T>(folder: string, act: () => T): T {
  const isRoot = process.geteuid?.() === 0;
  chmodSync(folder, isRoot ? 0o700 : 0);
  if (isRoot) process.seteuid?.(OTHER_USER);
  try {
    return act();
  } finally {
    if (isRoot) process.seteuid?.(0);
    chmodSync(folder, 0o700);
  }
}

test("a data folder, and a store, that only another user may look into are named, with what to do", (t) => {
  const parent = temporaryFolder(t);
  chmodSync(parent, 0o755);
  const folder = join(parent, "theirs");
  const store = join(folder, "orders.sqlite");
  mkdirSync(folder);
  for (const name of ["node.json", "node.lock", "orders.sqlite"]) writeFileSync(join(folder, name), "");
  const refusal = (act: () => unknown): string =>
    lockedOutOf(folder, () => {
      try {
        act();
      } catch (error) {
        assert.ok(error instanceof StartError, String(error));
        return error.message;
      }
      return "nothing was refused";
    });
  assert.match(
    refusal(() => openDataFolder(folder)),
    /^the data folder \S+theirs can't be written \(EACCES\); give this user/,
  );
  assert.match(
    refusal(() => requireStoreFiles(store)),
    /^the store \S+orders\.sqlite can't be opened \(EACCES\); give this user/,
  );
});

test("a journal or log that somebody else has put beside the store is not carried out", async (t) => {
  if (!needsRoot(t)) return;
  const first = await startService(t);
  const orderId = await acceptedOrderId(first.url);
  await first.end("SIGTERM");
  for (const suffix of ["-journal", "-wal", "-shm"]) {
    const file = join(first.data, `orders.sqlite${suffix}`);
    writeFileSync(file, "from somewhere");
    chownSync(file, OTHER_USER, OTHER_USER);
    const refused = await runCommand(["--port", "0", "--data", first.data]);
    assertRefused(refused, 1, new RegExp(`orders\\.sqlite${suffix} belongs to user ${OTHER_USER}, .*\\(chown\\)`));
    rmSync(file);
  }
  const link = join(temporaryFolder(t), "link.sqlite");
  symlinkSync(join(first.data, "orders.sqlite"), link);
  const journal = join(first.data, "orders.sqlite-journal");
  writeFileSync(journal, "from somewhere");
  chownSync(journal, OTHER_USER, OTHER_USER);
  const byLink = await runCommand(["--port", "0", "--data", temporaryFolder(t), "--store", `sqlite:${link}`]);
  assertRefused(byLink, 1, /orders\.sqlite-journal belongs to user/);
  rmSync(journal);
  const second = await startService(t, { data: first.data });
  assert.equal((await fetch(`${second.url}/orders/${orderId}`, { headers: { authorization: "user" } })).status, 200);
});

test("a folder that others can write, with a store in it, is told of", async (t) => {
  const folder = temporaryFolder(t);
  chmodSync(folder, 0o1777);
  const service = await startService(t, { args: ["--store", `sqlite:${join(folder, "orders.sqlite")}`] });
  assert.match(service.output(), /level=warn msg="The folder \S+ can be changed by others \(mode 01777\), who can/);
});

test("nothing is written through a symbolic link in the data folder", async (t) => {
  const folder = temporaryFolder(t);
  const victim = join(folder, "victim");
  for (const name of ["node.json", "node.lock", "orders.sqlite-wal", "orders.sqlite-shm"]) {
    for (const target of [victim, join(folder, "nowhere")]) {
      const data = join(folder, `data-${name}-${target === victim}`);
      mkdirSync(data, { mode: 0o700 });
      writeFileSync(victim, "precious");
      symlinkSync(target, join(data, name));
      const refused = await runCommand(["--port", "0", "--data", data]);
      assertRefused(refused, 1, new RegExp(`${name} is a symbolic link`));
      assert.equal(readFileSync(victim, "utf8"), "precious");
      assert.ok(!existsSync(join(folder, "nowhere")), "nothing is made there, either");
    }
  }
});

test("a link, or another name, that waits where the identity is drafted is replaced, not followed", async (t) => {
  const folder = temporaryFolder(t);
  const victim = join(folder, "victim");
  for (const plant of [symlinkSync, linkSync]) {
    const data = join(folder, plant.name);
    mkdirSync(data, { mode: 0o700 });
    writeFileSync(victim, "precious");
    plant(victim, join(data, "node.json.tmp"));
    const service = await startService(t, { data });
    assert.equal(readFileSync(victim, "utf8"), "precious");
    assert.ok(lstatSync(join(data, "node.json")).isFile());
    await acceptedOrderId(service.url);
  }
});

test("a pipe in the place of a file is refused, and nobody waits for it", async (t) => {
  for (const name of ["node.json", "node.lock", "orders.sqlite-wal"]) {
    const data = temporaryFolder(t);
    execFileSync("mkfifo", [join(data, name)]);
    assertRefused(await runCommand(["--port", "0", "--data", data]), 1, new RegExp(`${name} is no regular file`));
  }
});

test("a store that is a link is followed if this user has made it, and refused if another has", async (t) => {
  const folder = temporaryFolder(t);
  const data = join(folder, "data");
  mkdirSync(data, { mode: 0o700 });
  symlinkSync(join(folder, "real.sqlite"), join(data, "orders.sqlite"));
  const service = await startService(t, { data });
  await acceptedOrderId(service.url);
  assert.equal(modeOf(join(folder, "real.sqlite")), "600");
  await service.end("SIGTERM");
  if (!needsRoot(t)) return;
  lchownSync(join(data, "orders.sqlite"), OTHER_USER, OTHER_USER);
  assertRefused(
    await runCommand(["--port", "0", "--data", data]),
    1,
    /orders\.sqlite is a symbolic link that user 54321/,
  );
  const other = join(folder, "other");
  mkdirSync(other, { mode: 0o700 });
  symlinkSync("../data/orders.sqlite", join(other, "orders.sqlite"));
  assertRefused(
    await runCommand(["--port", "0", "--data", other]),
    1,
    /data\/orders\.sqlite is a symbolic link that user 54321/,
  );
});

test("a configuration that others can change, or whose password they can read, is told of", async (t) => {
  const config = join(temporaryFolder(t), "config.yaml");
  const warnedOf = async (text: string, mode: number): Promise<string> => {
    writeFileSync(config, text);
    chmodSync(config, mode);
    const service = await startService(t, { args: ["--config", config] });
    await service.end("SIGTERM");
    return (
      service
        .output()
        .split("\n")
        .find((line) => line.includes("configuration file")) ?? ""
    );
  };
  assert.equal(await warnedOf("step-time: 1s", 0o644), "");
  assert.match(
    await warnedOf("step-time: 1s", 0o664),
    /level=warn .*can be changed by others \(mode 0664\); chmod go-w it/,
  );
  assert.match(await warnedOf("step-time: 1s", 0o666), /can be changed by others/);
  assert.match(await warnedOf("store-password: secret", 0o640), /holds a password and can be read by others/);
  assert.equal(await warnedOf("store-password: secret", 0o600), "");
  if (!needsRoot(t)) return;
  chownSync(config, OTHER_USER, OTHER_USER);
  assert.match(await warnedOf("step-time: 1s", 0o600), /belongs to user 54321, who can change it/);
  chmodSync(config, 0o666);
  const refused = await runCommand(["--config", config]);
  assertRefused(refused, 2, /belongs to user 54321 and can be changed by everybody \(mode 0666\)/);
});

test("pipelines that others can change are told of in one line", async (t) => {
  const folder = temporaryFolder(t);
  for (const name of ["a", "b"]) {
    const file = join(folder, `${name}.yaml`);
    writeFileSync(
      file,
      `{ name: ${name}, version: 1, steps: [{ name: S, run: { method: GET, url: "http://127.0.0.1:1/" } }] }`,
    );
    chmodSync(file, 0o666);
  }
  const service = await startService(t, { args: ["--pipelines", folder] });
  const lines = service
    .output()
    .split("\n")
    .filter((line) => line.includes("level=warn"));
  assert.equal(lines.length, 1, service.output());
  assert.match(lines.join(), /The pipelines \S+\/a\.yaml \(and 1 more\) can be changed by other users/);
});
