/**
 * An order and its history. An order is nothing but the fold of its events: `evolve` is the only code that says what an
 * event does, for a live order as for one read back after a crash.
 *
 * 1. One event is one committed write is one revision, from 1, without gaps (guarantee G3).
 * 2. Times in an order never run backwards, whatever the clock did: an event that claims to be earlier than the one
 *    before it counts as simultaneous with it.
 * 3. Nothing follows a final event.
 * 4. What was asked of an order while a call was under way (pause, cancel) happens when that call has ended.
 * 5. Waits and deadlines are lengths, counted from the moment at which an event began them (`sinceMs`). That moment is a reading of the
 *    owner's clock at the time, as the event has it: what others make of it, only a takeover says (`formerAtMs`).
 * 6. A call has begun only if the record says so. The first call of a run or rollback begins with the event that leads to it; a call that
 *    is made again, or that had to wait, begins with `attempt_started`.
 */

/** One start of a node, numbered by the store; grows with every start of any node. */
export type Incarnation = number;

/** Every status, in the sequence of an order's life. */
export const ORDER_STATUSES = [
  /** Its first step starts later. */
  "scheduled",
  "running",
  /** Its step has been done on our side and waits for a signal from outside. */
  "waiting",
  "paused",
  "rolling_back",
  /** A rollback has used up its attempts: it waits for an operator. */
  "rollback_incomplete",
  /** Nothing runs it until an operator decides (SPEC: its calls ended their nodes, or nobody knows whether a commit was made). */
  "set_aside",
  "completed",
  "failed",
  "canceled",
] as const;

export type OrderStatus = (typeof ORDER_STATUSES)[number];

/**
 * What a store finds orders by: the status; or, for those whose call is tried again without end as it can't be given up, `retrying`
 * (people see `running`) or `retrying_rollback` (`rolling_back`).
 */
export type ListedStatus = OrderStatus | (typeof ENDLESS_STATUSES)[number];

const ENDLESS_STATUSES = ["retrying", "retrying_rollback"] as const;

/** Every status that a store finds orders by. */
export const LISTED_STATUSES: readonly ListedStatus[] = [...ORDER_STATUSES, ...ENDLESS_STATUSES];

/** The statuses of orders that a person should look at. */
export const STATUSES_FOR_PEOPLE: readonly ListedStatus[] = ["set_aside", "rollback_incomplete", ...ENDLESS_STATUSES];

/** Why an order was set aside. */
export type SetAsideReason =
  /** Nodes died again and again while a call of it was under way. */
  | "crashes"
  /** Nobody knows whether its point of no return was passed. */
  | "unknown_commit";

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
    }
  /** The call that the order is at has to wait, and has not begun. */
  | { readonly kind: "attempt_queued"; readonly atMs: number }
  /** The call that the order is at begins (invariant 6). */
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

