/** Wires a node together; the only file that knows every part. */
import { statSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { getHeapStatistics } from "node:v8";
import { ClusterNode } from "./cluster/cluster-node.ts";
import { askToJoin, type JoinAnswer, PROTOCOL } from "./cluster/join.ts";
import { timingOf } from "./cluster/timing.ts";
import type { Config } from "./config.ts";
import { type DataFolder, openDataFolder } from "./data-folder.ts";
import { Engine, type EngineLimits } from "./engine/engine.ts";
import type { HeartbeatStatus } from "./http/schemas.ts";
import { closeServer, createHttpServer, DEFAULT_HTTP_LIMITS, listen } from "./http/server.ts";
import type { Logger } from "./log.ts";
import { StartError } from "./order/errors.ts";
import { type Pipeline, pipelineLabel, pipelineShape } from "./order/pipeline.ts";
import { PipelineSet } from "./order/pipeline-set.ts";
import { RESULTS_CHARS_MAX } from "./order/result.ts";
import { builtInPipeline } from "./pipelines/built-in.ts";
import { bootIdentity, ownProcess } from "./process-identity.ts";
import type { ClusterIdentity } from "./store/cluster-store.ts";
import { newOrderId } from "./store/order-id.ts";
import { type KnownLocation, openStoreAt } from "./store/open-store.ts";
import { parseStoreLocation, showStoreLocation, type StoreLocation } from "./store/store-location.ts";
import { type Store, StoreMissingError, StoreUnavailableError } from "./store/store.ts";
import { StoreSettings } from "./store-settings.ts";
import { programVersion } from "./version.ts";

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
  /** Something around the store that was opened. */
  readonly wrapStore?: (store: Store) => Store;
}

/**
 * Starts a node; resolves when it listens and is part of its cluster. Orders that a former start left are taken over in the
 * background.
 * @param onBroken the node can't go on, through no fault of a caller: the process must end
 * @throws StartError with one line
 */
