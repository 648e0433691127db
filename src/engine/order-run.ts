/**
 * Carries one order from a committed state to the next: calls its current step, decides what follows, has that committed,
 * and goes on. One object per order in flight.
 *
 * 1. A step is called only after the write that started it is durable.
 * 2. At most one call and one write are under way per order. Both at once only where somebody asks something of the order during a
 *    call; what the call says then waits for the write.
 * 3. What a call says after it has been given up (timed out, stopped) is not heard.
 * 4. Whoever asks something of the order is answered when that is durable, or when this run lets go of the order.
 * 5. When the store refuses a write, nothing more is written until the order has been read again (`reread`); a call that is under way
 *    goes on meanwhile, and afterwards if the order is still at it.
 */
import { type ActionRequest, decideAction } from "../order/actions.ts";
import { type CallOutcome, decide, decideStepCanceled, decideTooLate } from "../order/decide.ts";
import { currentCall, evolve, type Incarnation, isFinal, type LaterEvent, type Order } from "../order/order.ts";
import {
  idempotencyKey,
  type JsonObject,
  type Pipeline,
  pipelineLabel,
  type RollbackContext,
  type Step,
  type StepContext,
  type StepLog,
} from "../order/pipeline.ts";
import { encodeResult, RESULTS_CHARS_MAX } from "../order/result.ts";
import { failureTraits, permanent, StepError, textOf } from "../order/step-error.ts";
import type { AdvanceWrite, WriteOutcome } from "../store/store.ts";
import type { WriteListener } from "./group-commit.ts";
import type { Slots } from "./slots.ts";

/** What an order's run needs from the engine. */
export interface RunHost {
  now(): number;
  random(): number;
  /** False while the node is stopping, or may have been taken for dead: no call begins. */
  mayCall(): boolean;
  /** A call was due while none may begin: `proceed` is to be called again, or the order given away. */
  held(run: OrderRun): void;
  /** Has a write made durable. */
  advance(write: AdvanceWrite, listener: WriteListener): void;
  /** A call begins or has ended. */
  callsUnderWayChanged(by: 1 | -1): void;
  /** The order keeps so many more characters in memory. */
  grew(chars: number): void;
  /** Nothing is to be done before that time, or (null) before somebody asks for it. */
  parked(run: OrderRun, dueMs: number | null): void;
  /** The order is final, or is another's: nothing is left to do. */
  finished(run: OrderRun): void;
  /** The store refused a write: what is known of the order may be out of date. */
  refused(run: OrderRun): void;
  /** The store takes nothing from this incarnation any more: it counts as dead. */
  fenced(): void;
  /** Where a step's own lines go. */
  stepLog(orderId: string, step: string): StepLog;
  readonly slots: Slots;
  /** A person must look at the order: the rollback of that step has failed for good. */
  needsOperator(order: Order, step: string, error: string): void;
  /** Null where the log level makes the lines of an order's life unwanted. */
  readonly lifeLog: ((line: string) => void) | null;
}

/** How something that was asked of an order ended. */
export type ActionOutcome =
  | { readonly kind: "done" }
  | { readonly kind: "refused"; readonly reason: string }
  /** The order is another's by now, or the store is away: whether it was done is not known. */
  | { readonly kind: "unknown" };

interface Asked {
  readonly request: ActionRequest;
  readonly answer: (outcome: ActionOutcome) => void;
}

/** setTimeout can't wait longer. */
export const TIMER_MS_MAX = 2 ** 31 - 1;

/** An error's text is kept with the order; more than this is cut. */
const ERROR_CHARS_MAX = 1_000;

export class OrderRun implements WriteListener {
  readonly user: string;
  readonly bodyText: string;
  readonly pipeline: Pipeline;
  readonly #host: RunHost;
  /** As last committed. */
  #order: Order;
  /** As it will be when the write under way is durable. */
  #next: Order | null = null;
  /** The order is to be read again (invariant 5). */
  #isOutOfDate = false;
  /** The wait before a call. */
  #timer: NodeJS.Timeout | null = null;
  #call: Call | null = null;
  /** Whether the call that the order is at was made by this run, however it went. */
  #callBegun = false;
  /** How a call ended, while a write was under way (invariant 2). */
  #ended: CallOutcome | null = null;
  /** The step that a slot is waited for. */
  #queuedFor: Step | null = null;
  #asked: Asked[] | null = null;
  /** Who waits for the write that is under way. */
  #answered: Asked["answer"] | null = null;
  #resultChars = 0;

