/** The process that bodies are checked in (body-judge-child.ts), as the node sees it: from its start to its end. */
import { type ChildProcess, fork } from "node:child_process";
import { randomUUID } from "node:crypto";
import { closeSync, openSync, readSync, unlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { extname, join } from "node:path";
import type { Socket } from "node:net";
import { fileURLToPath } from "node:url";
import type { BodyIssue } from "../order/pipeline.ts";

/** Which body it is to check, by which pipeline of which file. */
export interface JudgeQuestion {
  readonly id: number;
  readonly file: string;
  /** Which of the pipelines that the file exports. */
  readonly index: number;
  readonly text: string;
  /** How large the schema may make it, as JSON. */
  readonly bytesMax: number;
}

/** What it says of a body: in few words, whatever the schema has made of it. */
export type JudgeAnswer =
  | { readonly id: number; readonly kind: "accepted"; readonly text: string }
  | { readonly id: number; readonly kind: "too_large" }
  | { readonly id: number; readonly kind: "refused"; readonly issues: readonly BodyIssue[] }
  | { readonly id: number; readonly kind: "failed"; readonly message: string }
  /** It awaits something, and the process can go on with another; a further answer follows. */
  | { readonly id: number; readonly kind: "awaits" };

/** What it says. */
export type JudgeMessage =
  | JudgeAnswer
  /** It begins or has ended to load a file. */
  | { readonly kind: "loading"; readonly by: 1 | -1 };

/**
 * A file without a name, in which it keeps the id of the body that it is at, and behind it whether it has ended for its memory: that may be the
 * last that is heard of it.
 */
export const AT_FD = 4;
export const MEMORY_POSITION = Float64Array.BYTES_PER_ELEMENT;

/** What schemas may take up, in MiB; the process ends beyond that. */
const HEAP_FLAGS = ["--max-old-space-size=128", "--min-semi-space-size=1", "--max-semi-space-size=8"];

/** Flags of the node that are its own. */
const OWN_FLAGS = /^--(inspect|test|watch|(max-old|min-semi|max-semi)-space-size)/;

/** How V8 begins to say that its heap is full: much that is of no use to anybody here. */
const HEAP_IS_FULL = "<--- Last few GCs --->";
const HEAP_IS_FULL_SIGNAL = "SIGABRT";

/** How long its last words may take once it is gone. */
const LAST_WORDS_MS = 1_000;

/** Source in a checkout, JavaScript in an installed package: whatever this file is. */
const CHILD = fileURLToPath(new URL(`body-judge-child${extname(import.meta.url)}`, import.meta.url));

/** How the process has ended. */
export interface JudgeEnd {
  /** The body that it was at last; 0: none. */
  readonly at: number;
  /** It had taken too much memory: of which body is not known. */
  readonly isByMemory: boolean;
  /** Its exit code or signal. */
  readonly how: string;
  /** Why it could not work at all, or null: it did. */
  readonly failure: Error | null;
}

export interface JudgeProcessOptions {
  readonly onAnswer: (answer: JudgeAnswer) => void;
  /** It begins or has ended to load a file. */
  readonly onLoading: () => void;
  /** It has ended, and all that it has said was heard. */
  readonly onEnded: (end: JudgeEnd) => void;
}

export class JudgeProcess {
  readonly #onEnded: JudgeProcessOptions["onEnded"];
  readonly #child: ChildProcess;
  /** Null: there is nowhere to keep it. */
  readonly #atFile = openNamelessFile();
  readonly #endWithNode = (): void => this.kill();
  #loading = 0;
  #hasSpoken = false;
  #hasEnded = false;

  /** @throws when the system refuses to start it */
  constructor({ onAnswer, onLoading, onEnded }: JudgeProcessOptions) {
    this.#onEnded = onEnded;
    try {
      this.#child = fork(CHILD, {
        env: { ...process.env, ORDER_PROCESS_CHECKS_BODIES: "1" },
        execArgv: [...process.execArgv.filter(isPassedOn), ...HEAP_FLAGS],
        serialization: "advanced",
        stdio: ["ignore", "inherit", "pipe", "ipc", this.#atFile ?? "ignore"],
      });
    } catch (error) {
      if (this.#atFile !== null) closeSync(this.#atFile);
      throw error;
    }
    process.once("exit", this.#endWithNode);
    this.#child.on("message", (message: unknown) => {
      if (!isJudgeMessage(message)) return; // a schema has sent it
      this.#hasSpoken = true;
      if (message.kind !== "loading") return onAnswer(message);
      this.#loading += message.by;
      onLoading();
    });
    this.#listen();
  }

  /** Whether it has come so far. */
  get hasSpoken(): boolean {
    return this.#hasSpoken;
  }

  /** Whether it loads a file at the moment, which may take long. */
  get isLoading(): boolean {
    return this.#loading > 0;
  }

  /** It is to check a body; this process stays for the answer. */
  ask(question: JudgeQuestion): void {
    this.#child.ref();
    this.#child.channel?.ref();
    // Where it has ended meanwhile, or could not be started, `onEnded` says so.
    if (this.#child.connected) this.#child.send(question, () => undefined);
  }

  /** Nothing is expected from it: this process may end. */
  unref(): void {
    this.#child.unref();
    this.#child.channel?.unref();
  }

  /** It ends at once. */
  kill(): void {
    this.#child.kill("SIGKILL");
  }

  #listen(): void {
    const child = this.#child;
    let [hasExited, hasSaidAll, how] = [false, false, "it did not start"];
    const ended = (): void => {
      if (hasExited && hasSaidAll) this.#end(how, this.#hasSpoken ? null : new Error(`it ended at its start (${how})`));
    };
    child.on("error", (error) => this.#end(how, error));
    child.on("exit", (code, signal) => {
      hasExited = true;
      how = signal ?? `exit code ${code}`;
      ended();
      // Should something that it has started hold the channel.
      setTimeout(() => {
        hasSaidAll = true;
        ended();
      }, LAST_WORDS_MS).unref();
    });
    child.on("disconnect", () => {
      hasSaidAll = true;
      ended();
    });
    let isFull = false;
    // There is none where descriptors are short.
    const errors = child.stderr as Socket | null | undefined;
    errors?.on("data", (data: Buffer) => {
      isFull ||= data.includes(HEAP_IS_FULL);
      if (!isFull) process.stderr.write(data);
    });
    errors?.unref();
  }

  #end(how: string, error: Error | null): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    process.off("exit", this.#endWithNode);
    const failure =
      error === null ? null : new Error(`the process that checks bodies can't be started: ${error.message}`);
    const { at, isByMemory } = this.#lastWords();
    this.#onEnded({ at, isByMemory: isByMemory || how === HEAP_IS_FULL_SIGNAL, how, failure });
  }

  #lastWords(): { readonly at: number; readonly isByMemory: boolean } {
    if (this.#atFile === null) return { at: 0, isByMemory: false };
    const words = Buffer.alloc(MEMORY_POSITION + 1);
    readSync(this.#atFile, words, { position: 0 });
    closeSync(this.#atFile);
    return { at: words.readDoubleLE(), isByMemory: words[MEMORY_POSITION] !== 0 };
  }
}

/** Also the value of a flag may stand by itself: `--inspect-port 9229`. */
function isPassedOn(word: string, index: number, words: readonly string[]): boolean {
  const flag = word.startsWith("-") ? word : (words[index - 1] ?? "");
  return !OWN_FLAGS.test(flag);
}

/** Schemas can send what they like: none of it must have this process stumble. */
function isJudgeMessage(message: unknown): message is JudgeMessage {
  if (typeof message !== "object" || message === null) return false;
  const { kind, id, by, text, issues, message: words } = message as Readonly<Record<string, unknown>>;
  if (kind === "loading") return by === 1 || by === -1;
  if (typeof id !== "number") return false;
  if (kind === "accepted") return typeof text === "string";
  if (kind === "refused") return Array.isArray(issues) && issues.every(isIssue);
  return kind === "awaits" || kind === "too_large" || (kind === "failed" && typeof words === "string");
}

function isIssue(issue: unknown): issue is BodyIssue {
  if (typeof issue !== "object" || issue === null) return false;
  const { pointer, message } = issue as Readonly<Record<string, unknown>>;
  return typeof pointer === "string" && typeof message === "string";
}

function openNamelessFile(): number | null {
  try {
    const path = join(tmpdir(), `order-process-${randomUUID()}`);
    const file = openSync(path, "wx+", 0o600);
    unlinkSync(path);
    return file;
  } catch {
    return null; // then nobody is blamed
  }
}
