/** Where a store is, as `--store` takes it and as nodes tell each other. */
import { resolve } from "node:path";
import { isRedisUrl, parseRedisUrl, type RedisLocation, showRedisLocation } from "./redis/location.ts";

export type StoreLocation =
  | {
      readonly kind: "sqlite";
      /** Absolute; null: in the node's data folder. */
      readonly path: string | null;
    }
  | { readonly kind: "redis"; readonly redis: RedisLocation };

/** What opens a store that asks for it. Never shown, never sent to another node. */
export interface StoreCredentials {
  readonly username: string | null;
  readonly password: string | null;
}

const NO_CREDENTIALS: StoreCredentials = { username: null, password: null };

/**
 * A location, and the credentials that stand in it, from its text.
 * @throws Error with what to write instead, and without the credentials
 */
export function parseStoreLocation(text: string): {
  readonly location: StoreLocation;
  readonly credentials: StoreCredentials;
} {
  if (text.startsWith("sqlite:")) {
    const path = text.slice("sqlite:".length);
    return { location: { kind: "sqlite", path: path === "" ? null : resolve(path) }, credentials: NO_CREDENTIALS };
  }
  if (isRedisUrl(text)) {
    const { location: redis, username = null, password = null } = parseRedisUrl(text);
    return { location: { kind: "redis", redis }, credentials: { username, password } };
  }
  throw new Error("write sqlite:PATH, redis://HOST:PORT or rediss://HOST:PORT.");
}

/** A location as a text that another node can read; nothing of it is secret. */
export function showStoreLocation(location: StoreLocation): string {
  return location.kind === "sqlite" ? `sqlite:${location.path ?? ""}` : showRedisLocation(location.redis);
}
