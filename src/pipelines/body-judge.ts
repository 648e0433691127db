/**
 * Has bodies checked by the schemas of TypeScript pipelines, which are code that nobody can count the steps of: a pattern that
 * backtracks, or a list compared with itself, would keep the event loop from everything else. A thread of its own loads the file again
 * and checks there, for so long and no longer.
 *
 * 1. What a schema does in one go is interrupted after `CHECK_MS_MAX` of processor time: the thread does that by itself.
 * 2. A thread that does not come round any more is ended, and another one goes on with what waits. Whose body it was at is refused.
 * 3. A schema that awaits something may take longer, beside others, up to `WAIT_MS_MAX`.
 * 4. Users take turns: who sends many bodies that take long waits for them, and nobody else.
 */
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import type { BodyCheck, BodyFinding, BodyIssue, JsonObject } from "../order/pipeline.ts";

/** For the thread: which body, of which pipeline of which file. */
export interface JudgeQuestion {
  readonly id: number;
  readonly file: string;
  /** Which of the pipelines that the file exports. */
  readonly index: number;
  readonly text: string;
}

/** What the thread says of it. */
export type JudgeAnswer =
  | { readonly id: number; readonly kind: "accepted"; readonly text: string }
  | { readonly id: number; readonly kind: "refused"; readonly issues: readonly BodyIssue[] }
  | { readonly id: number; readonly kind: "failed"; readonly message: string }
  /** It awaits something, and the thread can go on with another; a further answer follows. */
  | { readonly id: number; readonly kind: "awaits" };

/** Shared with the thread: the body that it is at (0: none), how often it came round, and how many files it is loading. */
export const STATE_AT = 0;
export const STATE_ROUNDS = 1;
export const STATE_LOADING = 2;
const STATE_LENGTH = 3;

/** The thread comes round so often, at least, unless something keeps it. */
export const ROUND_MS = 100;

const TICK_MS = 250;

/** In ticks of this process, so that one that was paused does not take its thread for stuck. */
const STUCK_TICKS = 8;
const LOADING_TICKS = 120;

/** As long as people wait for an answer. */
const WAIT_MS_MAX = 10_000;

/** What schemas may take up; the thread ends beyond that, and this process does not. */
const MEMORY_MIB_MAX = 128;
const YOUNG_MEMORY_MIB_MAX = 16;

/** Bodies that the thread is given ahead, so that it need not wait for the next; so many may be before another user's. */
const AHEAD_MAX = 4;

const WORKER = new URL(`./body-judge-worker${extname(import.meta.url)}`, import.meta.url);

interface Waiting {
  readonly question: JudgeQuestion;
  readonly body: JsonObject;
  readonly user: string;
  /** Whether the thread is still to come to it, or is at it. */
  isAhead: boolean;
  ticksLeft: number;
  readonly resolve: (finding: BodyFinding) => void;
  readonly reject: (error: Error) => void;
}

class BodyJudge {
  readonly #waiting = new Map<number, Waiting>();
  /** What is not given to the thread yet, by user, whose turn is first in front. */
  readonly #queues = new Map<string, Waiting[]>();
  /** How many the thread is to come to, or is at. */
  #ahead = 0;
  #worker: Worker | null = null;
  #state = new Int32Array(new SharedArrayBuffer(STATE_LENGTH * Int32Array.BYTES_PER_ELEMENT));
  #timer: NodeJS.Timeout | null = null;
  #lastId = 0;
  #rounds = 0;
  #ticksWithoutRound = 0;

  check(file: string, index: number, body: JsonObject, user: string): Promise<BodyFinding> {
    return new Promise((resolve, reject) => {
      const question = { id: ++this.#lastId, file, index, text: JSON.stringify(body) };
      const ticksLeft = WAIT_MS_MAX / TICK_MS;
      const asked: Waiting = { question, body, user, isAhead: false, ticksLeft, resolve, reject };
      this.#waiting.set(question.id, asked);
      this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
      this.#enqueue(asked);
      this.#sendMore();
    });
  }

  #enqueue(asked: Waiting): void {
    const queue = this.#queues.get(asked.user);
    if (queue === undefined) this.#queues.set(asked.user, [asked]);
    else queue.push(asked);
  }

