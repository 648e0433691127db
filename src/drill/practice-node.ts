/** A node of a throw-away cluster: this very program as a process of its own, on a free port, with its own data folder. */
import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const LAUNCHER = fileURLToPath(new URL("../../order_process", import.meta.url));
const START_MS_MAX = 30_000;
const LOOK_MS = 10;
/** What is kept of a node's log, to look for what it said. */
const LOG_CHARS_MAX = 4 * 1024 * 1024;

export interface PracticeNodeOptions {
  /** What people call it, such as `A`. */
  readonly name: string;
  readonly data: string;
  /** Further options of the command line. */
  readonly args: readonly string[];
  /** Beside the environment of this process, less what configures the service in it. */
  readonly env?: Readonly<Record<string, string>>;
}

export class PracticeNode {
  readonly name: string;
  readonly #options: PracticeNodeOptions;
  #child: ChildProcess | null = null;
  #log = "";
  #url: string | null = null;
  #serviceId = "";
  #isListening = false;
  #isRetired = false;
  #exit: Promise<number | NodeJS.Signals> = Promise.resolve(0);

  constructor(options: PracticeNodeOptions) {
    this.name = options.name;
    this.#options = options;
  }

  /** Where it listens, since its last start. */
  get url(): string {
    if (this.#url === null) throw new Error(`node ${this.name} has not been started`);
    return this.#url;
  }

  get serviceId(): string {
    return this.#serviceId;
  }

  /** Whether it has a process that listens, or would if it weren't frozen. */
  get isListening(): boolean {
    return this.#isListening;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** All that it has logged, over all its starts. */
  get log(): string {
    return this.#log;
  }

  /** Resolves when its process is gone, with its exit code or the signal that ended it. */
  get exited(): Promise<number | NodeJS.Signals> {
    return this.#exit;
  }

  /**
   * Starts it, or starts it again with the same data folder; resolves when it listens.
   * @throws Error with what it said when it didn't come to that
   */
  async start(): Promise<void> {
    if (this.#isRetired) throw new Error(`node ${this.name} is not to be started again`);
    const { data, args, env = {} } = this.#options;
    const port = this.#url === null ? "0" : new URL(this.#url).port;
    const child = spawn(LAUNCHER, ["--port", port, "--data", data, ...args], {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...environmentOfOthers(), ...env },
    });
    this.#child = child;
    const from = this.#log.length;
    let isGone = false;
    this.#exit = new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, signal) => {
        isGone = true;
        this.#isListening = false;
        resolve(code ?? signal ?? "SIGKILL");
      });
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        if (this.#log.length < LOG_CHARS_MAX) this.#log += text;
      });
    }
    const endMs = performance.now() + START_MS_MAX;
    for (;;) {
      const said = this.#log.slice(from);
      const [, url] = /Listening at: (http:\S+?)["\s]/.exec(said) ?? [];
      if (url !== undefined) {
        this.#url = url;
        this.#isListening = true;
        this.#serviceId = /\[([0-9a-f-]{36})\] stateChange/.exec(said)?.[1] ?? "";
        return;
      }
      if (isGone || performance.now() > endMs) {
        this.signal("SIGKILL");
        throw new Error(`node ${this.name} did not start:\n${said}`);
      }
      await delay(LOOK_MS);
    }
  }

  /** Kills its process, if there is one, for good: it can't be started again. */
  retire(): void {
    this.#isRetired = true;
    this.signal("SIGKILL");
  }

  /** Sends its process a signal, if there is one. */
  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }
}

/** This process's environment without what configures the service: the options of a practice node are its own. */
function environmentOfOthers(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("ORDER_PROCESS_")));
}

/** What `/diagnostic/cluster` says. */
export interface ClusterAnswer {
  readonly leader_name: string;
  readonly term: number;
  readonly nodes: readonly {
    readonly name: string;
    readonly connected: boolean;
    readonly orders_in_flight: number;
  }[];
  readonly transfers: readonly {
    readonly service_id: string;
    readonly orders_transferred: number;
    readonly start_time: string;
    readonly duration_ms: number;
  }[];
}

const ANSWER_MS = 2_000;

/** The cluster as a node sees it, or null: it does not answer. */
export async function readCluster(url: string): Promise<ClusterAnswer | null> {
  try {
    const response = await fetch(`${url}/diagnostic/cluster`, { signal: AbortSignal.timeout(ANSWER_MS) });
    return response.ok ? ((await response.json()) as ClusterAnswer) : null;
  } catch {
    return null;
  }
}

/** Waits until it is so; false when the time is over. */
export async function waitUntil(isSo: () => boolean | Promise<boolean>, timeMs: number): Promise<boolean> {
  const endMs = performance.now() + timeMs;
  while (!(await isSo())) {
    if (performance.now() > endMs) return false;
    await delay(LOOK_MS);
  }
  return true;
}
