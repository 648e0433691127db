/**
 * The processor time of an order at light load, by how many finished orders the store has. What is stored must not make it dearer.
 *
 *     npm run bench -- light [--store sqlite,redis] [--orders 0,100000,2000000] [--rates 10,150,1000] [--rounds 5]
 *
 * For each number of orders a store is filled and a service started on it. They are measured in turn, each while the others are idle: at
 * each rate the time that the service's processes (and those of its Redis) have run, less what they take when nobody asks anything.
 * Other programs of the machine add little to that, as they would to time on a clock. But what idling costs
 * changes with them, so a round takes short turns, and idling is measured just before each. Beside the tables stands what this machine's memory
 * takes to look at where nobody has looked for a while (cold-memory.ts): more is stored in more memory, of which less is in use.
 */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { changesKey } from "../src/store/redis/keys.ts";
import { openRedisStore } from "../src/store/redis/redis-store.ts";
import { openSqliteStore } from "../src/store/sqlite/sqlite-store.ts";
import { CHANGES_KEPT, type Store } from "../src/store/store.ts";
import { DURABLE, type RedisServer, startRedis } from "../test/support/redis.ts";
import { coldPageUs } from "./cold-memory.ts";
import { fillStore } from "./fill.ts";

const LAUNCHER = fileURLToPath(new URL("../order_process", import.meta.url));

/** How many times as dear as on the smallest store an order may be. */
const FLAT = 1.1;

/** A round has so many orders at least, which take some hundred milliseconds: fewer would tell more of chance. */
const ORDERS_PER_ROUND_MIN = 120;
const ROUND_MS_MIN = 8_000;
/** Among how many turns a round's orders are shared out. */
const TURNS = 4;
const IDLE_MS = 2_000;

/** Until the code is compiled as it will be. */
const WARM_UP_ORDERS = 4_000;
const WARM_UP_PER_SECOND = 1_000;

const USERS = 1_000;
const FAILED_ONE_IN = 20;
const PROGRESS_ORDERS = 250_000;
const TICK_MS = 2;
const SETTLE_MS = 300;

/** Fewer connections than a busy service would have, and enough that no order waits for one. */
const agent = new Agent({ keepAlive: true, maxSockets: 64 });

const ends: (() => unknown)[] = [];
const ending = { after: (end: () => Promise<void>) => void ends.unshift(end) };

/** A service on a store with so many orders. */
interface Subject {
  readonly orders: number;
  readonly url: string;
  /** Its processes. */
  readonly pids: readonly number[];
}

/**
 * Measures and prints what the command line asks for.
 * @returns whether all was flat
 */
export async function measureLightLoad(args: readonly string[]): Promise<boolean> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      store: { type: "string", default: "sqlite,redis" },
      orders: { type: "string", default: "0,100000,2000000" },
      rates: { type: "string", default: "10,150,1000" },
      rounds: { type: "string", default: "5" },
    },
  });
  const numbers = (text: string): number[] => text.split(",").map(Number);
  let isFlat = true;
  try {
    const coldUs = await coldPageUs();
    for (const store of values.store.split(",")) {
      const subjects: Subject[] = [];
      for (const orders of numbers(values.orders)) subjects.push(await startSubject(store, orders));
      isFlat = (await measure(store, subjects, numbers(values.rates), Number(values.rounds))) && isFlat;
      await endAll();
    }
    console.log(`memory that was not used for a while: ${coldUs.toFixed(2)} µs a page`);
  } finally {
    await endAll();
    agent.destroy();
  }
  return isFlat;
}

async function endAll(): Promise<void> {
  for (let end = ends.shift(); end !== undefined; end = ends.shift()) await end();
}

async function startSubject(kind: string, orders: number): Promise<Subject> {
  const folder = mkdtempSync(join(tmpdir(), "order-process-light-"));
  ends.unshift(() => rmSync(folder, { recursive: true, force: true }));
  const server = kind === "redis" ? await startRedis(ending, [...DURABLE, "--auto-aof-rewrite-percentage", "0"]) : null;
  const data = join(folder, "data");
  mkdirSync(data);
  const path = join(data, "orders.sqlite");
  const startMs = performance.now();
  const hooks = {
    now: Date.now,
    onBroken: (error: Error) => {
      throw error;
    },
  };
  await server?.command("CONFIG", "SET", "appendfsync", "no");
  const store = await (server === null
    ? openSqliteStore({ path, ...hooks })
    : openRedisStore({ location: server.location, ...hooks }));
  await fill(store, kind, orders);
  await store.close();
  if (server === null) splitChanges(path);
  else await splitEntries(server, orders);
  await server?.command("CONFIG", "SET", "appendfsync", "always");
  progress(`${kind}, ${count(orders)} orders: filled in ${seconds(performance.now() - startMs)}`);
  const storeArgs = server === null ? [] : ["--store", `redis://127.0.0.1:${server.port}`];
  const nodeStartMs = performance.now();
  const { url, pid } = await startService(["--port", "0", "--data", data, "--step-time", "0ms", ...storeArgs]);
  progress(`${kind}, ${count(orders)} orders: the service listens after ${seconds(performance.now() - nodeStartMs)}`);
  await submitAt(url, WARM_UP_PER_SECOND, WARM_UP_ORDERS);
  return { orders, url, pids: [pid, ...(server === null ? [] : [server.pid()])] };
}

