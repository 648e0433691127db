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
  /** A shortage of this node's own (descriptors, ports, memory for sockets): nothing was sent, and the attempt does not count. */
  readonly shortage: boolean;
  /** The next attempt must wait for so long; null: not said. */
  readonly retryAfterMs: number | null;
}

/** An error with what it means. */
export class StepError extends Error implements FailureTraits {
  override readonly name = "StepError";
  readonly permanent: boolean;
  readonly unknown: boolean;
  readonly shortage: boolean;
  readonly retryAfterMs: number | null;
  readonly [MARK] = true;

  constructor(error: unknown, traits: Partial<FailureTraits>) {
    super(textOf(error), { cause: error });
    this.permanent = traits.permanent ?? false;
    this.unknown = traits.unknown ?? false;
    this.shortage = traits.shortage ?? false;
    this.retryAfterMs = traits.retryAfterMs ?? null;
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
  shortage: false,
  retryAfterMs: null,
});

/** What a thrown value says of the attempts to come. It may be anything, also what throws when it is looked at. */
export function failureTraits(thrown: unknown): FailureTraits {
  try {
    if (!isStepError(thrown)) return NO_TRAITS;
    const {
      permanent: isPermanent,
      unknown,
      shortage,
      retryAfterMs,
    } = thrown as { readonly [Trait in keyof FailureTraits]: unknown };
    return {
      permanent: isPermanent === true,
      unknown: unknown === true,
      shortage: shortage === true,
      retryAfterMs: typeof retryAfterMs === "number" && Number.isFinite(retryAfterMs) ? retryAfterMs : null,
    };
  } catch {
    return NO_TRAITS;
  }
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
