/** The process that bodies are checked in (body-judge.ts). It ends with the node that has started it. */
import { createHook, executionAsyncResource } from "node:async_hooks";
import { writeFileSync, writeSync } from "node:fs";
import { extname } from "node:path";
import { Script } from "node:vm";
import { Worker } from "node:worker_threads";
import type { BodyFinding, JsonObject, Pipeline } from "../order/pipeline.ts";
import { textOf } from "../order/step-error.ts";
import { AT_FD, type JudgeMessage, type JudgeQuestion } from "./body-judge-process.ts";
import { type Kept, ROUND_MS, STATE_LENGTH, STATE_LOADING, STATE_ROUNDS } from "./body-judge-keeper.ts";
import { importPipelines } from "./load.ts";

/** In one go, in processor time. */
const CHECK_MS_MAX = 100;

/** More than anybody reads, and longer than anybody writes. */
const ISSUES_MAX = 100;
const TEXT_CHARS_MAX = 1_000;

const state = new Int32Array(new SharedArrayBuffer(STATE_LENGTH * Int32Array.BYTES_PER_ELEMENT));
const files = new Map<string, Promise<readonly Pipeline[]>>();

const keeper = new Worker(new URL(`./body-judge-keeper${extname(import.meta.url)}`, import.meta.url), {
  workerData: { state: state.buffer, parentPid: process.ppid } satisfies Kept,
  resourceLimits: { maxOldGenerationSizeMb: 16 },
});
keeper.unref();
setInterval(() => Atomics.add(state, STATE_ROUNDS, 1), ROUND_MS).unref();

// The node itself says when it is over: who ends a group of processes gives the node time to drain.
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => undefined);
process.on("disconnect", () => process.exit());
process.on("uncaughtException", (error) => {
  console.error(`order_process: the schema of a body threw an error that nobody caught: ${textOf(error)}`);
  process.exit(1);
});
try {
  writeFileSync("/proc/self/oom_score_adj", "1000"); // where memory is short, the kernel ends this, and not the node
} catch {
  // It is no Linux.
}

process.on("message", (question: JudgeQuestion) => {
  const { id } = question;
  answerTo(question).then(say, (error: unknown) => say({ id, kind: "failed", message: textOf(error) }));
});

function say(message: JudgeMessage): void {
  process.send?.(message);
}

/** The body that this process is at; 0: none. */
let at = 0;
let lastAt = 0;

/** The node hears of it at once: it may be the last that it hears. */
function setAt(id: number): void {
  at = id;
  if (id === 0 || id === lastAt) return;
  lastAt = id;
  writeSync(AT_FD, `${id}\n`);
}

/** Also when a schema goes on after it has awaited something, it is known whose body it is at: whatever is made meanwhile is marked. */
const BODY = Symbol("body");
interface Marked {
  [BODY]?: number;
}
createHook({
  init: (_asyncId, _type, _triggerAsyncId, resource: Marked) => {
    if (at !== 0) resource[BODY] = at;
  },
  before: () => setAt((executionAsyncResource() as Marked)[BODY] ?? 0),
  after: () => setAt(0),
}).enable();

async function answerTo({ id, file, index, text }: JudgeQuestion): Promise<JudgeMessage> {
  let pipelines = files.get(file);
  if (pipelines === undefined) {
    pipelines = load(file);
    files.set(file, pipelines);
  }
  const check = (await pipelines)[index]?.checkBody;
  if (check == null) throw new Error(`${file} exports something else in another process`);
  const body = JSON.parse(text) as JsonObject;
  setAt(id);
  let found: BodyFinding | Promise<BodyFinding> | null;
  try {
    found = withinTime(() => check(body));
  } finally {
    setAt(0);
  }
  if (found === null) {
    const message = `it takes more than ${CHECK_MS_MAX} ms to check it against the schema; send less at once`;
    return { id, kind: "refused", issues: [{ pointer: "", message }] };
  }
  if (found instanceof Promise) say({ id, kind: "awaits" });
  const finding = await found;
  if (finding.kind === "accepted") {
    const made = JSON.stringify(finding.body) as string | undefined;
    // toJSON may have made something else of it.
    if (made?.startsWith("{") !== true) throw new Error("it made something of the body that is no JSON object");
    return { id, kind: "accepted", text: made };
  }
  const issues = finding.issues.slice(0, ISSUES_MAX).map(({ pointer, message }) => ({
    pointer: pointer.slice(0, TEXT_CHARS_MAX),
    message: textOf(message).slice(0, TEXT_CHARS_MAX),
  }));
  return { id, kind: "refused", issues };
}

async function load(file: string): Promise<readonly Pipeline[]> {
  Atomics.add(state, STATE_LOADING, 1);
  say({ kind: "loading", by: 1 });
  try {
    const found = await importPipelines(file);
    if (found.kind === "pipelines") return found.pipelines;
    throw new Error(`${file} can't be loaded in another process: ${found.problems[0]?.message ?? ""}`);
  } finally {
    Atomics.sub(state, STATE_LOADING, 1);
    say({ kind: "loading", by: -1 });
  }
}

/** A script can be interrupted: this one does whatever is set. */
const work = { run: (): unknown => undefined };
Object.defineProperty(globalThis, Symbol.for("order-process.judged"), { value: work });
const script = new Script('globalThis[Symbol.for("order-process.judged")].run()');

/** Null when it took too long. Where others kept the processor from it, it is done again. */
function withinTime<T>(check: () => T): T | null {
  work.run = check;
  for (let usedMs = 0; usedMs < CHECK_MS_MAX;) {
    const before = process.threadCpuUsage();
    try {
      return script.runInThisContext({ timeout: CHECK_MS_MAX }) as T;
    } catch (error) {
      const isLate = error instanceof Error && "code" in error && error.code === "ERR_SCRIPT_EXECUTION_TIMEOUT";
      if (!isLate) throw error;
      const { user, system } = process.threadCpuUsage(before);
      usedMs += Math.max((user + system) / 1_000, 1);
    }
  }
  return null;
}
