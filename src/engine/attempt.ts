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

/** What a call keeps beside the body. */
interface Kept {
  results: JsonObject | null;
  /** Null: nobody has asked for it. */
  result: { readonly value: unknown } | null;
  /** Counted for it. */
  bytes: number;
}

/** Of a call that is over: nothing counts any more. */
const OVER: Kept = Object.freeze({ results: null, result: null, bytes: 0 });

const nothingKept = (bytes: number): Kept => ({ results: null, result: null, bytes });

/** A body of so few is part of what an order in flight takes anyway (memory-plan.ts). */
const UNCOUNTED_CHARS = 64;

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
  #body: JsonObject | null = null;
  /** Null: nothing but a small body. */
  #kept: Kept | null = null;
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
    const { bodyText } = this.#of;
    this.#body ??= (bodyText.length > UNCOUNTED_CHARS ? this.#parse(bodyText) : JSON.parse(bodyText)) as JsonObject;
    return this.#body;
  }

  get results(): JsonObject {
    if (this.#kept !== null && this.#kept.results !== null) return this.#kept.results;
    const results = Object.fromEntries(
      this.#order.steps
        .slice(0, currentCall(this.#order)?.stepIndex ?? 0)
        .flatMap(({ name, result }) => (result === null ? [] : [[name, this.#parse(result)]])),
    );
    if (this.#kept !== OVER) (this.#kept ??= nothingKept(0)).results = results;
    return results;
  }

  get result(): unknown {
    const result = this.#order.steps.find(({ name }) => name === this.step.name)?.result ?? null;
    if (result === null) return undefined;
    if (this.#kept !== null && this.#kept.result !== null) return this.#kept.result.value;
    const value = this.#parse(result);
    if (this.#kept !== OVER) (this.#kept ??= nothingKept(0)).result = { value };
    return value;
  }

  get givenChars(): number {
    return this.#order.steps.reduce((sum, { result }) => sum + (result?.length ?? 0), this.#of.bodyText.length);
  }

  keepsOnly(bytes: number): void {
    this.#body = null;
    if (this.#kept === OVER) return;
    const formerly = this.#kept?.bytes ?? 0;
    this.#kept = bytes === 0 ? null : nothingKept(bytes);
    if (bytes !== formerly) this.#of.callMemory.changed(this.#of.user, bytes - formerly);
  }

  /** It is over. Code of it that goes on may still ask for what it is given: that counts no more, as nobody knows when it ends. */
  end(): void {
    if (this.#kept !== null) this.keepsOnly(0);
    this.#kept = OVER;
  }

  /** A step may keep it until its call has ended. */
  #parse(json: string): unknown {
    if (this.#kept !== OVER) {
      const bytes = bytesParsed(json);
      this.#kept ??= nothingKept(0);
      this.#kept.bytes += bytes;
      this.#of.callMemory.changed(this.#of.user, bytes);
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
