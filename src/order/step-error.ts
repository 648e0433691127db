/** What a step can say about its failure, by what it throws. */

/**
 * Marks errors of this kind: a pipeline may come with a copy of the package of its own, so that the class can't tell. In
 * the registry of all realms for the same reason.
 */
const MARK = Symbol.for("order-process.step-error");

/** What a failure means for the attempts to come. */
export interface FailureTraits {
  /** Another attempt can't help. */
  readonly permanent: boolean;
  /** The work may have been done all the same. */
  readonly unknown: boolean;
  /** The next attempt must wait for so long; null: not said. */
  readonly retryAfterMs: number | null;
  /** A shortage of this node's own (descriptors, ports, memory for sockets): the attempt does not count. */
  readonly shortage: boolean;
}

/** An error with what it means. */
export class StepError extends Error implements FailureTraits {
  override readonly name = "StepError";
  readonly permanent: boolean;
  readonly unknown: boolean;
  readonly retryAfterMs: number | null;
  readonly shortage: boolean;
  readonly [MARK] = true;

  constructor(error: unknown, traits: Partial<FailureTraits>) {
    super(textOf(error), { cause: error });
    this.permanent = traits.permanent ?? false;
    this.unknown = traits.unknown ?? false;
    this.retryAfterMs = traits.retryAfterMs ?? null;
    this.shortage = traits.shortage ?? (!this.permanent && isShortage(error));
  }
}

/** To be thrown by a step: another attempt can't help, the order is rolled back. Takes an error or a text. */
export function permanent(error: unknown): StepError {
  return new StepError(error, { permanent: true });
}

/** To be thrown by a step that can't know whether its work was done: its connection broke off before the answer came, say. */
export function uncertain(error: unknown): StepError {
  return new StepError(error, { unknown: true });
}

/**
 * To be thrown by a step that was told to come again later: the next attempt waits so long at least.
 * @param delayMs in milliseconds, an hour at the most; what is no number says nothing
 */
export function retryAfter(error: unknown, delayMs: number): StepError {
  return new StepError(error, { retryAfterMs: delayMs });
}

/** Whether it is an error of this kind, of whatever copy of the package. */
export function isStepError(thrown: unknown): boolean {
  return typeof thrown === "object" && thrown !== null && MARK in thrown;
}

const NO_TRAITS: FailureTraits = Object.freeze({
  permanent: false,
  unknown: false,
  retryAfterMs: null,
  shortage: false,
});
const SHORTAGE: FailureTraits = Object.freeze({ ...NO_TRAITS, shortage: true });

/** What a thrown value says of the attempts to come. It may be anything, also what throws when it is looked at. */
export function failureTraits(thrown: unknown): FailureTraits {
  try {
    if (!isStepError(thrown)) return isShortage(thrown) ? SHORTAGE : NO_TRAITS;
    const {
      permanent: isPermanent,
      unknown,
      retryAfterMs,
      shortage,
    } = thrown as { readonly [Trait in keyof FailureTraits]: unknown };
    return {
      permanent: isPermanent === true,
      unknown: unknown === true,
      retryAfterMs: typeof retryAfterMs === "number" && Number.isFinite(retryAfterMs) ? retryAfterMs : null,
      shortage: shortage === true,
    };
  } catch {
    return NO_TRAITS;
  }
}

/** Codes of system calls that failed for want of something of this process or machine, whatever they were to do. */
const SHORTAGES: ReadonlySet<string> = new Set(["EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM"]);

/** Errors are seldom wrapped deeper. */
const CAUSES_MAX = 5;

/**
 * Whether something was thrown because this node was short of something. Only what Node says of a system call counts, also as the
 * cause of another error, as fetch has it; of an address with several, all must have failed for that.
 */
export function isShortage(thrown: unknown): boolean {
  let error = thrown;
  for (let depth = 0; depth < CAUSES_MAX && error instanceof Error; depth++) {
    if (error instanceof AggregateError) return error.errors.length > 0 && error.errors.every(isOneShortage);
    if (isOneShortage(error)) return true;
    error = error.cause;
  }
  return false;
}

function isOneShortage(error: unknown): boolean {
  if (!(error instanceof Error) || !("code" in error) || !("syscall" in error)) return false;
  return typeof error.syscall === "string" && typeof error.code === "string" && SHORTAGES.has(error.code);
}

/** A text for whatever was thrown, even for what can't be made one. What fetch throws says why in its cause. */
export function textOf(thrown: unknown): string {
  try {
    if (!(thrown instanceof Error)) return String(thrown);
    const text: unknown = thrown.message || thrown.name;
    if (typeof text !== "string") return String(text);
    const why = causeOf(thrown);
    return why === "" || text.includes(why) ? text : `${text}: ${why}`;
  } catch {
    return "something was thrown that can't be shown";
  }
}

function causeOf({ cause }: Error): string {
  // Of an address with several, connecting to all has failed.
  if (cause instanceof AggregateError) return cause.errors.map(textOf).join(", ");
  return cause instanceof Error ? cause.message : "";
}