  constructor(host: RunHost, pipeline: Pipeline, order: Order, user: string, bodyText: string) {
    this.#host = host;
    this.pipeline = pipeline;
    this.#order = order;
    this.user = user;
    this.bodyText = bodyText;
    for (const { result } of order.steps) if (result !== null) this.#resultChars += result.length;
  }

  get order(): Order {
    return this.#order;
  }

  /** Whether no call and no write is under way. */
  get isIdle(): boolean {
    return this.#call === null && !this.#mustWait;
  }

  /** Whether nothing can be written now. */
  get #mustWait(): boolean {
    return this.#next !== null || this.#isOutOfDate;
  }

  /** Of the results that its steps have returned. */
  get resultChars(): number {
    return this.#resultChars;
  }

  /** Does what is to be done next, when its time has come; nothing where something is under way or waited for already. */
  proceed(): void {
    if (!this.isIdle || this.#timer !== null || this.#queuedFor !== null) return;
    const { state, asked, changeTimeMs } = this.#order;
    switch (state.status) {
      case "running":
      case "rolling_back": {
        if (asked === "cancel") return this.#write(decideStepCanceled(this.#order, this.pipeline, null));
        if (asked === "pause") return this.#write({ kind: "paused", atMs: this.#host.now() });
        const { notBeforeMs } = state.call;
        // Never longer than the wait was meant to be, should the clock have been set back since.
        const waitMs = notBeforeMs === null ? 0 : notBeforeMs - Math.max(this.#host.now(), changeTimeMs);
        return waitMs > 0 ? this.#callAfter(waitMs) : this.#makeCall();
      }
      case "scheduled":
        return this.#atTime(state.startAtMs, (atMs) => ({ kind: "started", atMs, stepName: state.stepName }));
      case "waiting":
        return this.#atTime(state.deadlineMs, (atMs) => decideTooLate(this.#order, this.pipeline, atMs));
      case "paused":
      case "rollback_incomplete":
        return this.#host.parked(this, null);
      case "completed":
      case "failed":
      case "canceled":
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
    const event = { kind: "owner_changed", atMs: this.#host.now(), owner } as const;
    this.#write(this.#callBegun ? event : { ...event, callBegun: false });
  }

  settled(outcome: WriteOutcome): void {
    const next = this.#next;
    this.#next = null;
    const answer = this.#answered;
    this.#answered = null;
    if (outcome.kind !== "applied" || next === null) {
      answer?.({ kind: "unknown" });
      this.#letGo();
      this.#isOutOfDate = true;
      return outcome.kind === "fenced" ? this.#host.fenced() : this.#host.refused(this);
    }
    const before = this.#order;
    this.#order = next;
    answer?.({ kind: "done" });
    if (next.owner !== before.owner) {
      this.#letGo();
      return this.#host.finished(this);
    }
    if (this.#host.lifeLog !== null) logTransition(this.#host.lifeLog, this.pipeline, before, next);
    const { state, steps } = next;
    if (state.status === "rollback_incomplete" && before.state.status !== "rollback_incomplete") {
      const step = steps[state.stepIndex];
      this.#host.needsOperator(next, step?.name ?? "", step?.error ?? "");
    }
    if (this.#call !== null || this.#ended !== null) return this.#goOnWithCall();
    this.#callBegun = false;
    this.#takeAsked();
    this.proceed();
  }

  /** Goes on from what the store says of the order, after a write was refused. */
  reread(order: Order): void {
    const { owner } = this.#order;
    this.#isOutOfDate = false;
    this.#order = order;
    if (order.owner !== owner) {
      this.stop("the order is another node's");
      return this.#host.finished(this);
    }
    const resultChars = order.steps.reduce((sum, { result }) => sum + (result?.length ?? 0), 0);
    this.#host.grew(resultChars - this.#resultChars);
    this.#resultChars = resultChars;
    if (this.#call !== null && !this.#call.isOf(order)) this.stop("the order went on without it");
    if (this.#call !== null || this.#ended !== null) return this.#goOnWithCall();
    this.#callBegun = false;
    this.#takeAsked();
    this.proceed();
  }

  /** A slot for the call is free, and taken. */
  granted(): void {
    const step = this.#queuedFor;
    this.#queuedFor = null;
    if (step === null) return;
    if (this.#host.mayCall()) return this.#begin(step);
    this.#giveSlotBack(step);
    this.#host.held(this);
  }

  /** Something was written during the call. */
  #goOnWithCall(): void {
    if (this.#order.asked === "cancel") this.#call?.abort(new StepError("the order is canceled", {}));
    const ended = this.#ended;
    this.#ended = null;
    if (ended === null) return this.#takeAsked();
    this.#write(decide(this.#order, this.pipeline, ended));
  }

  #takeAsked(): void {
    while (!this.#mustWait) {
      const asked = this.#asked?.shift();
      if (asked === undefined) return;
      const { request, answer } = asked;
      const atMs = this.#host.now();
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

  #atTime(dueMs: number | null, event: (atMs: number) => LaterEvent): void {
    const atMs = Math.max(this.#host.now(), this.#order.changeTimeMs);
    if (dueMs === null || dueMs > atMs) return this.#host.parked(this, dueMs);
    if (!this.#host.mayCall()) return this.#host.held(this);
    this.#write(event(atMs));
  }

  #callAfter(waitMs: number): void {
    const partMs = Math.min(waitMs, TIMER_MS_MAX);
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (waitMs > partMs) this.#callAfter(waitMs - partMs);
      else this.#makeCall();
    }, partMs);
  }

  #waitNoLonger(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    if (this.#queuedFor !== null) this.#host.slots.leave(this.#slotKey(this.#queuedFor), this);
    this.#queuedFor = null;
  }

  #makeCall(): void {
    if (!this.#host.mayCall()) return this.#host.held(this);
    const step = this.pipeline.steps[currentCall(this.#order)?.stepIndex ?? -1];
    if (step === undefined) throw new Error(`order ${this.#order.orderId} is at no step of its pipeline`);
    const { concurrency } = step;
    if (concurrency !== null && !this.#host.slots.take(this.#slotKey(step), concurrency, this)) {
      this.#queuedFor = step;
      return;
    }
    this.#begin(step);
  }

  #begin(step: Step): void {
    const { status } = this.#order.state;
    const direction = status === "running" ? "run" : "rollback";
    const call = new Call(this, this.#host, step, direction);
    this.#call = call;
    this.#callBegun = true;
    this.#host.callsUnderWayChanged(1);
    if (this.#host.lifeLog !== null) logCall(this.#host.lifeLog, this.#order.orderId, step.name, direction);
    try {
      const result = call.make();
      if (!isThenable(result)) return this.#callEnded(call, result, null);
      call.timer = setTimeout(() => this.#timeOut(call, step.timeoutMs), Math.min(step.timeoutMs, TIMER_MS_MAX));
      result.then(
        (value) => this.#callEnded(call, value, null),
        (error: unknown) => this.#callEnded(call, undefined, { error }),
      );
    } catch (error) {
      this.#callEnded(call, undefined, { error });
    }
  }

  #timeOut(call: Call, timeoutMs: number): void {
    const error = new StepError(`timed out after ${timeoutMs} ms`, { unknown: true });
    this.#callEnded(call, undefined, { error });
    call.abort(error);
  }

  #callEnded(call: Call, value: unknown, thrown: { error: unknown } | null): void {
    if (this.#call !== call) return;
    this.#endCall(call);
    const outcome = this.#outcomeOf(call, value, thrown);
    if (this.#mustWait) this.#ended = outcome;
    else this.#write(decide(this.#order, this.pipeline, outcome));
  }

  #endCall(call: Call): void {
    this.#call = null;
    if (call.timer !== null) clearTimeout(call.timer);
    this.#host.callsUnderWayChanged(-1);
    this.#giveSlotBack(call.step);
  }

  #outcomeOf(call: Call, value: unknown, thrown: { error: unknown } | null): CallOutcome {
    const atMs = this.#host.now();
    let failure = thrown;
    if (failure === null) {
      // What a rollback returns is of no interest to anybody.
      const encoded = call.direction === "run" ? encodeResult(value, this.#resultChars) : NOTHING;
      if (encoded.ok) return { kind: "succeeded", atMs, result: encoded.text };
      // It has done its work, and that is to be undone.
      failure = { error: new StepError(`the step ${encoded.error}`, { permanent: true, unknown: true }) };
    }
    const { permanent: isPermanent, unknown, retryAfterMs } = failureTraits(failure.error);
    return {
      kind: "failed",
      atMs,
      error: describeError(failure.error),
      permanent: isPermanent,
      unknown,
      formerNotDone: call.formerNotDone,
      retryAfterMs,
      random: this.#host.random(),
    };
  }

  #slotKey(step: Step): string {
    // Each version counts for itself: it may have another limit, or another kind of one.
    return `${pipelineLabel(this.pipeline)}\n${step.name}`;
  }

  #giveSlotBack(step: Step): void {
    if (step.concurrency !== null) this.#host.slots.giveBack(this.#slotKey(step));
  }

  #write(event: LaterEvent): void {
    const order = this.#order;
    const next = evolve(order, event);
    this.#next = next;
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
        newStatus: next.state.status === order.state.status ? null : next.state.status,
        formerStatus: order.state.status,
        user: this.user,
      },
      this,
    );
  }
}

const NOTHING = { ok: true, text: null } as const;

/** One call of a run or rollback, and what it is given. Most of it is made only when asked for: most calls don't. */
class Call implements RollbackContext {
  readonly step: Step;
  readonly direction: "run" | "rollback";
  readonly attempt: number;
  /** Its limit. */
  timer: NodeJS.Timeout | null = null;
  /** It was verified that the attempts before it have done nothing. */
  formerNotDone = false;
  readonly #run: OrderRun;
  readonly #host: RunHost;
  /** As it was when the call was made. */
  readonly #order: Order;
  #body: JsonObject | null = null;
  #results: JsonObject | null = null;
  #controller: AbortController | null = null;
  #abortReason: Error | null = null;

  constructor(run: OrderRun, host: RunHost, step: Step, direction: "run" | "rollback") {
    this.#run = run;
    this.#host = host;
    this.#order = run.order;
    this.step = step;
    this.direction = direction;
    this.attempt = currentCall(run.order)?.attempt ?? 1;
  }

  /** Calls the step's function. */
  make(): unknown {
    const { step } = this;
    if (this.direction === "rollback") return step.rollback?.(this);
    const isUnknown = currentCall(this.#order)?.isUnknown === true;
    return isUnknown && step.verify !== undefined ? this.#verifyAndRun() : step.run(this);
  }

  get order(): StepContext["order"] {
    return { orderId: this.#order.orderId, user: this.#run.user };
  }

  get stepName(): string {
    return this.step.name;
  }

  get body(): JsonObject {
    this.#body ??= JSON.parse(this.#run.bodyText) as JsonObject;
    return this.#body;
  }

  get results(): JsonObject {
    this.#results ??= Object.fromEntries(
      this.#order.steps
        .slice(0, currentCall(this.#order)?.stepIndex ?? 0)
        .flatMap(({ name, result }) => (result === null ? [] : [[name, JSON.parse(result) as unknown]])),
    );
    return this.#results;
  }

  get result(): unknown {
    const result = this.#order.steps.find(({ name }) => name === this.step.name)?.result ?? null;
    return result === null ? undefined : (JSON.parse(result) as unknown);
  }

  get idempotencyKey(): string {
    return idempotencyKey(this.#order.orderId, this.step.name, this.direction);
  }

  get fence(): number {
    return this.#order.revision;
  }

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#abortReason !== null) this.#controller.abort(this.#abortReason);
    }
    return this.#controller.signal;
  }

  get log(): StepLog {
    return this.#host.stepLog(this.#order.orderId, this.step.name);
  }

  /** Whether the order is still at it. */
  isOf(order: Order): boolean {
    const call = currentCall(order);
    const { status } = order.state;
    const isSame =
      call !== null && call.attempt === this.attempt && order.steps[call.stepIndex]?.name === this.step.name;
    return isSame && (status === "running") === (this.direction === "run");
  }

  abort(reason: Error): void {
    if (this.#abortReason !== null) return;
    this.#abortReason = reason;
    this.#controller?.abort(reason);
  }

  async #verifyAndRun(): Promise<unknown> {
    const found: unknown = await this.step.verify?.(this);
    if (typeof found !== "object" || found === null || !("done" in found) || typeof found.done !== "boolean") {
      throw permanent("verify must return { done: true, result } or { done: false }");
    }
    if (found.done) return "result" in found ? found.result : undefined;
    this.formerNotDone = true;
    if (this.#abortReason !== null) throw this.#abortReason;
    return this.step.run(this);
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

/** A text for whatever a step has thrown, not too long a one. */
function describeError(error: unknown): string {
  const text = textOf(error);
  return text.length > ERROR_CHARS_MAX ? `${text.slice(0, ERROR_CHARS_MAX)}…` : text;
}

/** The order's life, in the words of the earlier system that ours took over: what led to a call. */
function logCall(lifeLog: (line: string) => void, orderId: string, step: string, direction: "run" | "rollback"): void {
  lifeLog(`[${orderId}]handling step[${step}]`);
  lifeLog(direction === "run" ? `[${orderId}]Start step[${step}]` : `[${orderId}]Rollback step[${step}]`);
}

/** The order's life, in the words of the earlier system that ours took over: what a committed event did. */
function logTransition(lifeLog: (line: string) => void, pipeline: Pipeline, before: Order, after: Order): void {
  const id = `[${after.orderId}]`;
  const nameAt = (order: Order): string =>
    order.state.status === "running" || order.state.status === "rolling_back"
      ? (pipeline.steps[order.state.call.stepIndex]?.name ?? "")
      : "";
  const dispatch = (from: string, to: string): void =>
    lifeLog(`${id}DispatchStepTask,current step: [${from}], next step:[${to}]`);
  const passThrough = (end: string): void => {
    lifeLog(`${id}handling step[${end}]`);
    lifeLog(`${id}Start step[${end}]`);
    lifeLog(`${id}Finish step[${end}]`);
  };

  const from = nameAt(before);
  const { status } = after.state;
  const isAtRest = status === "paused" || status === "waiting" || status === "scheduled";
  if (isAtRest || (before.state.status !== "running" && before.state.status !== "rolling_back")) {
    lifeLog(`${id}Order is ${status}`);
    if (status === "running" || status === "rolling_back") dispatch(nameAt(after), nameAt(after));
    if (isFinal(status)) lifeLog(`${id}Finish Order`);
    return;
  }
  if (before.state.status === "running") {
    const advanced = after.steps.length > before.steps.length;
    const failed = status === "rolling_back" || status === "failed" || status === "canceled";
    const end = "ending" in after.state && after.state.ending.status === "canceled" ? "Canceled" : "Failed";
    if (advanced || status === "completed") lifeLog(`${id}Finish step[${from}]`);
    else lifeLog(`${id}Failure occurs when handling step[${from}]`);
    if (advanced) dispatch(from, nameAt(after));
    else if (failed) dispatch(from, end);
    else if (status === "completed") dispatch(from, "Completed");
    else dispatch(from, from);
    if (failed) passThrough(end);
    if (status === "completed") passThrough("Completed");
  }
  if (status === "rolling_back") dispatch("Failed", nameAt(after));
  if (status === "rollback_incomplete") lifeLog(`${id}Failure occurs when handling step[${from}]`);
  if (isFinal(status)) lifeLog(`${id}Finish Order`);
}
