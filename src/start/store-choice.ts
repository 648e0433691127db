/**
 * Where a node's orders are, decided at its start: by the operator, by what the data folder remembers, or by the node at `--join`.
 *
 * 1. What is named here (`--store`, the environment, the configuration file) beats what the data folder remembers, which beats what a
 *    node at another address says.
 * 2. Credentials go only to a store that was named here, now or at a former start. What another process named is sent none, nor is it
 *    when it is remembered: whoever answers at an address could have named a store of its own, or the same one without TLS.
 */
import { randomBytes } from "node:crypto";
import { statSync } from "node:fs";
import { join } from "node:path";
import { askToJoin, hostProof, type JoinAnswer } from "../cluster/join.ts";
import type { Config } from "../config.ts";
import type { ClusterMembership, DataFolder } from "../data-folder.ts";
import type { Logger } from "../log.ts";
import { StartError } from "../order/errors.ts";
import type { Clock } from "../runtime/clock.ts";
import type { KnownLocation } from "../store/open-store.ts";
import { parseStoreLocation, showStoreLocation, type StoreLocation } from "../store/store-location.ts";
import { programVersion } from "../version.ts";

/** A node's store, and the cluster that it joins. */
export interface StoreChoice {
  readonly location: KnownLocation;
  /** Whether another process has named it, and no operator since. */
  readonly isTold: boolean;
  /** What the node at `--join` has answered; null: none was to be joined, or it need not answer. */
  readonly joined: JoinAnswer | null;
}

/** The embedded store's name in a data folder. */
const STORE_FILE = "orders.sqlite";

/** How long the node that is to be joined may take to answer: the two may be started together. */
const JOIN_PATIENCE_MS = 5_000;

/**
 * Finds out where the orders are; with `--join`, asks the node there.
 * @throws StartError with one line
 */
export async function chooseStore(
  config: Config,
  folder: DataFolder,
  { log, clock }: { readonly log: Logger; readonly clock: Clock },
): Promise<StoreChoice> {
  const nonce = randomBytes(18).toString("base64url");
  const joined = await askForCluster({ config, folder }, nonce, { log, clock });
  const { membership } = folder;
  if (config.store !== null) return { location: known(config.store, folder), isTold: false, joined };
  if (membership !== null) {
    requireOneCluster(joined, membership, { config, folder });
    const location = known(parseStoreLocation(membership.store).location, folder);
    if (location.kind === "redis" && membership.isTold)
      requireNoCredentials(config, folder, showStoreLocation(location));
    sayOtherStore(joined, location, { config, log });
    return { location, isTold: membership.isTold, joined };
  }
  if (joined === null) return { location: known({ kind: "sqlite", path: null }, folder), isTold: false, joined };
  return { location: toldLocation(joined, nonce, { config, folder }), isTold: true, joined };
}

/** What the data folder is to remember. A store in the data folder stays there when the folder is moved. */
export function membershipOf(
  clusterId: string,
  { location, isTold }: StoreChoice,
  { path }: DataFolder,
): ClusterMembership {
  const isInside = location.kind === "sqlite" && location.path === join(path, STORE_FILE);
  return { clusterId, store: isInside ? "sqlite:" : showStoreLocation(location), isTold };
}

/** @throws StartError when this node, or the one that it joins, belongs to another cluster than the store */
export function requireSameCluster(
  clusterId: string,
  { joined, location }: StoreChoice,
  { config, folder }: Start,
): void {
  const store = showStoreLocation(location);
  if (joined !== null && joined.cluster_id !== clusterId) {
    throw new StartError(
      `can't join ${config.join}: its cluster is ${joined.cluster_id}, and the store ${store} is that of cluster ${clusterId}; leave out --store, or name that cluster's`,
    );
  }
  const { membership } = folder;
  if (membership === null || membership.clusterId === clusterId) return;
  requireOneCluster(joined, membership, { config, folder });
  throw new StartError(
    `the store ${store} is that of cluster ${clusterId}, and this node belongs to cluster ${membership.clusterId} (store ${membership.store}): ` +
      `restore its store, or remove ${join(folder.path, "node.json")} to begin as a new node`,
  );
}

interface Start {
  readonly config: Config;
  readonly folder: DataFolder;
}

