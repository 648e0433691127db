/** Freezing a process, as SIGSTOP does: with or without the embedded store's write lock, as far as the host tells (Linux). */
import { readFileSync, statSync } from "node:fs";
import { waitFor } from "./wait.ts";

/**
 * Where the store has a write lock (`path`) that would stay with the process, it has it then or doesn't. Whoever is frozen with it is ended
 * by the other nodes.
 */
export type FreezeMoment = "between writes" | "within a write";

/** Resolves when the process stands still, with true; or with false when it had to go on, because the moment was not that. */
export async function triesToFreeze(pid: number, moment: FreezeMoment, path: string | null): Promise<boolean> {
  process.kill(pid, "SIGSTOP");
  await waitFor(() => isStopped(pid), { what: `process ${pid} stands still` });
  const holds = path !== null && lockHolder(path) === pid;
  if (holds === (moment === "within a write")) return true;
  process.kill(pid, "SIGCONT");
  return false;
}

/** The byte of the `-shm` file that a writer has locked (sqlite.org/walformat.html#locks). */
const WRITE_LOCK_BYTE = 120;

/** The process that has the write lock of a database file; null: nobody. */
function lockHolder(path: string): number | null {
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
