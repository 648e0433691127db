/** Real service processes for tests: each on a free port, in a folder of its own, and ended when its test ends. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { atEnd } from "./at-end.ts";
import { DEADLINE_MS, waitFor } from "./wait.ts";

export const LAUNCHER = fileURLToPath(new URL("../../order_process", import.meta.url));

export interface ServiceOptions {
  /** The data folder; default: a new one that goes with the test. */
  readonly data?: string;
  /** More options of the command line. */
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A script to run in the place of the service's own, with the same command line (see crash-node.ts). */
  readonly script?: string;
  /** Stop reading what it writes, once it listens, until `hear`. */
  readonly deaf?: boolean;
}

export interface Service {
  readonly url: string;
  readonly pid: number;
  readonly data: string;
  /** All that it has written so far. */
  readonly output: () => string;
  /** Reads again what it writes. */
  readonly hear: () => void;
  /** Sends a signal and resolves with the exit code, or the signal that ended it. */
  readonly end: (signal: NodeJS.Signals) => Promise<number | NodeJS.Signals>;
  /** Resolves when the process is gone, with its exit code or the signal that ended it. */
  readonly exited: Promise<number | NodeJS.Signals>;
}

export interface FinishedCommand {
  readonly code: number | NodeJS.Signals;
  readonly stdout: string;
  readonly stderr: string;
}

/** Services start hundreds of times in a run; a third of that time is reading the same source again. */
const COMPILE_CACHE = fileURLToPath(new URL("../../node_modules/.cache/node-compile", import.meta.url));

/** A new folder that is removed when the test ends. */
export function temporaryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), "order-process-test-"));
  // Whoever was killed without a wait for its end may still write into it.
  atEnd(t, () => rmSync(folder, { recursive: true, force: true, maxRetries: 10 }));
  return folder;
}

/** Starts a service and resolves when it listens; it is killed when the test ends. */
export async function startService(t: TestContext, options: ServiceOptions = {}): Promise<Service> {
  const data = options.data ?? temporaryFolder(t);
  const child = spawnService(options, ["--port", "0", "--data", data, ...(options.args ?? [])]);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const exited = exitOf(child);
  let gone = false;
  void exited.then(() => (gone = true));
  atEnd(t, async () => {
    if (!gone) child.kill("SIGKILL");
    await exited;
  });
  const url = await waitFor(
    () => {
      if (gone) throw new Error(`the service ended before it listened:\n${output}`);
      return /Listening at: (http:\S+?)["\s]/.exec(output)?.[1];
    },
    { what: () => `the service listens; it said:\n${output}` },
  );
  if (options.deaf === true) child.stdout.pause();
  return {
    url,
    pid: child.pid ?? -1,
    data,
    output: () => output,
    hear: () => void child.stdout.resume(),
    end: (signal) => {
      child.kill(signal);
      return exited;
    },
    exited,
  };
}

/** Runs the command to its end: for starts that are refused, and for --help. */
export async function runCommand(args: readonly string[], options: ServiceOptions = {}): Promise<FinishedCommand> {
  const child = spawnService(options, args);
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text) => (stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (stderr += text));
  const timer = setTimeout(() => child.kill("SIGKILL"), DEADLINE_MS);
  const code = await exitOf(child);
  clearTimeout(timer);
  return { code, stdout, stderr };
}

/** The command, or the script in its place, as a process; what it writes comes through pipes. */
export function spawnService(
  options: Pick<ServiceOptions, "env" | "script">,
  args: readonly string[],
): ChildProcessByStdio<null, Readable, Readable> {
  const [command, first] = options.script === undefined ? [LAUNCHER, []] : [process.execPath, [options.script]];
  return spawn(command, [...first, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...environmentOfOthers(), NODE_COMPILE_CACHE: COMPILE_CACHE, ...options.env },
  });
}

/** This process's environment without what is meant for it: a service would take it for misspelt options. */
function environmentOfOthers(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ORDER_PROCESS_")));
}

function exitOf(child: ChildProcess): Promise<number | NodeJS.Signals> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(code ?? signal ?? "SIGKILL"));
  });
}
