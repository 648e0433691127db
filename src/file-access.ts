/** Who else can read or change a file that this node relies on. Says nothing where the system has no owners and modes. */
import { chmodSync, lstatSync, readlinkSync, type Stats, statSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { StartError } from "./order/errors.ts";

const ROOT = 0;
const OTHERS_READ = 0o044;
/** Of its group, or of all. */
export const OTHERS_WRITE = 0o022;
const OTHERS = 0o077;
const MODE = 0o7777;

/** What others can do with something, or null: nothing. The administrator is no other. */
export interface Access {
  /** Another user's, who can change it: its number. */
  readonly owner: number | null;
  readonly write: boolean;
  readonly read: boolean;
  /** As chmod takes it. */
  readonly mode: string;
}

/** What others can do with a file, by its owner and mode. */
export function accessOf({ uid, mode }: Pick<Stats, "uid" | "mode">): Access {
  const own = process.geteuid?.() ?? null;
  if (own === null) return { owner: null, write: false, read: false, mode: "" };
  return {
    owner: uid === own || uid === ROOT ? null : uid,
    write: (mode & OTHERS_WRITE) !== 0,
    read: (mode & OTHERS_READ) !== 0,
    mode: `0${(mode & MODE).toString(8)}`,
  };
}

/**
 * Takes from others what they can do with a file or folder of this user's. Nothing happens where there is none.
 * @param path is followed, if it is a symbolic link of this user's
 * @returns a line for the log: what was done, or what an operator should do; null: all is well
 * @throws StartError where somebody else has put a link there
 */
export function keepPrivate(path: string): string | null {
  requireOwnLink(path);
  const found = statusOf(path, statSync);
  if (found === undefined) return null;
  const { owner, write, read, mode } = accessOf(found);
  if (owner !== null) return `${path} belongs to user ${owner}, who can change it; give it to this user (chown)`;
  if (!write && !read) return null;
  const could = `${path} could be ${write ? "changed" : "read"} by others (mode ${mode})`;
  if (found.uid !== process.geteuid?.()) return `${could.replace("could", "can")}; take that from them (chmod go-rwx)`;
  const isPrivate = (found.mode & MODE & ~OTHERS).toString(8);
  try {
    chmodSync(path, found.mode & MODE & ~OTHERS);
  } catch {
    return `${could.replace("could", "can")}, and this file system lets nobody change that`;
  }
  return `${could}, which is taken from them now (mode 0${isPrivate})`;
}

/** More than the system follows. */
const LINKS_MAX = 64;

/** @throws StartError where somebody else has put a symbolic link, or one that a link of this user's leads to */
export function requireOwnLink(path: string): void {
  for (let [at, links] = [path, 0]; links < LINKS_MAX; links++) {
    const link = statusOf(at, lstatSync);
    if (link?.isSymbolicLink() !== true) return;
    const { owner } = accessOf(link);
    if (owner !== null)
      throw new StartError(`${at} is a symbolic link that user ${owner} has made; remove it, or name what it leads to`);
    at = resolve(dirname(at), readlinkSync(at));
  }
}

/**
 * @returns why a file that this node is to write is none that it may write to; null: it may, or there is none
 */
export function foreignKind(path: string): string | null {
  const found = statusOf(path, lstatSync);
  if (found === undefined || found.isFile()) return null;
  return found.isSymbolicLink() ? "is a symbolic link" : "is no regular file";
}

/** Undefined where there is nothing, or nothing that can be looked at: whoever opens it says why. */
function statusOf(path: string, look: (path: string) => Stats): Stats | undefined {
  try {
    return look(path);
  } catch {
    return undefined;
  }
}
