/** `order_process drill` as the command line asks for it: finds out where the throw-away cluster keeps its orders. */
import type { DrillConfig } from "../config.ts";
import { StartError } from "../order/errors.ts";
import { presentOf, openStoreAt } from "../store/open-store.ts";
import { showRedisLocation } from "../store/redis/location.ts";
import { emptyRedis, redisIsEmpty } from "../store/redis/throw-away.ts";
import { runDrill, type Screen } from "./drill.ts";

/**
 * Runs the drill on a throw-away cluster.
 * @param signal ends it early; what it has made is removed all the same
 * @returns whether it was passed
 * @throws StartError with one line
 */
export async function startDrill(config: DrillConfig, screen: Screen, signal: AbortSignal): Promise<boolean> {
  const { store: location, storeCredentials: credentials, nodeTtlMs } = config;
  const redis = location === null ? null : { location: location.redis, ...presentOf(credentials) };
  const { username, password } = credentials;
  const hooks = { now: Date.now, onBroken: () => undefined, onNotice: () => undefined };
  try {
    if (redis !== null && !(await redisIsEmpty(redis))) {
      throw new Error(
        `the database ${showRedisLocation(redis.location)} is not empty, and the drill would mix with what is there; name an empty one`,
      );
    }
    try {
      return await runDrill({
        nodeTtlMs,
        screen,
        signal,
        storeArgs: redis === null ? [] : ["--store", showRedisLocation(redis.location)],
        storeEnv: {
          ...(username === null ? {} : { ORDER_PROCESS_STORE_USERNAME: username }),
          ...(password === null ? {} : { ORDER_PROCESS_STORE_PASSWORD: password }),
        },
        openStore: (path) => openStoreAt(location ?? { kind: "sqlite", path }, { credentials, nodeTtlMs, ...hooks }),
      });
    } finally {
      if (redis !== null) await emptyRedis(redis);
    }
  } catch (error) {
    if (signal.aborted) throw new StartError(`the drill was stopped by ${String(signal.reason)}`, { cause: error });
    throw new StartError(`the drill can't go on: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}
