/**
 * Has bodies checked by the schemas of TypeScript pipelines, which are code that nobody can count the steps of: a pattern that
 * backtracks, or a list compared with itself, would keep the event loop from everything else. A process of its own loads the file again
 * and checks there, for so long and no longer, and in so much memory and no more.
 *
 * 1. What a schema does in one go is interrupted after `CHECK_MS_MAX` of processor time: the process does that by itself.
 * 2. A process that does not come round any more ends itself, and another one goes on with what waits. Whose body it was at is refused.
 * 3. A schema that awaits something may take longer, beside others, up to `WAIT_MS_MAX`.
 * 4. Users take turns: who sends many bodies that take long waits for them, and nobody else.
 */
import type { BodyCheck, BodyFinding, JsonObject } from "../order/pipeline.ts";
import { textOf } from "../order/step-error.ts";
import { type JudgeAnswer, type JudgeEnd, JudgeProcess, type JudgeQuestion } from "./body-judge-process.ts";

const TICK_MS = 250;

/** As long as people wait for an answer. */
const WAIT_MS_MAX = 10_000;

/** Bodies that the process is given ahead, so that it need not wait for the next; so many may be before another user's. */
const AHEAD_MAX = 4;

interface Waiting {
  readonly question: JudgeQuestion;
  readonly body: JsonObject;
  readonly user: string;
  /** Whether the process is still to come to it, or is at it. */
  isAhead: boolean;
  ticksLeft: number;
  readonly resolve: (finding: BodyFinding) => void;
  readonly reject: (error: Error) => void;
}

class BodyJudge {
  readonly #waiting = new Map<number, Waiting>();
  /** What is not given to the process yet, by user, whose turn is first in front. */
  readonly #queues = new Map<string, Waiting[]>();
  /** How many it is to come to, or is at. */
  #ahead = 0;
  #process: JudgeProcess | null = null;
  #timer: NodeJS.Timeout | null = null;
  #lastId = 0;

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
      try {
        this.#process ??= new JudgeProcess({
          onAnswer: (answer) => this.#answered(answer),
          onEnded: (end) => this.#ended(end),
        });
      } catch (error) {
        this.#forget(asked.question.id);
        asked.reject(notStarted(error));
        continue;
      }
      this.#process.ask(asked.question);
      asked.isAhead = true;
      this.#ahead++;
    }
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

  /** The process is no longer at it. */
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
    this.#process?.unref();
  }

  #tick(): void {
    if (this.#process?.isLoading === true) return;
    for (const [id, asked] of this.#waiting) {
      if (--asked.ticksLeft > 0) continue;
      this.#leave(asked);
      this.#forget(id);
      asked.resolve(tooLong(`it could not be checked within ${WAIT_MS_MAX / 1_000} s; send it again`));
    }
  }

  /** Goes on in another process (invariant 2). */
  #ended({ at, failure }: JudgeEnd): void {
    this.#process = null;
    const sent = Array.from(this.#waiting.values()).filter((asked) => asked.isAhead || this.#isAwaited(asked));
    // It was at a body that it has answered, or at none: whatever it had in hand may be what has ended it.
    const isUnknown = !sent.some(({ question }) => question.id === at);
    this.#ahead = 0;
    for (const asked of sent) {
      const { id } = asked.question;
      asked.isAhead = false;
      if (failure !== null) {
        this.#forget(id);
        asked.reject(notStarted(failure));
      } else if (isUnknown || id === at) {
        this.#forget(id);
        asked.resolve(tooLong("its check did not end, or ended the process that it is made in"));
        process.stderr.write(
          `order_process: a body is refused: its check by a schema in ${asked.question.file} did not end, or ended its process\n`,
        );
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

function notStarted(error: unknown): Error {
  return new Error(`the process that bodies are checked in could not be started: ${textOf(error)}`);
}

function tooLong(message: string): BodyFinding {
  return { kind: "refused", issues: [{ pointer: "", message }] };
}

let judge: BodyJudge | null = null;

/**
 * A check that is made in the process.
 * @param file the file that exports the pipeline
 * @param index which of its pipelines it is
 */
export function judgedBy(file: string, index: number): BodyCheck {
  return (body, user = "") => {
    judge ??= new BodyJudge();
    return judge.check(file, index, body, user);
  };
}
