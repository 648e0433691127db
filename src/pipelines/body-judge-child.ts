/** The process that bodies are checked in (body-judge.ts). It ends with the node that has started it. */
import { createHook, executionAsyncResource } from "node:async_hooks";
import { writeFileSync, writeSync } from "node:fs";
import { extname } from "node:path";
import { Script } from "node:vm";
import { Worker } from "node:worker_threads";
import type { BodyFinding, JsonObject, Pipeline } from "../order/pipeline.ts";
import { textOf } from "../order/step-error.ts";
import { oneLine } from "../printable.ts";
import { AT_FD, type JudgeMessage, type JudgeQuestion } from "./body-judge-process.ts";
import { type Kept, ROUND_MS, STATE_LENGTH, STATE_LOADING, STATE_ROUNDS } from "./body-judge-keeper.ts";
import { importPipelines } from "./load.ts";

/** In one go, in processor time. */
const CHECK_MS_MAX = 100;

/** More than anybody reads, and longer than anybody writes. */
const ISSUES_MAX = 100;
const TEXT_CHARS_MAX = 1_000;

const state = new Int32Array(new SharedArrayBuffer(STATE_LENGTH * Int32Array.BYTES_PER_ELEMENT));
const files = new Map<string, readonly Pipeline[]>();
const loading = new Map<string, Promise<readonly Pipeline[]>>();

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
  const text = oneLine(textOf(error).slice(0, TEXT_CHARS_MAX));
  console.error(`order_process: the schema of a body left an error behind that nobody caught: ${text}`);
  process.exit(1);
});
try {
  writeFileSync("/proc/self/oom_score_adj", "1000"); // where memory is short, the kernel ends this, and not the node
} catch {
  // It is no Linux.
}

process.on("message", (question: JudgeQuestion) => void take(question));

async function take(question: JudgeQuestion): Promise<void> {
  try {
    check(question, files.get(question.file) ?? (await load(question.file)));
  } catch (error) {
    fail(question.id, error);
  }
}

function say(message: JudgeMessage): void {
  process.send?.(message);
}

function fail(id: number, error: unknown): void {
  say({ id, kind: "failed", message: textOf(error).slice(0, TEXT_CHARS_MAX) });
}

/** The body that this process is at; 0: none. */
let at = 0;
const lastAt = Buffer.alloc(Float64Array.BYTES_PER_ELEMENT);

function setAt(id: number): void {
  at = id;
  if (id === 0 || id === lastAt.readDoubleLE()) return;
  lastAt.writeDoubleLE(id);
  try {
    writeSync(AT_FD, lastAt, 0, lastAt.length, 0);
  } catch {
    process.exit(1); // a schema has closed it
  }
}

/** Also when a schema goes on after it has awaited something, it is known whose body it is at: whatever is made meanwhile is marked. */
const BODY = Symbol("body");
interface Marked {
  [BODY]?: number;
}
const outer: number[] = [];
createHook({
  init: (_asyncId, _type, _triggerAsyncId, resource: Marked) => {
    if (at !== 0) resource[BODY] = at;
  },
  before: () => {
    outer.push(at);
    setAt((executionAsyncResource() as Marked)[BODY] ?? 0);
  },
  after: () => setAt(outer.pop() ?? 0),
}).enable();

/** Says what it finds before anything else can happen: the next body may end this process. */
function check(question: JudgeQuestion, pipelines: readonly Pipeline[]): void {
  const { id, file, index, text } = question;
  const checkBody = pipelines[index]?.checkBody;
  if (checkBody == null) throw new Error(`${file} exports something else in another process`);
  const body = JSON.parse(text) as JsonObject;
  setAt(id);
  try {
    const found = withinTime(() => {
      const finding = checkBody(body);
      return finding instanceof Promise ? finding : answerOf(question, finding);
    });
    if (found === null) {
      const message = `it takes more than ${CHECK_MS_MAX} ms to check it against the schema; send less at once`;
      say({ id, kind: "refused", issues: [{ pointer: "", message }] });
    } else if (found instanceof Promise) {
      say({ id, kind: "awaits" });
      found.then((finding) => say(answerOf(question, finding))).catch((error: unknown) => fail(id, error));
    } else {
      say(found);
    }
  } finally {
    setAt(0);
    Atomics.add(state, STATE_ROUNDS, 1);
  }
}

function answerOf({ id, text, bytesMax }: JudgeQuestion, finding: BodyFinding): JudgeMessage {
  if (finding.kind === "accepted") {
    const made = JSON.stringify(finding.body) as string | undefined;
    // toJSON may have made something else of it.
    if (made?.startsWith("{") !== true) throw new Error("it made something of the body that is no JSON object");
    if (made !== text && Buffer.byteLength(made) > bytesMax) return { id, kind: "too_large" };
    return { id, kind: "accepted", text: made };
  }
  if (finding.kind !== "refused") throw new Error(`no schema finds that a body is ${finding.kind}`);
  const issues = finding.issues.slice(0, ISSUES_MAX).map(({ pointer, message }) => ({
    pointer: pointer.slice(0, TEXT_CHARS_MAX),
    message: textOf(message).slice(0, TEXT_CHARS_MAX),
  }));
  return { id, kind: "refused", issues };
}

/** Bodies that come meanwhile wait for the same. One that can't be loaded is tried again for the next. */
function load(file: string): Promise<readonly Pipeline[]> {
  const begun = loading.get(file) ?? importFile(file).finally(() => loading.delete(file));
  loading.set(file, begun);
  return begun;
}

async function importFile(file: string): Promise<readonly Pipeline[]> {
  Atomics.add(state, STATE_LOADING, 1);
  say({ kind: "loading", by: 1 });
  try {
    const found = await importPipelines(file);
    if (found.kind === "problems")
      throw new Error(`${file} can't be loaded in another process: ${found.problems[0]?.message ?? ""}`);
    files.set(file, found.pipelines);
    return found.pipelines;
  } finally {
    Atomics.add(state, STATE_ROUNDS, 1); // before it: what loading took is not to count as what the first body takes
    Atomics.sub(state, STATE_LOADING, 1);
    say({ kind: "loading", by: -1 });
  }
}

/** A script can be interrupted: this one does whatever is set. */
const work = { run: (): unknown => undefined };
Object.defineProperty(globalThis, Symbol.for("order-process.judged"), { value: work });
const script = new Script('globalThis[Symbol.for("order-process.judged")].run()');

/** Null when it took too long. Where others kept the processor from it, it is done again. */
function withinTime<T>(judge: () => T): T | null {
  work.run = judge;
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