export async function startNode(
  config: Config,
  log: Logger,
  onBroken: (error: Error) => void,
  parts: NodeParts = {},
): Promise<Node> {
  const folder = openDataFolder(config.data);
  const cleanUp: (() => Promise<void> | void)[] = [() => folder.release()];
  const undo = async (): Promise<void> => {
    for (const step of cleanUp.toReversed()) await step();
  };
  let onStoreConnected = (): void => undefined;
  try {
    return await startIn(folder);
  } catch (error) {
    await undo();
    if (error instanceof StoreUnavailableError) throw new StartError(error.message, { cause: error });
    throw error;
  }

  async function startIn({ path, serviceId }: DataFolder): Promise<Node> {
    const now = parts.now ?? Date.now;
    const version = programVersion();
    log.info(`Service configuration loaded: {${config.host} ${config.port}}, data in ${path}`);
    const pipelines = await loadAll(config, parts, log);
    const joined = await askForStore(config, folder, log);
    const location = storeLocation(config, folder, joined);
    const store = await openStore(location, joined !== null || folder.membership !== null);
    cleanUp.push(() => store.close());
    const identity = await store.cluster.identity();
    requireSameCluster(identity.clusterId, { config, folder, joined, location });
    const storeReport = await store.report();
    for (const line of storeReport.advice) log.warn(`The store: ${line}`);
    log.info(`Durability of what is acknowledged: ${storeReport.durability}`);
    if (config.requireDurable && storeReport.durability !== "fsync-always") {
      throw new StartError(
        `the store ${showStoreLocation(location)} has the durability ${storeReport.durability}, and --require-durable is set; ${storeReport.advice.join("; ")}`,
      );
    }
    const settings = new StoreSettings(store, { first: storeReport, isRequired: config.requireDurable, log });
    cleanUp.push(() => settings.stop());
    onStoreConnected = () => settings.doubt();

    await requireSameShapes(store, pipelines);
    const limits = engineLimits(config);
    log.info(`Orders in flight at most: ${limits.ordersMax}`);
    let node: ClusterNode | null = null;
    let stopping = false;
    const failure = (): string | null => (node === null ? STARTING : (settings.failure ?? node.failure));
    const status = (): HeartbeatStatus => {
      if (stopping) return "SHUTTING_DOWN";
      return failure() === null ? "OK" : "STORE_UNAVAILABLE";
    };
    const server = await createHttpServer({
      log,
      limits: {
        ...DEFAULT_HTTP_LIMITS,
        bodyBytesMax: config.bodyBytesMax,
        incomingBytesMax: incomingBytesMax(config),
      },
      serviceId,
      version,
      now,
      status,
      durability: () => settings.report.durability,
      submit: async (submission) => {
        const reason = stopping ? null : failure();
        if (node === null || reason !== null) return { kind: "store_unavailable", reason: reason ?? STARTING };
        const outcome = await node.submit(submission);
        // Made meanwhile in a store that has come back with weaker settings: that must not be acknowledged.
        const tooWeak = settings.failure;
        return tooWeak === null ? outcome : { kind: "store_unavailable", reason: tooWeak };
      },
      pipelines,
      readOrder: (orderId) => store.readOrder(orderId),
      livePipelines: () =>
        new Set(node?.view().nodes.flatMap(({ connected, pipelines: labels }) => (connected ? labels : []))),
      listOrders: (filter, before, limit) => store.listOrders(filter, before, limit),
      countOrders: (user) => store.countOrders(user),
      follow: store,
      serviceOf: (incarnation) => store.cluster.serviceOf(incarnation),
      readBody: (orderId) => store.readBody(orderId),
      isOperator: (user) => config.operators.has(user),
      act: (orderId, request, owner) => requireStarted(node).act(orderId, request, owner),
      actHere: (orderId, request) => requireStarted(node).actHere(orderId, request),
      transfer: async (request) => {
        const outcome = (await node?.transfer(request)) ?? { kind: "not_ready" as const };
        if (outcome.kind === "transferred" && outcome.orders > 0)
          log.info(`Orders of ${request.serviceId} taken over: ${outcome.orders}`);
        return outcome;
      },
      adopt: (orderIds) => node?.adopt(orderIds) ?? null,
      isProven: (requestPath, body, proof) => node?.isProven(requestPath, body, proof) ?? false,
      joinAnswer: () => ({
        cluster_id: identity.clusterId,
        service_id: serviceId,
        leader_name: node?.view().leaderServiceId ?? "",
        version,
        protocol: PROTOCOL,
        store: showStoreLocation(location),
        host: bootIdentity(),
      }),
      cluster: () => requireStarted(node).view(),
    });
    // Before it is anywhere said that this node is there: a port that is taken must not leave a trace in the cluster.
    const url = await listen(server, config.host, config.port);
    cleanUp.push(() => closeServer(server));
    const advertised = advertisedUrl(config, url);

    node = new ClusterNode({
      store,
      storeReport: () => settings.report,
      identity,
      node: {
        serviceId,
        url: advertised,
        version,
        ttlMs: config.nodeTtlMs,
        pipelines: pipelines.all.map(pipelineLabel),
        process: ownProcess(),
      },
      timing: timingOf(config.nodeTtlMs),
      log,
      clock: () => performance.now(),
      now,
      createEngine: (incarnation, hooks) =>
        new Engine({
          store,
          incarnation,
          pipelines,
          log,
          now,
          random: Math.random,
          newOrderId,
          limits,
          ...hooks,
        }),
      onBroken,
    });
    log.info(`[${serviceId}] stateChange initialized -> follower`);
    await sayWhatCluster(store, {
      joined,
      folder,
      identity,
      location,
      url: advertised,
      ttlMs: config.nodeTtlMs,
      log,
    });
    // The first collection after so much loading copies all that is loaded, 20 MiB. It takes 30 ms now, and several times that when the
    // orders of another node come in, which is soon in a cluster that is upgraded node by node. The launcher lends the function.
    globalThis.gc?.({ type: "minor" });
    await node.start();
    folder.remember({ clusterId: identity.clusterId, store: rememberedStore(folder, location) });
    log.info("Initializing HTTP server");
    if (advertised !== url) log.info(`Told to other nodes as: ${advertised}`);
    log.info(`Listening at: ${url}`);

    const clusterNode = node;
    const unwatchStore = location.kind === "sqlite" ? watchStore(location.path, onBroken) : () => undefined;
    const stop = async (): Promise<void> => {
      stopping = true;
      unwatchStore();
      log.info(`Stopping: no new orders; running steps have ${config.graceMs} ms to end`);
      const { cut, givenAway, left } = await clusterNode.stop(config.graceMs);
      await undo();
      const notes = [
        ...(givenAway === 0 ? [] : [`orders given to other nodes: ${givenAway}`]),
        ...(left === 0 ? [] : [`orders left in the store, for the next start or another node: ${left}`]),
        ...(cut === 0 ? [] : [`steps cut short, to be called again: ${cut}`]),
      ];
      log.info(["Stopped", ...notes].join("; "));
    };
    return { url, serviceId, stop };
  }

  async function openStore(location: KnownLocation, mustExist: boolean): Promise<Store> {
    log.info(`Store configuration loaded: {${showStoreLocation(location)}}`);
    log.info("Opening and checking the store");
    try {
      const store = await openStoreAt(location, {
        credentials: config.storeCredentials,
        nodeTtlMs: config.nodeTtlMs,
        now: parts.now ?? Date.now,
        onBroken,
        onNotice: (line) => log.warn(line),
        onConnected: () => onStoreConnected(),
        mustExist,
      });
      return parts.wrapStore?.(store) ?? store;
    } catch (error) {
      const { membership, path } = folder;
      if (!(error instanceof StoreUnavailableError)) throw error;
      if (config.join !== null && config.store !== null) {
        throw new StartError(`can't join ${config.join}: ${error.message}; leave out --store, or name that cluster's`, {
          cause: error,
        });
      }
      if (membership === null) throw error;
      const whatNow =
        error instanceof StoreMissingError
          ? `make its store available, or restore it from a backup; to begin as a new node, remove ${join(path, "node.json")}`
          : "if its store is elsewhere by now, say where with --store";
      throw new StartError(`${error.message}. This node belongs to cluster ${membership.clusterId}: ${whatNow}`, {
        cause: error,
      });
    }
  }
}

