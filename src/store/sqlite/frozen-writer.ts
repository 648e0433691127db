/**
 * Ends a process that was frozen (SIGSTOP) while it held SQLite's write lock. The lock is the operating system's and goes
 * with the process only: as long as the frozen one lives, no other node of the store can write, not even that it is dead.
 *
 * It is ended only if it is surely a node of this store: its process id and start time on this host are those that a node
 * has registered. Its orders go on elsewhere, as after any death.
 */
import { readFileSync, statSync } from "node:fs";
import { processStatus } from "../../process-identity.ts";
import type { ProcessIdentity } from "../cluster-store.ts";

/** The byte of the `-shm` file that a writer has locked (sqlite.org/walformat.html#locks). */
const WRITE_LOCK_BYTE = 120;

/**
 * Ends the holder of the write lock if it is stopped and is one of `nodes`.
 * @returns what was done, as a line for the log, or null: nothing
 */
export function endFrozenWriter(databasePath: string, nodes: readonly ProcessIdentity[]): string | null {
  const pid = writeLockHolder(`${databasePath}-shm`);
  if (pid === null || pid === process.pid) return null;
  const holder = processStatus(pid);
  if (holder === null || !holder.isStopped) return null;
  const isNode = nodes.some(
    (node) => node.pid === pid && node.startTicks === holder.startTicks && node.host === holder.host,
  );
  if (!isNode) return null;
  const what = `Process ${pid}, a node of this store, was frozen while it held the store's write lock`;
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    return `${what}, and can't be ended by this one (${error instanceof Error ? error.message : String(error)}); wake it or end it`;
  }
  return `${what}, and was ended`;
}

/** The process that has the write lock, as far as the host tells. */
function writeLockHolder(path: string): number | null {
  try {
    const { ino } = statSync(path);
    for (const line of readFileSync("/proc/locks", "latin1").split("\n")) {
      // 12: POSIX  ADVISORY  WRITE 3568 fd:00:2531452 120 120
      const [, kind, , access, pid, place = "", first, last] = line.trim().split(/\s+/);
      if (kind !== "POSIX" || access !== "WRITE" || Number(place.split(":")[2]) !== ino) continue;
      if (Number(first) <= WRITE_LOCK_BYTE && WRITE_LOCK_BYTE <= Number(last)) return Number(pid);
    }
  } catch {
    // No such file or no /proc: nothing can be said.
  }
  return null;
}
