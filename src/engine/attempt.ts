/** One call of a step's run or rollback: what it is given, and how it is asked and given up. */
import { bytesParsed } from "../order/json-size.ts";
import { currentCall, type Order } from "../order/order.ts";
import {
  idempotencyKey,
  type JsonObject,
  type MeteredCall,
  type RollbackContext,
  type Step,
  type StepContext,
  type StepLog,
} from "../order/pipeline.ts";
import { permanent, textOf } from "../order/step-error.ts";
import type { Timer } from "../runtime/clock.ts";
import type { CallMemory } from "./call-memory.ts";

/** Whose attempt it is. */
export interface AttemptOf {
  /** As it is when the call is made. */
  readonly order: Order;
  readonly user: string;
  readonly bodyText: string;
  /** The step has failed for good, unless it is found out that it was done. */
  readonly isOverIfNotDone: boolean;
  /** Where a step's own lines go. */
  readonly stepLog: (orderId: string, step: string) => StepLog;
  /** What the call keeps counts here. */
  readonly callMemory: CallMemory;
}

/** What a call keeps. */
interface Given {
  body?: JsonObject;
  results?: JsonObject;
  /** Counted for it. */
  bytes: number;
}

/** Of a call that is over. */
const UNCOUNTED: Given = Object.freeze({ bytes: 0 });

/** An error's text is kept with the order; more than this is cut. */
const ERROR_CHARS_MAX = 1_000;

/** What a call is given is made only when it asks for it: most calls don't. */
export class Attempt implements RollbackContext, MeteredCall {
  readonly step: Step;
  /** Its limit. */
  timer: Timer | null = null;
  /** What it is given up with, where it has timed out. */
  timedOut: Error | null = null;
  /** It was given up when its time was over, and has not ended. */
  isLingering = false;
  /** It was verified that the attempts before it have done nothing. */
  formerNotDone = false;
  /** It has not called the step yet: it finds out what the attempts before it have done. */
  isVerifying = false;
  readonly #of: AttemptOf;
  /** As it was when the call was made. */
  readonly #order: Order;
  /** Null: it has asked for nothing. */
  #given: Given | null = null;
  #controller: AbortController | null = null;
  #abortReason: Error | null = null;

  constructor(of: AttemptOf, step: Step) {
    this.#of = of;
    this.#order = of.order;
    this.step = step;
  }

  get direction(): "run" | "rollback" {
    return this.#order.state.status === "running" ? "run" : "rollback";
  }

  get attempt(): number {
    return currentCall(this.#order)?.attempt ?? 1;
  }

  /** Calls the step's function. */
  make(): unknown {
    const { step } = this;
    if (this.direction === "rollback") return step.rollback?.(this);
    const isUnknown = currentCall(this.#order)?.isUnknown === true;
    return isUnknown && step.verify !== undefined ? this.#verifyAndRun() : step.run(this);
  }

  get order(): StepContext["order"] {
    return { orderId: this.#order.orderId, user: this.#of.user };
  }

  get stepName(): string {
    return this.step.name;
  }

  get body(): JsonObject {
    return (this.#kept.body ??= this.#parse(this.#of.bodyText) as JsonObject);
  }

  get results(): JsonObject {
    return (this.#kept.results ??= Object.fromEntries(
      this.#order.steps
        .slice(0, currentCall(this.#order)?.stepIndex ?? 0)
        .flatMap(({ name, result }) => (result === null ? [] : [[name, this.#parse(result)]])),
    ));
  }

  get result(): unknown {
    const result = this.#order.steps.find(({ name }) => name === this.step.name)?.result ?? null;
    return result === null ? undefined : this.#parse(result);
  }

  get #kept(): Given {
    if (this.#given === UNCOUNTED) return { bytes: 0 };
    this.#given ??= { bytes: 0 };
    return this.#given;
  }

  get givenChars(): number {
    return this.#order.steps.reduce((sum, { result }) => sum + (result?.length ?? 0), this.#of.bodyText.length);
  }

  keepsOnly(bytes: number): void {
    if (this.#given === UNCOUNTED) return;
    const formerly = this.#given?.bytes ?? 0;
    this.#given = bytes === 0 ? null : { bytes };
    if (bytes !== formerly) this.#of.callMemory.changed(bytes - formerly);
  }

  /** It is over. Code of it that goes on may still ask for what it is given: that counts no more, as nobody knows when it ends. */
  end(): void {
    this.keepsOnly(0);
    this.#given = UNCOUNTED;
  }

  /** A step may keep it until its call has ended. */
  #parse(json: string): unknown {
    this.#given ??= { bytes: 0 };
    if (this.#given !== UNCOUNTED) {
      const bytes = bytesParsed(json);
      this.#given.bytes += bytes;
      this.#of.callMemory.changed(bytes);
    }
    return JSON.parse(json) as unknown;
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
    return this.#of.stepLog(this.#order.orderId, this.step.name);
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
    this.isVerifying = true;
    const found: unknown = await this.step.verify?.(this);
    if (typeof found !== "object" || found === null || !("done" in found) || typeof found.done !== "boolean") {
      throw permanent("verify must return { done: true, result } or { done: false }");
    }
    if (found.done) return "result" in found ? found.result : undefined;
    this.formerNotDone = true;
    if (this.#abortReason !== null) throw this.#abortReason;
    if (this.#of.isOverIfNotDone) throw permanent(this.#order.steps.at(-1)?.error ?? "it has failed for good");
    this.isVerifying = false;
    return this.step.run(this);
  }
}

/** A text for whatever a step has thrown, not too long a one. */
export function describeError(error: unknown): string {
  const text = textOf(error);
  return text.length > ERROR_CHARS_MAX ? `${text.slice(0, ERROR_CHARS_MAX)}…` : text;
}
