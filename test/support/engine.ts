/** Engines as tests need them: what a test does not name is as here. */
import { randomUUID } from "node:crypto";
import { Engine, type EngineOptions } from "../../src/engine/engine.ts";
import { createLogger } from "../../src/log.ts";
import type { Incarnation } from "../../src/order/events.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import type { Store } from "../../src/store/store.ts";

export const ENGINE_LIMITS: EngineOptions["limits"] = {
  ordersMax: 1_000,
  bodyBytesMax: 1_000_000,
  callBytesMax: 1_000_000,
  largestOrderBytes: 1_000,
};

type Given = "store" | "incarnation" | "pipelines" | "clock";

/** An engine that may always start calls, and says nothing. */
export function makeEngine(options: Pick<EngineOptions, Given> & Partial<EngineOptions>): Engine {
  return new Engine({
    log: createLogger("silent", "logfmt", () => undefined),
    random: () => 0.5,
    newOrderId,
    nowOf: () => null,
    crashesMax: 3,
    mayStart: () => true,
    onFenced: () => undefined,
    limits: ENGINE_LIMITS,
    ...options,
  });
}

/** Another incarnation, of a service of its own where none is named. */
export function registerNode(store: Store, nowMs: number, serviceId: string = randomUUID()): Promise<Incarnation> {
  return store.cluster.register({ serviceId, url: "", version: "0.0.0", ttlMs: 5_000, process: null }, nowMs);
}
