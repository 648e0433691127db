/** Real Redis servers for tests: each on free ports of this host, in a folder of its own, and ended when its test ends. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";
import { createClient } from "@redis/client";
import type { RedisLocation } from "../../src/store/redis/location.ts";
import { freePort } from "./ports.ts";
import { waitFor } from "./wait.ts";

/** Says when to end what was started: a test's context, or `endingOfSuite`. */
export interface Ending {
  readonly after: (end: () => Promise<void>) => void;
}

/** To be called where a suite is described: what is started in its `before` then ends with the suite. */
export function endingOfSuite(): Ending {
  const ends: (() => Promise<void>)[] = [];
  after(async () => {
    for (const end of ends.toReversed()) await end();
  });
  return { after: (end) => ends.push(end) };
}

export interface RedisServer {
  readonly port: number;
  readonly location: RedisLocation;
  /** Sends one command over a connection of its own. */
  readonly command: (...args: string[]) => Promise<unknown>;
  /** Ends the process, and resolves when it is gone. */
  readonly kill: (signal?: NodeJS.Signals) => Promise<void>;
  /** Starts it again on the same port and in the same folder, and resolves when it answers. */
  readonly restart: (...args: string[]) => Promise<void>;
  readonly pid: () => number;
}

/** Keeps each write on the disk before it is confirmed. */
export const DURABLE = ["--appendonly", "yes", "--appendfsync", "always"] as const;

/** For a Redis Cluster in which a replica is to take over; otherwise a server that the machine keeps waiting would count as failed. */
export const QUICK_FAILOVER = ["--cluster-node-timeout", "3000"] as const;

const LAUNCH_TRIES = 5;

/** Why tests with Redis can't run here; false: they can. */
export const redisIsMissing: string | false =
  spawnSync("redis-server", ["--version"]).status === 0
    ? false
    : "redis-server is not installed; run test/install-tools, or install it with your package manager";

/** Starts a server with options as on its command line, and resolves when it answers. */
export function startRedis(ending: Ending, args: readonly string[] = DURABLE): Promise<RedisServer> {
  return launchUntilItAnswers(ending, () => Promise.resolve(args));
}

/** Starts a Redis Cluster of three servers without replicas, and resolves when all know all of it. */
export async function startRedisCluster(
  ending: Ending,
  args: readonly string[] = DURABLE,
): Promise<readonly RedisServer[]> {
  const servers: RedisServer[] = [];
  for (let index = 0; index < 3; index++) {
    servers.push(await launchUntilItAnswers(ending, async () => [...(await clusterOptions()), ...args]));
  }
  const [first] = servers;
  if (first === undefined) throw new Error("no server was started");
  const bounds = [0, 5_461, 10_923, 16_384];
  for (const [index, server] of servers.entries()) {
    await server.command("CLUSTER", "SET-CONFIG-EPOCH", String(index + 1));
    await server.command("CLUSTER", "ADDSLOTSRANGE", String(bounds[index]), String((bounds[index + 1] ?? 0) - 1));
    if (server !== first) await meet(server, first);
  }
  await Promise.all(
    servers.map((server) =>
      waitFor(
        async () => {
          const info = String(await server.command("CLUSTER", "INFO"));
          return info.includes("cluster_state:ok") && info.includes("cluster_known_nodes:3");
        },
        { what: "the Redis Cluster is complete" },
      ),
    ),
  );
  return servers;
}

/** Has the server that has the keys run a command: a single one, or one of a Redis Cluster. */
export async function askOwner(servers: readonly RedisServer[], command: readonly string[]): Promise<unknown> {
  for (const server of servers) {
    try {
      return await server.command(...command);
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith("MOVED"))) throw error;
    }
  }
  throw new Error("no server has the keys");
}

