/** The ways to start the service: the launcher in a checkout, npm start, and the bin of an installed package. */
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdirSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { atEnd } from "../support/at-end.ts";
import { assertProblem } from "../support/checks.ts";
import { acceptedOrderId, finalOrder, submitOrder } from "../support/client.ts";
import { LAUNCHER, startService, temporaryFolder } from "../support/service.ts";
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
    detached: true, // a group of its own, so that the service ends with the test even where npm does not pass a signal on
  });
  const gone = once(child, "close");
  atEnd(t, () => {
    if (child.exitCode === null && child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
    return gone;
  });
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

/** What a team writes that has installed the package. */
const USER_PIPELINE = `import { definePipeline, permanent } from "order-process";
import * as zod from "zod";

export default definePipeline({
  name: "greeting",
  version: 1,
  body: zod.object({ name: zod.string() }),
  steps: [
    { name: "Write", run: ({ body }) => ({ text: "Hello " + body.name }) },
    {
      name: "Send",
      run: ({ results }) => {
        const { length }: { length: number } = results.Write.text;
        if (length > 20) throw permanent("too long");
        return length;
      },
    },
  ],
});
`;

const USER_TSCONFIG = {
  compilerOptions: { module: "nodenext", target: "esnext", strict: true, noEmit: true, types: [] },
  include: ["pipelines"],
};

test("a project that has installed the packed package type-checks its pipeline and runs it", async (t) => {
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
  mkdirSync(join(project, "pipelines"));
  writeFileSync(join(project, "package.json"), '{ "type": "module" }');
  writeFileSync(join(project, "tsconfig.json"), JSON.stringify(USER_TSCONFIG));
  writeFileSync(join(project, "pipelines", "greeting.ts"), USER_PIPELINE);

  const checked = spawnSync(join(project, "node_modules", ".bin", "tsc"), ["-p", project], { encoding: "utf8" });
  assert.equal(checked.status, 0, checked.stdout);

  const command = join(project, "node_modules", "order-process", "order_process");
  const args = ["--port", "0", "--data", join(project, "data"), "--pipelines", join(project, "pipelines")];
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
  const gone = once(child, "close");
  atEnd(t, () => {
    child.kill("SIGKILL");
    return gone;
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const url = await waitFor(() => /Listening at: (http:\S+?)["\s]/.exec(output)?.[1], {
    what: () => `it listens; it said: ${output}`,
  });
  const order = await finalOrder(url, await acceptedOrderId(url, '{"name":"Ann"}'));
  assert.equal(order.status, "completed");
  assert.deepEqual(
    order.steps.map(({ result }) => result),
    [{ text: "Hello Ann" }, 9, undefined],
  );
  const long = await finalOrder(url, await acceptedOrderId(url, '{"name":"a person whose name is long"}'));
  assert.deepEqual([long.status, long.steps[1]?.error], ["failed", "too long"]);
  assertProblem(await submitOrder(url, '{"name":7}'), 422, "body_refused");
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  assert.equal(await exited, 0);
});

test("SIGUSR1 neither opens Node's inspector, which runs whatever it is told, nor ends the service", async (t) => {
  const service = await startService(t);
  process.kill(service.pid, "SIGUSR1");
  // Signals are handled in the order they came, by a thread of the inspector's, if there is one: it would say where it listens.
  await acceptedOrderId(service.url);
  assert.equal(await service.end("SIGTERM"), 0);
  assert.doesNotMatch(service.output(), /[Dd]ebugger/);
});

test("the launcher's file can be executed", () => {
  assert.equal(spawnSync(LAUNCHER, ["--help"]).status, 0);
});
