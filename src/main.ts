/** Wires a node together; the only file that knows every part. */
import { randomUUIDv7 } from "node:crypto";
import { closeSync, openSync, readFileSync, realpathSync, statSync } from "node:fs";
import { join } from "node:path";
import { getHeapStatistics } from "node:v8";
import { singleNodeCluster } from "./cluster/single-node.ts";
import type { Config } from "./config.ts";
import { openDataFolder } from "./data-folder.ts";
import { type FileLock, lockFile } from "./file-lock.ts";
import { Engine, type EngineLimits } from "./engine/engine.ts";
import type { HeartbeatStatus } from "./http/schemas.ts";
import { closeServer, createHttpServer, DEFAULT_HTTP_LIMITS, listen } from "./http/server.ts";
import type { Logger } from "./log.ts";
import { StartError } from "./order/errors.ts";
import type { Pipeline } from "./order/pipeline.ts";
import { builtInPipeline } from "./pipelines/built-in.ts";
import { openSqliteStore, type SqliteStoreOptions } from "./store/sqlite/sqlite-store.ts";
import { type Store, StoreUnavailableError } from "./store/store.ts";

/** A running node. */
export interface Node {
  /** Where it listens, as `http://host:port`. */
  readonly url: string;
  readonly serviceId: string;
  /** Stops it without losing an order: no new intake, running steps get the configured grace time. */
  stop(): Promise<void>;
}

/** What a test or a benchmark puts in the place of the usual. */
export interface NodeParts {
  readonly pipeline?: Pipeline;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  readonly openStore?: (options: SqliteStoreOptions) => Promise<Store>;
}

/** This program's version. */
export function programVersion(): string {
  const content = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };
  return content.version;
}

/**
 * Starts a node; resolves when it listens. Orders that a former start left are taken over in the background.
 * @param onBroken the node can't go on, through no fault of a caller: the process must end
 * @throws StartError with one line
 */
export async function startNode(
  config: Config,
  log: Logger,
  onBroken: (error: Error) => void,
  parts: NodeParts = {},
): Promise<Node> {
  const now = parts.now ?? Date.now;
  const folder = openDataFolder(config.data);
  const { serviceId } = folder;
  const storePath = config.storePath ?? join(folder.path, "orders.sqlite");
  log.info(`Service configuration loaded: {${config.host} ${config.port}}, data in ${folder.path}`);
  log.info(`Store configuration loaded: {sqlite ${storePath}}`);
  log.info("Opening and checking the store");

  let store: Store | null = null;
  let storeLock: FileLock | null = null;
  try {
    storeLock = lockStore(storePath);
    store = await (parts.openStore ?? openSqliteStore)({ path: storePath, now, onBroken });
    return await startOnStore(store);
  } catch (error) {
    await store?.close();
    storeLock?.release();
    folder.release();
    if (error instanceof StoreUnavailableError) throw new StartError(error.message, { cause: error });
    throw error;
  }

  async function startOnStore(openStore: Store): Promise<Node> {
    const limits = engineLimits(config.inFlightMax);
    log.info(`Orders in flight at most: ${limits.ordersMax}`);
    const engine = new Engine({
      store: openStore,
      incarnation: await openStore.registerIncarnation(serviceId, now()),
      pipeline: parts.pipeline ?? builtInPipeline({ ...config, random: Math.random }),
      log,
      now,
      random: Math.random,
      newOrderId: randomUUIDv7,
      limits,
    });
    log.info(`[${serviceId}] stateChange initialized -> follower`);
    log.info("Initializing new cluster");

    let url = "";
    let stopping = false;
    const cluster = singleNodeCluster({ serviceId, url: () => url, now, store: openStore });
    const status = (): HeartbeatStatus => {
      if (stopping) return "SHUTTING_DOWN";
      return engine.storeFailure === null ? "OK" : "STORE_UNAVAILABLE";
    };
    const server = await createHttpServer({
      log,
      limits: {
        ...DEFAULT_HTTP_LIMITS,
        bodyBytesMax: config.bodyBytesMax,
        incomingBytesMax: Math.max(config.bodyBytesMax, Math.floor(oldGenerationBytes() / 8)),
      },
      serviceId,
      version: programVersion(),
      now,
      status,
      submit: (submission) => engine.submit(submission),
      readOrder: (orderId) => openStore.readOrder(orderId),
      transfer: (dead) => cluster.transfer(dead),
      cluster: () => cluster.view(),
    });
    log.info("Initializing HTTP server");
    url = await listen(server, config.host, config.port);
    log.info(`[${serviceId}] stateChange follower -> leader`);
    log.info(`[${serviceId}] leaderChange -> ${serviceId}`);
    log.info(`Listening at: ${url}`);
    const resumed = engine.resume().then(
      (orders) => {
        if (orders > 0) log.info(`Orders of a former start taken over: ${orders}`);
      },
      (error: unknown) => onBroken(new Error("orders of a former start can't be taken over", { cause: error })),
    );

    const unwatchStore = watchStore(storePath, onBroken);
    const stop = async (): Promise<void> => {
      stopping = true;
      unwatchStore();
      log.info(`Stopping: no new orders; running steps have ${config.graceMs} ms to end`);
      const cut = await engine.drain(config.graceMs);
      await resumed;
      await closeServer(server);
      await openStore.close();
      storeLock?.release();
      folder.release();
      log.info(cut === 0 ? "Stopped" : `Stopped; steps cut short, to be called again at the next start: ${cut}`);
    };
    return { url, serviceId, stop };
  }
}