/** @throws StartError with the first of what is wrong */
async function loadAll(config: Config, parts: NodeParts, log: Logger): Promise<PipelineSet> {
  if (parts.pipeline !== undefined) return new PipelineSet([parts.pipeline]);
  if (config.pipelines === null) return new PipelineSet([builtInPipeline({ ...config, random: Math.random })]);
  // Loaded only when needed, as what reads YAML and makes HTTP calls takes a third of a start.
  const { loadPipelines, showProblem } = await import("./pipelines/load.ts");
  const { pipelines, problems } = await loadPipelines(config.pipelines, process.env);
  const [first] = problems;
  if (first !== undefined) {
    const more = problems.length > 1 ? ` (and ${problems.length - 1} more; see order_process check)` : "";
    throw new StartError(`the pipelines can't be loaded: ${showProblem(first)}${more}`);
  }
  const labels = pipelines.map(({ pipeline }) => pipelineLabel(pipeline));
  log.info(`Pipelines loaded: ${labels.join(", ")}`);
  return new PipelineSet(pipelines.map(({ pipeline }) => pipeline));
}

/** @throws StartError when orders were made with other steps under the same name and version */
async function requireSameShapes(store: Store, pipelines: PipelineSet): Promise<void> {
  for (const pipeline of pipelines.all) {
    const shape = pipelineShape(pipeline);
    const onRecord = await store.cluster.pipelineShape(pipeline.name, pipeline.version, shape);
    if (onRecord === shape) continue;
    throw new StartError(
      `the pipeline ${pipelineLabel(pipeline)} has changed: this cluster has run it with the steps ${shownShape(onRecord)}, and now it has ${shownShape(shape)}; ` +
        "give it a higher version, and keep the former one for the orders that began with it",
    );
  }
}