  #sendMore(): void {
    while (this.#ahead < AHEAD_MAX) {
      const [turn] = this.#queues;
      if (turn === undefined) return;
      const [user, queue] = turn;
      const asked = queue.shift();
      this.#queues.delete(user);
      if (queue.length > 0) this.#queues.set(user, queue);
      // It may have waited too long meanwhile.
      if (asked === undefined || !this.#waiting.has(asked.question.id)) continue;
      this.#worker ??= this.#start();
      this.#worker.ref();
      this.#worker.postMessage(asked.question);
      asked.isAhead = true;
      this.#ahead++;
    }
  }

  #start(): Worker {
    this.#state = new Int32Array(new SharedArrayBuffer(STATE_LENGTH * Int32Array.BYTES_PER_ELEMENT));
    this.#rounds = 0;
    this.#ticksWithoutRound = 0;
    const worker = new Worker(WORKER, {
      workerData: this.#state.buffer,
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MIB_MAX, maxYoungGenerationSizeMb: YOUNG_MEMORY_MIB_MAX },
    });
    worker.on("message", (answer: JudgeAnswer) => this.#answered(answer));
    worker.on("error", () => this.#ended(worker));
    worker.on("exit", () => this.#ended(worker));
    return worker;
  }

  #answered(answer: JudgeAnswer): void {
    const asked = this.#waiting.get(answer.id);
    if (asked === undefined) return;
    this.#leave(asked);
    if (answer.kind === "awaits") return;
    this.#forget(answer.id);
    if (answer.kind === "failed") return asked.reject(new Error(`the schema of the body failed: ${answer.message}`));
    if (answer.kind === "refused") return asked.resolve({ kind: "refused", issues: answer.issues });
    const isSame = answer.text === asked.question.text;
    return asked.resolve({ kind: "accepted", body: isSame ? asked.body : (JSON.parse(answer.text) as JsonObject) });
  }

  /** The thread is no longer at it. */
  #leave(asked: Waiting): void {
    if (!asked.isAhead) return;
    asked.isAhead = false;
    this.#ahead--;
    this.#sendMore();
  }

  #forget(id: number): void {
    this.#waiting.delete(id);
    if (this.#waiting.size > 0) return;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    this.#worker?.unref();
  }

  #tick(): void {
    for (const [id, asked] of this.#waiting) {
      if (--asked.ticksLeft > 0 || Atomics.load(this.#state, STATE_LOADING) > 0) continue;
      this.#leave(asked);
      this.#forget(id);
      asked.resolve(tooLong(`it could not be checked within ${WAIT_MS_MAX / 1_000} s; send it again`));
    }
    const rounds = Atomics.load(this.#state, STATE_ROUNDS);
    this.#ticksWithoutRound = rounds === this.#rounds ? this.#ticksWithoutRound + 1 : 0;
    this.#rounds = rounds;
    const ticksMax = Atomics.load(this.#state, STATE_LOADING) > 0 || rounds === 0 ? LOADING_TICKS : STUCK_TICKS;
    const worker = this.#worker;
    if (this.#ticksWithoutRound <= ticksMax || worker === null) return;
    this.#ended(worker);
    void worker.terminate();
  }

  /** Goes on in another thread (invariant 2). */
  #ended(worker: Worker): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    const at = Atomics.load(this.#state, STATE_AT);
    const sent = Array.from(this.#waiting.values()).filter((asked) => asked.isAhead || this.#isAwaited(asked));
    this.#ahead = 0;
    for (const asked of sent) {
      const { id } = asked.question;
      asked.isAhead = false;
      // What it awaited when it was at no body in particular may be what has ended it.
      if (at === 0 || id === at) {
        this.#forget(id);
        asked.resolve(tooLong("its check did not end, or ended the thread that it is made in"));
      } else {
        this.#enqueue(asked);
      }
    }
    this.#sendMore();
  }

  #isAwaited(asked: Waiting): boolean {
    return this.#queues.get(asked.user)?.includes(asked) !== true;
  }
}

function tooLong(message: string): BodyFinding {
  return { kind: "refused", issues: [{ pointer: "", message }] };
}

let judge: BodyJudge | null = null;

/**
 * A check that is made in the thread.
 * @param file the file that exports the pipeline
 * @param index which of its pipelines it is
 */
export function judgedBy(file: string, index: number): BodyCheck {
  return (body, user = "") => {
    judge ??= new BodyJudge();
    return judge.check(file, index, body, user);
  };
}
