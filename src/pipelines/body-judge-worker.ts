/** The thread that bodies are checked in (body-judge.ts). */
import { Script } from "node:vm";
import { parentPort, workerData } from "node:worker_threads";
import type { BodyFinding, JsonObject, Pipeline } from "../order/pipeline.ts";
import { textOf } from "../order/step-error.ts";
import { type JudgeAnswer, type JudgeQuestion, ROUND_MS, STATE_AT, STATE_LOADING, STATE_ROUNDS } from "./body-judge.ts";
import { importPipelines } from "./load.ts";

/** In one go, in processor time. */
const CHECK_MS_MAX = 100;

/** More than anybody reads, and longer than anybody writes. */
const ISSUES_MAX = 100;
const TEXT_CHARS_MAX = 1_000;

const state = new Int32Array(workerData as SharedArrayBuffer);
const files = new Map<string, Promise<readonly Pipeline[]>>();

setInterval(() => Atomics.add(state, STATE_ROUNDS, 1), ROUND_MS).unref();
Atomics.add(state, STATE_ROUNDS, 1);

parentPort?.on("message", (question: JudgeQuestion) => {
  const { id } = question;
  answerTo(question).then(
    (answer) => parentPort?.postMessage(answer),
    (error: unknown) => parentPort?.postMessage({ id, kind: "failed", message: textOf(error) } satisfies JudgeAnswer),
  );
});

async function answerTo({ id, file, index, text }: JudgeQuestion): Promise<JudgeAnswer> {
  let pipelines = files.get(file);
  if (pipelines === undefined) {
    pipelines = load(file);
    files.set(file, pipelines);
  }
  const check = (await pipelines)[index]?.checkBody;
  if (check == null) throw new Error(`${file} exports something else in another thread`);
  const body = JSON.parse(text) as JsonObject;
  Atomics.store(state, STATE_AT, id);
  let found: BodyFinding | Promise<BodyFinding> | null;
  try {
    found = withinTime(() => check(body));
  } finally {
    Atomics.store(state, STATE_AT, 0);
  }
  if (found === null) {
    const message = `it takes more than ${CHECK_MS_MAX} ms to check it against the schema; send less at once`;
    return { id, kind: "refused", issues: [{ pointer: "", message }] };
  }
  if (found instanceof Promise) parentPort?.postMessage({ id, kind: "awaits" } satisfies JudgeAnswer);
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
  try {
    const found = await importPipelines(file);
    if (found.kind === "pipelines") return found.pipelines;
    throw new Error(`${file} can't be loaded in another thread: ${found.problems[0]?.message ?? ""}`);
  } finally {
    Atomics.sub(state, STATE_LOADING, 1);
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
