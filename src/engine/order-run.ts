/**
 * Carries one order from a committed state to the next: calls its current step, decides what follows, has that committed,
 * and goes on. One object per order in flight.
 *
 * 1. A step is called only after the write that says so is durable: the one that led to a first call, or `attempt_started`.
 * 2. At most one call and one write are under way per order. Both at once only where somebody asks something of the order during a
 *    call; what the call says then waits for the write.
 * 3. What a call says after it has been given up (timed out, stopped) is not heard.
 * 4. Whoever asks something of the order is answered when that is durable, or when this run lets go of the order.
 * 5. Lengths are waited for on the monotonic clock: the wall clock may jump.
 * 6. Slots and memory are taken before a call and given back after it, or when the call is not made after all.
 * 7. When the store refuses a write, nothing more is written until the order has been read again (`reread`); a call that is under way
 *    goes on meanwhile, and afterwards if the order is still at it.
 * 8. A wait is written down anew when the wall clock was set since it began: whoever takes the order over counts on that clock.
 */
import { type ActionRequest, decideAction } from "../order/actions.ts";
import {
  type CallOutcome,
  decide,
  decideCrashed,
  decideStepCanceled,
  decideTooLate,
  isOverIfNotDone,
} from "../order/decide.ts";
import type { Incarnation, LaterEvent } from "../order/events.ts";
import { evolve } from "../order/evolve.ts";
import { bytesParsed } from "../order/json-size.ts";
import { currentCall, listedStatus, type Order, waitSinceMs } from "../order/order.ts";
import { type Pipeline, pipelineLabel, requestCharsMax, type Step, type StepLog } from "../order/pipeline.ts";
import { encodeResult, RESULTS_CHARS_MAX } from "../order/result.ts";
import { failureTraits, isStepError, StepError } from "../order/step-error.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { AdvanceWrite, WriteOutcome } from "../store/store.ts";
import { Attempt, type AttemptOf, describeError } from "./attempt.ts";
import type { CallMemory } from "./call-memory.ts";
import { CallSlots, type NamedLimit } from "./call-slots.ts";
import { type ClockReading, handOverTimes, monotonicStart, readingFrom, wallAheadMs, wasSet } from "./clock-reading.ts";
import type { WriteListener } from "./group-commit.ts";
import { type LifeLog, logCall, logTransition } from "./life-log.ts";
import type { Due } from "./parked-orders.ts";
import { remedyOf } from "./remedy.ts";
import type { Slots } from "./slots.ts";

/** What an order's run needs from the engine. */
export interface RunHost {
  readonly clock: Clock;
  random(): number;
  /** False while the node is stopping, or may have been taken for dead: no call begins. */
  mayCall(): boolean;
  /** Nothing is gone on with any more: the order is whoever's takes it over. */
  isOver(): boolean;
  /** A call was due while none may begin: `proceed` is to be called again, or the order given away. */
  held(run: OrderRun): void;
  /** Has a write made durable. */
  advance(write: AdvanceWrite, listener: WriteListener): void;
  /** A call begins or has ended. */
  callsUnderWayChanged(by: 1 | -1): void;
  /** The order keeps so many more characters in memory. */
  grew(chars: number): void;
  /** Nothing is to be done before the order is due; what it waits for began at that moment (null: nothing is counted). */
  parked(run: OrderRun, due: Due, since: ClockReading | null): void;
  /** The order is final, or is another's: nothing is left to do. */
  finished(run: OrderRun): void;
  /** The store refused a write: what is known of the order may be out of date. */
  refused(run: OrderRun): void;
  /** The store takes nothing from this incarnation any more: it counts as dead. */
  fenced(): void;
  /** Where a step's own lines go. */
  readonly stepLog: (orderId: string, step: string) => StepLog;
  readonly slots: Slots;
  readonly callMemory: CallMemory;
  /** A person must look at the order. */
  needsPerson(line: string): void;
  /** What the clock of another incarnation shows now, as far as is known; null: nothing is known. */
  nowOf(incarnation: Incarnation): number | null;
  /** An order is set aside when so many nodes in a row have died while a call of it was under way. */
  readonly crashesMax: number;
  /** A call begins; null: nobody wants to know. */
  readonly onCall: ((orderId: string, stepName: string) => void) | null;
  /** Null where the log level makes the lines of an order's life unwanted. */
  readonly lifeLog: LifeLog | null;
}

