/**
 * Has bodies checked by the schemas of TypeScript pipelines, which are code that nobody can count the steps of: a pattern that
 * backtracks, or a list compared with itself, would keep the event loop from everything else. A process of its own loads the file again
 * and checks there, for so long and no longer, and in so much memory and no more.
 *
 * 1. What a schema does in one go is interrupted after `CHECK_MS_MAX` of processor time: the process does that by itself.
 * 2. A process that does not come round, or takes too much memory, ends itself, and another one goes on with what waits. Whose body it was
 *    at is refused; all others are checked again, before those of the same user.
 * 3. A schema that awaits something may take longer, beside others, up to `WAIT_MS_MAX`. What has not been answered so long after it was given
 *    to the process is ended with it.
 * 4. Users take turns: who sends many bodies that take long waits for them, and nobody else.
 */
import type { BodyCheck, BodyFinding, JsonObject } from "../order/pipeline.ts";
import { textOf } from "../order/step-error.ts";
import { printable } from "../printable.ts";
import { type JudgeAnswer, type JudgeEnd, JudgeProcess, type JudgeQuestion } from "./body-judge-process.ts";

const TICK_MS = 250;

/** As long as people wait for an answer; what loading a file takes comes on top, but not without end. */
const WAIT_MS_MAX = 10_000;
const WAIT_WITH_LOADING_MS_MAX = 40_000;

/** Bodies that the process is given ahead, so that it need not wait for the next; so many may be before another user's. */
const AHEAD_MAX = 4;

/** A process that ends before it has said anything is started again once; then something is wrong. */
const SILENT_STARTS_MAX = 2;

/** How long something takes, in ticks of this process: while that is paused, nothing takes long. */
class Wait {
  #ticks = 0;
  #ticksWithLoading = 0;

  get isTooLong(): boolean {
    return this.#ticks * TICK_MS >= WAIT_MS_MAX || this.#ticksWithLoading * TICK_MS >= WAIT_WITH_LOADING_MS_MAX;
  }

  tick(isLoading: boolean): void {
    if (!isLoading) this.#ticks++;
    this.#ticksWithLoading++;
  }
}

interface Asked {
  readonly question: JudgeQuestion;
  readonly body: JsonObject;
  readonly user: string;
  /** For its answer. */
  readonly wait: Wait;
  readonly resolve: (finding: BodyFinding) => void;
  readonly reject: (error: Error) => void;
}

/** A body that the process has, and has not answered. Whoever asked may have been answered without it. */
interface InHand {
  readonly asked: Asked;
  readonly wait: Wait;
  /** The process has gone on with others. */
  isAwaiting: boolean;
}

class BodyJudge {
  /** Who is still to be answered. */
  readonly #asked = new Set<Asked>();
  /** What is not given to the process yet, by user, whose turn is first in front. */
  #queues = new Map<string, Asked[]>();
  readonly #inHand = new Map<number, InHand>();
  /** How many of those the process is to come to, or is at. */
  #ahead = 0;
  #process: JudgeProcess | null = null;
  /** It was ended from here, and not by a body. */
  #isKilled = false;
  #silentStarts = 0;
  #timer: NodeJS.Timeout | null = null;
  #lastId = 0;

