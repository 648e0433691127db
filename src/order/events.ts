/** What can happen to an order. One event is one committed write is one revision; what each does, evolve.ts says. */
import type { SetAsideReason } from "./status.ts";

/** One start of a node, numbered by the store; grows with every start of any node. */
export type Incarnation = number;

/** JSON as text. */
export type JsonText = string;

/** What is known of the work of a step that has not completed. */
export type Outcome = "not_done" | "unknown";

/** A step whose work a former order did, and that this one goes on from. */
export interface CarriedStep {
  readonly stepName: string;
  readonly result: JsonText | null;
}

/** What happened to an order. The first is always `created`. */
export type OrderEvent =
  /** The order exists, and its first step (that is not carried over) has started, unless it starts later. */
  | {
      readonly kind: "created";
      readonly atMs: number;
      readonly owner: Incarnation;
      readonly stepName: string;
      /** The step does not start before then. */
      readonly startAtMs?: number;
      /** The failed or canceled order that this one is made again from, and who asked for that. */
      readonly retryOf?: string;
      readonly by?: string;
      /** The steps before `stepName`. */
      readonly carried?: readonly CarriedStep[];
    }
  /** The time of a scheduled order has come: its step has started. */
  | { readonly kind: "started"; readonly atMs: number; readonly stepName: string }
  /** The step that the order was at ended well; the named one has started, or (null) the order is completed. */
  | {
      readonly kind: "step_completed";
      readonly atMs: number;
      readonly nextStepName: string | null;
      readonly result?: JsonText;
      /** Who completed it from outside, where it waited for a signal; then there is a result, too. */
      readonly by?: string;
    }
  /** The step's run ended well; now the step waits for a signal. */
  | {
      readonly kind: "step_waiting";
      readonly atMs: number;
      /** Null: for good. */
      readonly limitMs: number | null;
      readonly result?: JsonText;
    }
  /** The signal came while the run of its step was under way: the step is complete as soon as that has ended. */
  | { readonly kind: "signal_received"; readonly atMs: number; readonly result: JsonText; readonly by: string }
  /** An attempt of a run or a rollback failed and will be made again. */
  | {
      readonly kind: "attempt_failed";
      readonly atMs: number;
      readonly error: string;
      /** The wait before the next attempt. */
      readonly delayMs: number;
      /** Since the first attempt could begin. Absent in stores of before: then the next attempt has no event of its own. */
      readonly elapsedMs?: number;
      /** This attempt, or one before it, may have done its work. */
      readonly unknown?: true;
      /** It was for a shortage of the node's own, and does not count. */
      readonly shortage?: true;
      /** Its retry policy is used up, and it is tried again without end: it can't be given up. */
      readonly endless?: true;
      /** Its time was over, and its code goes on all the same. */
      readonly lingers?: true;
    }
  /** The call that the order is at has to wait, and has not begun. */
  | { readonly kind: "attempt_queued"; readonly atMs: number }
  /** The call that the order is at begins (evolve.ts, invariant 6). */
  | { readonly kind: "attempt_started"; readonly atMs: number }
  /** Nothing runs the order any more until an operator decides. */
  | { readonly kind: "set_aside"; readonly atMs: number; readonly reason: SetAsideReason; readonly error?: string }
  /** An operator has an order that was set aside tried again. */
  | { readonly kind: "retried"; readonly atMs: number; readonly by: string }
  /** The step failed for good; that step's rollback has started, or (null) there is nothing to roll back. */
  | {
      readonly kind: "step_failed";
      readonly atMs: number;
      readonly error: string;
      readonly rollbackIndex: number | null;
      readonly unknown?: true;
      /** Who said so, where an operator had to, and why. */
      readonly by?: string;
      readonly reason?: string;
    }
  /** The rollback ended well; that step's rollback has started, or (null) the order is failed or canceled, finally. */
  | { readonly kind: "step_rolled_back"; readonly atMs: number; readonly rollbackIndex: number | null }
  /** The rollback has used up its attempts; an operator must look. */
  | { readonly kind: "rollback_abandoned"; readonly atMs: number; readonly error: string }
  /** An operator has the abandoned rollback tried again. */
  | { readonly kind: "rollback_retried"; readonly atMs: number; readonly by: string }
  /** An operator has undone the step by other means, or leaves it as it is. Then as after `step_rolled_back`. */
  | {
      readonly kind: "rollback_skipped";
      readonly atMs: number;
      readonly by: string;
      readonly reason: string;
      readonly rollbackIndex: number | null;
    }
  /** The order is to be canceled when the call that is under way has ended. */
  | { readonly kind: "cancel_requested"; readonly atMs: number; readonly by: string; readonly reason: string | null }
  /** The order, at no call, is canceled: that step's rollback has started, or (null) there is nothing to roll back. */
  | {
      readonly kind: "canceled";
      readonly atMs: number;
      readonly by: string;
      readonly reason: string | null;
      readonly rollbackIndex: number | null;
    }
  /** The call that a cancellation waited for has ended. Then as after `canceled`. */
  | {
      readonly kind: "step_canceled";
      readonly atMs: number;
      readonly rollbackIndex: number | null;
      readonly outcome: "done" | Outcome;
      readonly result?: JsonText;
      readonly error?: string;
    }
  /** The order is to be paused when the call that is under way has ended. */
  | { readonly kind: "pause_requested"; readonly atMs: number; readonly by: string }
  /** `by` is absent where a pause that was asked for happens without the end of a call: its owner has changed meanwhile. */
  | { readonly kind: "paused"; readonly atMs: number; readonly by?: string }
  | { readonly kind: "resumed"; readonly atMs: number; readonly by: string }
  /** Another incarnation owns the order now; a call that had begun is made again. */
  | {
      readonly kind: "owner_changed";
      readonly atMs: number;
      readonly owner: Incarnation;
      /**
       * False: the former owner says that it had not begun the current call. True: what the record says holds. Absent in stores of
       * before: then a call that is made again has no event of its own.
       */
      readonly callBegun?: boolean;
      /** What the former owner's clock showed at that moment, as far as the new one knows; absent: the same as `atMs`. */
      readonly formerAtMs?: number;
      /** How the former owner ended, where it was not the one that gave the order away. */
      readonly former?: "died" | "drained";
    };

