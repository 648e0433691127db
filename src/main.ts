/** Wires a node together; the only file that knows every part. */
import { statSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { ClusterNode } from "./cluster/cluster-node.ts";
import { PROTOCOL, storeFor } from "./cluster/join.ts";
import { timingOf } from "./cluster/timing.ts";
import type { Config } from "./config.ts";
import { type DataFolder, openDataFolder } from "./data-folder.ts";
import { Engine } from "./engine/engine.ts";
import { accessOf } from "./file-access.ts";
import { boundGrowth, bufferCollector, memoryPlanOf, oldGenerationBytes } from "./start/heap.ts";
import { hostOf, hostRule } from "./http/host-check.ts";
import type { HeartbeatStatus } from "./http/schemas.ts";
import { closeServer, createHttpServer, DEFAULT_HTTP_LIMITS, listen } from "./http/server.ts";
import type { Logger } from "./log.ts";
import { planConnections, planIntake } from "./start/memory-plan.ts";
import { StartError } from "./order/errors.ts";
import { type Pipeline, pipelineLabel, pipelineShape } from "./order/pipeline.ts";
import { PipelineSet } from "./order/pipeline-set.ts";
import { RESULTS_CHARS_MAX } from "./order/result.ts";
import { builtInPipeline } from "./pipelines/built-in.ts";
import { type Clock, systemClock } from "./runtime/clock.ts";
import { ownProcess } from "./process-identity.ts";
import type { ClusterIdentity } from "./store/cluster-store.ts";
import { newOrderId } from "./store/order-id.ts";
import { type KnownLocation, openStoreAt } from "./store/open-store.ts";
import { showStoreLocation } from "./store/store-location.ts";
import { type Store, StoreMissingError, StoreUnavailableError } from "./store/store.ts";
import { keepStorePrivate, requireStoreFiles, watchStore } from "./start/store-files.ts";
import { chooseStore, membershipOf, requireSameCluster, type StoreChoice } from "./start/store-choice.ts";
import { StoreSettings } from "./store-settings.ts";
import { programVersion } from "./version.ts";
import { startWatchdog, type Watchdog } from "./watchdog/watchdog.ts";

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
  readonly clock?: Clock;
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
  const clock = parts.clock ?? systemClock();
  const cleanUp: (() => Promise<void> | void)[] = [() => folder.release()];
  const undo = async (): Promise<void> => {
    for (const step of cleanUp.toReversed()) await step();
  };
  let onStoreConnected = (): void => undefined;
  let storeName = "";
  try {
    return await startIn(folder);
  } catch (error) {
    await undo();
    if (!(error instanceof StoreUnavailableError)) throw error;
    throw new StartError(`the store ${storeName} can't be used: ${error.message}`, { cause: error });
  }

  async function startIn({ path, serviceId }: DataFolder): Promise<Node> {
    const { now } = clock;
    const version = programVersion();
    log.info(`Service configuration loaded: {${config.host} ${config.port}}, data in ${path}`);
    for (const line of folder.notices) log.warn(line);
    const pipelines = await loadAll(config, parts, log);
    const choice = await chooseStore(config, folder, { log, clock });
    const { joined, location } = choice;
    const store = await openStore(location, joined !== null || folder.membership !== null);
    cleanUp.push(() => store.close());
    const identity = await store.cluster.identity();
    requireSameCluster(identity.clusterId, choice, { config, folder });
    if (location.kind === "sqlite") keepStorePrivate(location.path, log);
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
    const plan = memoryPlanOf(config);
    cleanUp.push(boundGrowth());
    const intake = planIntake(oldGenerationBytes(), config);
    log.info(`Orders in flight at most: ${intake.ordersMax}`);
    let node: ClusterNode | null = null;
    let watchdog: Watchdog | null = null;
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
        ...planConnections(plan.bufferBytes, DEFAULT_HTTP_LIMITS),
        incomingBytesMax: Math.max(
          config.bodyBytesMax,
          Math.min(DEFAULT_HTTP_LIMITS.incomingBytesMax, intake.incomingBytesMax),
        ),
      },
      isAllowedHost: hostRule(ownHosts(config), config.allowedHosts),
      onReceived: bufferCollector(plan),
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
      recordedShape: (...pipeline) => store.cluster.recordedShape(...pipeline),
      listOrders: (filter, before, limit) => store.listOrders(filter, before, limit),
      countOrders: (user) => store.countOrders(user),
      follow: store,
      serviceOf: (incarnation) => store.cluster.serviceOf(incarnation),
      readBody: (orderId) => store.readBody(orderId),
      isOperator: (user) => config.operators.has(user),
      mayDecide: (user) => config.operators.size === 0 || config.operators.has(user),
      act: (orderId, request, owner) => requireStarted(node).act(orderId, request, owner),
      actHere: (orderId, request) => requireStarted(node).actHere(orderId, request),
      transfer: async (request) => {
        const outcome = (await node?.transfer(request)) ?? { kind: "not_ready" as const };
        if (outcome.kind === "transferred" && outcome.orders > 0)
          log.info(`Orders of ${request.serviceId} taken over: ${outcome.orders}`);
        return outcome;
      },
      adopt: (orderIds) => node?.adopt(orderIds) ?? null,
      admit: (request) => node?.admit(request) ?? null,
      joinAnswer: (caller) => ({
        cluster_id: identity.clusterId,
        service_id: serviceId,
        leader_name: node?.view().leaderServiceId ?? "",
        version,
        protocol: PROTOCOL,
        ...storeFor(caller, { location, isShared: config.shareStore }),
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
        protocol: PROTOCOL,
        ttlMs: config.nodeTtlMs,
        pipelines: pipelines.all.map(pipelineLabel),
        process: ownProcess(),
      },
      timing: timingOf(config.nodeTtlMs),
      log,
      clock,
      createEngine: (incarnation, hooks) =>
        new Engine({
          store,
          incarnation,
          pipelines,
          log,
          clock,
          random: Math.random,
          newOrderId,
          limits: {
            ordersMax: intake.ordersMax,
            bodyBytesMax: intake.bodyBytesMax,
            callBytesMax: intake.callBytesMax,
            largestOrderBytes: config.bodyBytesMax + RESULTS_CHARS_MAX,
          },
          crashesMax: config.crashesMax,
          onCall: (orderId, stepName) => watchdog?.noteCall(orderId, stepName),
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
    watchdog = watch(config, node);
    if (watchdog !== null) cleanUp.push(() => watchdog?.stop());
    folder.remember(membershipOf(identity.clusterId, choice, folder));
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
    storeName = showStoreLocation(location);
    log.info(`Store configuration loaded: {${storeName}}`);
    log.info("Opening and checking the store");
    if (location.kind === "sqlite") requireStoreFiles(location.path);
    try {
      const store = await openStoreAt(location, {
        credentials: config.storeCredentials,
        nodeTtlMs: config.nodeTtlMs,
        now: clock.now,
        onBroken,
        onNotice: (line) => log.warn(line),
        onConnected: () => onStoreConnected(),
        mustExist,
        cacheBytes: memoryPlanOf(config).storeCacheBytes,
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
      if (membership === null) throw new StartError(error.message, { cause: error });
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

/** How long a lone node's event loop may be blocked: nobody waits to take its orders over. */
const BLOCKED_ALONE_MS = 60_000;

/** However short the TTL is: a busy machine may keep the event loop from its turn for so long. */
const BLOCKED_MS_MIN = 2_000;

/** Ends this process when a step blocks it for too long; null: it may. */
function watch({ blockedLimitMs, nodeTtlMs }: Config, node: ClusterNode): Watchdog | null {
  if (blockedLimitMs === 0) return null;
  return startWatchdog({
    limitMs: () => blockedLimitMs ?? (node.isAlone ? BLOCKED_ALONE_MS : Math.max(nodeTtlMs, BLOCKED_MS_MIN)),
  });
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
  warnOfForeignCode([config.pipelines, ...pipelines.map(({ file }) => file)], log);
  const labels = pipelines.map(({ pipeline }) => pipelineLabel(pipeline));
  log.info(`Pipelines loaded: ${labels.join(", ")}`);
  return new PipelineSet(pipelines.map(({ pipeline }) => pipeline));
}

/** Whoever can change a pipeline has this node run what they like. */
function warnOfForeignCode(paths: readonly string[], log: Logger): void {
  const open = [...new Set(paths)].filter((path) => {
    const { owner, write } = accessOf(statSync(path));
    return owner !== null || write;
  });
  const [first] = open;
  if (first === undefined) return;
  const more = open.length > 1 ? ` (and ${open.length - 1} more)` : "";
  log.warn(`The pipelines ${first}${more} can be changed by other users, who can so have this node run what they like`);
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

const STARTING = "this node is starting";

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
    readonly joined: StoreChoice["joined"];
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
  const stranger = nodes.find((row) => row.alive && row.protocol !== PROTOCOL && row.serviceId !== folder.serviceId);
  if (stranger !== undefined) {
    log.warn(
      `Node ${stranger.serviceId} (${stranger.url}, version ${stranger.version}) says other things to nodes than this one: the two can't ask each other, nor read each other's newest orders; stop it, and start it again in this version`,
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

/** By which names this node is asked: that it listens at, and what the others are told (advertisedUrl). */
function ownHosts({ host, advertise }: Config): string[] {
  if (advertise !== null) return [host, hostOf(advertise) ?? ""];
  const isAllOfThem = /^[0:.]+$/.test(host);
  return isAllOfThem ? [hostname()] : [host];
}

function requireStarted(node: ClusterNode | null): ClusterNode {
  if (node === null) throw new StoreUnavailableError(STARTING);
  return node;
}
