/** A small disk of its own for a test: one that can be filled up, or made read-only. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { atEnd } from "./at-end.ts";
import type { TestContext } from "node:test";

/**
 * Mounts a disk that goes when the test ends.
 * @returns its folder, or null where this user may not mount: the test has then been skipped with a message
 */
export function mountSmallDisk(t: TestContext, sizeMiB: number): string | null {
  const folder = mkdtempSync(join(tmpdir(), "order-process-disk-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", `size=${sizeMiB}m`, "tmpfs", folder], { stdio: "pipe" });
  } catch (error) {
    rmSync(folder, { recursive: true, force: true });
    t.skip(`a small disk can't be mounted here; run as root on Linux (${firstLine(error)})`);
    return null;
  }
  atEnd(t, () => {
    execFileSync("umount", ["--lazy", folder]); // lazy: a service that the test ends later may still have files open
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

/** Makes a mounted disk read-only; nothing on it may be open for writing. */
export function remountReadOnly(folder: string): void {
  execFileSync("mount", ["-o", "remount,ro", folder], { stdio: "pipe" });
}

function firstLine(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).split("\n").join(" ").trim();
}