/** The call that an order is at: a step's run or rollback. */
export interface CurrentCall {
  /** Position of the step in its pipeline. */
  readonly stepIndex: number;
  /** Which call of this run or rollback it is, from 1. */
  readonly attempt: number;
  /** Whether it may have begun (invariant 6). */
  readonly hasBegun: boolean;
  /** How many attempts of it failed by themselves; those that a crash cut short, and shortages of the node's own, don't count. */
  readonly failures: number;
  /** How many failed in a row for a shortage of the node's own. */
  readonly shortages: number;
  /** Nodes that died in a row while an attempt of it was under way. */
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

/** What people did to an order, for the record. */
export interface Intervention {
  readonly action: "cancel" | "pause" | "resume" | "retry" | "skip" | "complete";
  readonly atMs: number;
  readonly by: string;
  readonly reason: string | null;
}

export interface Order {
  readonly orderId: string;
  readonly startTimeMs: number;
  /** Time of the last event (invariant 2). */
  readonly changeTimeMs: number;
  readonly owner: Incarnation;
  readonly revision: number;
  readonly state: OrderState;
  /** What happens when the call under way has ended (invariant 4). */
  readonly asked: "pause" | "cancel" | null;
  /** How often people have done something to it. */
  readonly interventions: number;
  /** The steps that have started, in the order of the pipeline. */
  readonly steps: readonly StepRecord[];
  readonly retryOf: string | null;
}

/** Whether the order's life has ended: nothing changes it any more. */
export function isFinal(status: ListedStatus): boolean {
  return status === "completed" || status === "failed" || status === "canceled";
}

/** What a store finds the order by. */
export function listedStatus({ state }: Order): ListedStatus {
  if (state.status === "running" && state.call.isEndless) return "retrying";
  return state.status === "rolling_back" && state.call.isEndless ? "retrying_rollback" : state.status;
}

/** The status that people see. */
export function statusOfListed(listed: ListedStatus): OrderStatus {
  if (listed === "retrying") return "running";
  return listed === "retrying_rollback" ? "rolling_back" : listed;
}

/** The state that a pause, or what has set the order aside, holds; any other is itself. */
export function heldState(state: OrderState): Exclude<OrderState, { readonly status: "paused" | "set_aside" }> {
  return state.status === "paused" || state.status === "set_aside" ? state.held : state;
}

/** When what the order waits for began, on its owner's clock (invariant 5); null: it waits for nothing that is counted. */
export function waitSinceMs({ state }: Order): number | null {
  const held = heldState(state);
  if (held.status === "running" || held.status === "rolling_back") return held.call.sinceMs;
  return held.status === "waiting" ? held.sinceMs : null;
}

/** The call that an order is at, or null. A paused order is at none. */
export function currentCall({ state }: Order): CurrentCall | null {
  return state.status === "running" || state.status === "rolling_back" ? state.call : null;
}

/** The order that the event `created` makes. */
export function createdOrder(orderId: string, event: Extract<OrderEvent, { kind: "created" }>): Order {
  const { atMs, carried = NO_STEPS, startAtMs, stepName } = event;
  const steps = carried.map((step) => carriedStep(step, atMs));
  const isLater = startAtMs !== undefined;
  if (!isLater) steps.push(startedStep(stepName, atMs));
  return {
    orderId,
    startTimeMs: atMs,
    changeTimeMs: atMs,
    owner: event.owner,
    revision: 1,
    state: isLater
      ? { status: "scheduled", startAtMs, stepName }
      : { status: "running", call: firstCall(carried.length, atMs) },
    asked: null,
    interventions: 0,
    steps,
    retryOf: event.retryOf ?? null,
  };
}

const NO_STEPS: readonly CarriedStep[] = [];

/**
 * The order after an event.
 * @throws Error when the event can't follow: the history is damaged or the caller is wrong
 */
export function evolve(order: Order, event: LaterEvent): Order {
  const next = evolved(order, event);
  const isByHand = "by" in event && event.by !== undefined;
  return isByHand ? { ...next, interventions: next.interventions + 1 } : next;
}

function evolved(order: Order, event: LaterEvent): Order {
  const { state } = order;
  const atMs = Math.max(event.atMs, order.changeTimeMs);
  switch (event.kind) {
    case "started": {
      if (state.status !== "scheduled") break;
      const steps = [...order.steps, startedStep(event.stepName, atMs)];
      return after(order, atMs, { status: "running", call: firstCall(order.steps.length, event.atMs) }, steps);
    }
    case "step_completed": {
      const stepIndex = stepToComplete(state);
      if (stepIndex === null || order.asked === "cancel") break;
      const { result, by } = event;
      const steps = withStep(order.steps, stepIndex, { completeTimeMs: atMs, result, by, outcome: "done" });
      if (event.nextStepName === null) return after(order, atMs, { status: "completed", completeTimeMs: atMs }, steps);
      steps.push(startedStep(event.nextStepName, atMs));
      return after(
        order,
        atMs,
        heldAgain(state, { status: "running", call: firstCall(stepIndex + 1, event.atMs) }),
        steps,
      );
    }
    case "step_waiting": {
      if (state.status !== "running" || order.asked === "cancel") break;
      const { stepIndex } = state.call;
      const steps = withStep(order.steps, stepIndex, { result: event.result });
      return after(order, atMs, { status: "waiting", stepIndex, sinceMs: event.atMs, limitMs: event.limitMs }, steps);
    }
    case "signal_received": {
      const at = state.status === "paused" ? state.held : state;
      if (at.status !== "running") break;
      const call = { ...at.call, signal: { result: event.result, by: event.by } };
      return during(order, atMs, heldAgain(state, { status: "running", call }), order.asked);
    }
    case "attempt_failed": {
      if ((state.status !== "running" && state.status !== "rolling_back") || order.asked === "cancel") break;
      const call = callAfterFailure(state.call, event);
      const steps = withStep(order.steps, call.stepIndex, { error: event.error, attempts: attemptsOf(state, call) });
      return after(order, atMs, { ...state, call }, steps);
    }
    case "attempt_queued":
    case "attempt_started": {
      const hasBegun = event.kind === "attempt_started";
      if ((state.status !== "running" && state.status !== "rolling_back") || state.call.hasBegun === hasBegun) break;
      // What has begun waits for nothing any more, whatever a clock says later.
      const call = { ...state.call, hasBegun, waitMs: hasBegun ? 0 : state.call.waitMs };
      const steps = withStep(order.steps, call.stepIndex, { attempts: attemptsOf(state, call) });
      return { ...during(order, atMs, { ...state, call }, order.asked), steps };
    }
    case "set_aside": {
      if (state.status !== "running" && state.status !== "rolling_back") break;
      const isUnknown = state.call.isUnknown || state.call.hasBegun;
      const call = { ...state.call, hasBegun: false, isUnknown, isEndless: false };
      const { reason } = event;
      const steps = withStep(order.steps, call.stepIndex, { error: event.error });
      return {
        ...after({ ...order, asked: null }, atMs, { status: "set_aside", reason, held: { ...state, call } }, steps),
      };
    }
    case "retried": {
      if (state.status !== "set_aside") break;
      const { held } = state;
      const call = { ...held.call, crashes: 0, sinceMs: event.atMs, waitMs: 0, elapsedMs: 0 };
      return after(order, atMs, { ...held, call });
    }
    case "step_failed": {
      const at = state.status === "set_aside" ? state.held : state;
      const stepIndex = at.status === "running" ? at.call.stepIndex : at.status === "waiting" ? at.stepIndex : null;
      if (stepIndex === null || order.asked === "cancel") break;
      const { error, by, unknown } = event;
      const steps = withStep(order.steps, stepIndex, { error, by, outcome: unknown === true ? "unknown" : "not_done" });
      return after(order, atMs, rollback(event, { status: "failed", sinceMs: atMs }, atMs), steps);
    }
    case "step_rolled_back": {
      if (state.status !== "rolling_back") break;
      const steps = withStep(order.steps, state.call.stepIndex, { rollbackTimeMs: atMs });
      return after(order, atMs, rollback(event, state.ending, atMs), steps);
    }
    case "rollback_abandoned": {
      if (state.status !== "rolling_back") break;
      const { ending, call } = state;
      const steps = withStep(order.steps, call.stepIndex, { error: event.error });
      return after(order, atMs, { status: "rollback_incomplete", ending, stepIndex: call.stepIndex }, steps);
    }
    case "rollback_retried": {
      if (state.status !== "rollback_incomplete") break;
      return after(order, atMs, rollback({ ...event, rollbackIndex: state.stepIndex }, state.ending, atMs));
    }
    case "rollback_skipped": {
      const at = rollbackToSkip(state);
      if (at === null) break;
      const { by, reason: skipReason } = event;
      const steps = withStep(order.steps, at.stepIndex, { by, skipReason });
      return after(order, atMs, rollback(event, at.ending, atMs), steps);
    }
    case "cancel_requested":
      if (state.status !== "running" || order.asked === "cancel") break;
      return during(order, atMs, state, "cancel");
    case "canceled": {
      const at = heldState(state);
      if (at.status !== "scheduled" && at.status !== "running" && at.status !== "waiting") break;
      if (order.asked === "cancel") break;
      const ending = { status: "canceled", sinceMs: atMs } as const;
      const steps = at.status === "scheduled" ? order.steps : endedStep(order.steps, at);
      // It outweighs a pause that was asked for.
      return after({ ...order, asked: null }, atMs, rollback(event, ending, atMs), steps);
    }
    case "step_canceled": {
      if (state.status !== "running" || order.asked !== "cancel") break;
      const ending = { status: "canceled", sinceMs: atMs } as const;
      const { outcome, result, error } = event;
      const completeTimeMs = outcome === "done" ? atMs : undefined;
      const steps = withStep(order.steps, state.call.stepIndex, { outcome, result, error, completeTimeMs });
      return { ...after(order, atMs, rollback(event, ending, atMs), steps), asked: null };
    }
    case "pause_requested":
      if ((state.status !== "running" && state.status !== "rolling_back") || order.asked !== null) break;
      return during(order, atMs, state, "pause");
    case "paused":
      if (!isPausable(state) || order.asked === "cancel") break;
      return { ...after(order, atMs, { status: "paused", held: state }), asked: null };
    case "resumed":
      // One that was still to be paused goes on as if nothing had been asked.
      if (order.asked === "pause") return during(order, atMs, state, null);
      if (state.status !== "paused") break;
      return after(order, atMs, resumedState(state.held, event.atMs));
    case "owner_changed":
      if (isFinal(state.status)) break;
      return ownerChanged(order, event, atMs);
  }
  throw new Error(`order ${order.orderId}: ${event.kind} can't follow revision ${order.revision} (${state.status})`);
}

/**
 * The order that a whole history makes.
 * @throws Error when the history can't be one
 */
export function replay(orderId: string, history: readonly OrderEvent[]): Order {
  let order: Order | null = null;
  for (const event of history) {
    if (event.kind === "created") {
      if (order !== null) throw new Error(`order ${orderId}: created twice`);
      order = createdOrder(orderId, event);
    } else {
      if (order === null) throw new Error(`order ${orderId}: its history does not begin with its creation`);
      order = evolve(order, event);
    }
  }
  if (order === null) throw new Error(`order ${orderId}: its history is empty`);
  return order;
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

function isPausable(state: OrderState): state is PausableState {
  const { status } = state;
  return status === "scheduled" || status === "running" || status === "waiting" || status === "rolling_back";
}

/** The next order. A pause that was asked for happens where the next state can be paused. */
function after(order: Order, atMs: number, to: OrderState, steps: readonly StepRecord[] = order.steps): Order {
  const pauses = order.asked === "pause";
  return {
    orderId: order.orderId,
    startTimeMs: order.startTimeMs,
    changeTimeMs: atMs,
    owner: order.owner,
    revision: order.revision + 1,
    state: pauses && isPausable(to) ? { status: "paused", held: to } : to,
    asked: pauses ? null : order.asked,
    interventions: order.interventions,
    steps,
    retryOf: order.retryOf,
  };
}

/** The next order, while its call goes on: what was asked still waits for that. */
function during(order: Order, atMs: number, state: OrderState, asked: Order["asked"]): Order {
  return { ...order, changeTimeMs: atMs, revision: order.revision + 1, state, asked };
}

/** The time of a pause does not count against the deadline of its call's retries, but it does count as a wait. */
function resumedState(held: PausableState, atMs: number): PausableState {
  if (held.status !== "running" && held.status !== "rolling_back") return held;
  return { ...held, call: { ...waitedUntil(held.call, atMs), sinceMs: atMs, elapsedMs: 0 } };
}

/** What is left to wait at a reading of the clock that its wait was counted on. */
function waitedUntil<Call extends CurrentCall>(call: Call, atMs: number): Call {
  const waitedMs = Math.max(0, atMs - call.sinceMs);
  return { ...call, waitMs: Math.max(0, call.waitMs - waitedMs), elapsedMs: call.elapsedMs + waitedMs };
}

function callAfterFailure(call: CurrentCall, event: Extract<OrderEvent, { kind: "attempt_failed" }>): CurrentCall {
  const { atMs, delayMs, elapsedMs, unknown, shortage, endless } = event;
  const isShortage = shortage === true;
  return {
    ...call,
    attempt: call.attempt + 1,
    hasBegun: elapsedMs === undefined,
    failures: isShortage ? call.failures : call.failures + 1,
    shortages: isShortage ? call.shortages + 1 : 0,
    crashes: 0,
    sinceMs: atMs,
    waitMs: delayMs,
    elapsedMs: elapsedMs ?? call.elapsedMs + Math.max(0, atMs - call.sinceMs),
    isUnknown: unknown === true,
    isEndless: endless === true,
  };
}

/** What people are told of the calls of a run; undefined for those of a rollback. */
function attemptsOf({ status }: PausableState, { attempt, hasBegun }: CurrentCall): number | undefined {
  return status === "running" ? attempt - (hasBegun ? 0 : 1) : undefined;
}

/** The step that `step_completed` completes, or null. */
function stepToComplete(state: OrderState): number | null {
  if (state.status === "running") return state.call.stepIndex;
  const held = heldState(state);
  if (held.status === "waiting") return held.stepIndex;
  return state.status === "set_aside" && held.status === "running" ? held.call.stepIndex : null;
}

/** The rollback that `rollback_skipped` leaves out, or null. */
function rollbackToSkip(state: OrderState): { readonly stepIndex: number; readonly ending: Ending } | null {
  if (state.status === "rollback_incomplete") return state;
  if (state.status !== "set_aside" || state.held.status !== "rolling_back") return null;
  return { stepIndex: state.held.call.stepIndex, ending: state.held.ending };
}

/** A paused order stays paused, whatever is recorded meanwhile. */
function heldAgain(before: OrderState, to: PausableState): OrderState {
  return before.status === "paused" ? { status: "paused", held: to } : to;
}

function ownerChanged(order: Order, event: Extract<OrderEvent, { kind: "owner_changed" }>, atMs: number): Order {
  const state = onNewClock(order.state, event);
  // What was asked is left to the new owner: stores that change an owner by themselves don't know of it, nor change the status.
  const taken = { ...during(order, atMs, state, order.asked), owner: event.owner };
  if (state.status !== "running" && state.status !== "rolling_back") return taken;
  const call = callAfterTakeover(state.call, event);
  const steps = withStep(order.steps, call.stepIndex, { attempts: attemptsOf(state, call) });
  return { ...taken, state: { ...state, call }, steps };
}

/** What was counted on the former owner's clock, on that of the new one (invariant 5). */
function onNewClock<State extends OrderState>(
  state: State,
  event: Extract<OrderEvent, { kind: "owner_changed" }>,
): State {
  const { atMs, formerAtMs = atMs } = event;
  switch (state.status) {
    case "paused":
    case "set_aside":
      return { ...state, held: onNewClock(state.held, event) };
    case "running":
    case "rolling_back":
      return { ...state, call: { ...waitedUntil(state.call, formerAtMs), sinceMs: atMs } };
    case "waiting": {
      const { sinceMs, limitMs } = state;
      const waitedMs = Math.max(0, formerAtMs - sinceMs);
      return { ...state, sinceMs: atMs, limitMs: limitMs === null ? null : Math.max(0, limitMs - waitedMs) };
    }
    default:
      return state;
  }
}

/** A call that had begun is made again: that is another attempt, and nobody knows what the former one has done. */
function callAfterTakeover(call: CurrentCall, event: Extract<OrderEvent, { kind: "owner_changed" }>): CurrentCall {
  if (event.callBegun === false) return { ...call, hasBegun: false };
  if (!call.hasBegun) return call;
  // Stores of before don't say when an attempt that is made again begins. One that still has to wait counts as not made; but clocks
  // may be wrong, and prove nothing.
  if (event.callBegun === true && call.waitMs > 0) return { ...call, hasBegun: false, isUnknown: true };
  return {
    ...call,
    attempt: call.attempt + 1,
    hasBegun: event.callBegun === undefined,
    crashes: call.crashes + (event.former === "died" ? 1 : 0),
    isUnknown: true,
  };
}

/** The steps after the present one was ended from outside: what a call that broke off has done isn't known. */
function endedStep(
  steps: readonly StepRecord[],
  at: Extract<PausableState, { status: "running" | "waiting" }>,
): readonly StepRecord[] {
  const [stepIndex, isUnknown] =
    at.status === "running" ? [at.call.stepIndex, at.call.isUnknown] : [at.stepIndex, false];
  return withStep(steps, stepIndex, { outcome: isUnknown ? "unknown" : "not_done" });
}

/** What follows when the order is to be rolled back, from `rollbackIndex` on. */
function rollback(
  { rollbackIndex, atMs: sinceMs }: { readonly rollbackIndex: number | null; readonly atMs: number },
  ending: Ending,
  atMs: number,
): OrderState {
  return rollbackIndex === null
    ? { status: ending.status, ending, completeTimeMs: atMs }
    : { status: "rolling_back", ending, call: firstCall(rollbackIndex, sinceMs) };
}

function firstCall(stepIndex: number, sinceMs: number): CurrentCall {
  return {
    stepIndex,
    attempt: 1,
    hasBegun: true,
    failures: 0,
    shortages: 0,
    crashes: 0,
    sinceMs,
    waitMs: 0,
    elapsedMs: 0,
    isEndless: false,
    isUnknown: false,
    signal: null,
  };
}

function startedStep(name: string, startTimeMs: number): StepRecord {
  return {
    name,
    startTimeMs,
    completeTimeMs: null,
    rollbackTimeMs: null,
    attempts: 1,
    error: null,
    result: null,
    outcome: null,
    by: null,
    skipReason: null,
  };
}

function carriedStep({ stepName, result }: CarriedStep, atMs: number): StepRecord {
  return { ...startedStep(stepName, atMs), completeTimeMs: atMs, attempts: 0, result, outcome: "done" };
}

/** What is undefined stays. */
type StepChange = { readonly [Field in keyof StepRecord]?: StepRecord[Field] | undefined };

function withStep(steps: readonly StepRecord[], index: number, change: StepChange): StepRecord[] {
  const step = steps[index];
  if (step === undefined) throw new Error(`step ${index} has not started`);
  const changed = steps.slice();
  // Field by field, as this runs at every transition: a spread of two objects costs several times as much.
  changed[index] = {
    name: step.name,
    startTimeMs: step.startTimeMs,
    completeTimeMs: change.completeTimeMs === undefined ? step.completeTimeMs : change.completeTimeMs,
    rollbackTimeMs: change.rollbackTimeMs === undefined ? step.rollbackTimeMs : change.rollbackTimeMs,
    attempts: change.attempts ?? step.attempts,
    error: change.error === undefined ? step.error : change.error,
    result: change.result === undefined ? step.result : change.result,
    outcome: change.outcome === undefined ? step.outcome : change.outcome,
    by: change.by === undefined ? step.by : change.by,
    skipReason: change.skipReason === undefined ? step.skipReason : change.skipReason,
  };
  return changed;
}