/** How something that was asked of an order ended. */
export type ActionOutcome =
  | { readonly kind: "done" }
  | { readonly kind: "refused"; readonly reason: string }
  /** The order is another's by now, or the store is away: whether it was done is not known. */
  | { readonly kind: "unknown" };

export interface OrderRunOptions {
  readonly pipeline: Pipeline;
  readonly order: Order;
  readonly user: string;
  readonly bodyText: string;
  readonly since?: ClockReading | null;
}

interface Asked {
  readonly request: ActionRequest;
  readonly answer: (outcome: ActionOutcome) => void;
}

/** An order that was under way when nodes died is at last tried alone: one such call at a time in the whole cluster. */
const SUSPECTS: NamedLimit = { key: "suspects", scope: "cluster", callsMax: 1 };

export class OrderRun implements WriteListener, AttemptOf {
  readonly user: string;
  readonly bodyText: string;
  readonly pipeline: Pipeline;
  readonly #host: RunHost;
  /** As last committed. */
  #order: Order;
  /** As it will be when the write under way is durable. */
  #next: Order | null = null;
  /** As it would be if the store had not refused the last write: the order is to be read again (invariant 7). */
  #refused: Order | null = null;
  /** When what it waits for began, on the monotonic clock. In whole milliseconds, which take no memory of their own. */
  #waitsFromMs: number;
  /** The same for `#next` or `#refused`. */
  #nextWaitsFromMs = 0;
  /** The wait before a call. */
  #timer: Timer | null = null;
  #call: Attempt | null = null;
  /** Whether the call that the order is at was made by this run, however it went. */
  #callBegun = false;
  /** How a call ended, while a write was under way (invariant 2); or that it was cut: then nothing more follows from this run. */
  #ended: CallOutcome | typeof CUT | null = null;
  /** Null: none was ever needed. */
  #slots: CallSlots | null = null;
  #asked: Asked[] | null = null;
  /** Who waits for the write that is under way. */
  #answered: Asked["answer"] | null = null;
  #resultChars = 0;

  /** @param since when what it waits for began, where that is known better than by the order's own times */
  constructor(host: RunHost, { pipeline, order, user, bodyText, since = null }: OrderRunOptions) {
    this.#host = host;
    this.pipeline = pipeline;
    this.#order = order;
    this.user = user;
    this.bodyText = bodyText;
    this.#waitsFromMs = monotonicStart(host.clock, order, since);
    for (const { result } of order.steps) if (result !== null) this.#resultChars += result.length;
  }

  get stepLog(): AttemptOf["stepLog"] {
    return this.#host.stepLog;
  }

  get order(): Order {
    return this.#order;
  }

  get callMemory(): CallMemory {
    return this.#host.callMemory;
  }

  get isOverIfNotDone(): boolean {
    return isOverIfNotDone(this.#order, this.pipeline);
  }

  /** Whether no call and no write is under way. */
  get isIdle(): boolean {
    return this.#call === null && !this.#mustWait;
  }

  /** Whether nothing can be written now. */
  get #mustWait(): boolean {
    return this.#next !== null || this.#refused !== null;
  }

  /** Of the results that its steps have returned. */
  get resultChars(): number {
    return this.#resultChars;
  }

