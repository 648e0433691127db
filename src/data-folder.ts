/**
 * A node's data folder: its lock and its identity.
 *
 * 1. At most one process holds a folder. The lock is the operating system's, so that a killed process lets go.
 * 2. The service_id is made once and survives restarts.
 * 3. What is in it is this user's own: nobody else can read it, and no symbolic link leads what is written elsewhere.
 */
import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname, join, resolve } from "node:path";
import { foreignKind, keepPrivate, OTHERS_WRITE } from "./file-access.ts";
import { type FileLock, lockFile } from "./file-lock.ts";
import { StartError } from "./order/errors.ts";
import { isUuid } from "./uuid.ts";

export interface DataFolder {
  /** Absolute. */
  readonly path: string;
  readonly serviceId: string;
  /** The cluster that the node belongs to since its first start; null at its first start. */
  readonly membership: ClusterMembership | null;
  /** What others could do with it: lines for the log. */
  readonly notices: readonly string[];
  /**
   * Notes the cluster for the next start.
   * @throws StartError with one line
   */
  remember(membership: ClusterMembership): void;
  /** Lets go of the lock. */
  release(): void;
}

export interface ClusterMembership {
  readonly clusterId: string;
  /** Where its store is, as `--store` takes it, without credentials. */
  readonly store: string;
  /** Whether another process may have named the store: then it is sent no credentials. */
  readonly isTold: boolean;
}

interface Identity {
  readonly service_id: string;
  /** The process that has, or last had, the folder: named to a person who starts a second one. */
  readonly pid: number;
  readonly cluster_id?: string;
  readonly store?: string;
  readonly store_told?: boolean;
}

/**
 * Makes the folder if need be, locks it and reads or makes the identity.
 * @throws StartError with one line
 */
export function openDataFolder(folder: string): DataFolder {
  const path = resolve(folder);
  try {
    makeFolder(path);
  } catch (error) {
    throw new StartError(`the data folder ${path} can't be made (${codeOf(error)}); choose another with --data`, {
      cause: error,
    });
  }
  const identityPath = join(path, "node.json");
  const lockPath = join(path, "node.lock");
  for (const file of [identityPath, lockPath]) {
    const kind = foreignKind(file);
    if (kind !== null) throw new StartError(`${file} ${kind}; this node writes only to a file of its own: remove it`);
  }
  // Before it is made private: whatever it says of a store may be another's word.
  let isOthers: boolean;
  try {
    isOthers = isWritableByOthers(path) || isWritableByOthers(identityPath);
  } catch (error) {
    throw notWritable(path, error);
  }
  const notices = [path, identityPath, lockPath].map(keepPrivate).filter((line) => line !== null);
  const lock = lockFolder(path, lockPath, identityPath);
  const write = (identity: Identity): void => {
    try {
      writeIdentity(path, identityPath, identity);
    } catch (error) {
      throw notWritable(path, error);
    }
  };
  try {
    const { pid: _, ...known } = readIdentity(identityPath) ?? { service_id: randomUUID(), pid: 0 };
    const identity = { ...known, pid: process.pid, ...(isOthers ? { store_told: true } : {}) };
    write(identity);
    const { service_id: serviceId, cluster_id: clusterId, store, store_told: isTold = false } = identity;
    return {
      path,
      serviceId,
      notices,
      membership: clusterId === undefined || store === undefined ? null : { clusterId, store, isTold },
      remember: (membership) =>
        write({
          ...identity,
          cluster_id: membership.clusterId,
          store: membership.store,
          store_told: membership.isTold,
        }),
      release: () => lock.release(),
    };
  } catch (error) {
    lock.release();
    throw error instanceof StartError ? error : notWritable(path, error);
  }
}

/** Makes the folder and those above it, one by one: mkdir's own `recursive` never ends where the system answers oddly (/proc). */
function makeFolder(path: string): void {
  if (existsSync(path)) {
    if (!statSync(path).isDirectory()) throw new Error("it is not a folder");
    return;
  }
  const parent = dirname(path);
  if (parent !== path) makeFolder(parent);
  mkdirSync(path, { mode: 0o700 });
}

function lockFolder(path: string, lockPath: string, identityPath: string): FileLock {
  let lock: FileLock | null;
  try {
    // SQLite would follow a link, and make what it leads to.
    closeSync(openSync(lockPath, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, OWN_FILE));
    lock = lockFile(lockPath);
  } catch (error) {
    if (sqliteCodeOf(error) === SQLITE_NOTADB) {
      throw new StartError(`${lockPath} is damaged: it should be empty; remove it`, { cause: error });
    }
    throw notWritable(path, error);
  }
  if (lock !== null) return lock;
  const holder = readIdentity(identityPath);
  throw new StartError(
    `the data folder ${path} is in use by ${holder === null ? "another process" : `process ${holder.pid}`}; stop it or choose another folder with --data`,
  );
}

/** The mode of what a node writes. */
const OWN_FILE = 0o600;

const SQLITE_FULL = 13;
const SQLITE_NOTADB = 26;

function notWritable(path: string, error: unknown): StartError {
  const full = codeOf(error) === "ENOSPC" || sqliteCodeOf(error) === SQLITE_FULL;
  return new StartError(
    full
      ? `the disk of the data folder ${path} is full; free some space or choose another folder with --data`
      : `the data folder ${path} can't be written (${codeOf(error)}); give this user write access or choose another with --data`,
    { cause: error },
  );
}

function readIdentity(identityPath: string): Identity | null {
  let text: string;
  try {
    text = readFileSync(identityPath, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return null;
    throw error;
  }
  try {
    const value: unknown = JSON.parse(text);
    if (isIdentity(value)) return value;
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
  }
  throw new StartError(
    `${identityPath} is damaged: it should hold the node's service_id; restore it, or remove it to give the node a new one`,
  );
}

/** Whether another user may have written it: it is neither this user's nor root's, or anybody may write to it. */
function isWritableByOthers(path: string): boolean {
  const status = statSync(path, { throwIfNoEntry: false });
  if (status === undefined || process.getuid === undefined) return false;
  return ![0, process.getuid()].includes(status.uid) || (status.mode & OTHERS_WRITE) !== 0;
}

function isIdentity(value: unknown): value is Identity {
  if (typeof value !== "object" || value === null || !("service_id" in value) || !("pid" in value)) return false;
  const { service_id, pid } = value;
  const isTold = "store_told" in value ? value.store_told : false;
  const texts = ["cluster_id" in value ? value.cluster_id : "", "store" in value ? value.store : ""];
  return (
    typeof service_id === "string" &&
    isUuid(service_id) &&
    typeof pid === "number" &&
    typeof isTold === "boolean" &&
    texts.every((text) => typeof text === "string")
  );
}

/** Replaces the file in one step: a crash leaves the old one or the new one. */
function writeIdentity(path: string, identityPath: string, identity: Identity): void {
  const draft = `${identityPath}.tmp`;
  rmSync(draft, { force: true }); // of a start that was cut short
  const file = openSync(draft, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, OWN_FILE);
  try {
    writeSync(file, `${JSON.stringify(identity)}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(draft, identityPath);
  const folder = openSync(path, "r");
  try {
    fsyncSync(folder);
  } finally {
    closeSync(folder);
  }
}

function codeOf(error: unknown): string {
  if (error instanceof Error && "code" in error && typeof error.code === "string") {
    if (error.code !== "ERR_SQLITE_ERROR") return error.code;
  }
  return error instanceof Error ? error.message : String(error);
}

function sqliteCodeOf(error: unknown): unknown {
  return error instanceof Error && "errcode" in error ? error.errcode : undefined;
}
