/**
 * An order and its history. An order is nothing but the fold of its events: `evolve` is the only code that says what an
 * event does, for a live order as for one read back after a crash.
 *
 * 1. One event is one committed write is one revision, from 1, without gaps (guarantee G3).
 * 2. Times in an order never run backwards, whatever the clock did: an event that claims to be earlier than the one
 *    before it counts as simultaneous with it.
 * 3. Nothing follows a final event.
 */

/** One start of a node, numbered by the store; grows with every start of any node. */
export type Incarnation = number;

export type OrderStatus = "running" | "rolling_back" | "rollback_incomplete" | "completed" | "failed";

/** What happened to an order. The first is always `created`. */
export type OrderEvent =
  /** The order exists and its first step has started. */
  | { readonly kind: "created"; readonly atMs: number; readonly owner: Incarnation; readonly stepName: string }
  /** The running step ended well; the named one has started, or (null) the order is completed. */
  | { readonly kind: "step_completed"; readonly atMs: number; readonly nextStepName: string | null }
  /** An attempt of a run or a rollback failed and will be made again. */
  | { readonly kind: "attempt_failed"; readonly atMs: number; readonly error: string; readonly retryAtMs: number }
  /** The running step failed for good; that step's rollback has started, or (null) there is nothing to roll back. */
  | {
      readonly kind: "step_failed";
      readonly atMs: number;
      readonly error: string;
      readonly rollbackIndex: number | null;
    }
  /** The rollback ended well; that step's rollback has started, or (null) the order is failed, finally. */
  | { readonly kind: "step_rolled_back"; readonly atMs: number; readonly rollbackIndex: number | null }
  /** The rollback has used up its attempts; an operator must look. */
  | { readonly kind: "rollback_abandoned"; readonly atMs: number; readonly error: string }
  /** Another incarnation owns the order now; a call that was under way is made again. */
  | {
      readonly kind: "owner_changed";
      readonly atMs: number;
      readonly owner: Incarnation;
      /** The former owner says that it had not begun the current call. */
      readonly callBegun?: false;
    };

/** The call that an order is at: a step's run or rollback. */
export interface CurrentCall {
  /** Position of the step in its pipeline. */
  readonly stepIndex: number;
  /** Which call of this run or rollback it is, from 1. */
  readonly attempt: number;
  /** How many attempts of it failed by themselves; those that a crash cut short don't count. */
  readonly failures: number;
  /** Not to be called before then; null: at once. */
  readonly notBeforeMs: number | null;
}

/** Where an order is in its life. */
export type OrderState =
  | { readonly status: "running"; readonly call: CurrentCall }
  | { readonly status: "rolling_back"; readonly failTimeMs: number; readonly call: CurrentCall }
  | { readonly status: "rollback_incomplete"; readonly failTimeMs: number; readonly stepIndex: number }
  | { readonly status: "completed"; readonly completeTimeMs: number }
  | { readonly status: "failed"; readonly failTimeMs: number; readonly completeTimeMs: number };

/** A step that has started. */
export interface StepRecord {
  readonly name: string;
  readonly startTimeMs: number;
  readonly completeTimeMs: number | null;
  readonly rollbackTimeMs: number | null;
  /** Calls of its run so far. */
  readonly attempts: number;
  /** What its last failed attempt said, of the run or, later, of the rollback. */
  readonly error: string | null;
}

export interface Order {
  readonly orderId: string;
  readonly startTimeMs: number;
  /** Time of the last event (invariant 2). */
  readonly changeTimeMs: number;
  readonly owner: Incarnation;
  readonly revision: number;
  readonly state: OrderState;
  /** The steps that have started, in the order of the pipeline. */
  readonly steps: readonly StepRecord[];
}

/** Whether the order's life has ended: nothing changes it any more. */
export function isFinal(status: OrderStatus): boolean {
  return status === "completed" || status === "failed";
}

/** The order that the event `created` makes. */
export function createdOrder(orderId: string, event: Extract<OrderEvent, { kind: "created" }>): Order {
  return {
    orderId,
    startTimeMs: event.atMs,
    changeTimeMs: event.atMs,
    owner: event.owner,
    revision: 1,
    state: { status: "running", call: firstCall(0) },
    steps: [startedStep(event.stepName, event.atMs)],
  };
}

