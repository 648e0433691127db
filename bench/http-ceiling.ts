/**
 * The HTTP ceiling: the service's own server, routes, limits and schemas, with no work behind them: an order is
 * "accepted" at once and forgotten. Prints where it listens.
 */
import { randomUUIDv7 } from "node:crypto";
import { createHttpServer, DEFAULT_HTTP_LIMITS, listen } from "../src/http/server.ts";
import { createLogger } from "../src/log.ts";
import { PipelineSet } from "../src/order/pipeline-set.ts";
import { builtInPipeline } from "../src/pipelines/built-in.ts";

const serviceId = "00000000-0000-4000-8000-000000000000";
const app = await createHttpServer({
  log: createLogger("warn", "logfmt", (text) => process.stderr.write(text)),
  limits: DEFAULT_HTTP_LIMITS,
  serviceId,
  version: "0.0.0",
  now: Date.now,
  status: () => "OK",
  submit: () => Promise.resolve({ kind: "accepted", orderId: randomUUIDv7(), startTimeMs: Date.now() }),
  pipelines: new PipelineSet([builtInPipeline({ stepTimeMs: 0, failureRate: 0, random: Math.random })]),
  readOrder: () => Promise.resolve(null),
  livePipelines: () => new Set(),
  recordedShape: () => Promise.resolve(null),
  readBody: () => Promise.resolve(null),
  listOrders: () => Promise.resolve({ orders: [], next: null }),
  countOrders: () => Promise.resolve({}),
  follow: {
    readChanges: () => Promise.resolve({ kind: "gone" }),
    readOrders: () => Promise.resolve([]),
    readOrder: () => Promise.resolve(null),
  },
  serviceOf: () => Promise.resolve(""),
  mayDecide: () => true,
  isOperator: () => false,
  act: () => Promise.resolve({ kind: "done" }),
  actHere: () => Promise.resolve({ kind: "done" }),
  transfer: () => Promise.resolve({ kind: "service_not_found" }),
  durability: () => "none",
  adopt: () => null,
  admit: () => null,
  joinAnswer: () => {
    throw new Error("nothing to join");
  },
  cluster: () => {
    throw new Error("no cluster");
  },
});
console.log(`Listening at: ${await listen(app, "127.0.0.1", 0)}`);
