/**
 * The servers of a Redis Cluster: finds the one that has a key's slot, follows redirections, and learns anew who has what.
 *
 * 1. A command is sent again only where a server has said that it did not carry it out (MOVED, ASK). Any other failure is the
 *    caller's: what was sent may have been carried out.
 * 2. What is known of the cluster is only where to try first. A server that was asked in vain makes all of it be asked for anew,
 *    from any server that answers.
 */
import { RedisConnection, type ConnectionOptions } from "./connection.ts";
import { isFinalRefusal, RedisConnectionError } from "./reasons.ts";
import { runScript, type Servers } from "./servers.ts";
import {
  parseRedirection,
  parseSlotMap,
  type ServerAddress,
  showAddress,
  slotOf,
  type SlotMap,
  type SlotRange,
} from "./slots.ts";
import type { Script } from "./scripts.ts";

/** A slot that moves is found after two; more is a cluster at odds with itself. */
const REDIRECTIONS_MAX = 5;

/** The cluster is not asked more often who has what: each failed command would like to. */
const REFRESH_MS_MIN = 500;

/** For one server to say who has what, while others may be asked instead. */
const REFRESH_CONNECT_MS_MAX = 1_000;

type Send = (connection: RedisConnection, before: readonly (readonly string[])[]) => Promise<unknown>;

/**
 * Reaches a Redis Cluster through one of its servers.
 * @throws Error when that server doesn't say who has what
 */
export async function connectCluster(first: RedisConnection, options: ConnectionOptions): Promise<Servers> {
  const map = await askForMap(first);
  return new ClusterServers(first, options, map);
}

class ClusterServers implements Servers {
  readonly isCluster = true;
  readonly #options: ConnectionOptions;
  readonly #connections = new Map<string, RedisConnection>();
  #map: SlotMap;
  /** Learnt from redirections since the map was read. */
  #moved = new Map<number, ServerAddress>();
  #refresh: Promise<void> | null = null;
  #lastRefreshMs = performance.now();
  #closed = false;

  constructor(first: RedisConnection, options: ConnectionOptions, map: SlotMap) {
    this.#options = options;
    this.#map = map;
    this.#connections.set(showAddress(first.location), first);
  }

  command(key: string, args: readonly string[]): Promise<unknown> {
    return this.#routed(key, (connection, before) => connection.send(...before, args));
  }

  script(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    return this.#routed(keys[0] ?? "", (connection, before) => runScript(connection, script, keys, args, before));
  }

  async onEach(args: readonly string[]): Promise<readonly unknown[]> {
    const owners = new Map(this.#map.ranges.map(({ server }) => [showAddress(server), server]));
    return Promise.all(Array.from(owners.values(), async (server) => (await this.#connectionTo(server)).send(args)));
  }

  close(): void {
    this.#closed = true;
    for (const connection of this.#connections.values()) connection.close();
  }

  async #routed(key: string, send: Send): Promise<unknown> {
    const slot = slotOf(key);
    let server = this.#ownerOf(slot);
    let before: readonly (readonly string[])[] = [];
    for (let redirections = 0; ; redirections++) {
      try {
        return await send(await this.#connectionTo(server), before);
      } catch (error) {
        const redirection = error instanceof Error ? parseRedirection(error.message, server) : null;
        if (redirection === null || redirections === REDIRECTIONS_MAX) {
          if (!isFinalRefusal(error)) this.#learn();
          throw error;
        }
        server = redirection.server;
        before = redirection.kind === "ask" ? [["ASKING"]] : [];
        if (redirection.kind === "moved") {
          this.#moved.set(slot, server);
          this.#learn();
        }
      }
    }
  }

  #ownerOf(slot: number): ServerAddress {
    const moved = this.#moved.get(slot);
    if (moved !== undefined) return moved;
    const range = this.#map.ranges.find(({ first, last }: SlotRange) => first <= slot && slot <= last);
    if (range !== undefined) return range.server;
    this.#learn();
    throw new RedisConnectionError(`no server of the Redis Cluster has slot ${slot}; look at the cluster's servers`);
  }

  /** A connection to the server, made if there is none yet; the first attempt is waited for. */
  async #connectionTo(server: ServerAddress): Promise<RedisConnection> {
    const address = showAddress(server);
    let connection = this.#connections.get(address);
    if (connection === undefined) {
      if (this.#closed) throw new RedisConnectionError("the connection to Redis was closed");
      connection = new RedisConnection(this.#optionsFor(server));
      this.#connections.set(address, connection);
    }
    if (!connection.isConnected) await connection.connectOnce();
    return connection;
  }

  #optionsFor({ host, port }: ServerAddress): ConnectionOptions {
    const { location, onNotice, ...credentials } = this.#options;
    const told = onNotice && ((line: string) => onNotice(`${line} (${host}:${port})`));
    return { ...credentials, location: { ...location, host, port }, ...(told === undefined ? {} : { onNotice: told }) };
  }

  /** Asks who has what, in the background, unless that is being asked or was a moment ago. */
  #learn(): void {
    if (this.#refresh !== null || this.#closed || performance.now() - this.#lastRefreshMs < REFRESH_MS_MIN) return;
    this.#refresh = this.#readMap().finally(() => {
      this.#lastRefreshMs = performance.now();
      this.#refresh = null;
    });
  }

  async #readMap(): Promise<void> {
    const { location } = this.#options;
    const known = [...this.#map.servers, { host: location.host, port: location.port }];
    const isConnected = (server: ServerAddress): boolean =>
      this.#connections.get(showAddress(server))?.isConnected === true;
    for (const server of known.toSorted((one, other) => Number(isConnected(other)) - Number(isConnected(one)))) {
      if (this.#closed) return;
      try {
        this.#map = await this.#askServer(server);
        this.#moved = new Map();
        this.#closeUnused();
        return;
      } catch {
        // The next one may know.
      }
    }
  }

  /** Asks over the connection that is there, or over one for this only: a replica is not needed for anything else. */
  async #askServer(server: ServerAddress): Promise<SlotMap> {
    const present = this.#connections.get(showAddress(server));
    if (present?.isConnected === true) return askForMap(present);
    const connection = new RedisConnection({ ...this.#optionsFor(server), onNotice: () => undefined });
    try {
      await connection.connect(REFRESH_CONNECT_MS_MAX);
      return await askForMap(connection);
    } finally {
      connection.close();
    }
  }

  /** Servers that have left, or have become replicas. */
  #closeUnused(): void {
    const used = new Set(this.#map.ranges.map(({ server }) => showAddress(server)));
    for (const [address, connection] of this.#connections) {
      if (used.has(address) || connection.isConnected) continue;
      connection.close();
      this.#connections.delete(address);
    }
  }
}

async function askForMap(connection: RedisConnection): Promise<SlotMap> {
  const { host, port } = connection.location;
  const map = parseSlotMap(await connection.send(["CLUSTER", "SLOTS"]), { host, port });
  if (map.ranges.length === 0)
    throw new RedisConnectionError("the Redis Cluster has no slots yet; finish setting it up");
  return map;
}
