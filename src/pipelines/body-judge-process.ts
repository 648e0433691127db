/** The process that bodies are checked in (body-judge-child.ts), as the node sees it: from its start to its end. */
import { type ChildProcess, fork } from "node:child_process";
import { Socket } from "node:net";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";
import type { BodyIssue } from "../order/pipeline.ts";

/** Which body it is to check, by which pipeline of which file. */
export interface JudgeQuestion {
  readonly id: number;
  readonly file: string;
  /** Which of the pipelines that the file exports. */
  readonly index: number;
  readonly text: string;
}

/** What it says of a body. */
export type JudgeAnswer =
  | { readonly id: number; readonly kind: "accepted"; readonly text: string }
  | { readonly id: number; readonly kind: "refused"; readonly issues: readonly BodyIssue[] }
  | { readonly id: number; readonly kind: "failed"; readonly message: string }
  /** It awaits something, and the process can go on with another; a further answer follows. */
  | { readonly id: number; readonly kind: "awaits" };

/** What it says. */
export type JudgeMessage =
  | JudgeAnswer
  /** It begins or has ended to load a file. */
  | { readonly kind: "loading"; readonly by: 1 | -1 };

/** Where it writes the id of the body that it is at, a line each: it may be the last that is heard of it. */
export const AT_FD = 4;
const AT_CHARS_MAX = 20;

/** What schemas may take up, in MiB; the process ends beyond that. */
const HEAP_FLAGS = ["--max-old-space-size=128", "--min-semi-space-size=1", "--max-semi-space-size=8"];

/** Flags of the node that are its own. */
const OWN_FLAGS = /^--(inspect|test|watch|(max-old|min-semi|max-semi)-space-size)/;

/** How V8 begins to say that its heap is full: much that is of no use to anybody here. */
const HEAP_IS_FULL = "<--- Last few GCs --->";

/** Source in a checkout, JavaScript in an installed package: whatever this file is. */
const CHILD = fileURLToPath(new URL(`body-judge-child${extname(import.meta.url)}`, import.meta.url));

/** How the process has ended. */
export interface JudgeEnd {
  /** The body that it was at last; 0: none. */
  readonly at: number;
  /** Why it could not work at all, or null: it did. */
  readonly failure: Error | null;
}

export interface JudgeProcessOptions {
  readonly onAnswer: (answer: JudgeAnswer) => void;
  /** It has ended, and all that it has said was heard. */
  readonly onEnded: (end: JudgeEnd) => void;
}

export class JudgeProcess {
  readonly #onEnded: JudgeProcessOptions["onEnded"];
  readonly #child: ChildProcess;
  readonly #pipes: readonly Socket[];
  /** The end of what it has written of where it is. */
  #written = "";
  #loading = 0;
  #hasSpoken = false;
  #hasEnded = false;

  /** @throws when it can't be started */
  constructor({ onAnswer, onEnded }: JudgeProcessOptions) {
    this.#onEnded = onEnded;
    this.#child = fork(CHILD, {
      env: { ...process.env, ORDER_PROCESS_CHECKS_BODIES: "1" },
      execArgv: [...process.execArgv.filter((flag) => !OWN_FLAGS.test(flag)), ...HEAP_FLAGS],
      serialization: "advanced",
      stdio: ["ignore", "inherit", "pipe", "ipc", "pipe"],
    });
    this.#pipes = this.#child.stdio.filter((pipe) => pipe instanceof Socket);
    this.#child.on("message", (message: JudgeMessage) => {
      this.#hasSpoken = true;
      if (message.kind === "loading") this.#loading += message.by;
      else onAnswer(message);
    });
    this.#listen();
  }

  /** Whether it loads a file at the moment, which may take long. */
  get isLoading(): boolean {
    return this.#loading > 0;
  }

  /** It is to check a body; this process stays for the answer. */
  ask(question: JudgeQuestion): void {
    this.#child.ref();
    this.#child.channel?.ref();
    // Where it has ended meanwhile, `onEnded` says so.
    this.#child.send(question, () => undefined);
  }

  /** Nothing is expected from it: this process may end. */
  unref(): void {
    this.#child.unref();
    this.#child.channel?.unref();
  }

  #listen(): void {
    let open = 2;
    const closed = (): void => {
      if (--open === 0) this.#end(this.#hasSpoken ? null : new Error("it ended as it was started"));
    };
    this.#child.on("disconnect", closed);
    this.#child.on("error", (error) => this.#end(error));
    const [errors, at] = this.#pipes;
    at?.on("close", closed);
    at?.on("data", (data) => {
      this.#written = `${this.#written}${data.toString("latin1")}`.slice(-AT_CHARS_MAX);
    });
    let isFull = false;
    errors?.on("data", (data) => {
      isFull ||= data.includes(HEAP_IS_FULL);
      if (!isFull) process.stderr.write(data);
    });
    for (const pipe of this.#pipes) pipe.unref();
  }

  #end(failure: Error | null): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.#onEnded({ at: Number(/(\d+)\n$/.exec(this.#written)?.[1] ?? 0), failure });
  }
}
