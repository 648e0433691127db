/** Runs tests of the cluster on Redis. */
import { test } from "node:test";
import { redisIsMissing } from "../../support/redis.ts";

/** @param file with tests, which look at the environment for the store that they are to use (backend.ts) */
export async function onRedis(file: string, store: "redis" | "redis-cluster" = "redis"): Promise<void> {
  if (redisIsMissing !== false) {
    test(`${file} on ${store}`, { skip: redisIsMissing }, () => undefined);
    return;
  }
  process.env["ORDER_PROCESS_TEST_STORE"] = store;
  await import(new URL(file, import.meta.url).href);
}