/** Nodes don't share a store yet: each would take the other's orders for those of a former start. */
function lockStore(path: string): FileLock {
  let lock: FileLock | null;
  try {
    closeSync(openSync(path, "a")); // so that it has a real path, whatever links lead to it
    if (statSync(path).nlink > 1) throw new Error("it has another name, a hard link; remove one of them");
    lock = lockFile(`${realpathSync(path)}.lock`);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new StartError(
      `the store ${path} can't be opened: ${reason}; check that its folder exists and can be written`,
      {
        cause: error,
      },
    );
  }
  if (lock === null)
    throw new StartError(`the store ${path} is in use by another process; stop it or choose another with --store`);
  return lock;
}

/** How often it is looked whether the store's file is still the one that was opened. */
const STORE_WATCH_MS = 1_000;

/**
 * A file that was removed or replaced goes on being written, and all that is acknowledged from then on would be lost with the
 * process: then the node must stop.
 * @returns ends the watch
 */
function watchStore(path: string, onBroken: (error: Error) => void): () => void {
  const { dev, ino } = statSync(path);
  const timer = setInterval(() => {
    const now = statSync(path, { throwIfNoEntry: false });
    if (now?.ino === ino && now.dev === dev) return;
    clearInterval(timer);
    onBroken(new Error(`the store ${path} was removed or replaced while it was in use`));
  }, STORE_WATCH_MS);
  timer.unref();
  return () => clearInterval(timer);
}

/** What the launcher lets the young generation take; the heap's limit includes it. */
const YOUNG_GENERATION_BYTES = 3 * 64 * 1024 ** 2;

/**
 * Bounds what is in flight by the memory there is (guarantee G8): bodies may fill a quarter of the heap's old generation, and
 * orders another at 4 KiB each, twice what one takes at the most.
 */
function engineLimits(inFlightMax: number): EngineLimits {
  const heapBytes = oldGenerationBytes();
  return {
    ordersMax: Math.min(inFlightMax, Math.floor(heapBytes / 4 / 4096)),
    bodyBytesMax: Math.floor(heapBytes / 4),
  };
}

function oldGenerationBytes(): number {
  const { heap_size_limit: limitBytes } = getHeapStatistics();
  return Math.max(limitBytes - YOUNG_GENERATION_BYTES, limitBytes / 4);
}