/**
 * The order after an event.
 * @throws Error when the event can't follow: the history is damaged or the caller is wrong
 */
export function evolve(order: Order, event: Exclude<OrderEvent, { kind: "created" }>): Order {
  const { state } = order;
  const atMs = Math.max(event.atMs, order.changeTimeMs);
  const next = (to: OrderState, steps: readonly StepRecord[] = order.steps): Order => ({
    orderId: order.orderId,
    startTimeMs: order.startTimeMs,
    changeTimeMs: atMs,
    owner: order.owner,
    revision: order.revision + 1,
    state: to,
    steps,
  });

  switch (event.kind) {
    case "step_completed": {
      if (state.status !== "running") break;
      const steps = withStep(order.steps, state.call.stepIndex, { completeTimeMs: atMs });
      if (event.nextStepName === null) return next({ status: "completed", completeTimeMs: atMs }, steps);
      steps.push(startedStep(event.nextStepName, atMs));
      return next({ status: "running", call: firstCall(state.call.stepIndex + 1) }, steps);
    }
    case "attempt_failed": {
      if (state.status !== "running" && state.status !== "rolling_back") break;
      const { stepIndex, attempt, failures } = state.call;
      const call = { stepIndex, attempt: attempt + 1, failures: failures + 1, notBeforeMs: event.retryAtMs };
      const attempts = state.status === "running" ? { attempts: call.attempt } : {};
      return next({ ...state, call }, withStep(order.steps, stepIndex, { error: event.error, ...attempts }));
    }
    case "step_failed": {
      if (state.status !== "running") break;
      const steps = withStep(order.steps, state.call.stepIndex, { error: event.error });
      return next(rollbackState(event.rollbackIndex, atMs, atMs), steps);
    }
    case "step_rolled_back": {
      if (state.status !== "rolling_back") break;
      const steps = withStep(order.steps, state.call.stepIndex, { rollbackTimeMs: atMs });
      return next(rollbackState(event.rollbackIndex, state.failTimeMs, atMs), steps);
    }
    case "rollback_abandoned": {
      if (state.status !== "rolling_back") break;
      const { stepIndex } = state.call;
      const steps = withStep(order.steps, stepIndex, { error: event.error });
      return next({ status: "rollback_incomplete", failTimeMs: state.failTimeMs, stepIndex }, steps);
    }
    case "owner_changed": {
      if (isFinal(state.status)) break;
      const taken = { ...next(state), owner: event.owner };
      if (state.status !== "running" && state.status !== "rolling_back") return taken;
      // A call that may have been under way is made again, and that is another attempt. Whether one that was due later had begun, the
      // clocks of two nodes can't tell: it still waits for what is left, and counts as another attempt, too.
      if (event.callBegun === false) return taken;
      const { call } = state;
      const notBeforeMs = call.notBeforeMs !== null && call.notBeforeMs > atMs ? call.notBeforeMs : null;
      const again = { ...call, attempt: call.attempt + 1, notBeforeMs };
      const steps =
        state.status === "running" ? withStep(order.steps, call.stepIndex, { attempts: again.attempt }) : order.steps;
      return { ...taken, state: { ...state, call: again }, steps };
    }
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

function rollbackState(rollbackIndex: number | null, failTimeMs: number, atMs: number): OrderState {
  return rollbackIndex === null
    ? { status: "failed", failTimeMs, completeTimeMs: atMs }
    : { status: "rolling_back", failTimeMs, call: firstCall(rollbackIndex) };
}

function firstCall(stepIndex: number): CurrentCall {
  return { stepIndex, attempt: 1, failures: 0, notBeforeMs: null };
}

function startedStep(name: string, startTimeMs: number): StepRecord {
  return { name, startTimeMs, completeTimeMs: null, rollbackTimeMs: null, attempts: 1, error: null };
}

function withStep(steps: readonly StepRecord[], index: number, change: Partial<StepRecord>): StepRecord[] {
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
  };
  return changed;
}
