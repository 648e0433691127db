/** A node stays within the memory that it has, whatever orders it is sent, and says so where that is too little. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { atEnd } from "../support/at-end.ts";
import { assertRefused, heartbeatStatus } from "../support/checks.ts";
import { send, submitOrder } from "../support/client.ts";
import { memoryGroup } from "../support/memory-group.ts";
import { LAUNCHER, runCommand, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const MIB = 1024 ** 2;
const LIMIT_MIB = 256;
const CLIENTS = 32;

/** Intake has ended when so many are refused in turn. */
const REFUSED_MAX = 60;

/** Sends orders until no more are taken. @returns how many were */
async function fill(url: string, body: string): Promise<number> {
  let [accepted, refused] = [0, 0];
  const client = async (): Promise<void> => {
    while (refused < REFUSED_MAX) {
      const { status, text } = await submitOrder(url, body);
      assert.ok(status === 201 || status === 503, `${status} ${text}`);
      if (status === 201) accepted++;
      // A busy machine may keep a node from saying that it lives: that is no sign of a full one.
      if (!text.includes("store_unavailable")) refused = status === 201 ? 0 : refused + 1;
    }
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  return accepted;
}

/** The most memory that a process ever had. */
function peakMib(pid: number): number {
  return Number(/VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) / 1024;
}

for (const [what, body] of [
  ["small bodies", '{"item":"book","amount":3}'],
  ["the largest bodies", `{"text":"${"x".repeat(262_000)}"}`],
  ["bodies that take many times their text when parsed", `{"a":[${"{},".repeat(87_000)}{}]}`],
  ["bodies of two bytes a character", `{"text":"${"\u4e2d".repeat(87_000)}"}`],
] as const) {
  test(`a node that is full of orders with ${what} stays within 90 % of its memory`, async (t) => {
    if (process.platform !== "linux") return t.skip("the system does not tell what a process takes");
    const args = ["--step-time", "1h", "--memory-limit", `${LIMIT_MIB}MiB`];
    const service = await startService(t, { args });
    const promised = Number(/in flight at most: (\d+)/.exec(service.output())?.[1]);
    const accepted = await fill(service.url, body);
    assert.ok(accepted > 10, `${accepted} accepted`);
    if (what === "small bodies") assert.equal(accepted, promised);
    const peak = peakMib(service.pid);
    assert.ok(peak <= 0.9 * LIMIT_MIB, `it had ${peak.toFixed(0)} MiB`);
    // A node that was too busy to say that it lives says so again.
    await waitFor(async () => (await heartbeatStatus(service.url)) === "OK", { what: "the node is well" });
  });
}

/** Steps that take as long as their receiver, or as they like. */
const PIPELINES: Readonly<Record<string, (receiver: string) => string>> = {
  "calls.yaml": (receiver) => `name: calls
version: 1
steps:
  - name: Send
    timeout: 10m
    run: { method: POST, url: "${receiver}", body: { amount: "\${body.amount}" } }
`,
  "grows.yaml": (receiver) => `name: grows
version: 1
steps:
  - name: Send
    timeout: 10m
    run: { method: POST, url: "${receiver}", body: { lines: "\${body.items.map(i, {'note': body.note})}" } }
`,
  "keeps.ts": (receiver) => `import { definePipeline } from "order-process";
export default definePipeline({ name: "keeps", version: 1, steps: [{ name: "Send", timeout: "10m", run: async ({ body }) => {
  await fetch("${receiver}", { method: "POST", body: "{}" });
  return Object.keys(body).length;
} }] });
`,
};

for (const [file, what, body] of [
  ["calls.yaml", "in YAML", `{"amount":1,"a":[${"{},".repeat(80_000)}{}]}`],
  ["keeps.ts", "in TypeScript", `{"amount":1,"a":[${"{},".repeat(80_000)}{}]}`],
  [
    "grows.yaml",
    "that make much of little",
    `{"note":"${String.raw`\u0001`.repeat(300)}","items":[${"1,".repeat(34)}1]}`,
  ],
] as const) {
  test(`a node whose calls take long stays within its memory, and ends them all (steps ${what})`, async (t) => {
    if (process.platform !== "linux") return t.skip("the system does not tell what a process takes");
    const held: ServerResponse[] = [];
    let [isOpen, most] = [false, 0];
    const receiver = createServer((request, response) => {
      request.resume();
      const answer = (): void => void response.writeHead(204).end();
      if (isOpen) return answer();
      held.push(response);
      most = Math.max(most, held.length);
    });
    await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
    atEnd(t, () => {
      receiver.closeAllConnections();
      receiver.close();
    });
    const { port } = receiver.address() as AddressInfo;
    const path = join(temporaryFolder(t), file);
    writeFileSync(path, PIPELINES[file]?.(`http://127.0.0.1:${port}/`) ?? "");
    const args = ["--pipelines", path, "--memory-limit", `${LIMIT_MIB}MiB`];
    const data = temporaryFolder(t);
    const service = await startService(t, { args, data });
    const accepted = await fill(service.url, body);
    assert.ok(accepted > 10, `${accepted} accepted`);
    await waitFor(async () => (await heartbeatStatus(service.url)) === "OK", { what: "the node is well" });
    assert.ok(peakMib(service.pid) <= 0.9 * LIMIT_MIB, `it had ${peakMib(service.pid).toFixed(0)} MiB`);
    // Whoever goes on with them has the same memory.
    await service.end("SIGKILL");
    const next = await startService(t, { args, data });
    await waitFor(() => held.length > 0 && most > 0, { what: "calls are made again" });
    isOpen = true;
    for (const response of held) response.writeHead(204).end();
    const isDone = async (): Promise<boolean> => {
      const { counts } = (await send(`${next.url}/orders?limit=1`, { headers: { authorization: "user" } })).json as {
        counts: Record<string, number>;
      };
      return counts["completed"] === accepted;
    };
    await waitFor(isDone, { what: "all are completed" });
    assert.ok(peakMib(next.pid) <= 0.9 * LIMIT_MIB, `the next one had ${peakMib(next.pid).toFixed(0)} MiB`);
  });
}

test("a node in a container finds the container's limit, and is not ended by the kernel when it is full", async (t) => {
  const group = memoryGroup(t, LIMIT_MIB * MIB);
  if (group === null) return t.skip("this machine lets nobody limit the memory of a process");
  const args = [LAUNCHER, "--port", "0", "--data", temporaryFolder(t), "--step-time", "1h"];
  const child = spawn("sh", ["-c", `echo $$ > ${group}; exec "$0" "$@"`, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  const exited = new Promise((resolve) => child.once("exit", (code, signal) => resolve(code ?? signal)));
  t.after(async () => {
    child.kill("SIGKILL");
    await exited;
  });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const url = await waitFor(() => /Listening at: (http:\S+?)["\s]/.exec(output)?.[1], {
    what: () => `it listens; it said: ${output}`,
  });
  const accepted = await fill(url, `{"a":[${"{},".repeat(87_000)}{}]}`);
  assert.ok(accepted > 10, `${accepted} accepted; it said: ${output}`);
  const peak = peakMib(child.pid ?? -1);
  assert.ok(peak <= 0.9 * LIMIT_MIB, `it had ${peak.toFixed(0)} MiB`);
  child.kill("SIGTERM");
  assert.equal(await exited, 0, "it was the same process all the time, and stops in good order");
});

test("too little memory is refused in one line that says what is needed", async (t) => {
  const data = temporaryFolder(t);
  const refused = await runCommand(["--port", "0", "--data", data, "--memory-limit", "100MiB"]);
  assertRefused(refused, 1, /limited to 100 MiB, and a node with a --body-limit of 256 KiB needs (\d+) MiB/);
  const needed = /needs (\d+) MiB/.exec(refused.stderr)?.[1];
  await startService(t, { args: ["--memory-limit", `${needed}MiB`] });
  const large = await runCommand(["--port", "0", "--memory-limit", "512MiB", "--body-limit", "64MiB"]);
  assertRefused(large, 1, /needs 1\d\d\d MiB/);
});

test("a heap that NODE_OPTIONS makes smaller stays so", async (t) => {
  const env = { NODE_OPTIONS: "--max-old-space-size=64" };
  const service = await startService(t, { env, args: ["--memory-limit", "512MiB"] });
  assert.match(readFileSync(`/proc/${service.pid}/cmdline`, "latin1"), /--max-old-space-size=64\0/);
});

test("where memory is short, what is freed goes back to the system, unless the environment has other wishes", async (t) => {
  if (process.platform !== "linux") return t.skip("the system does not tell a process's environment");
  const env = { MALLOC_ARENA_MAX: "2" };
  const service = await startService(t, { env, args: ["--memory-limit", `${LIMIT_MIB}MiB`] });
  const environment = readFileSync(`/proc/${service.pid}/environ`, "latin1").split("\0");
  const malloc = environment.filter((entry) => entry.startsWith("MALLOC_")).toSorted();
  assert.deepEqual(malloc, ["MALLOC_ARENA_MAX=2", "MALLOC_MMAP_THRESHOLD_=32768", "MALLOC_TRIM_THRESHOLD_=131072"]);
});