/** An event of an order that exists. */
export type LaterEvent = Exclude<OrderEvent, { kind: "created" }>;

/** What people did to an order, for the record. */
export interface Intervention {
  readonly action: "cancel" | "pause" | "resume" | "retry" | "skip" | "complete";
  readonly atMs: number;
  readonly by: string;
  readonly reason: string | null;
}

/** What people did to an order. */
export function interventionsOf(history: readonly OrderEvent[]): Intervention[] {
  return history.flatMap((event): Intervention[] => {
    const did = (action: Intervention["action"], by: string, reason: string | null = null): Intervention[] => [
      { action, atMs: event.atMs, by, reason },
    ];
    switch (event.kind) {
      case "cancel_requested":
      case "canceled":
        return did("cancel", event.by, event.reason);
      case "pause_requested":
        return did("pause", event.by);
      case "retried":
        return did("retry", event.by);
      case "step_failed":
        return event.by === undefined ? [] : did("cancel", event.by, event.reason ?? null);
      case "paused":
        return event.by === undefined ? [] : did("pause", event.by);
      case "resumed":
        return did("resume", event.by);
      case "rollback_retried":
        return did("retry", event.by);
      case "rollback_skipped":
        return did("skip", event.by, event.reason);
      case "signal_received":
        return did("complete", event.by);
      case "created":
        return event.by === undefined ? [] : did("retry", event.by);
      case "step_completed":
        return event.by === undefined ? [] : did("complete", event.by);
      default:
        return [];
    }
  });
}