function shownShape(shape: string): string {
  const steps = JSON.parse(shape) as [string, ...string[]][];
  return steps
    .map(([name, ...traits]) => `"${name}"${traits.length === 0 ? "" : ` (${traits.join(", ")})`}`)
    .join(", ");
}

/** The embedded store's name in a data folder. */
const STORE_FILE = "orders.sqlite";

const STARTING = "this node is starting";

/** How long the node that is to be joined may take to answer: the two may be started together. */
const JOIN_PATIENCE_MS = 5_000;

/** With `--join`: what the node at that address says of its cluster; null where it need not be known. */
async function askForStore(
  config: Config,
  { serviceId, membership }: DataFolder,
  log: Logger,
): Promise<JoinAnswer | null> {
  if (config.join === null) return null;
  log.info(`Attempting to join leader: ${config.join}`);
  const answer = await askToJoin({
    address: config.join,
    serviceId,
    version: programVersion(),
    patienceMs: membership === null ? JOIN_PATIENCE_MS : 0,
  });
  if (answer === null) {
    if (membership === null) {
      throw new StartError(
        `can't join ${config.join}: no order_process answers there; start that node first, or check the address`,
      );
    }
    log.warn(`No order_process answers at ${config.join}; this node goes back to the cluster that it was part of`);
    return null;
  }
  if (answer.service_id === serviceId)
    throw new StartError(`can't join ${config.join}: that is this node's own service_id`);
  return answer;
}

/**
 * Where the orders are: where `--store` says, or in the joined cluster's store, or where they were at the last start, or in the data
 * folder.
 * @throws StartError when the joined cluster's store can't be reached from here
 */
function storeLocation(config: Config, folder: DataFolder, joined: JoinAnswer | null): KnownLocation {
  const said =
    config.store ??
    known(joined?.store) ??
    known(folder.membership?.store) ??
    ({ kind: "sqlite", path: null } as const);
  if (said.kind !== "sqlite") return said;
  const location: KnownLocation = { kind: "sqlite", path: said.path ?? join(folder.path, STORE_FILE) };
  if (joined === null || config.store !== null) return location;
  const host = bootIdentity();
  if (joined.host !== null && host !== null && joined.host !== host) {
    throw new StartError(
      `can't join ${config.join}: its cluster keeps orders in an embedded store, which nodes of one host only can share; run it with --store redis://…`,
    );
  }
  if (statSync(location.path, { throwIfNoEntry: false }) === undefined) {
    throw new StartError(`can't join ${config.join}: its store ${location.path} is not on this host`);
  }
  return location;
}

/** A store in the data folder stays there when the folder is moved. */
function rememberedStore(folder: DataFolder, location: KnownLocation): string {
  const isInside = location.kind === "sqlite" && location.path === join(folder.path, STORE_FILE);
  return isInside ? "sqlite:" : showStoreLocation(location);
}

function known(text: string | undefined): StoreLocation | null {
  return text === undefined ? null : parseStoreLocation(text).location;
}

/** @throws StartError when this node, or the one that it joins, belongs to another cluster than the store */
function requireSameCluster(
  clusterId: string,
  {
    config,
    folder,
    joined,
    location,
  }: {
    readonly config: Config;
    readonly folder: DataFolder;
    readonly joined: JoinAnswer | null;
    readonly location: KnownLocation;
  },
): void {
  const store = showStoreLocation(location);
  if (joined !== null && joined.cluster_id !== clusterId) {
    throw new StartError(
      `can't join ${config.join}: its cluster is ${joined.cluster_id}, and the store ${store} is that of cluster ${clusterId}; leave out --store, or name that cluster's`,
    );
  }
  const { membership } = folder;
  if (joined !== null && membership !== null && membership.clusterId !== clusterId) {
    throw new StartError(
      `can't join ${config.join}: its cluster is ${clusterId}, and this node, whose data are in ${folder.path}, belongs to cluster ${membership.clusterId}: ` +
        "leave out --join to go on there with the orders that it has, or give the node that joins a new folder with --data",
    );
  }
  if (membership !== null && membership.clusterId !== clusterId) {
    throw new StartError(
      `the store ${store} is that of cluster ${clusterId}, and this node belongs to cluster ${membership.clusterId} (store ${membership.store}): ` +
        `restore its store, or remove ${join(folder.path, "node.json")} to begin as a new node`,
    );
  }
}

