/** Names processes of this host for good, as far as the host tells (Linux). */
import { readFileSync, readlinkSync } from "node:fs";
import type { ProcessIdentity } from "./store/cluster-store.ts";

/** What the host says of a process. */
export interface ProcessStatus extends ProcessIdentity {
  /** Stopped by a signal or a debugger: it does nothing until it is woken. */
  readonly isStopped: boolean;
}

/** A process that runs now, or null: there is none, or this host does not tell. */
export function processStatus(pid: number): ProcessStatus | null {
  try {
    // The name, in parentheses, may hold anything; what follows it doesn't (man 5 proc_pid_stat).
    const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state = "", startTicks] = [fields[0], Number(fields[19])];
    return Number.isSafeInteger(startTicks)
      ? { host: hostIdentity(), pid, startTicks, isStopped: state === "T" || state === "t" }
      : null;
  } catch {
    return null;
  }
}

/** This process. */
export function ownProcess(): ProcessIdentity | null {
  const status = processStatus(process.pid);
  return status === null ? null : { host: status.host, pid: status.pid, startTicks: status.startTicks };
}

/** This boot of this host; null where the host doesn't tell. */
export function bootIdentity(): string | null {
  try {
    return readFileSync("/proc/sys/kernel/random/boot_id", "latin1").trim();
  } catch {
    return null;
  }
}

/** With the namespace of processes: two containers of one host don't know each other's process ids. */
function hostIdentity(): string {
  return `${bootIdentity()}/${readlinkSync("/proc/self/ns/pid")}`;
}
