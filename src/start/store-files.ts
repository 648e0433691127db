/** The files of an embedded store: that they are this node's own, and the same ones as long as it runs. */
import { lstatSync, realpathSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import { accessOf, foreignKind, keepPrivate, requireOwnLink } from "../file-access.ts";
import type { Logger } from "../log.ts";
import { StartError } from "../order/errors.ts";

/**
 * Before it is opened: SQLite follows links, and carries out what it finds in a journal or a log, whoever has put it there.
 * @throws StartError where one of these files can't belong to the store
 */
export function requireStoreFiles(named: string): void {
  requireOwnLink(named);
  const path = targetOf(named);
  const store = statusOfStore(named, path);
  if (store?.isFile() === false)
    throw new StartError(`the store ${named} can't be opened: it is no regular file; name another with --store`);
  for (const file of [`${path}-journal`, `${path}-wal`, `${path}-shm`]) {
    const found = lstatSync(file, { throwIfNoEntry: false });
    if (found === undefined) continue;
    const kind = foreignKind(file);
    if (kind !== null) throw new StartError(`${file} ${kind}, and can't belong to the store; remove it`);
    const { owner } = accessOf(found);
    if (owner === null || owner === store?.uid) continue;
    // It may hold what was acknowledged last.
    throw new StartError(
      `${file} belongs to user ${owner}, and the store does not; if that user has run a node with this store, give it the store's owner (chown), or else remove it`,
    );
  }
}

function statusOfStore(named: string, path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? String(error.code) : String(error);
    throw new StartError(
      `the store ${named} can't be opened (${code}); give this user access to it and its folder, or name another with --store`,
      { cause: error },
    );
  }
}

/** Where the store's other files are: beside the file, not beside a link to it. */
function targetOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path; // there is none, or none that can be looked at
  }
}

/**
 * Takes from others what they can do with the store. Not before it is known that it is one: its path may be another node's word.
 * @throws StartError where somebody else has put a link there
 */
export function keepStorePrivate(named: string, log: Logger): void {
  const notice = keepPrivate(named);
  if (notice !== null) log.warn(notice);
  const path = targetOf(named);
  for (const file of [`${path}-wal`, `${path}-shm`]) {
    const line = keepPrivate(file);
    if (line !== null) log.warn(line);
  }
  const folder = dirname(path);
  const { owner, write, mode } = accessOf(statSync(folder));
  if (owner === null && !write) return;
  const who = owner === null ? `can be changed by others (mode ${mode})` : `belongs to user ${owner}`;
  log.warn(
    `The folder ${folder} ${who}, who can put other files in the place of the store's; keep it in a folder of its own`,
  );
}

/** How often it is looked whether the store's files are still those that were opened. */
const STORE_WATCH_MS = 1_000;

/**
 * A file that was removed or replaced goes on being written, and all that is acknowledged from then on would be lost with the
 * process: then the node must stop. The log and its index are there as long as anybody has the store open.
 * @returns ends the watch
 */
export function watchStore(named: string, onBroken: (error: Error) => void): () => void {
  const path = targetOf(named);
  const files = [named, `${path}-wal`, `${path}-shm`];
  const former = new Map<string, Pick<Stats, "dev" | "ino">>();
  const look = (): void => {
    for (const file of files) {
      const found = identityOf(file);
      const known = former.get(file);
      if (found === "unknown" || (known === undefined && found === null)) continue;
      if (known === undefined && found !== null) former.set(file, found);
      else if (found === null || found.ino !== known?.ino || found.dev !== known.dev) {
        clearInterval(timer);
        onBroken(
          new Error(`the store ${named} was removed or replaced while it was in use: ${file} is not what it was`),
        );
        return;
      }
    }
  };
  const timer = setInterval(look, STORE_WATCH_MS);
  timer.unref();
  look();
  return () => clearInterval(timer);
}

/** Null: there is none. Unknown: the system says neither, for now. */
function identityOf(file: string): Pick<Stats, "dev" | "ino"> | null | "unknown" {
  try {
    return statSync(file, { throwIfNoEntry: false }) ?? null;
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    return code === "ELOOP" ? null : "unknown";
  }
}
