/**
 * Measures what bench/README.md lists and prints it as a table. Every figure stands beside the ceiling that was measured
 * in turn with it, in the same run, because machines differ and change: the ratio is what counts.
 *
 *     npm run bench            about four minutes
 *     npm run bench -- quick   one round each, shorter: to see that it runs, not to quote
 *     npm run bench -- judge   what it takes to judge any body, and expressions over it (judge.ts)
 *     npm run bench -- light   what an order costs at light load, by how much is stored (light.ts)
 *     npm run bench -- strangers   what clients cost that send much or read nothing: strangers.ts
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { startRedis } from "../test/support/redis.ts";

if (process.argv[2] === "judge") {
  await import("./judge.ts");
  process.exit(process.exitCode ?? 0);
}
if (process.argv[2] === "light") {
  const { measureLightLoad } = await import("./light.ts");
  process.exit((await measureLightLoad(process.argv.slice(3))) ? 0 : 1);
}
if (process.argv[2] === "strangers") {
  await import("./strangers.ts");
  process.exit();
}

const QUICK = process.argv.includes("quick");
const ROUNDS = QUICK ? 1 : 5;
const LOAD_SECONDS = QUICK ? 2 : 6;
/** Until the code that takes orders has been compiled. */
const WARM_UP_SECONDS = 2;
const LOOP_ORDERS = QUICK ? 30_000 : 150_000;
const IDLE_ORDERS = QUICK ? 50 : 400;
const IN_FLIGHT_ORDERS = 100_000;
/** As many as the connections below keep busy, and as the in-process engine is given. */
const CONNECTIONS = 256;
const LOOP_IN_FLIGHT = 3_000;
const LOOP_WRITES_PER_COMMIT = 1_500;

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const LAUNCHER = join(ROOT, "order_process");
/** The young generation of a service as the launcher starts it. */
const NODE_FLAGS = ["--min-semi-space-size=64", "--max-semi-space-size=64"];
const HAS_WRK = spawnSync("wrk", ["-v"]).error === undefined;

interface Row {
  readonly what: string;
  readonly figure: string;
  readonly beside: string;
  readonly goal: string;
}

const folders: string[] = [];
const children = new Set<ChildProcess>();
const rows: Row[] = [];

process.on("exit", () => {
  for (const child of children) child.kill("SIGKILL");
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});

progress(
  `${cpus().length} × ${cpus()[0]?.model ?? "?"}, Node ${process.version}, load from ${HAS_WRK ? "wrk" : "autocannon"}`,
);
await measureEngine();
await measureEngineOnRedis();
const servicePerSecond = await measureHttp();
await measureAcceptLatency(servicePerSecond);
await measureIdle();
measureMemory();
await measureRestart();
printTable();

/** The engine without HTTP beside a bare loop that makes the same writes in the same store. */
async function measureEngine(): Promise<void> {
  const engine: number[] = [];
  const loop: number[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    engine.push(runLoop("in-process.ts", ["speed"], LOOP_IN_FLIGHT));
    loop.push(runLoop("bare-loop.ts", [], LOOP_WRITES_PER_COMMIT));
    progress(
      `in-process, round ${round} of ${ROUNDS}: engine ${perSecond(engine.at(-1))}, bare loop ${perSecond(loop.at(-1))}`,
    );
  }
  rows.push({
    what: "orders completed, in-process",
    figure: perSecond(median(engine)),
    beside: `bare loop ${perSecond(median(loop))}: ${ratios(engine, loop)}`,
    goal: "≥ 65 % now, 90 % in the end",
  });
}