  check(file: string, index: number, body: JsonObject, user: string): Promise<BodyFinding> {
    return new Promise((resolve, reject) => {
      const question = { id: ++this.#lastId, file, index, text: JSON.stringify(body) };
      const asked: Asked = { question, body, user, wait: new Wait(), resolve, reject };
      this.#asked.add(asked);
      this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
      const queue = this.#queues.get(user);
      if (queue === undefined) this.#queues.set(user, [asked]);
      else queue.push(asked);
      this.#sendMore();
    });
  }

  #sendMore(): void {
    while (this.#ahead < AHEAD_MAX) {
      const asked = this.#next();
      if (asked === null) return;
      try {
        this.#process ??= new JudgeProcess({
          onAnswer: (answer) => this.#answered(answer),
          onEnded: (end) => this.#ended(end),
        });
      } catch (error) {
        if (this.#settle(asked)) asked.reject(error instanceof Error ? error : new Error(textOf(error)));
        continue;
      }
      this.#process.ask(asked.question);
      this.#inHand.set(asked.question.id, { asked, wait: new Wait(), isAwaiting: false });
      this.#ahead++;
    }
  }

  /** Of the user whose turn it is. */
  #next(): Asked | null {
    const [turn] = this.#queues;
    if (turn === undefined) return null;
    const [user, queue] = turn;
    const asked = queue.shift() ?? null;
    this.#queues.delete(user);
    if (queue.length > 0) this.#queues.set(user, queue);
    return asked;
  }

  #answered(answer: JudgeAnswer): void {
    this.#silentStarts = 0;
    const inHand = this.#inHand.get(answer.id);
    if (inHand === undefined) return;
    if (!inHand.isAwaiting) this.#ahead--;
    if (answer.kind === "awaits") {
      inHand.isAwaiting = true;
    } else {
      this.#inHand.delete(answer.id);
      this.#tell(inHand.asked, answer);
    }
    this.#sendMore();
  }

  #tell(asked: Asked, answer: Exclude<JudgeAnswer, { kind: "awaits" }>): void {
    if (!this.#settle(asked)) return;
    if (answer.kind === "failed") return asked.reject(new Error(`the schema of the body failed: ${answer.message}`));
    if (answer.kind === "refused") return asked.resolve({ kind: "refused", issues: answer.issues });
    const isSame = answer.text === asked.question.text;
    return asked.resolve({ kind: "accepted", body: isSame ? asked.body : (JSON.parse(answer.text) as JsonObject) });
  }

  #refuse(asked: Asked, message: string): void {
    if (this.#settle(asked)) asked.resolve({ kind: "refused", issues: [{ pointer: "", message }] });
  }

  /** @returns whether it is still to be answered */
  #settle(asked: Asked): boolean {
    const isOpen = this.#asked.delete(asked);
    if (this.#asked.size === 0) this.#process?.unref();
    return isOpen;
  }

  #tick(): void {
    const isLoading = this.#process?.isLoading ?? false;
    const formerly = this.#asked.size;
    for (const asked of this.#asked) {
      asked.wait.tick(isLoading);
      if (asked.wait.isTooLong)
        this.#refuse(asked, `it could not be checked within ${WAIT_MS_MAX / 1_000} s; send it again`);
    }
    if (this.#asked.size < formerly) this.#dropAnswered();
    for (const { wait } of this.#inHand.values()) {
      wait.tick(isLoading);
      if (wait.isTooLong) this.#isKilled = true;
    }
    if (this.#isKilled) this.#process?.kill();
    this.#sendMore();
    if (this.#asked.size > 0 || this.#inHand.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }

  /** Their bodies take no memory any more. */
  #dropAnswered(): void {
    for (const [user, queue] of this.#queues) {
      const open = queue.filter((asked) => this.#asked.has(asked));
      if (open.length > 0) this.#queues.set(user, open);
      else this.#queues.delete(user);
    }
  }

  /** Goes on in another process (invariant 2). */
  #ended({ at, how, failure }: JudgeEnd): void {
    const inHand = Array.from(this.#inHand.values(), ({ asked }) => asked);
    const culprit = this.#isKilled ? undefined : inHand.find(({ question }) => question.id === at);
    this.#process = null;
    this.#isKilled = false;
    this.#inHand.clear();
    this.#ahead = 0;
    if (failure !== null && ++this.#silentStarts >= SILENT_STARTS_MAX) {
      for (const asked of inHand) if (this.#settle(asked)) asked.reject(failure);
    }
    if (culprit !== undefined) this.#refuse(culprit, "its check did not end, or ended the process that it is made in");
    if (failure === null) {
      const whose =
        culprit === undefined
          ? ""
          : ` at a body of a pipeline in ${printable(culprit.question.file)}, which is refused`;
      process.stderr.write(`order_process: the process that checks bodies ended (${how})${whose}\n`);
    }
    this.#putBack(
      inHand.filter((asked) => this.#asked.has(asked)),
      culprit?.user,
    );
    this.#sendMore();
  }

  /** In front of what their users have sent since, and these users in front of others; the last is whose body ended the process. */
  #putBack(former: readonly Asked[], culprit: string | undefined): void {
    const users = Array.from(new Set([...former.map(({ user }) => user), ...this.#queues.keys()]));
    const isCulprit = (user: string): boolean => user === culprit;
    const inOrder = [...users.filter((user) => !isCulprit(user)), ...users.filter(isCulprit)];
    this.#queues = new Map(
      inOrder.map((user) => [
        user,
        [...former.filter((asked) => asked.user === user), ...(this.#queues.get(user) ?? [])],
      ]),
    );
  }
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
