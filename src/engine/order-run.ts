/**
 * Carries one order from a committed state to the next: calls its current step, decides what follows, has that committed,
 * and goes on. One object per order in flight.
 *
 * 1. A step is called only after the write that started it is durable.
 * 2. At most one call and one write are under way per order, never both.
 * 3. What a call says after it has been given up (timed out, stopped) is not heard.
 */
import { type CallOutcome, decide } from "../order/decide.ts";
import { evolve, type Incarnation, isFinal, type Order } from "../order/order.ts";
import { idempotencyKey, type JsonObject, PermanentError, type Pipeline, type StepContext } from "../order/pipeline.ts";
import type { AdvanceWrite, WriteOutcome } from "../store/store.ts";
import type { WriteListener } from "./group-commit.ts";

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
  /** The order is final, waits for an operator, or is another's: nothing is left to do. */
  finished(run: OrderRun): void;
  /** The store refused a write: what is known of the order may be out of date. */
  refused(run: OrderRun): void;
  /** The store takes nothing from this incarnation any more: it counts as dead. */
  fenced(): void;
  /** Null where the log level makes the lines of an order's life unwanted. */
  readonly lifeLog: ((line: string) => void) | null;
}

/** setTimeout can't wait longer. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** An error's text is kept with the order; more than this is cut. */
const ERROR_CHARS_MAX = 1_000;

export class OrderRun implements WriteListener {
  readonly user: string;
  readonly bodyText: string;
  readonly #host: RunHost;
  readonly #pipeline: Pipeline;
  /** As last committed. */
  #order: Order;
  /** As it will be when the write under way is durable. */
  #next: Order | null = null;
  /** The wait before a call, or the limit of the one under way. */
  #timer: NodeJS.Timeout | null = null;
  #call: Call | null = null;
  /** Whether the call that the order is at was made by this run, however it went. */
  #callBegun = false;

  constructor(host: RunHost, pipeline: Pipeline, order: Order, user: string, bodyText: string) {
    this.#host = host;
    this.#pipeline = pipeline;
    this.#order = order;
    this.user = user;
    this.bodyText = bodyText;
  }

  get order(): Order {
    return this.#order;
  }

  /** Whether no call and no write is under way. */
  get isIdle(): boolean {
    return this.#call === null && this.#next === null;
  }

  /** Makes the current call, when its time has come. */
  proceed(): void {
    const { state } = this.#order;
    if (state.status !== "running" && state.status !== "rolling_back") return this.#host.finished(this);
    const { stepIndex, attempt, notBeforeMs } = state.call;
    const direction = state.status === "running" ? "run" : "rollback";
    // Never longer than the wait was meant to be, should the clock have been set back since.
    const waitMs = notBeforeMs === null ? 0 : notBeforeMs - Math.max(this.#host.now(), this.#order.changeTimeMs);
    if (waitMs > 0) this.#callAfter(waitMs, direction, stepIndex, attempt);
    else this.#makeCall(direction, stepIndex, attempt);
  }

  /** Gives up whatever waits or is under way: nothing more comes from this run. */
  stop(reason: string): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const call = this.#call;
    if (call === null) return;
    this.#call = null;
    this.#host.callsUnderWayChanged(-1);
    call.abort(new Error(reason));
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
    if (outcome.kind === "fenced") return this.#host.fenced();
    if (outcome.kind !== "applied" || next === null) return this.#host.refused(this);
    const before = this.#order;
    this.#order = next;
    this.#callBegun = false;
    if (next.owner !== before.owner) return this.#host.finished(this);
    if (this.#host.lifeLog !== null) logTransition(this.#host.lifeLog, this.#pipeline, before, next);
    this.proceed();
  }

  #callAfter(waitMs: number, direction: "run" | "rollback", stepIndex: number, attempt: number): void {
    const partMs = Math.min(waitMs, TIMER_MS_MAX);
    this.#timer = setTimeout(() => {
      if (waitMs > partMs) this.#callAfter(waitMs - partMs, direction, stepIndex, attempt);
      else this.#makeCall(direction, stepIndex, attempt);
    }, partMs);
  }

  #makeCall(direction: "run" | "rollback", stepIndex: number, attempt: number): void {
    this.#timer = null;
    if (!this.#host.mayCall()) return this.#host.held(this);
    const step = this.#pipeline.steps[stepIndex];
    const action = step?.[direction];
    if (step === undefined || action === undefined) {
      throw new Error(`order ${this.#order.orderId}: step ${stepIndex} has no ${direction}`);
    }
    const call = new Call(this, step.name, direction, attempt);
    this.#call = call;
    this.#callBegun = true;
    this.#host.callsUnderWayChanged(1);
    if (this.#host.lifeLog !== null) logCall(this.#host.lifeLog, this.#order.orderId, step.name, direction);
    if (step.timeoutMs !== undefined) {
      const { timeoutMs } = step;
      this.#timer = setTimeout(() => this.#timeOut(call, timeoutMs), Math.min(timeoutMs, TIMER_MS_MAX));
    }
    try {
      const result = action.call(step, call);
      if (isThenable(result)) {
        result.then(
          () => this.#ended(call, null),
          (error: unknown) => this.#ended(call, { error }),
        );
      } else {
        this.#ended(call, null);
      }
    } catch (error) {
      this.#ended(call, { error });
    }
  }

  #timeOut(call: Call, timeoutMs: number): void {
    const error = new Error(`timed out after ${timeoutMs} ms`);
    this.#ended(call, { error });
    call.abort(error);
  }

  #ended(call: Call, failure: { error: unknown } | null): void {
    if (this.#call !== call) return;
    this.#call = null;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    this.#host.callsUnderWayChanged(-1);
    const atMs = this.#host.now();
    this.#commit(
      failure === null
        ? { kind: "succeeded", atMs }
        : {
            kind: "failed",
            atMs,
            error: describeError(failure.error),
            permanent: failure.error instanceof PermanentError,
            random: this.#host.random(),
          },
    );
  }

  #commit(outcome: CallOutcome): void {
    this.#write(decide(this.#order, this.#pipeline, outcome));
  }

  #write(event: AdvanceWrite["event"]): void {
    const order = this.#order;
    const next = evolve(order, event);
    this.#next = next;
    this.#host.advance(
      {
        kind: "advance",
        orderId: order.orderId,
        owner: order.owner,
        expectedRevision: order.revision,
        event,
        newStatus: next.state.status === order.state.status ? null : next.state.status,
      },
      this,
    );
  }
}

