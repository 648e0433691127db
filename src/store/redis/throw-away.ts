/** A Redis database for a throw-away cluster: empty before, and empty again afterwards. */
import { StoreUnavailableError } from "../store.ts";
import { connectCluster } from "./cluster-servers.ts";
import { type ConnectionOptions, RedisConnection } from "./connection.ts";
import { showRedisLocation } from "./location.ts";
import { reasonOf } from "./reasons.ts";
import { type Servers, SingleServer } from "./servers.ts";
import { parseInfo } from "./settings.ts";

const OPEN_MS_MAX = 5_000;

/**
 * Whether there is no key in it at all.
 * @throws StoreUnavailableError with one line
 */
export function redisIsEmpty(options: ConnectionOptions): Promise<boolean> {
  return withServers(options, async (servers) => {
    const sizes = await servers.onEach(["DBSIZE"]);
    return sizes.every((size) => size === 0);
  });
}

/**
 * Deletes all keys in it. Only for a database that was found empty before.
 * @throws StoreUnavailableError with one line
 */
export function emptyRedis(options: ConnectionOptions): Promise<void> {
  return withServers(options, async (servers) => {
    await servers.onEach(["FLUSHDB"]);
  });
}

async function withServers<T>(options: ConnectionOptions, work: (servers: Servers) => Promise<T>): Promise<T> {
  const connection = new RedisConnection(options);
  let servers: Servers = new SingleServer(connection);
  try {
    await connection.connect(OPEN_MS_MAX);
    const info = parseInfo(String(await connection.send(["INFO"])));
    if (info["cluster_enabled"] === "1") servers = await connectCluster(connection, options);
    return await work(servers);
  } catch (error) {
    throw new StoreUnavailableError(`Redis at ${showRedisLocation(options.location)}: ${reasonOf(error)}`, {
      cause: error,
    });
  } finally {
    servers.close();
  }
}