/** With `--join`: what the node at that address says of its cluster; null where it need not be known. */
async function askForCluster(
  { config, folder: { serviceId, membership } }: Start,
  nonce: string,
  { log, clock }: { readonly log: Logger; readonly clock: Clock },
): Promise<JoinAnswer | null> {
  if (config.join === null) return null;
  log.info(`Attempting to join leader: ${config.join}`);
  const answer = await askToJoin({
    address: config.join,
    serviceId,
    version: programVersion(),
    nonce,
    patienceMs: membership === null ? JOIN_PATIENCE_MS : 0,
    clock,
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
 * Where the node at `--join` says that its store is.
 * @throws StartError when it does not say it, when it can't be reached from here, or when it would be sent credentials
 */
function toldLocation({ store, embedded, host }: JoinAnswer, nonce: string, { config, folder }: Start): KnownLocation {
  if (store === null) {
    throw new StartError(
      embedded === true
        ? `can't join ${config.join}: its cluster keeps orders in an embedded store, which nodes of one host only can share; on that host join it at 127.0.0.1, or name the store with --store sqlite:PATH; for several hosts, run it with --store redis://…`
        : `can't join ${config.join}: it tells only nodes of its own host where its store is; name the store with --store redis://HOST:PORT, or start that node with --share-store`,
    );
  }
  const location = known(locationOf(store, config), folder);
  if (location.kind === "redis") {
    requireNoCredentials(config, folder, showStoreLocation(location));
    return location;
  }
  const ownHost = hostProof(nonce);
  if (host !== null && ownHost !== null && host !== ownHost) {
    throw new StartError(
      `can't join ${config.join}: its cluster keeps orders in an embedded store, which nodes of one host only can share; run it with --store redis://…`,
    );
  }
  if (isMissing(location.path)) {
    throw new StartError(`can't join ${config.join}: its store ${location.path} is not on this host`);
  }
  return location;
}

/** Where it can't be looked at, whoever opens it says why. */
function isMissing(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) === undefined;
  } catch {
    return false;
  }
}

/** @throws StartError when this node was given credentials: they are meant for another store, as far as anybody here has said */
function requireNoCredentials({ join: address, storeCredentials }: Config, folder: DataFolder, store: string): void {
  if (storeCredentials.username === null && storeCredentials.password === null) return;
  throw new StartError(
    folder.membership === null
      ? `can't join ${address}: it says that its store is ${store}, and this node's credentials are sent only to a store that is named here; if that is your store, name it with --store ${store}`
      : `this node's credentials are sent only to a store that is named here, and its data folder ${folder.path} has ${store} from another node, or can be written by other users; if that is your store, name it with --store ${store}`,
  );
}

/** @throws StartError when the node that is to be joined is of another cluster than this one */
function requireOneCluster(
  joined: JoinAnswer | null,
  { clusterId }: ClusterMembership,
  { config, folder }: Start,
): void {
  if (joined === null || joined.cluster_id === clusterId) return;
  throw new StartError(
    `can't join ${config.join}: its cluster is ${joined.cluster_id}, and this node, whose data are in ${folder.path}, belongs to cluster ${clusterId}: ` +
      "leave out --join to go on there with the orders that it has, or give the node that joins a new folder with --data",
  );
}

/** The store may have moved, and the one that is remembered may be a copy that nobody uses any more. */
function sayOtherStore(
  joined: JoinAnswer | null,
  location: KnownLocation,
  { config, log }: { readonly config: Config; readonly log: Logger },
): void {
  const told = joined?.store ?? null;
  if (told === null || told === showStoreLocation(location)) return;
  log.warn(
    `The node at ${config.join} says that its store is ${told}; this node goes on with ${showStoreLocation(location)}, as before; if the store has moved, name it with --store`,
  );
}

/** @throws StartError when the text is no store's location */
function locationOf(store: string, config: Config): StoreLocation {
  try {
    return parseStoreLocation(store).location;
  } catch (error) {
    throw new StartError(
      `can't join ${config.join}: what it says of its store is none; check the address that --join names`,
      { cause: error },
    );
  }
}

function known(location: StoreLocation, { path }: DataFolder): KnownLocation {
  return location.kind === "redis" ? location : { kind: "sqlite", path: location.path ?? join(path, STORE_FILE) };
}
