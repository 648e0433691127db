/**
 * The store that the nodes of a test share: how they find it, and what it holds, read past the code that wrote it. The environment says
 * which: ORDER_PROCESS_TEST_STORE is sqlite (the default), redis or redis-cluster.
 */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { TestContext } from "node:test";
import { createClient } from "@redis/client";
import type { Incarnation } from "../../src/order/events.ts";
import { decodeOrder } from "../../src/store/redis/order-text.ts";
import { countOpenOrders, readStoreContent, readStoreCounts, type StoreRow } from "../crash/store-content.ts";
import { atEnd } from "../support/at-end.ts";
import { type RedisServer, startRedis, startRedisCluster } from "../support/redis.ts";
import { temporaryFolder } from "../support/service.ts";

export interface Backend {
  /** Options of the command line with which a node uses it. */
  readonly args: readonly string[];
  /** The database file, where there is one. */
  readonly path: string | null;
  /** The server's process, where there is one. */
  readonly serverPid: number | null;
  /** Has the store refuse every write, and answer reads, or take writes again; null: it can't be told to. */
  readonly refuseWrites: ((refuse: boolean) => Promise<void>) | null;
  /** Every order. */
  readContent(): Promise<StoreRow[]>;
  /** How many orders have each status, by what the store keeps of it (ListedStatus); those that none has may be left out. */
  readCounts(): Promise<ReadonlyMap<string, number>>;
  /** How many orders are not final: all, or an incarnation's. */
  countOpen(owner?: Incarnation): Promise<number>;
  /** How many nodes the cluster still knows: those alive, and those that died and were not replaced. */
  countNodes(): Promise<number>;
  /** What proves membership from node to node. */
  readSecret(): Promise<string>;
}

/** A new, empty store that goes with the test. */
export async function startBackend(t: TestContext): Promise<Backend> {
  const kind = process.env["ORDER_PROCESS_TEST_STORE"] ?? "sqlite";
  switch (kind) {
    case "sqlite":
      return sqliteBackend(join(temporaryFolder(t), "shared.sqlite"));
    case "redis":
      return redisBackend(t, [await startRedis(t)]);
    case "redis-cluster":
      return redisBackend(t, await startRedisCluster(t));
    default:
      throw new Error(`ORDER_PROCESS_TEST_STORE can't be "${kind}"; write sqlite, redis or redis-cluster`);
  }
}

function sqliteBackend(path: string): Backend {
  const readOne = (sql: string): Record<string, unknown> => {
    const db = new DatabaseSync(path, { readOnly: true, timeout: 5_000 });
    try {
      return db.prepare(sql).get() ?? {};
    } finally {
      db.close();
    }
  };
  return {
    args: ["--store", `sqlite:${path}`],
    path,
    serverPid: null,
    refuseWrites: null,
    readContent: () => Promise.resolve(readStoreContent(path)),
    readCounts: () => Promise.resolve(readStoreCounts(path)),
    countOpen: (owner) => Promise.resolve(countOpenOrders(path, owner)),
    countNodes: () =>
      Promise.resolve(Number(readOne("SELECT count(*) AS nodes FROM incarnations WHERE state <> 'left'")["nodes"])),
    readSecret: () => Promise.resolve(String(readOne("SELECT secret FROM cluster")["secret"])),
  };
}

/** One server, or all of a Redis Cluster. The keys are those that src/store/redis/keys.ts lists. */
async function redisBackend(t: TestContext, servers: readonly RedisServer[]): Promise<Backend> {
  const clients = servers.map(({ port }) => createClient({ socket: { host: "127.0.0.1", port }, RESP: 2 }));
  for (const client of clients) {
    client.on("error", () => undefined); // comes as a rejection, too
    await client.connect();
    atEnd(t, () => client.destroy());
  }
  const askAll = (...command: string[]): Promise<unknown> =>
    Promise.all(clients.map((client) => client.sendCommand(command)));
  /** Asks the server that has the key for it. */
  const askOfEach = async <T>(pattern: string, command: (key: string) => string[]): Promise<Map<string, T>> => {
    const answers = new Map<string, T>();
    for (const client of clients) {
      const keys = (await client.sendCommand(["KEYS", pattern])) as string[];
      for (const key of keys) answers.set(key, await client.sendCommand<T>(command(key)));
    }
    return answers;
  };

  /** Members of the open keys with their owners; owner 0 is a member that is no order. */
  const openOrders = async (): Promise<Map<string, Incarnation>> => {
    const open = new Map<string, Incarnation>();
    const all = await askOfEach<string[]>("{op:*}:open", (key) => ["ZRANGEBYSCORE", key, "(0", "+inf", "WITHSCORES"]);
    for (const found of all.values()) {
      for (let at = 0; at < found.length; at += 2) open.set(found[at] ?? "", Number(found[at + 1]));
    }
    return open;
  };
  const readContent = async (): Promise<StoreRow[]> => {
    const open = await openOrders();
    const rows: StoreRow[] = [];
    for (const [key, text] of await askOfEach<string>("{op:*}:order:*", (each) => ["GET", each])) {
      const orderId = key.slice(-36);
      const { revision, history, body, status, owner } = decodeOrder(text);
      const [, idempotencyKey] = JSON.parse(text.slice(0, text.indexOf("\n"))) as [string, string | null];
      // Kept beside the history are only who owns it, and whether it is final.
      const isFinal = status === "completed" || status === "failed" || status === "canceled";
      const indexed = open.get(orderId);
      const shown =
        isFinal === (indexed === undefined) ? status : `${status} (${indexed === undefined ? "not " : ""}open)`;
      rows.push({ orderId, idempotencyKey, status: shown, owner: indexed ?? owner, revision, history, body });
    }
    return rows;
  };
  return {
    args: ["--store", `redis://127.0.0.1:${servers[0]?.port ?? 0}`],
    path: null,
    serverPid: servers[0]?.pid() ?? null,
    // One byte is less than there is: with its memory full, Redis takes nothing more.
    refuseWrites: async (refuse) => void (await askAll("CONFIG", "SET", "maxmemory", refuse ? "1" : "0")),
    readContent,
    readCounts: async () => {
      const counts = new Map<string, number>();
      for (const fields of (await askOfEach<string[]>("{op:*}:counts", (key) => ["HGETALL", key])).values()) {
        for (let at = 0; at + 1 < fields.length; at += 2) {
          const status = fields[at] ?? "";
          // Those of a user have the user's digest, too.
          if (!status.includes(" ")) counts.set(status, (counts.get(status) ?? 0) + Number(fields[at + 1]));
        }
      }
      return counts;
    },
    countOpen: async (owner) => {
      const owners = [...(await openOrders()).values()];
      return owner === undefined ? owners.length : owners.filter((each) => each === owner).length;
    },
    countNodes: async () => {
      const [nodes = 0] = (await askOfEach<number>("{op:cluster}:nodes", (key) => ["HLEN", key])).values();
      return nodes;
    },
    readSecret: async () => {
      const [secret = ""] = (
        await askOfEach<string>("{op:cluster}:identity", (key) => ["HGET", key, "secret"])
      ).values();
      return secret;
    },
  };
}