/** The engine on Redis beside the engine on the embedded store: both sync every write. */
async function measureEngineOnRedis(): Promise<void> {
  if (spawnSync("redis-server", ["--version"]).error !== undefined) {
    progress("in-process on Redis: left out, as redis-server is not installed");
    return;
  }
  const endings: (() => unknown)[] = [];
  const server = await startRedis({ after: (ending) => endings.push(ending) });
  const redis: number[] = [];
  const sqlite: number[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    await server.command("FLUSHALL");
    const args = ["speed", `redis://127.0.0.1:${server.port}`, String(LOOP_ORDERS), String(LOOP_IN_FLIGHT)];
    redis.push(runScript("in-process.ts", args)["ordersPerSecond"] ?? Number.NaN);
    sqlite.push(runLoop("in-process.ts", ["speed"], LOOP_IN_FLIGHT));
    progress(
      `in-process, round ${round} of ${ROUNDS}: on Redis ${perSecond(redis.at(-1))}, on SQLite ${perSecond(sqlite.at(-1))}`,
    );
  }
  for (const ending of endings) await ending();
  rows.push({
    what: "orders completed, in-process, on Redis",
    figure: perSecond(median(redis)),
    beside: `on SQLite ${perSecond(median(sqlite))}: ${ratios(redis, sqlite)}`,
    goal: "≥ 60 %",
  });
}

/** The service over HTTP beside the same server with no work behind it. */
async function measureHttp(): Promise<number> {
  const service: number[] = [];
  const ceiling: number[] = [];
  for (let round = 1; round <= ROUNDS; round++) {
    service.push(await completedPerSecond());
    ceiling.push(await acceptedPerSecondWithoutWork());
    progress(
      `over HTTP, round ${round} of ${ROUNDS}: service ${perSecond(service.at(-1))}, no work ${perSecond(ceiling.at(-1))}`,
    );
  }
  rows.push({
    what: "orders completed, over HTTP",
    figure: perSecond(median(service)),
    beside: `same server, no work ${perSecond(median(ceiling))}: ${ratios(service, ceiling)}`,
    goal: "≥ 50 % now, 70 % in the end",
  });
  return median(service);
}

async function measureAcceptLatency(peakPerSecond: number): Promise<void> {
  const { url, child } = await startService(["--step-time", "0ms"]);
  const rate = Math.round(peakPerSecond / 2);
  const offer = (seconds: number): AutocannonResult =>
    autocannon(url, ["-d", String(seconds), "-c", "50", "-R", String(rate)]);
  offer(WARM_UP_SECONDS);
  const result = offer(LOAD_SECONDS);
  await end(child, "SIGTERM");
  progress(`accept latency at ${perSecond(rate)} offered: p50 ${result.latency.p50} ms, p99 ${result.latency.p99} ms`);
  rows.push({
    what: "accept latency at half load",
    figure: `p50 ${result.latency.p50} ms, p99 ${result.latency.p99} ms`,
    beside: `${perSecond(rate)} offered, ${perSecond(result.requests.average)} accepted`,
    goal: "p99 ≤ 20 ms",
  });
}

/** One order at a time, the system otherwise idle: inside the process, and as an HTTP client sees it that asks every millisecond. */
async function measureIdle(): Promise<void> {
  const inside = runScript("in-process.ts", ["latency", newFolder(), String(IDLE_ORDERS)])["p50Ms"] ?? Number.NaN;
  const { url, child } = await startService(["--step-time", "0ms"]);
  const agent = new Agent({ keepAlive: true });
  const timesMs: number[] = [];
  for (let count = 0; count < IDLE_ORDERS; count++) {
    const startMs = performance.now();
    const { order_id: id } = await ask(agent, "POST", `${url}/orders`, "{}");
    do await delay(1);
    while ((await ask(agent, "GET", `${url}/orders/${id}`))["status"] !== "completed");
    timesMs.push(performance.now() - startMs);
  }
  agent.destroy();
  await end(child, "SIGTERM");
  progress(
    `idle system, submitted to completed: p50 ${inside.toFixed(2)} ms; over HTTP ${median(timesMs).toFixed(2)} ms`,
  );
  rows.push({
    what: "one order, idle system",
    figure: `p50 ${inside.toFixed(2)} ms`,
    beside: `five disk syncs, one after another; a client over HTTP that asks every ms: p50 ${median(timesMs).toFixed(2)} ms`,
    goal: "p50 ≤ 3 ms",
  });
}

