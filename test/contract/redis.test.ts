import { before, describe, test } from "node:test";
import { openRedisStore } from "../../src/store/redis/redis-store.ts";
import type { Store } from "../../src/store/store.ts";
import { endingOfSuite, redisIsMissing, type RedisServer, startRedis, startRedisCluster } from "../support/redis.ts";
import { permitsContract } from "./permits-contract.ts";
import { steeringContract } from "./steering-contract.ts";
import { type OpenStores, storeContract } from "./store-contract.ts";

function openOn({ location }: RedisServer): Promise<Store> {
  return openRedisStore({
    location,
    now: Date.now,
    onBroken: (error) => {
      throw error;
    },
  });
}

/** Stores on the first of the servers, which are emptied before each test. */
function storesOn(servers: () => readonly RedisServer[]): OpenStores {
  return async (t) => {
    await Promise.all(servers().map((server) => server.command("FLUSHALL")));
    const [first] = servers();
    if (first === undefined) throw new Error("no server was started");
    const open = new Set<Store>();
    const openOne = async (): Promise<Store> => {
      const store = await openOn(first);
      const close = store.close.bind(store);
      store.close = async () => {
        if (open.delete(store)) await close();
      };
      open.add(store);
      return store;
    };
    t.after(() => Promise.all(Array.from(open, (store) => store.close())));
    return { store: await openOne(), again: openOne };
  };
}

if (redisIsMissing === false) {
  describe("on a single server", () => {
    const ending = endingOfSuite();
    let servers: readonly RedisServer[] = [];
    before(async () => {
      servers = [await startRedis(ending)];
    });
    storeContract(
      "redis",
      storesOn(() => servers),
    );
    const openFirst = (): Promise<Store> => {
      const [server] = servers;
      if (server === undefined) throw new Error("no server was started");
      return openOn(server);
    };
    steeringContract("redis", openFirst);
    permitsContract("redis", openFirst);
  });

  describe("on a Redis Cluster", () => {
    const ending = endingOfSuite();
    let servers: readonly RedisServer[] = [];
    before(async () => {
      servers = await startRedisCluster(ending);
    });
    storeContract(
      "redis-cluster",
      storesOn(() => servers),
    );
  });
} else {
  test("the store's contract on Redis", { skip: redisIsMissing }, () => undefined);
}