/** What this node comes into, in the words of the earlier system where it had some. */
async function sayWhatCluster(
  store: Store,
  {
    joined,
    folder,
    identity,
    location,
    url,
    ttlMs,
    log,
  }: {
    readonly joined: JoinAnswer | null;
    readonly folder: DataFolder;
    readonly identity: ClusterIdentity;
    readonly location: KnownLocation;
    readonly url: string;
    readonly ttlMs: number;
    readonly log: Logger;
  },
): Promise<void> {
  const { nodes, leader } = await store.cluster.read();
  if (folder.membership !== null) log.info("Recovered from log");
  else if (leader.term === 0 && nodes.length === 0) log.info("Initializing new cluster");
  else if (joined === null) log.info(`Joining cluster ${identity.clusterId}, whose store this is`);
  const double = nodes.find((row) => row.alive && row.url === url && row.serviceId !== folder.serviceId);
  if (double !== undefined) {
    log.warn(
      `Node ${double.serviceId} has told the others the same address, ${url}; give each its own with --host or --advertise`,
    );
  }
  const otherTtl = nodes.find((row) => row.alive && row.ttlMs !== ttlMs);
  if (otherTtl !== undefined) {
    log.warn(
      `Node ${otherTtl.serviceId} has a --node-ttl of ${otherTtl.ttlMs} ms, and this one ${ttlMs} ms; give all nodes the same, or deaths are seen late`,
    );
  }
  if (location.kind === "redis" && !isLoopback(location.redis.host) && isLoopback(new URL(url).hostname)) {
    log.warn(
      `Other hosts can't reach this node at ${url}; if nodes of this cluster run there, set --host or --advertise`,
    );
  }
}

/** Whether only this host itself can be meant. */
function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || host === "[::1]" || host.startsWith("127.");
}

/** What other nodes are told: an address that stands for all of a machine's is none that they could connect to. */
function advertisedUrl({ advertise }: Config, listeningUrl: string): string {
  if (advertise !== null) return `http://${advertise}`;
  const url = new URL(listeningUrl);
  return url.hostname === "0.0.0.0" || url.hostname === "[::]" ? `http://${hostname()}:${url.port}` : listeningUrl;
}

function requireStarted(node: ClusterNode | null): ClusterNode {
  if (node === null) throw new StoreUnavailableError(STARTING);
  return node;
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
function engineLimits({ inFlightMax, bodyBytesMax }: Config): EngineLimits {
  const heapBytes = oldGenerationBytes();
  return {
    ordersMax: Math.min(inFlightMax, Math.floor(heapBytes / 4 / 4096)),
    bodyBytesMax: Math.floor(heapBytes / 4),
    largestOrderBytes: bodyBytesMax + RESULTS_CHARS_MAX,
  };
}

/** What comes in takes an eighth of a small heap, and room for two of the largest bodies in any case. */
function incomingBytesMax({ bodyBytesMax }: Config): number {
  const usualBytes = Math.min(DEFAULT_HTTP_LIMITS.incomingBytesMax, Math.floor(oldGenerationBytes() / 8));
  return Math.max(2 * bodyBytesMax, usualBytes);
}

function oldGenerationBytes(): number {
  const { heap_size_limit: limitBytes } = getHeapStatistics();
  return Math.max(limitBytes - YOUNG_GENERATION_BYTES, limitBytes / 4);
}