function measureMemory(): void {
  const figures = runScript("in-process.ts", ["memory", newFolder(), String(IN_FLIGHT_ORDERS)]);
  const [heap, resident] = [figures["heapBytesPerOrder"], figures["residentBytesPerOrder"]].map((bytes) =>
    Math.round(bytes ?? Number.NaN),
  );
  progress(`${IN_FLIGHT_ORDERS} orders in flight: ${heap} bytes of heap each`);
  rows.push({
    what: "memory per order in flight",
    figure: `${heap} B of heap`,
    beside: `resident ${resident} B, with the store's page cache and room for garbage`,
    goal: "≤ 2048 B",
  });
}

async function measureRestart(): Promise<void> {
  const options = ["--step-time", "1h"];
  const { url, child, data } = await startService(options);
  autocannon(url, ["-a", String(IN_FLIGHT_ORDERS), "-c", "50"]);
  await end(child, "SIGKILL");
  const startMs = performance.now();
  const again = await startService(options, data);
  const listenMs = performance.now() - startMs;
  await seen(again, `taken over: ${IN_FLIGHT_ORDERS}`);
  const restartMs = performance.now() - startMs;
  await end(again.child, "SIGKILL");
  progress(
    `restart after SIGKILL with ${IN_FLIGHT_ORDERS} in flight: all running after ${(restartMs / 1_000).toFixed(2)} s`,
  );
  rows.push({
    what: "restart, 100,000 in flight",
    figure: `${(restartMs / 1_000).toFixed(2)} s`,
    beside: `process start to all running; it listens after ${(listenMs / 1_000).toFixed(2)} s`,
    goal: "≤ 10 s now, 5 s in the end",
  });
}

function runLoop(script: string, mode: readonly string[], size: number): number {
  const folder = newFolder();
  const { ordersPerSecond } = runScript(script, [...mode, folder, String(LOOP_ORDERS), String(size)]);
  rmSync(folder, { recursive: true });
  return ordersPerSecond ?? Number.NaN;
}

/** Runs a script of this folder on the service's own Node flags; returns the figures that it prints as JSON. */
function runScript(script: string, args: readonly string[]): Record<string, number> {
  const command = [...NODE_FLAGS, "--expose-gc", join(ROOT, "bench", script), ...args];
  return JSON.parse(execFileSync(process.execPath, command, { encoding: "utf8" })) as Record<string, number>;
}

/** From the store itself: what is completed in it when the load has ended. */
async function completedPerSecond(): Promise<number> {
  const { url, child, data } = await startService(["--step-time", "0ms"]);
  const { seconds } = load(url);
  await end(child, "SIGTERM");
  const db = new DatabaseSync(join(data, "orders.sqlite"), { readOnly: true });
  const row = db.prepare("SELECT count(*) AS completed FROM orders WHERE status = 'completed'").get();
  db.close();
  rmSync(data, { recursive: true });
  return Number(row?.["completed"]) / seconds;
}

async function acceptedPerSecondWithoutWork(): Promise<number> {
  const { url, child } = await start(process.execPath, [...NODE_FLAGS, join(ROOT, "bench", "http-ceiling.ts")]);
  const { requests, seconds } = load(url);
  await end(child, "SIGTERM");
  return requests / seconds;
}

/** Posts orders as fast as they are answered, from a process of its own. */
function load(url: string): { requests: number; seconds: number } {
  if (!HAS_WRK) {
    const result = autocannon(url, ["-d", String(LOAD_SECONDS), "-c", String(CONNECTIONS)]);
    return { requests: result["2xx"], seconds: result.duration };
  }
  const args = [
    "-t1",
    `-c${CONNECTIONS}`,
    `-d${LOAD_SECONDS}s`,
    "-s",
    join(ROOT, "bench", "post.lua"),
    `${url}/orders`,
  ];
  const text = execFileSync("wrk", args, { encoding: "utf8" });
  const [, requests, seconds] = /(\d+) requests in ([\d.]+)s/.exec(text) ?? [];
  if (requests === undefined || seconds === undefined || text.includes("Non-2xx")) throw new Error(`wrk said: ${text}`);
  return { requests: Number(requests), seconds: Number(seconds) };
}