/** Resolves when it listens, however long it looks through its store before that. */
function startService(args: readonly string[]): Promise<{ url: string; pid: number }> {
  const child = spawn(LAUNCHER, args, { stdio: ["ignore", "pipe", "inherit"] });
  ends.unshift(() => child.kill("SIGKILL"));
  return new Promise((resolve, reject) => {
    let output = "";
    child.once("exit", () => reject(new Error(`the service ended: ${output}`)));
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      const url = /Listening at: (http:\S+?)["\s]/.exec(output)?.[1];
      if (url !== undefined) resolve({ url, pid: child.pid ?? 0 });
    });
  });
}

async function fill(store: Store, kind: string, orders: number): Promise<void> {
  let told = PROGRESS_ORDERS;
  const onProgress = (made: number): void => {
    if (made < told) return;
    told += PROGRESS_ORDERS;
    progress(`${kind}: ${count(made)} of ${count(orders)} orders made`);
  };
  await fillStore(store, { orders, users: USERS, failedOneIn: FAILED_ONE_IN, onProgress });
}

/** A fill notes many changes in one row; at light load each has a row of its own. */
function splitChanges(path: string): void {
  const db = new DatabaseSync(path);
  const rows = db.prepare("SELECT first, changes FROM changes ORDER BY first").all();
  const insert = db.prepare("INSERT INTO changes (first, count, changes) VALUES (?, 1, ?)");
  db.exec("BEGIN; DELETE FROM changes");
  for (const { first, changes } of rows) {
    const flat = JSON.parse(`[${String(changes)}]`) as (string | number)[];
    for (let at = 0; at < flat.length; at += 3) {
      insert.run(Number(first) + at / 3, JSON.stringify(flat.slice(at, at + 3)).slice(1, -1));
    }
  }
  db.exec("COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
  db.close();
}

/** The same for Redis: as many entries of one change each. */
async function splitEntries(server: RedisServer, orders: number): Promise<void> {
  const changes = Math.min(2 * orders, CHANGES_KEPT);
  const text = `redis.call('DEL', KEYS[1])
    for _ = 1, tonumber(ARGV[1]) do
      redis.call('XADD', KEYS[1], '*', 'c', '"01a20f64-3c7e-7211-924e-0cac7ba6d1f4",1,"user-1"')
    end`;
  await server.command("EVAL", text, "1", changesKey(0), String(changes));
}

async function measure(
  store: string,
  subjects: readonly Subject[],
  rates: readonly number[],
  rounds: number,
): Promise<boolean> {
  const found = new Map<string, number[]>();
  const note = (orders: number, what: number | "idle", value: number): void => {
    const key = `${orders} ${what}`;
    found.set(key, [...(found.get(key) ?? []), value]);
  };
  const costs = (orders: number, what: number | "idle"): readonly number[] => found.get(`${orders} ${what}`) ?? [];
  for (let round = 1; round <= rounds; round++) {
    for (const rate of rates) {
      const turnsOf = subjects.map((): Turn[] => []);
      for (let turn = 0; turn < TURNS; turn++) {
        for (const [at, subject] of subjects.entries()) turnsOf[at]?.push(await takeTurn(subject, rate));
      }
      for (const [at, { orders }] of subjects.entries()) {
        const turns = turnsOf[at] ?? [];
        const msPerOrder = sum(turns.map(({ ordersMs }) => ordersMs)) / sum(turns.map(({ submitted }) => submitted));
        note(orders, rate, msPerOrder);
        note(orders, "idle", sum(turns.map(({ idleMsPerSecond }) => idleMsPerSecond)) / TURNS);
        progress(
          `${store}, round ${round} of ${rounds}: ${count(orders)} orders, ${rate}/s: ${msPerOrder.toFixed(3)} ms`,
        );
      }
    }
  }
  const sizes = subjects.map(({ orders }) => orders);
  const rows = rates.map((rate) => {
    const ratio = Math.max(...sizes.map((orders) => ratioToFirst(costs(orders, rate), costs(sizes[0] ?? 0, rate))));
    const cells = sizes.map((orders) => `${median(costs(orders, rate)).toFixed(2)} ms`);
    return { ratio, cells: [`${rate}/s`, ...cells, `${ratio <= FLAT ? "yes" : "NO"}: ${ratio.toFixed(2)}`] };
  });
  const idle = sizes.map((orders) => `${median(costs(orders, "idle")).toFixed(1)} ms/s`);
  const verdict = `flat within ${Math.round(100 * (FLAT - 1))} %`;
  const header = [store, ...sizes.map((orders) => `${count(orders)} stored`), verdict];
  printTable([header, ...rows.map(({ cells }) => cells), ["idle", ...idle, ""]]);
  return rows.every(({ ratio }) => ratio <= FLAT);
}

/** The median of the rounds' ratios: what the machine does beside changes from round to round, and costs with it. */
function ratioToFirst(values: readonly number[], first: readonly number[]): number {
  return median(values.map((value, round) => value / (first[round] ?? Number.NaN)));
}

/** What a service took in a turn. */
interface Turn {
  readonly submitted: number;
  /** Without what it would have taken had nobody asked anything. */
  readonly ordersMs: number;
  readonly idleMsPerSecond: number;
}

async function takeTurn({ url, pids }: Subject, rate: number): Promise<Turn> {
  const idle = await taken(pids, () => delay(IDLE_MS));
  const submitted = Math.ceil(Math.max(ORDERS_PER_ROUND_MIN, (rate * ROUND_MS_MIN) / 1_000) / TURNS);
  const busy = await taken(pids, () => submitAt(url, rate, submitted));
  const idleMsPerSecond = (1_000 * idle.cpuMs) / idle.ms;
  return { submitted, ordersMs: busy.cpuMs - (idleMsPerSecond * busy.ms) / 1_000, idleMsPerSecond };
}

/** How long something takes, and how long the processes have run meanwhile. */
async function taken(pids: readonly number[], work: () => Promise<unknown>): Promise<{ ms: number; cpuMs: number }> {
  const before = cpuMs(pids);
  const startMs = performance.now();
  await work();
  return { ms: performance.now() - startMs, cpuMs: cpuMs(pids) - before };
}

/** Submits orders at even distances, and resolves when all are accepted and have had time to end. */
async function submitAt(url: string, perSecond: number, orders: number): Promise<void> {
  const startMs = performance.now();
  const underWay = new Set<Promise<void>>();
  for (let sent = 0; sent < orders;) {
    const due = Math.min(orders, Math.ceil(((performance.now() - startMs) * perSecond) / 1_000));
    for (; sent < due; sent++) {
      const submitted = submit(url, sent).finally(() => underWay.delete(submitted));
      underWay.add(submitted);
    }
    await delay(TICK_MS);
  }
  await Promise.all(underWay);
  await delay(SETTLE_MS);
}

function submit(url: string, number: number): Promise<void> {
  return new Promise((resolve, reject) => {
    // Users in no sequence, as they come.
    const headers = { authorization: `user-${(number * 7_919) % USERS}`, "content-type": "application/json" };
    const sending = request(`${url}/orders`, { method: "POST", agent, headers }, (response) => {
      response.resume();
      response.on("end", () => {
        if (response.statusCode === 201) resolve();
        else reject(new Error(`an order was answered ${response.statusCode}`));
      });
    });
    sending.on("error", reject);
    sending.end('{"item":"book","amount":3}');
  });
}

/** How long all threads of the processes have run, by the kernel's count, in milliseconds. */
function cpuMs(pids: readonly number[]): number {
  let nanoseconds = 0;
  for (const pid of pids) {
    for (const thread of readdirSync(`/proc/${pid}/task`)) {
      nanoseconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8").split(" ")[0]);
    }
  }
  return nanoseconds / 1e6;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function median(values: readonly number[]): number {
  return values.toSorted((one, other) => one - other)[Math.floor(values.length / 2)] ?? Number.NaN;
}

function count(value: number): string {
  return value.toLocaleString("en");
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}

function progress(line: string): void {
  process.stderr.write(`${line}\n`);
}

function printTable(rows: readonly (readonly string[])[]): void {
  const [header = []] = rows;
  const widths = header.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0)));
  const lines = rows.map((row) => `| ${row.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(" | ")} |`);
  lines.splice(1, 0, `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`);
  console.log(["", ...lines, ""].join("\n"));
}