/** Starts a server that copies one of a Redis Cluster with QUICK_FAILOVER, and resolves when it does and all know of it. */
export async function startReplica(
  ending: Ending,
  primary: RedisServer,
  cluster: readonly RedisServer[],
): Promise<RedisServer> {
  const replica = await launchUntilItAnswers(ending, async () => [
    ...(await clusterOptions()),
    ...DURABLE,
    ...QUICK_FAILOVER,
  ]);
  const says = (server: RedisServer, what: string, ...command: string[]): Promise<boolean> =>
    waitFor(async () => String(await server.command(...command)).includes(what), {
      what: `a server says ${what}`,
    });
  await meet(replica, primary);
  const id = String(await primary.command("CLUSTER", "MYID"));
  await says(replica, id, "CLUSTER", "NODES");
  await replica.command("CLUSTER", "REPLICATE", id);
  await says(replica, "master_link_status:up", "INFO", "replication");
  // Those that have not heard of it would not vote for it.
  await Promise.all([replica, ...cluster].map((server) => says(server, `slave ${id}`, "CLUSTER", "NODES")));
  await says(replica, `cluster_known_nodes:${cluster.length + 1}`, "CLUSTER", "INFO");
  return replica;
}

async function clusterOptions(): Promise<readonly string[]> {
  const busPort = String(await freePort());
  return ["--cluster-enabled", "yes", "--cluster-port", busPort, "--repl-diskless-sync-delay", "0"];
}

async function meet(server: RedisServer, other: RedisServer): Promise<void> {
  const [, busPort = ""] = (await other.command("CONFIG", "GET", "cluster-port")) as string[];
  await server.command("CLUSTER", "MEET", "127.0.0.1", String(other.port), busPort);
}

/** With other ports, where somebody was quicker to take those that were free. */
async function launchUntilItAnswers(ending: Ending, options: () => Promise<readonly string[]>): Promise<RedisServer> {
  for (let tries = 1; ; tries++) {
    const server = launch(ending, await freePort(), await options());
    try {
      await waitUntilItAnswers(server);
      return server;
    } catch (error) {
      if (tries === LAUNCH_TRIES || !String(error).includes("Address already in use")) throw error;
    }
  }
}

function launch(ending: Ending, port: number, args: readonly string[]): RedisServer {
  const folder = mkdtempSync(join(tmpdir(), "order-process-redis-"));
  const options = ["--port", String(port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", ...args];
  let output = "";
  let process = start();
  const isGone = (): boolean => process.exitCode !== null || process.signalCode !== null;

  function start(more: readonly string[] = []): ChildProcess {
    const child = spawn("redis-server", [...options, ...more], { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => (output += text));
    }
    return child;
  }

  const server: RedisServer = {
    port,
    location: { tls: false, host: "127.0.0.1", port, db: 0 },
    command: async (...command) => {
      if (isGone()) throw new Error(`redis-server has ended:\n${output.slice(-2_000)}`);
      const client = createClient({ socket: { host: "127.0.0.1", port, reconnectStrategy: false }, RESP: 2 });
      client.on("error", () => undefined); // comes as a rejection, too
      try {
        await client.connect();
        return await client.sendCommand(command);
      } finally {
        client.destroy();
      }
    },
    kill: async (signal = "SIGKILL") => {
      process.kill(signal);
      await waitFor(isGone, { what: "redis-server is gone" });
    },
    restart: async (...more) => {
      process = start(more);
      await waitUntilItAnswers(server);
    },
    pid: () => process.pid ?? -1,
  };
  ending.after(async () => {
    if (!isGone()) await server.kill();
    rmSync(folder, { recursive: true, force: true });
  });
  return server;
}

/** It may refuse to say more (a password, loading): an answer is an answer. */
async function waitUntilItAnswers(server: RedisServer): Promise<void> {
  await waitFor(
    () =>
      server.command("PING").then(
        () => true,
        (error: unknown) => {
          if (error instanceof Error && error.message.startsWith("redis-server has ended")) throw error;
          return error instanceof Error && /^(NOAUTH|LOADING)/.test(error.message);
        },
      ),
    { what: "redis-server answers" },
  );
}
