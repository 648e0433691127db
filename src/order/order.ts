/** What an order is at a moment, and what follows from that alone. How it came to be so, evolve.ts says. */
import type { Incarnation, JsonText, Outcome } from "./events.ts";
import type { ListedStatus, SetAsideReason } from "./status.ts";

/** The call that an order is at: a step's run or rollback. */
export interface CurrentCall {
  /** Position of the step in its pipeline. */
  readonly stepIndex: number;
  /** Which call of this run or rollback it is, from 1. */
  readonly attempt: number;
  /** Whether it may have begun (evolve.ts, invariant 6). */
  readonly hasBegun: boolean;
  /** How many attempts of it failed by themselves; those that a crash cut short, and shortages of the node's own, don't count. */
  readonly failures: number;
  /** How many failed in a row for a shortage of the node's own. */
  readonly shortages: number;
  /** Nodes that died in a row while an attempt of it was under way, or lingered. */
  readonly crashes: number;
  /** When the wait before it began. */
  readonly sinceMs: number;
  /** The wait before it. */
  readonly waitMs: number;
  /** From when the first attempt could begin until `sinceMs`. */
  readonly elapsedMs: number;
  /** It is tried again without end. */
  readonly isEndless: boolean;
  /** A former attempt timed out, was cut short or broke off: it may have done its work. */
  readonly isUnknown: boolean;
  /** The former attempt was given up when its time was over, and its code may go on. Absent, as memory counts, where none has failed. */
  readonly isLingering?: boolean;
  /** The signal that this step would wait for has come already. */
  readonly signal: { readonly result: JsonText; readonly by: string } | null;
}

/** How an order that is rolled back ends, and since when it is known. */
export interface Ending {
  readonly status: "failed" | "canceled";
  readonly sinceMs: number;
}

/** States that a pause can hold. */
export type PausableState =
  | { readonly status: "scheduled"; readonly startAtMs: number; readonly stepName: string }
  | { readonly status: "running"; readonly call: CurrentCall }
  | {
      readonly status: "waiting";
      readonly stepIndex: number;
      /** When the wait for the signal began. */
      readonly sinceMs: number;
      /** How long it waits; null: for good. */
      readonly limitMs: number | null;
    }
  | { readonly status: "rolling_back"; readonly ending: Ending; readonly call: CurrentCall };

/** Where an order is in its life. */
export type OrderState =
  | PausableState
  | { readonly status: "paused"; readonly held: PausableState }
  | {
      readonly status: "set_aside";
      readonly reason: SetAsideReason;
      readonly held: Extract<PausableState, { readonly status: "running" | "rolling_back" }>;
    }
  | { readonly status: "rollback_incomplete"; readonly ending: Ending; readonly stepIndex: number }
  | { readonly status: "completed"; readonly completeTimeMs: number }
  | { readonly status: "failed" | "canceled"; readonly ending: Ending; readonly completeTimeMs: number };

/** A step that has started. */
export interface StepRecord {
  readonly name: string;
  readonly startTimeMs: number;
  readonly completeTimeMs: number | null;
  readonly rollbackTimeMs: number | null;
  /** Calls of its run so far; 0 for a step that was carried over. */
  readonly attempts: number;
  /** What its last failed attempt said, of the run or, later, of the rollback. */
  readonly error: string | null;
  /** What its run or, where it waited, its signal gave. */
  readonly result: JsonText | null;
  /** Null while it goes on; what is known of its work, afterwards. */
  readonly outcome: "done" | Outcome | null;
  /** Who did by hand what its steps would have done: completed it, or left its rollback out. */
  readonly by: string | null;
  /** Why its rollback was left out. */
  readonly skipReason: string | null;
}

export interface Order {
  readonly orderId: string;
  readonly startTimeMs: number;
  /** Time of the last event (evolve.ts, invariant 2). */
  readonly changeTimeMs: number;
  readonly owner: Incarnation;
  readonly revision: number;
  readonly state: OrderState;
  /** What happens when the call under way has ended (evolve.ts, invariant 4). */
  readonly asked: "pause" | "cancel" | null;
  /** How often people have done something to it. */
  readonly interventions: number;
  /** The steps that have started, in the order of the pipeline. */
  readonly steps: readonly StepRecord[];
  readonly retryOf: string | null;
}

/** What a store finds the order by. */
export function listedStatus({ state }: Order): ListedStatus {
  if (state.status === "running" && state.call.isEndless) return "retrying";
  return state.status === "rolling_back" && state.call.isEndless ? "retrying_rollback" : state.status;
}

/** The state that a pause, or what has set the order aside, holds; any other is itself. */
export function heldState(state: OrderState): Exclude<OrderState, { readonly status: "paused" | "set_aside" }> {
  return state.status === "paused" || state.status === "set_aside" ? state.held : state;
}

/** When what the order waits for began, on its owner's clock (evolve.ts, invariant 5); null: it waits for nothing that is counted. */
export function waitSinceMs({ state }: Order): number | null {
  const held = heldState(state);
  if (held.status === "running" || held.status === "rolling_back") return held.call.sinceMs;
  return held.status === "waiting" ? held.sinceMs : null;
}

/** The call that an order is at, or null. A paused order is at none. */
export function currentCall({ state }: Order): CurrentCall | null {
  return state.status === "running" || state.status === "rolling_back" ? state.call : null;
}

/** The step that an order is at; from the end of the run forward on, the name of its end: Completed, Failed or Canceled. */
export function currentStepName({ state, steps }: Order): string {
  const held = heldState(state);
  if (held.status === "scheduled") return held.stepName;
  return endOf(state)?.name ?? steps.at(-1)?.name ?? "";
}

/** The end that an order has reached or is going to, and since when; null: it goes forward. */
export function endOf(state: OrderState): { readonly name: string; readonly atMs: number } | null {
  const held = heldState(state);
  if (held.status === "completed") return { name: "Completed", atMs: held.completeTimeMs };
  if (!("ending" in held)) return null;
  return { name: held.ending.status === "failed" ? "Failed" : "Canceled", atMs: held.ending.sinceMs };
}
