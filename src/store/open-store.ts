/** Opens whichever store a location names. The code of the others isn't loaded: a start would take a third longer. */
import type { Store } from "./store.ts";
import type { StoreCredentials, StoreLocation } from "./store-location.ts";

/** The location of a store that is settled: a path in the data folder is written out. */
export type KnownLocation =
  Exclude<StoreLocation, { kind: "sqlite" }> | { readonly kind: "sqlite"; readonly path: string };

export interface OpenStoreOptions {
  readonly credentials: StoreCredentials;
  /** Silence after which a node of this store counts as dead. */
  readonly nodeTtlMs: number;
  readonly now: () => number;
  /** The store is gone for a reason that can't pass: the process must stop. */
  readonly onBroken: (error: Error) => void;
  /** Something an operator should hear of, as a line for the log. */
  readonly onNotice: (line: string) => void;
  /** A server is about to be used, perhaps another than before, or one that was started again with other settings. */
  readonly onConnected?: () => void;
  /** Memory for pages of an embedded store. */
  readonly cacheBytes?: number;
  /** Refuse a store in which no cluster was ever, and leave it as it is. */
  readonly mustExist?: boolean;
}

/** Not longer than a write waits for another process's lock. */
const FROZEN_WRITER_MS_MAX = 1_667;

/**
 * Opens the store.
 * @throws StoreUnavailableError when it can't be opened, with one line that says why and what to do
 */
export async function openStoreAt(
  location: KnownLocation,
  { credentials, nodeTtlMs, cacheBytes, ...hooks }: OpenStoreOptions,
): Promise<Store> {
  if (location.kind === "redis") {
    const { openRedisStore } = await import("./redis/redis-store.ts");
    return openRedisStore({ ...hooks, location: location.redis, ...presentOf(credentials) });
  }
  const { openSqliteStore } = await import("./sqlite/sqlite-store.ts");
  // A third of the time after which a silent node is dead: then the others still go on within it.
  return openSqliteStore({
    ...hooks,
    path: location.path,
    ...(cacheBytes === undefined ? {} : { cacheBytes }),
    frozenWriterMs: Math.min(nodeTtlMs / 3, FROZEN_WRITER_MS_MAX),
  });
}

/** Credentials as the adapter takes them: what isn't there is left out. */
export function presentOf({ username, password }: StoreCredentials): { username?: string; password?: string } {
  return { ...(username === null ? {} : { username }), ...(password === null ? {} : { password }) };
}
