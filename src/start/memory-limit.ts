/** How much memory this process may use: of its control groups' limits, and what the machine has, the least. */
import { readFileSync } from "node:fs";
import { totalmem } from "node:os";
import { join } from "node:path";

/** Where version 2 of control groups is mounted, alone or beside version 1. */
const UNIFIED = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
const MEMORY = "sys/fs/cgroup/memory";

/** Beyond `memory.high` the kernel takes a process's time instead of ending it, which is no better. */
const UNIFIED_FILES = ["memory.max", "memory.high"];
const MEMORY_FILES = ["memory.limit_in_bytes"];

/**
 * The limit, in bytes. A group's parents' limits hold as well; in a container their paths may lead nowhere, and the container's own group
 * is the mount itself.
 * @param root where the system's files are, for tests
 * @param machineBytes what the machine has
 */
export function memoryLimitBytes(root = "/", machineBytes = totalmem()): number {
  let limitBytes = machineBytes;
  for (const line of textOf(join(root, "proc/self/cgroup")).split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    const isMemory = controllers.split(",").includes("memory");
    if (controllers !== "" && !isMemory) continue;
    for (const mount of isMemory ? [MEMORY] : UNIFIED) {
      for (const folder of pathsUp(path)) {
        for (const file of isMemory ? MEMORY_FILES : UNIFIED_FILES) {
          limitBytes = Math.min(limitBytes, limitIn(join(root, mount, folder, file)));
        }
      }
    }
  }
  return limitBytes;
}

/** A folder and those above it, up to the root: `/a/b`, `/a`, `/`. */
function pathsUp(path: string): string[] {
  const names = path.split("/").filter((name) => name !== "" && name !== "..");
  return Array.from({ length: names.length + 1 }, (_, up) => `/${names.slice(0, names.length - up).join("/")}`);
}

/** Version 1 says that there is none with a number beyond all memory, version 2 with a word. */
function limitIn(path: string): number {
  const text = textOf(path).trim();
  return /^\d+$/.test(text) ? Number(text) : Number.POSITIVE_INFINITY;
}

function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return ""; // another system, or a path of the host's that this container does not have
  }
}