interface AutocannonResult {
  readonly "2xx": number;
  readonly non2xx: number;
  readonly errors: number;
  readonly duration: number;
  readonly latency: { readonly p50: number; readonly p99: number };
  readonly requests: { readonly average: number };
}

function autocannon(url: string, options: readonly string[]): AutocannonResult {
  const script = join(ROOT, "node_modules", "autocannon", "autocannon.js");
  const headers = ["-H", "Authorization=user", "-H", "Content-Type=application/json"];
  const args = [
    script,
    "--json",
    "-m",
    "POST",
    ...headers,
    "-b",
    '{"item":"book","amount":3}',
    ...options,
    `${url}/orders`,
  ];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8", maxBuffer: 2 ** 26 });
  const line = stdout.split("\n").find((text) => text.startsWith("{"));
  if (line === undefined) throw new Error(`autocannon said: ${stdout}${stderr}`);
  const result = JSON.parse(line) as AutocannonResult;
  if (result.non2xx > 0 || result.errors > 0)
    throw new Error(`${result.non2xx} refused, ${result.errors} failed: ${line}`);
  return result;
}

interface Started {
  readonly url: string;
  readonly child: ChildProcess;
  readonly output: () => string;
}

async function startService(options: readonly string[], data = newFolder()): Promise<Started & { data: string }> {
  return { ...(await start(LAUNCHER, ["--port", "0", "--data", data, ...options])), data };
}

async function start(command: string, args: readonly string[]): Promise<Started> {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  children.add(child);
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
  const started = { child, output: () => output };
  const [, url] = await seen(started, /Listening at: (http:[^\s"]+)/);
  if (url === undefined) throw new Error("no address");
  return { ...started, url };
}

/** Resolves when the process has said it. */
function seen({ child, output }: Omit<Started, "url">, what: string | RegExp): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    const look = (): void => {
      const found = typeof what === "string" ? (output().includes(what) ? [what] : null) : what.exec(output());
      if (found !== null) resolve(found);
    };
    child.once("exit", () => reject(new Error(`the service ended: ${output()}`)));
    child.stdout?.on("data", look);
    look();
  });
}

function end(child: ChildProcess, signal: NodeJS.Signals): Promise<void> {
  return new Promise((resolve) => {
    child.once("exit", () => {
      children.delete(child);
      resolve();
    });
    child.kill(signal);
  });
}

function ask(agent: Agent, method: string, url: string, body?: string): Promise<Record<string, string>> {
  return new Promise((resolve, reject) => {
    const outgoing = request(url, { method, agent, headers: { authorization: "user" } }, (incoming) => {
      let text = "";
      incoming.setEncoding("utf8").on("data", (part) => (text += part));
      incoming.on("end", () => resolve(JSON.parse(text) as Record<string, string>));
    });
    outgoing.on("error", reject).end(body);
  });
}

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), "order-process-bench-"));
  folders.push(folder);
  return folder;
}

function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** The median of the rounds' ratios, and their range. */
function ratios(values: readonly number[], ceilings: readonly number[]): string {
  const each = values.map((value, round) => (100 * value) / (ceilings[round] ?? Number.NaN));
  return `${Math.round(median(each))} % (${Math.round(Math.min(...each))} to ${Math.round(Math.max(...each))})`;
}

function perSecond(value: number | undefined): string {
  return `${Math.round(value ?? Number.NaN).toLocaleString("en")}/s`;
}

function progress(line: string): void {
  process.stderr.write(`${line}\n`);
}

function printTable(): void {
  const header: Row = { what: "what", figure: "measured", beside: "beside", goal: "goal" };
  const widths = (["what", "figure", "beside", "goal"] as const).map((key) => ({
    key,
    width: Math.max(...[header, ...rows].map((row) => row[key].length)),
  }));
  const line = (row: Row): string => `| ${widths.map(({ key, width }) => row[key].padEnd(width)).join(" | ")} |`;
  const rule = `|${widths.map(({ width }) => "-".repeat(width + 2)).join("|")}|`;
  console.log(["", line(header), rule, ...rows.map(line)].join("\n"));
}
