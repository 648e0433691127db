/**
 * Pages of `GET /orders` over HTTP, from a store that holds many orders. Prints one line of JSON.
 *
 *     node bench/listing.ts <store> <orders>
 *
 * The store is a folder, for an embedded one, or redis://HOST:PORT of an empty server. One order in twenty has failed, the others are
 * completed; they are a hundred users'.
 */
import { spawn } from "node:child_process";
import { Agent, get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { createClient } from "@redis/client";
import { isRedisUrl, parseRedisUrl } from "../src/store/redis/location.ts";
import { openRedisStore } from "../src/store/redis/redis-store.ts";
import { openSqliteStore } from "../src/store/sqlite/sqlite-store.ts";
import { fillStore } from "./fill.ts";

const [place = ".", orders = "0"] = process.argv.slice(2);
const USERS = 100;
const FAILED_ONE_IN = 20;
const REQUESTS = 1_000;
const WARM_UP_REQUESTS = 100;

const hooks = {
  now: Date.now,
  onBroken: (error: Error) => {
    throw error;
  },
};

const store = isRedisUrl(place)
  ? await openRedisStore({ ...parseRedisUrl(place), ...hooks })
  : await openSqliteStore({ path: join(place, "orders.sqlite"), ...hooks });
await fillStore(store, { orders: Number(orders), users: USERS, failedOneIn: FAILED_ONE_IN });
await store.close();
if (isRedisUrl(place)) await redisIsAtRest();

const child = spawn(
  fileURLToPath(new URL("../order_process", import.meta.url)),
  [
    "--port",
    "0",
    "--data",
    isRedisUrl(place) ? join(tmpdir(), `order-process-listing-${process.pid}`) : place,
    ...(isRedisUrl(place) ? ["--store", place] : []),
    "--operators",
    "olga",
  ],
  { stdio: ["ignore", "pipe", "inherit"] },
);
const url = await new Promise<string>((resolve) => {
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    output += text;
    const listening = /Listening at: (http:\S+?)["\s]/.exec(output)?.[1];
    if (listening !== undefined) resolve(listening);
  });
});
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const results: Record<string, object> = {};
for (const [name, user, query] of [
  ["first page", "user-7", ""],
  ["by status", "user-7", "?status=failed"],
  ["by step", "user-7", "?step=Failed"],
  ["by pipeline", "user-7", "?pipeline=other"],
  ["by time", "user-7", `?to=${new Date(Date.now() - 1_000).toISOString()}`],
  ["first page, of all users", "olga", ""],
  ["by status, of all users", "olga", "?status=failed"],
] as const) {
  results[name] = await measure(user, query);
}
console.log(JSON.stringify(results));
agent.destroy();
child.kill("SIGTERM");

/** Redis rewrites its log in another process, for a while after so many writes. */
async function redisIsAtRest(): Promise<void> {
  const client = await createClient({ url: place }).connect();
  const isBusy = async (): Promise<boolean> => /_in_progress:1/.test(await client.info("persistence"));
  while (await isBusy()) await delay(500);
  client.destroy();
}

async function measure(user: string, query: string): Promise<object> {
  const timesMs: number[] = [];
  let found = 0;
  for (let count = 0; count < WARM_UP_REQUESTS; count++) await ask(user, query);
  for (let count = 0; count < REQUESTS; count++) {
    const startMs = performance.now();
    found = await ask(user, query);
    timesMs.push(performance.now() - startMs);
  }
  timesMs.sort((one, other) => one - other);
  const at = (share: number): number => Number((timesMs[Math.floor(REQUESTS * share)] ?? 0).toFixed(2));
  return { orders: found, p50Ms: at(0.5), p99Ms: at(0.99) };
}

function ask(user: string, query: string): Promise<number> {
  return new Promise((resolve, reject) => {
    get(`${url}/orders${query}`, { agent, headers: { authorization: user } }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (more: string) => (text += more));
      response.on("end", () => resolve((JSON.parse(text) as { orders: unknown[] }).orders.length));
    }).on("error", reject);
  });
}
