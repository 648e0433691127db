/**
 * The engine on a store, without HTTP; its heap is bound as a node's is. Prints one line of JSON. The store is a folder, for an embedded one, or redis://HOST:PORT.
 *
 *     node bench/in-process.ts speed <store> <orders> <orders in flight> [changes kept]
 *         Orders completed per second: four empty steps, every transition durable. With 0 changes kept nobody could follow events.
 *     node bench/in-process.ts latency <store> <orders>
 *         From submission to completion of one order after another, the system otherwise idle.
 *     node --expose-gc bench/in-process.ts memory <store> <orders>
 *         The memory that an order takes while its first step runs.
 */
import { join } from "node:path";
import { Engine } from "../src/engine/engine.ts";
import { createLogger } from "../src/log.ts";
import { PipelineSet } from "../src/order/pipeline-set.ts";
import { builtInPipeline } from "../src/pipelines/built-in.ts";
import { systemClock } from "../src/runtime/clock.ts";
import { boundGrowth } from "../src/start/heap.ts";
import { newOrderId } from "../src/store/order-id.ts";
import { isRedisUrl, parseRedisUrl } from "../src/store/redis/location.ts";
import { openRedisStore } from "../src/store/redis/redis-store.ts";
import { openSqliteStore } from "../src/store/sqlite/sqlite-store.ts";
import { CHANGES_KEPT } from "../src/store/store.ts";

const [mode = "", place = ".", orders = "0", inFlight = orders, kept = String(CHANGES_KEPT)] = process.argv.slice(2);
const changesKept = Number(kept);
const ordersMax = Number(orders);
const inFlightMax = Number(inFlight);
const pipeline = builtInPipeline({
  stepTimeMs: mode === "memory" ? 3_600_000 : 0,
  failureRate: 0,
  random: Math.random,
});
const submission = { user: "user", body: '{"item":"book","amount":3}', idempotencyKey: null, pipeline };

boundGrowth();
const hooks = {
  now: Date.now,
  onBroken: (error: Error) => {
    throw error;
  },
};
const store = isRedisUrl(place)
  ? await openRedisStore({ ...parseRedisUrl(place), ...hooks, changesKept })
  : await openSqliteStore({ path: join(place, "orders.sqlite"), ...hooks, changesKept });
const engine = new Engine({
  store,
  incarnation: await store.cluster.register(
    { serviceId: "00000000-0000-4000-8000-000000000000", url: "", version: "0.0.0", ttlMs: 5_000, process: null },
    Date.now(),
  ),
  pipelines: new PipelineSet([pipeline]),
  log: createLogger("warn", "logfmt", (text) => process.stderr.write(text)),
  clock: systemClock(),
  random: Math.random,
  newOrderId,
  nowOf: () => null,
  crashesMax: 3,
  mayStart: () => true,
  onFenced: () => undefined,
  limits: {
    ordersMax: inFlightMax,
    bodyBytesMax: 1_000_000_000,
    callBytesMax: 1_000_000_000,
    largestOrderBytes: 1_000,
  },
});
const measures: Readonly<Record<string, () => Promise<object>>> = {
  speed: measureSpeed,
  latency: measureLatency,
  memory: measureMemory,
};
console.log(JSON.stringify(await measures[mode]?.()));
await engine.drain(0, { choose: () => Promise.resolve(null), tell: () => Promise.resolve() });
await store.close();
process.exit(0); // the steps still under way are not waited for

async function measureSpeed(): Promise<object> {
  const startMs = performance.now();
  let submitted = 0;
  while (submitted < ordersMax || engine.ordersInFlight > 0) {
    const room = Math.min(inFlightMax - engine.ordersInFlight, ordersMax - submitted);
    for (let count = 0; count < room; count++) void engine.submit(submission);
    submitted += room;
    await new Promise(setImmediate);
  }
  return { ordersPerSecond: (ordersMax * 1_000) / (performance.now() - startMs) };
}

async function measureLatency(): Promise<object> {
  const timesMs: number[] = [];
  for (let count = 0; count < ordersMax; count++) {
    const startMs = performance.now();
    void engine.submit(submission);
    while (engine.ordersInFlight > 0) await new Promise(setImmediate);
    timesMs.push(performance.now() - startMs);
  }
  timesMs.sort((one, other) => one - other);
  return { p50Ms: timesMs[Math.floor(ordersMax * 0.5)], p99Ms: timesMs[Math.floor(ordersMax * 0.99)] };
}

async function measureMemory(): Promise<object> {
  if (gc === undefined) throw new Error("run it with --expose-gc");
  await gc({ execution: "async" });
  const before = process.memoryUsage();
  const BATCH = 1_000;
  for (let count = 0; count < ordersMax; count += BATCH) {
    await Promise.all(Array.from({ length: BATCH }, () => engine.submit(submission)));
  }
  await gc({ execution: "async" });
  const after = process.memoryUsage();
  return {
    heapBytesPerOrder: (after.heapUsed - before.heapUsed) / ordersMax,
    residentBytesPerOrder: (after.rss - before.rss) / ordersMax,
  };
}
