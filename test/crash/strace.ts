/** Running strace, and reading what it writes. */
import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { delimiter, join } from "node:path";

const TRACED_CALLS = "pwrite64,pwritev,write,writev,sendto,sendmsg,fdatasync,fsync";

/** -y shows the path behind each descriptor; -s: a page of the store, with the ids in it, is shown whole. */
export const STRACE_OPTIONS = ["-f", "-y", "-s", "8192", "-e", `trace=${TRACED_CALLS}`];

/** Why strace can't be used on this machine, or null. */
export function straceRefusal(): string | null {
  const { error, stderr } = spawnSync("strace", ["-D", "true"], { encoding: "utf8" });
  if (error !== undefined) return "strace is not installed; test/install-tools brings it";
  return stderr.includes("exited with 0") ? null : `strace is not permitted here: ${stderr.trim()}`;
}

/** The program's path, or null. */
export function which(program: string): string | null {
  const paths = (process.env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, program));
  return paths.find(isExecutable) ?? null;
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

/** What a trace shows of the acknowledgements. */
export interface TracedAcknowledgements {
  /** The orders that were answered with 201. */
  readonly acknowledged: readonly string[];
  /** Those whose answer was sent before a sync of the WAL that began after their write to it. */
  readonly unsynced: readonly string[];
}

interface Sync {
  readonly startLine: number;
  readonly endLine: number;
}

/** Follows each acknowledged order from its write to the WAL, over the sync, to the answer. */
export function traceAcknowledgements(trace: string): TracedAcknowledgements {
  const lines = trace.split("\n");
  const walWrites = [...lines.entries()].filter(([, line]) => /^\d+ +p?writev?(64)?\(\d+<[^>]*-wal>/.test(line));
  const syncs = walSyncs(lines);
  const acknowledged: string[] = [];
  const unsynced: string[] = [];
  for (const [answerLine, line] of lines.entries()) {
    const orderId = acknowledgedIn(line);
    if (orderId === null) continue;
    acknowledged.push(orderId);
    const writeLine = walWrites.find(([, write]) => write.includes(orderId))?.[0] ?? Infinity;
    const synced = syncs.some(({ startLine, endLine }) => writeLine < startLine && endLine < answerLine);
    if (!synced) unsynced.push(orderId);
  }
  return { acknowledged, unsynced };
}

/** The order that the line answers 201 for. A call counts from its first line on, also where it ends in a later one. */
function acknowledgedIn(line: string): string | null {
  if (!/^\d+ +(write|writev|sendto|sendmsg)\(/.test(line) || !line.includes("HTTP/1.1 201")) return null;
  return /order_id\\":\\"([0-9a-f-]{36})/.exec(line)?.[1] ?? null;
}

/** Syncs of the WAL that ended well. Where threads call at the same time, a call has two lines: unfinished, resumed. */
function walSyncs(lines: readonly string[]): Sync[] {
  const syncs: Sync[] = [];
  const unfinished = new Map<string, number>();
  for (const [index, line] of lines.entries()) {
    const [, thread = "", call = ""] = /^(\d+) +(.*)$/.exec(line) ?? [];
    const startLine = /^f(data)?sync\(\d+<[^>]*-wal>/.test(call) ? index : unfinished.get(thread);
    if (startLine === undefined) continue;
    unfinished.delete(thread);
    if (call.endsWith("<unfinished ...>")) unfinished.set(thread, startLine);
    else if (/\) += 0$/.test(call)) syncs.push({ startLine, endLine: index });
  }
  return syncs;
}
