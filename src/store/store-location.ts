/** Where a store is, as `--store` takes it and as nodes tell each other. */
import { resolve } from "node:path";

export type StoreLocation = {
  readonly kind: "sqlite";
  /** Absolute; null: in the node's data folder. */
  readonly path: string | null;
};

/** What opens a store that asks for it. Never shown, never sent to another node. */
export interface StoreCredentials {
  readonly username: string | null;
  readonly password: string | null;
}

const NO_CREDENTIALS: StoreCredentials = { username: null, password: null };

/**
 * A location, and the credentials that stand in it, from its text.
 * @throws Error with what to write instead
 */
export function parseStoreLocation(text: string): {
  readonly location: StoreLocation;
  readonly credentials: StoreCredentials;
} {
  if (text.startsWith("sqlite:")) {
    const path = text.slice("sqlite:".length);
    return { location: { kind: "sqlite", path: path === "" ? null : resolve(path) }, credentials: NO_CREDENTIALS };
  }
  throw new Error("this version has the embedded store only; write sqlite:PATH.");
}

/** A location as a text that another node can read; nothing of it is secret. */
export function showStoreLocation(location: StoreLocation): string {
  return `sqlite:${location.path ?? ""}`;
}
