/** The HTTP server alone, in this process, with nothing behind it but what a test gives it. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import type { FastifyInstance } from "fastify";
import {
  closeServer,
  createHttpServer,
  DEFAULT_HTTP_LIMITS,
  type HttpServerOptions,
  listen,
} from "../../src/http/server.ts";
import { createLogger } from "../../src/log.ts";
import { PipelineSet } from "../../src/order/pipeline-set.ts";
import { builtInPipeline } from "../../src/pipelines/built-in.ts";

/** What a server is made of behind which nothing is. */
export const BARE: HttpServerOptions = {
  log: createLogger("silent", "logfmt", () => undefined),
  limits: DEFAULT_HTTP_LIMITS,
  serviceId: "00000000-0000-4000-8000-000000000000",
  version: "0.0.0",
  now: Date.now,
  status: () => "OK",
  submit: () => Promise.resolve({ kind: "shutting_down" }),
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
  isOperator: () => false,
  act: () => Promise.resolve({ kind: "done" }),
  actHere: () => Promise.resolve({ kind: "done" }),
  transfer: () => Promise.resolve({ kind: "service_not_found" }),
  durability: () => "none",
  adopt: () => null,
  admit: () => null,
  mayDecide: () => true,
  joinAnswer: () => assert.fail("nobody joins"),
  cluster: () => assert.fail("nobody asks"),
};

/** Starts it on a free port; it is closed when the test ends. */
export async function startBareServer(
  t: TestContext,
  options: Partial<HttpServerOptions> = {},
): Promise<{ url: string; app: FastifyInstance }> {
  const app = await createHttpServer({ ...BARE, ...options });
  t.after(() => closeServer(app));
  return { app, url: await listen(app, "127.0.0.1", 0) };
}
