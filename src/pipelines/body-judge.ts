/**
 * Has bodies checked by the schemas of TypeScript pipelines, which are code that nobody can count the steps of: a pattern that
 * backtracks, or a list compared with itself, would keep the event loop from everything else. A process of its own loads the file again
 * and checks there, for so long and no longer, and in so much memory and no more.
 *
 * 1. What a schema does in one go is interrupted after `CHECK_MS_MAX` of processor time: the process does that by itself.
 * 2. A process that does not come round, or takes too much memory, ends itself, and another one goes on with what waits. The body that it was
 *    at is checked once more, apart: in a second process, which others have nothing in. If it ends that, too, it is refused; if not, something
 *    else was to blame. All others are checked again, before those of the same user.
 * 3. A schema that awaits something may take longer, beside others, up to `WAIT_MS_MAX`. What has not been answered so long after it was given
 *    to the process is ended with it.
 * 4. Users take turns: who sends many bodies that take long waits for them, and nobody else. Who has sent one that ended both processes has
 *    all checked apart for a while.
 */
import { exceedsDepth, JSON_DEPTH_MAX } from "../order/json-depth.ts";
import { bytesParsed } from "../order/json-size.ts";
import { pointerSegment } from "../order/json-pointer.ts";
import type { BodyCheck, BodyCheckOptions, BodyFinding, JsonObject } from "../order/pipeline.ts";
import { textOf } from "../order/step-error.ts";
import { printable } from "../printable.ts";
import { type JudgeAnswer, type JudgeEnd, JudgeProcess, type JudgeQuestion } from "./body-judge-process.ts";

const TICK_MS = 250;

/** As long as people wait for an answer; what loading a file takes comes on top, but not without end. */
const WAIT_MS_MAX = 10_000;
const WAIT_WITH_LOADING_MS_MAX = 40_000;

/** Where the process is at a body, and says nothing for so long, it is ended: it may be stopped, or hear nothing. */
const SILENT_MS_MAX = 4_000;

/** Who has ended processes is forgiven after a while, or when there are many others. */
const APART_MS = 10 * 60_000;
const APART_USERS_MAX = 1_000;

/** So many answered bodies are remembered, until their process ends. */
const ANSWERED_MAX = 1_000;

/** Bodies that the process is given ahead, so that it need not wait for the next; so many may be before another user's. */
const AHEAD_MAX = 4;

/**
 * What the bodies may take that the process has, parsed, at once: those whose schemas await something stay there, and are not to fill its
 * memory. One alone may take more.
 */
const IN_HAND_BYTES_MAX = 48 * 1024 * 1024;

/** So many users are looked at for one whose body fits. */
const LOOKS_MAX = 100;

/** A process that ends before it has said anything is started again once; then something is wrong. */
const SILENT_STARTS_MAX = 2;

/** How long something takes, in ticks of this process: while that is paused, nothing takes long. */
class Wait {
  #ticks = 0;
  #ticksWithLoading = 0;

  get isTooLong(): boolean {
    return this.hasLasted(WAIT_MS_MAX) || this.#ticksWithLoading * TICK_MS >= WAIT_WITH_LOADING_MS_MAX;
  }

  /** Without what loading took. */
  hasLasted(ms: number): boolean {
    return this.#ticks * TICK_MS >= ms;
  }

  tick(isLoading: boolean): void {
    if (!isLoading) this.#ticks++;
    this.#ticksWithLoading++;
  }
}

/** Each question has another, in whatever process it is put. */
let lastId = 0;

interface Asked {
  readonly question: JudgeQuestion;
  readonly body: JsonObject;
  readonly user: string;
  /** What it takes once it is parsed. */
  readonly bytes: number;
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

interface BlameHooks {
  /** Has a body checked elsewhere that the process was at when it ended; false: there is nowhere else. */
  readonly retry: (asked: Asked) => boolean;
  /** Told whose body ended a process. */
  readonly blame: (user: string) => void;
}

class BodyJudge {
  readonly #hooks: BlameHooks;
  /** Who is still to be answered. */
  readonly #asked = new Set<Asked>();
  /** What is not given to the process yet, by user, whose turn is first in front. */
  #queues = new Map<string, Asked[]>();
  readonly #inHand = new Map<number, InHand>();
  /** Whose bodies were answered last, by question: code of theirs may go on. */
  readonly #answeredUsers = new Map<number, string>();
  /** How many of those the process is to come to, or is at. */
  #ahead = 0;
  /** What those take. */
  #inHandBytes = 0;
  #process: JudgeProcess | null = null;
  /** It was ended from here, and not by a body. */
  #isKilled = false;
  #silentStarts = 0;
  /** How long the process has said nothing while it is at a body. */
  #silentMs = 0;
  #timer: NodeJS.Timeout | null = null;

  constructor(hooks: BlameHooks) {
    this.#hooks = hooks;
  }

  check(asked: Asked): void {
    this.#asked.add(asked);
    this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
    const queue = this.#queues.get(asked.user);
    if (queue === undefined) this.#queues.set(asked.user, [asked]);
    else queue.push(asked);
    this.#sendMore();
  }