/** One call of a run or rollback, and what it is given. Body and signal are made only when asked for: most calls don't. */
class Call implements StepContext {
  readonly attempt: number;
  readonly #run: OrderRun;
  readonly #stepName: string;
  readonly #direction: "run" | "rollback";
  #body: JsonObject | null = null;
  #controller: AbortController | null = null;
  #abortReason: Error | null = null;

  constructor(run: OrderRun, stepName: string, direction: "run" | "rollback", attempt: number) {
    this.#run = run;
    this.#stepName = stepName;
    this.#direction = direction;
    this.attempt = attempt;
  }

  get order(): StepContext["order"] {
    return { orderId: this.#run.order.orderId, user: this.#run.user };
  }

  get body(): JsonObject {
    this.#body ??= JSON.parse(this.#run.bodyText) as JsonObject;
    return this.#body;
  }

  get idempotencyKey(): string {
    return idempotencyKey(this.#run.order.orderId, this.#stepName, this.#direction);
  }

  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#abortReason !== null) this.#controller.abort(this.#abortReason);
    }
    return this.#controller.signal;
  }

  abort(reason: Error): void {
    this.#abortReason = reason;
    this.#controller?.abort(reason);
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return typeof value === "object" && value !== null && "then" in value && typeof value.then === "function";
}

/** A text for whatever a step has thrown, even for what can't be made one. */
function describeError(error: unknown): string {
  let text: string;
  try {
    const said: unknown = error instanceof Error ? error.message || error.name : error;
    text = String(said);
  } catch {
    text = "a step threw something that can't be shown";
  }
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
  if (before.state.status === "running") {
    const advanced = after.steps.length > before.steps.length;
    const failed = status === "rolling_back" || status === "failed";
    if (advanced || status === "completed") lifeLog(`${id}Finish step[${from}]`);
    else lifeLog(`${id}Failure occurs when handling step[${from}]`);
    if (advanced) dispatch(from, nameAt(after));
    else if (failed) dispatch(from, "Failed");
    else if (status === "completed") dispatch(from, "Completed");
    else dispatch(from, from);
    if (failed) passThrough("Failed");
    if (status === "completed") passThrough("Completed");
  }
  if (status === "rolling_back") dispatch("Failed", nameAt(after));
  if (status === "rollback_incomplete") lifeLog(`${id}Failure occurs when handling step[${from}]`);
  if (isFinal(status)) lifeLog(`${id}Finish Order`);
}
