/** A control group with a memory limit, for tests as root on Linux; elsewhere there is none. */
import { existsSync, mkdirSync, rmdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { waitFor } from "./wait.ts";

/** Version 1 of control groups, and version 2, with the file for the limit. */
const MOUNTS = [
  ["/sys/fs/cgroup/memory", "memory.limit_in_bytes"],
  ["/sys/fs/cgroup", "memory.max"],
] as const;

/**
 * Makes a group that goes with the test.
 * @returns the file to which a process writes its id to be in it; null: this machine lets nobody make one
 */
export function memoryGroup(t: TestContext, limitBytes: number): string | null {
  for (const [mount, limitFile] of MOUNTS) {
    const folder = join(mount, `order-process-test-${process.pid}-${Date.now()}`);
    try {
      mkdirSync(folder);
    } catch {
      continue;
    }
    // Removed when all processes have left it, which takes the kernel a moment.
    t.after(() => waitFor(() => removed(folder), { what: `the control group ${folder} is empty` }));
    if (!existsSync(join(folder, limitFile))) continue;
    writeFileSync(join(folder, limitFile), String(limitBytes));
    return join(folder, "cgroup.procs");
  }
  return null;
}

function removed(folder: string): boolean {
  try {
    rmdirSync(folder);
    return true;
  } catch {
    return !existsSync(folder);
  }
}