  /** Does what is to be done next, when its time has come; nothing where something is under way or waited for already. */
  proceed(): void {
    if (this.#host.isOver() || !this.isIdle || this.#timer !== null || this.#slots?.isQueued === true) return;
    const { state, asked } = this.#order;
    switch (state.status) {
      case "running":
      case "rolling_back": {
        if (asked === "cancel") return this.#write(decideStepCanceled(this.#order, this.pipeline, null));
        if (asked === "pause") return this.#write({ kind: "paused", atMs: this.#host.clock.now() });
        const { crashes, waitMs: lengthMs } = state.call;
        const crashed =
          crashes === 0 ? null : decideCrashed(this.#order, this.#host.crashesMax, this.#host.clock.now());
        if (crashed !== null) return this.#write(crashed);
        const waitMs = lengthMs === 0 ? 0 : lengthMs - this.#waitedMs;
        if (waitMs <= 0) return this.#makeCall();
        return this.#isCountedWrong ? this.#countAnew() : this.#callAfter(waitMs);
      }
      case "scheduled": {
        const due = { clock: "wall", atMs: state.startAtMs } as const;
        return this.#whenDue(due, (atMs) => ({ kind: "started", atMs, stepName: state.stepName }));
      }
      case "waiting": {
        const { limitMs } = state;
        const due = limitMs === null ? null : ({ clock: "monotonic", atMs: this.#waitsFromMs + limitMs } as const);
        return this.#whenDue(due, (atMs) => decideTooLate(this.#order, this.pipeline, atMs));
      }
      case "paused":
      case "rollback_incomplete":
      case "set_aside":
        return this.#park(null);
      case "completed":
      case "failed":
      case "canceled":
        this.#slots?.giveBack(); // also of a call that was given up, and may never end
        return this.#host.finished(this);
    }
  }

  /** Asks something of the order; resolves when it is durable, or refused. */
  act(request: ActionRequest): Promise<ActionOutcome> {
    return new Promise((answer) => {
      this.#asked ??= [];
      this.#asked.push({ request, answer });
      this.#takeAsked();
    });
  }

  /** Gives up whatever waits or is under way: nothing more comes from this run. */
  stop(reason: string): void {
    if (this.#call !== null) this.#ended = CUT;
    this.#cut(reason);
  }

  #cut(reason: string): void {
    this.#waitNoLonger();
    this.#letGo();
    const call = this.#call;
    if (call === null) return;
    this.#endCall(call);
    call.abort(new StepError(reason, {}));
  }

  /** Gives the order to another incarnation; only while the run is idle. The host hears `finished` or `refused`. */
  giveTo(owner: Incarnation): void {
    this.stop("the order is given to another node");
    const times = handOverTimes(this.#host.clock, this.#since, this.#host.nowOf(owner));
    this.#write({ kind: "owner_changed", owner, callBegun: this.#callBegun, ...times });
  }

  /** The node stops and nobody takes the order: that its call has not begun is recorded, so that nobody takes it for one that was cut. */
  leaveInStore(): void {
    const call = currentCall(this.#order);
    if (call === null || !call.hasBegun || this.#callBegun || !this.isIdle) return;
    this.#write({ kind: "attempt_queued", atMs: this.#host.clock.now() });
  }

  settled(outcome: WriteOutcome): void {
    const next = this.#next;
    this.#next = null;
    const answer = this.#answered;
    this.#answered = null;
    if (outcome.kind !== "applied" || next === null) {
      answer?.({ kind: "unknown" });
      this.#letGo();
      this.#refused = next ?? this.#order;
      return outcome.kind === "fenced" ? this.#host.fenced() : this.#host.refused(this);
    }
    const before = this.#order;
    this.#order = next;
    this.#waitsFromMs = this.#nextWaitsFromMs;
    answer?.({ kind: "done" });
    if (next.owner !== before.owner) {
      this.#letGo();
      return this.#host.finished(this);
    }
    if (this.#host.lifeLog !== null) logTransition(this.#host.lifeLog, this.pipeline, before, next);
    const remedy = remedyOf(before, next, this.pipeline);
    if (remedy !== null) this.#host.needsPerson(remedy);
    if (this.#call !== null || this.#ended !== null) return this.#goOnWithCall();
    this.#callBegun = false;
    if (currentCall(next)?.hasBegun === true && currentCall(before)?.hasBegun === false) this.proceed();
    this.#takeAsked();
    this.proceed();
  }

  /** Goes on from what the store says of the order, after a write was refused. */
  reread(order: Order): void {
    const { owner } = this.#order;
    const isNext = this.#refused !== null && waitSinceMs(this.#refused) === waitSinceMs(order); // it had been applied before
    const since = isNext ? readingFrom(order, this.#nextWaitsFromMs) : this.#since;
    this.#waitsFromMs = monotonicStart(this.#host.clock, order, since);
    this.#refused = null;
    this.#order = order;
    if (order.owner !== owner) {
      this.stop("the order is another node's");
      return this.#host.finished(this);
    }
    const resultChars = order.steps.reduce((sum, { result }) => sum + (result?.length ?? 0), 0);
    this.#host.grew(resultChars - this.#resultChars);
    this.#resultChars = resultChars;
    if (this.#call !== null && !this.#call.isOf(order)) this.#cut("the order went on without it");
    if (this.#call !== null || this.#ended !== null) return this.#goOnWithCall();
    this.#callBegun = false;
    this.#takeAsked();
    this.proceed();
  }

  /** Something was written during the call. */
  #goOnWithCall(): void {
    if (this.#order.asked === "cancel") this.#call?.abort(new StepError("the order is canceled", {}));
    const ended = this.#ended;
    if (ended === CUT) {
      // What was asked is left to whoever goes on with the order, and so is what the call has done. But a cancellation says that it is not known.
      if (this.#order.asked === "cancel") this.#write(decideStepCanceled(this.#order, this.pipeline, null));
      return;
    }
    this.#ended = null;
    if (ended === null) return this.#takeAsked();
    this.#write(decide(this.#order, this.pipeline, ended));
  }

  #takeAsked(): void {
    while (!this.#mustWait) {
      const asked = this.#asked?.shift();
      if (asked === undefined) return;
      const { request, answer } = asked;
      const atMs = this.#host.clock.now();
      const decision = this.#isTooMuch(request)
        ? ({
            kind: "refused",
            reason: `all its results together would have more than ${RESULTS_CHARS_MAX} characters`,
          } as const)
        : decideAction(this.#order, this.pipeline, request, { atMs, callUnderWay: this.#call !== null });
      if (decision.kind === "event") {
        this.#waitNoLonger();
        this.#answered = answer;
        this.#write(decision.event);
      } else {
        answer(decision.kind === "refused" ? decision : { kind: "done" });
      }
    }
  }

  #isTooMuch(request: ActionRequest): boolean {
    return request.action === "complete" && this.#resultChars + request.result.length > RESULTS_CHARS_MAX;
  }

  /** Nobody is answered by this run any more. Whether the write that is under way is applied is not known, or not yet. */
  #letGo(): void {
    this.#answered?.({ kind: "unknown" });
    this.#answered = null;
    for (const { answer } of this.#asked ?? []) answer({ kind: "unknown" });
    this.#asked = null;
  }

  #whenDue(due: Due, event: (atMs: number) => LaterEvent): void {
    const { clock } = this.#host;
    const isDue = due !== null && due.atMs <= (due.clock === "wall" ? clock.now() : clock.monotonic());
    if (!isDue) return this.#park(due);
    if (!this.#host.mayCall()) return this.#host.held(this);
    this.#write(event(clock.now()));
  }

  #park(due: Due): void {
    if (due?.clock === "monotonic" && this.#isCountedWrong) return this.#countAnew();
    this.#slots?.giveBack();
    this.#host.parked(this, due, this.#since);
  }

  /** The wall clock may have been set: what is waited for is counted anew where it was (invariant 8). */
  clockWasSet(): void {
    if (this.#timer === null || !this.#isCountedWrong) return;
    this.#waitNoLonger();
    this.proceed();
  }

  /** Whether the wall clock was set since what it waits for began: another owner would count wrong. */
  get #isCountedWrong(): boolean {
    const since = this.#since;
    return since !== null && wasSet(since.wallMs - since.monotonicMs, wallAheadMs(this.#host.clock));
  }

  /** Has what is left of the wait written down, from now on by the clock as it is: as if the order were given to its owner. */
  #countAnew(): void {
    const times = handOverTimes(this.#host.clock, this.#since, null);
    this.#write({ kind: "owner_changed", owner: this.#order.owner, callBegun: false, ...times });
  }

  /** When what it waits for began; null: nothing is counted. */
  get #since(): ClockReading | null {
    return readingFrom(this.#order, this.#waitsFromMs);
  }

  /** How long it has waited for what it waits for. */
  get #waitedMs(): number {
    return this.#host.clock.monotonic() - this.#waitsFromMs;
  }

  #callAfter(waitMs: number): void {
    this.#timer = this.#host.clock.after(waitMs, () => {
      this.#timer = null;
      this.#makeCall();
    });
  }

  #waitNoLonger(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = null;
    if (this.#call === null) this.#slots?.giveBack();
  }

  #makeCall(): void {
    if (!this.#host.mayCall()) {
      this.#slots?.giveBack();
      return this.#host.held(this);
    }
    const call = currentCall(this.#order);
    const step = this.pipeline.steps[call?.stepIndex ?? -1];
    if (call === null || step === undefined) {
      throw new Error(`order ${this.#order.orderId} is at no step of its pipeline`);
    }
    const mayBegin = this.#takeSlots(step, call.crashes);
    if (mayBegin && call.hasBegun) return this.#begin(step);
    if (!mayBegin && !call.hasBegun) return; // it is on record already
    this.#write({ kind: mayBegin ? "attempt_started" : "attempt_queued", atMs: this.#host.clock.now() });
  }

  /** What a call may keep in memory: what it is given, or a request that it makes of that. */
  get #bytesForCall(): number {
    let bytes = bytesParsed(this.bodyText);
    for (const { result } of this.#order.steps) if (result !== null) bytes += bytesParsed(result);
    return Math.max(bytes, requestCharsMax(this.bodyText.length + this.#resultChars));
  }

  /** @returns whether all that the call needs is held; if not, it is waited for */
  #takeSlots(step: Step, crashes: number): boolean {
    const { slots, callMemory } = this.#host;
    if (step.concurrency === null && crashes === 0 && callMemory.isFree(this.user) && this.#slots === null) return true; // like most
    const limits: NamedLimit[] = [];
    if (this.#isSuspect(crashes)) limits.push(SUSPECTS);
    // Each version counts for itself: it may have another limit, or another kind of one.
    if (step.concurrency !== null) {
      limits.push({ ...step.concurrency, key: `${pipelineLabel(this.pipeline)}\n${step.name}` });
    }
    if (limits.length === 0 && callMemory.isFree(this.user) && this.#slots === null) return true;
    this.#slots ??= new CallSlots(slots, callMemory, this.user, () => {
      if (this.isIdle) this.#makeCall();
    });
    return this.#slots.take(limits, () => this.#bytesForCall);
  }

  #isSuspect(crashes: number): boolean {
    return crashes > 0 && crashes >= this.#host.crashesMax - 1;
  }

  #begin(step: Step): void {
    const call = new Attempt(this, step);
    this.#call = call;
    this.#callBegun = true;
    this.#host.callsUnderWayChanged(1);
    this.#host.onCall?.(this.#order.orderId, step.name);
    if (this.#host.lifeLog !== null) logCall(this.#host.lifeLog, this.#order.orderId, step.name, call.direction);
    try {
      const result = call.make();
      this.#slots?.begun();
      if (!isThenable(result)) return this.#callEnded(call, result, null);
      call.timer = this.#host.clock.after(step.timeoutMs, () => this.#timeOut(call));
      result.then(
        (value) => this.#callEnded(call, value, null),
        (error: unknown) => this.#callEnded(call, undefined, { error }),
      );
    } catch (error) {
      this.#callEnded(call, undefined, { error });
    }
  }

  #timeOut(call: Attempt): void {
    const error = new StepError(`timed out after ${call.step.timeoutMs} ms`, { unknown: true });
    call.timedOut = error;
    call.abort(error);
    // One that can say at once that it has sent nothing yet is heard.
    this.#host.clock.nextTurn(() => {
      call.isLingering = this.#call === call;
      this.#callEnded(call, undefined, { error });
    });
  }

  #callEnded(call: Attempt, value: unknown, thrown: { error: unknown } | null): void {
    if (this.#call !== call) return this.#slots?.ended(call);
    this.#endCall(call);
    const isCut = call.timedOut !== null && thrown !== null && !saysNothingSent(thrown.error);
    const outcome = this.#outcomeOf(call, value, isCut ? { error: call.timedOut } : thrown);
    if (this.#mustWait) this.#ended = outcome;
    else this.#write(decide(this.#order, this.pipeline, outcome));
  }

  #endCall(call: Attempt): void {
    this.#call = null;
    call.timer?.[Symbol.dispose]();
    call.end();
    this.#host.callsUnderWayChanged(-1);
    // What may end the node is to be alone until it has ended.
    if (call.isLingering && this.#isSuspect(currentCall(this.#order)?.crashes ?? 0))
      this.#slots?.keepFor(call, SUSPECTS.key);
    else this.#slots?.giveBack();
  }

  #outcomeOf(call: Attempt, value: unknown, thrown: { error: unknown } | null): CallOutcome {
    const atMs = this.#host.clock.now();
    let failure = thrown;
    if (failure === null) {
      // What a rollback returns is of no interest to anybody.
      const encoded = call.direction === "run" ? encodeResult(value, this.#resultChars) : NOTHING;
      if (encoded.ok) return { kind: "succeeded", atMs, result: encoded.text };
      // It has done its work, and that is to be undone.
      failure = { error: new StepError(`the step ${encoded.error}`, { permanent: true, unknown: true }) };
    }
    const { permanent: isPermanent, unknown, shortage, retryAfterMs } = failureTraits(failure.error);
    return {
      kind: "failed",
      atMs,
      error: describeError(failure.error),
      permanent: isPermanent,
      // What is not known of a verification is not known of the attempts before it, and that is on record.
      unknown: unknown && !call.isVerifying,
      formerNotDone: call.formerNotDone,
      shortage,
      lingers: call.isLingering,
      retryAfterMs,
      elapsedMs: Math.round((currentCall(this.#order)?.elapsedMs ?? 0) + this.#waitedMs),
      random: this.#host.random(),
    };
  }

  #write(event: LaterEvent): void {
    const order = this.#order;
    const next = evolve(order, event);
    this.#next = next;
    const goesOnWaiting = event.kind !== "owner_changed" && waitSinceMs(next) === waitSinceMs(order);
    this.#nextWaitsFromMs = goesOnWaiting ? this.#waitsFromMs : Math.round(this.#host.clock.monotonic());
    const [formerStatus, status] = [listedStatus(order), listedStatus(next)];
    if ("result" in event && event.result !== undefined) {
      this.#resultChars += event.result.length;
      this.#host.grew(event.result.length);
    }
    this.#host.advance(
      {
        kind: "advance",
        orderId: order.orderId,
        owner: order.owner,
        expectedRevision: order.revision,
        event,
        newStatus: status === formerStatus ? null : status,
        formerStatus,
        user: this.user,
      },
      this,
    );
  }
}

const CUT = Symbol("a call that was cut");

/** Whether it is a step's own word that its work was not done. */
function saysNothingSent(error: unknown): boolean {
  return isStepError(error) && !failureTraits(error).unknown;
}

const NOTHING = { ok: true, text: null } as const;

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}
