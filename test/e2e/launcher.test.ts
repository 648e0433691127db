/** The ways to start the service: the launcher in a checkout, npm start, and the bin of an installed package. */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { LAUNCHER, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** A checkout of its own in a folder with a space, with whichever of the dependencies. */
function checkout(t: TestContext, dependencies: (name: string) => boolean): string {
  const folder = join(temporaryFolder(t), "a checkout");
  mkdirSync(join(folder, "node_modules"), { recursive: true });
  for (const name of ["order_process", "package.json", "src"])
    cpSync(join(ROOT, name), join(folder, name), { recursive: true });
  linkDependencies(folder, dependencies);
  return folder;
}

function linkDependencies(folder: string, wanted: (name: string) => boolean): void {
  for (const name of readdirSync(join(ROOT, "node_modules")).filter(wanted)) {
    symlinkSync(join(ROOT, "node_modules", name), join(folder, "node_modules", name));
  }
}

test("npm start passes options on, and SIGTERM to npm stops the service in good order", async (t) => {
  const data = temporaryFolder(t);
  const child = spawn("npm", ["start", "--", "--port", "0", "--data", data], {
    cwd: ROOT,
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
  await waitFor(() => output.includes("Listening at"), { what: () => `it listens; it said: ${output}` });
  child.kill("SIGTERM");
  await waitFor(() => output.includes("msg=Stopped"), { what: () => `it has stopped; it said: ${output}` });
});

test("a checkout without its dependencies says the one command to run, in a form that can be pasted", (t) => {
  const folder = checkout(t, () => false);
  const { status, stderr } = spawnSync(join(folder, "order_process"), { encoding: "utf8" });
  assert.equal(status, 1);
  assert.equal(stderr, `order_process: its dependencies are not installed; run: npm ci --prefix "${folder}"\n`);
});

test("where no Node is new enough, the launcher says which it needs and which it found", (t) => {
  const folder = checkout(t, (name) => name === "fastify");
  const bin = join(temporaryFolder(t), "bin");
  mkdirSync(bin);
  cpSync(fileURLToPath(new URL("../support/node-20", import.meta.url)), join(bin, "node"));
  const { status, stderr } = spawnSync(join(folder, "order_process"), {
    encoding: "utf8",
    env: { PATH: `${bin}:/usr/bin:/bin` },
  });
  assert.equal(status, 1);
  assert.match(stderr, /^order_process: it needs Node 24 or later, and v20\.0\.0 was found; .*\n$/);
});

test("a checkout in a folder with a space runs, through a symlink and from another folder, too", (t) => {
  const folder = checkout(t, () => true);
  const link = join(temporaryFolder(t), "order_process");
  symlinkSync(join(folder, "order_process"), link);
  assert.match(execFileSync(link, ["--version"], { cwd: temporaryFolder(t), encoding: "utf8" }), /^\d+\.\d+\.\d+\n$/);
});

test("the package that npm packs runs when it is installed", async (t) => {
  const project = temporaryFolder(t);
  const packed = temporaryFolder(t);
  execFileSync("npm", ["pack", "--pack-destination", packed], { cwd: ROOT, stdio: "pipe" });
  const [tarball = ""] = readdirSync(packed);
  mkdirSync(join(project, "node_modules", "order-process"), { recursive: true });
  // As npm install would lay it out, without asking a registry.
  execFileSync("tar", [
    "-xzf",
    join(packed, tarball),
    "-C",
    join(project, "node_modules", "order-process"),
    "--strip-components=1",
  ]);
  linkDependencies(project, () => true);

  const command = join(project, "node_modules", "order-process", "order_process");
  const child = spawn(command, ["--port", "0", "--data", join(project, "data")], { stdio: ["ignore", "pipe", "pipe"] });
  t.after(() => child.kill("SIGKILL"));
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  await waitFor(() => output.includes("Listening at"), { what: () => `it listens; it said: ${output}` });
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  assert.equal(await exited, 0);
});

test("the launcher's file can be executed", () => {
  assert.equal(spawnSync(LAUNCHER, ["--help"]).status, 0);
});
