/** Who has the embedded store's write lock, as far as the host tells (Linux). */
import { readFileSync, statSync } from "node:fs";

/** The byte of the `-shm` file that a writer has locked (sqlite.org/walformat.html#locks). */
const WRITE_LOCK_BYTE = 120;

/** The process that has the write lock of a database file; null: nobody. */
export function lockHolder(path: string): number | null {
  const ino = statSync(`${path}-shm`, { throwIfNoEntry: false })?.ino;
  for (const line of readFileSync("/proc/locks", "latin1").split("\n")) {
    const [, , , access, pid, place = "", first, last] = line.trim().split(/\s+/);
    if (access !== "WRITE" || Number(place.split(":")[2]) !== ino) continue;
    if (Number(first) <= WRITE_LOCK_BYTE && WRITE_LOCK_BYTE <= Number(last)) return Number(pid);
  }
  return null;
}

/** Whether a process stands still, after SIGSTOP. */
export function isStopped(pid: number): boolean {
  const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
  return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
}