  #sendMore(): void {
    while (this.#ahead < AHEAD_MAX) {
      const asked = this.#next();
      if (asked === null) return;
      try {
        this.#process ??= new JudgeProcess({
          onAnswer: (answer) => this.#answered(answer),
          onLoading: () => (this.#silentMs = 0),
          onEnded: (end) => this.#ended(end),
        });
      } catch (error) {
        if (this.#settle(asked)) asked.reject(error instanceof Error ? error : new Error(textOf(error)));
        continue;
      }
      this.#process.ask(asked.question);
      this.#inHand.set(asked.question.id, { asked, wait: new Wait(), isAwaiting: false });
      this.#inHandBytes += asked.bytes;
      this.#ahead++;
    }
  }

  /** Of the user whose turn it is, or of the next whose body there is memory for; null: there is none. */
  #next(): Asked | null {
    let looks = LOOKS_MAX;
    for (const [user, queue] of this.#queues) {
      const isTooMuch = this.#inHandBytes + (queue[0]?.bytes ?? 0) > IN_HAND_BYTES_MAX;
      if (isTooMuch && this.#inHand.size > 0) {
        if (--looks === 0) return null;
        continue;
      }
      const asked = queue.shift() ?? null;
      this.#queues.delete(user);
      if (queue.length > 0) this.#queues.set(user, queue);
      return asked;
    }
    return null;
  }

  #answered(answer: JudgeAnswer): void {
    this.#silentStarts = 0;
    this.#silentMs = 0;
    const inHand = this.#inHand.get(answer.id);
    if (inHand === undefined) return;
    if (!inHand.isAwaiting) this.#ahead--;
    if (answer.kind === "awaits") {
      inHand.isAwaiting = true;
    } else {
      this.#inHand.delete(answer.id);
      this.#inHandBytes -= inHand.asked.bytes;
      this.#remember(inHand.asked);
      this.#tell(inHand.asked, answer);
    }
    this.#sendMore();
  }

  #remember({ question, user }: Asked): void {
    this.#answeredUsers.set(question.id, user);
    const [first] = this.#answeredUsers.keys();
    if (this.#answeredUsers.size > ANSWERED_MAX && first !== undefined) this.#answeredUsers.delete(first);
  }

  #tell(asked: Asked, answer: Exclude<JudgeAnswer, { kind: "awaits" }>): void {
    if (!this.#settle(asked)) return;
    if (answer.kind === "failed") return asked.reject(new Error(`the schema of the body failed: ${answer.message}`));
    if (answer.kind === "refused") return asked.resolve({ kind: "refused", issues: answer.issues });
    if (answer.kind === "too_large") return asked.resolve({ kind: "too_large" });
    if (answer.text === asked.question.text) return asked.resolve({ kind: "accepted", body: asked.body });
    if (exceedsDepth(answer.text)) {
      const message = `its schema makes of it what is nested deeper than ${JSON_DEPTH_MAX} levels`;
      return asked.resolve({ kind: "refused", issues: [{ pointer: "", message }] });
    }
    const made = parsed(answer.text);
    if (made === null) return asked.reject(new Error("the schema of the body failed: it made no JSON object of it"));
    return asked.resolve({ kind: "accepted", body: made });
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
    const hasBegun = this.#process?.hasSpoken ?? false;
    const isLoading = this.#process?.isLoading ?? false;
    const formerly = this.#asked.size;
    for (const asked of this.#asked) {
      asked.wait.tick(isLoading);
      if (!asked.wait.isTooLong) continue;
      // What the process has had for most of the time is too much for its schema; or else it was others' fault.
      if (this.#inHand.get(asked.question.id)?.wait.hasLasted(WAIT_MS_MAX / 2) === true)
        this.#refuse(asked, `it could not be checked within ${WAIT_MS_MAX / 1_000} s`);
      else if (this.#settle(asked)) asked.resolve({ kind: "no_turn" });
    }
    if (this.#asked.size < formerly) this.#dropAnswered();
    for (const { asked, wait } of this.#inHand.values()) {
      wait.tick(isLoading || !hasBegun);
      if (!wait.isTooLong) continue;
      this.#isKilled = true;
      if (hasBegun) this.#hooks.blame(asked.user);
    }
    // Its start takes as long as it takes.
    this.#silentMs = this.#ahead > 0 && hasBegun && !isLoading ? this.#silentMs + TICK_MS : 0;
    if (this.#isKilled || this.#silentMs >= SILENT_MS_MAX) this.#process?.kill();
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
  #ended({ at, how, isByMemory, failure }: JudgeEnd): void {
    const inHand = Array.from(this.#inHand.values(), ({ asked }) => asked);
    const culprit = this.#isKilled ? undefined : inHand.find(({ question }) => question.id === at);
    this.#process = null;
    this.#isKilled = false;
    this.#silentMs = 0;
    this.#inHand.clear();
    this.#inHandBytes = 0;
    this.#ahead = 0;
    if (failure !== null && ++this.#silentStarts >= SILENT_STARTS_MAX) {
      for (const asked of inHand) if (this.#settle(asked)) asked.reject(failure);
    }
    const isElsewhere = culprit !== undefined && this.#asked.has(culprit) && this.#hooks.retry(culprit);
    if (isElsewhere) this.#leaveElsewhere(culprit, inHand);
    else if (culprit !== undefined)
      this.#refuse(culprit, "its check did not end, or ended the process that it is made in");
    // One that was at nothing may have been ended by anybody.
    const isAnybodys = isByMemory || (inHand.length === 0 && how === "SIGKILL");
    const late = isAnybodys ? undefined : this.#answeredUsers.get(at);
    const blamed = isElsewhere ? undefined : (culprit?.user ?? late);
    if (blamed !== undefined) this.#hooks.blame(blamed);
    this.#answeredUsers.clear();
    if (failure === null) {
      const whose =
        culprit === undefined
          ? ""
          : ` at a body of a pipeline in ${printable(culprit.question.file)}, which is ${isElsewhere ? "checked once more" : "refused"}`;
      process.stderr.write(`order_process: the process that checks bodies ended (${how})${whose}\n`);
    }
    this.#putBack(
      inHand.filter((asked) => this.#asked.has(asked)),
      culprit?.user,
    );
    this.#sendMore();
  }

  /** A body, and behind it what else of its user's waits here: it may be the same. */
  #leaveElsewhere(culprit: Asked, inHand: readonly Asked[]): void {
    const { user } = culprit;
    const others = [
      ...inHand.filter((asked) => asked !== culprit && asked.user === user),
      ...(this.#queues.get(user) ?? []),
    ];
    this.#queues.delete(user);
    for (const asked of others) if (this.#asked.has(asked)) this.#hooks.retry(asked);
    for (const asked of [culprit, ...others]) this.#settle(asked);
  }

  /** In front of what their users have sent since, and these users in front of others; the last is whose body ended the process. */
  #putBack(former: readonly Asked[], culprit: string | undefined): void {
    const users = Array.from(new Set([...former.map(({ user }) => user), ...this.#queues.keys()]));
    const isCulprit = (user: string): boolean => user === culprit;
    const formerOf = Map.groupBy(former, ({ user }) => user);
    const inOrder = [...users.filter((user) => !isCulprit(user)), ...users.filter(isCulprit)];
    this.#queues = new Map(
      inOrder.map((user) => [user, [...(formerOf.get(user) ?? []), ...(this.#queues.get(user) ?? [])]]),
    );
  }
}

/** Who has ended processes, and until when that counts. */
const apartUntil = new Map<string, number>();

function keepApart(user: string): void {
  apartUntil.delete(user);
  apartUntil.set(user, performance.now() + APART_MS);
  const [first] = apartUntil.keys();
  if (apartUntil.size > APART_USERS_MAX && first !== undefined) apartUntil.delete(first);
}

/** Where bodies are checked that have ended a process, and those of who has sent such. */
const apart = new BodyJudge({ retry: () => false, blame: keepApart });

/** Where all others are. */
const together = new BodyJudge({
  retry: (asked) => {
    apart.check(asked);
    return true;
  },
  blame: keepApart,
});

function parsed(text: string): JsonObject | null {
  try {
    const json: unknown = JSON.parse(text);
    return typeof json === "object" && json !== null && !Array.isArray(json) ? (json as JsonObject) : null;
  } catch {
    return null; // a schema has sent it by itself
  }
}

function isApart(user: string): boolean {
  const untilMs = apartUntil.get(user);
  if (untilMs === undefined) return false;
  if (performance.now() < untilMs) return true;
  apartUntil.delete(user);
  return false;
}

/**
 * A check that is made in the process.
 * @param file the file that exports the pipeline
 * @param index which of its pipelines it is
 */
export function judgedBy(file: string, index: number): BodyCheck {
  return (body, { user, bytesMax } = ANYBODY) => {
    const text = JSON.stringify(body);
    const pointer = text.includes("null") ? pointerToInfinity(body) : null;
    if (pointer !== null) {
      const message = "the number is too large for a schema in TypeScript; send it as text";
      return { kind: "refused", issues: [{ pointer, message }] };
    }
    return new Promise((resolve, reject) => {
      const question = { id: ++lastId, file, index, text, bytesMax };
      const judge = isApart(user) ? apart : together;
      judge.check({ question, body, user, bytes: bytesParsed(text), wait: new Wait(), resolve, reject });
    });
  };
}

const ANYBODY: BodyCheckOptions = { user: "", bytesMax: Number.POSITIVE_INFINITY };

/** Where a number is that JSON can hold and JavaScript can't, such as 1e400: it would be another one once it is written as JSON. */
function pointerToInfinity(json: unknown): string | null {
  if (json === Number.POSITIVE_INFINITY || json === Number.NEGATIVE_INFINITY) return "";
  if (typeof json !== "object" || json === null) return null;
  for (const [key, value] of Object.entries(json)) {
    const found = pointerToInfinity(value);
    if (found !== null) return `/${pointerSegment(key)}${found}`;
  }
  return null;
}
