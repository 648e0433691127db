/**
 * What people can do to an order, and when: one piece of data that the server, its answers, the client and the command line all ask.
 * Pure, like decide.ts; this module is part of the client, too, and runs in browsers.
 */
import { completion, isCommitted, lastToRollBack, stepAt } from "./decide.ts";
import type { CarriedStep, JsonText, LaterEvent } from "./events.ts";
import { type CurrentCall, heldState, type Order, type OrderState } from "./order.ts";
import { isFinal, type OrderStatus } from "./status.ts";
import type { Pipeline } from "./pipeline.ts";

/** Every action, with what it does. */
export const ACTIONS = {
  cancel: "Rolls the order back, and ends it as canceled.",
  pause: "Lets the call that is under way end, and then begins nothing more.",
  resume: "Goes on with a paused order.",
  complete: "Completes the step that waits for a signal, with a result.",
  retry:
    "Tries an abandoned rollback, or an order that was set aside, again; of a failed or canceled order, makes a new one.",
  skip: "Leaves out the rollback that has failed, and goes on with the one before it.",
} as const;

export type Action = keyof typeof ACTIONS;

/** Which actions each status allows. What else must hold (a step that waits, no point of no return) `refusalOf` says. */
export const ACTIONS_BY_STATUS: { readonly [Status in OrderStatus]: readonly Action[] } = {
  scheduled: ["cancel", "pause"],
  running: ["cancel", "pause", "resume", "complete"],
  waiting: ["cancel", "pause", "complete"],
  paused: ["cancel", "resume", "complete"],
  rolling_back: ["pause", "resume"],
  rollback_incomplete: ["retry", "skip"],
  set_aside: ["cancel", "complete", "retry", "skip"],
  completed: [],
  failed: ["retry"],
  canceled: ["retry"],
};

/**
 * An order is not paused, nor its rollback tried again, when people have done something to it so many times: each adds to its history,
 * which whoever looks at it is sent. What ends it is always allowed.
 */
export const INTERVENTIONS_MAX = 100;

/** What is asked of an order that is not final. */
export type ActionRequest =
  | { readonly action: "cancel"; readonly by: string; readonly reason: string | null }
  | { readonly action: "pause" | "resume" | "retry"; readonly by: string }
  | { readonly action: "skip"; readonly by: string; readonly reason: string }
  | {
      readonly action: "complete";
      readonly by: string;
      /** The step that is meant: one that completes twice must not complete the next one. */
      readonly stepName: string;
      /** `null` where nothing is to be said. */
      readonly result: JsonText;
    };

export type ActionDecision =
  | { readonly kind: "event"; readonly event: LaterEvent }
  /** It is so already: asked twice, done once. */
  | { readonly kind: "nothing_to_do" }
  | { readonly kind: "refused"; readonly reason: string };

/**
 * What an action on an order that is not final leads to.
 * @param callUnderWay whether a step's function is being called at this moment
 */
export function decideAction(
  order: Order,
  pipeline: Pipeline,
  request: ActionRequest,
  { atMs, callUnderWay }: { readonly atMs: number; readonly callUnderWay: boolean },
): ActionDecision {
  const { by } = request;
  if (isDoneAlready(order, request)) return { kind: "nothing_to_do" };
  const reason = isFinal(order.state.status)
    ? `the order is ${order.state.status}`
    : refusalOf(order, pipeline, request.action);
  if (reason !== null) return { kind: "refused", reason };
  const event = (happened: LaterEvent): ActionDecision => ({ kind: "event", event: happened });
  const { state } = order;
  switch (request.action) {
    case "cancel": {
      const asked = { atMs, by, reason: request.reason };
      if (state.status === "set_aside" && state.reason === "unknown_commit")
        return event(notCommitted(order, pipeline, asked));
      return callUnderWay
        ? event({ kind: "cancel_requested", ...asked })
        : event({ kind: "canceled", ...asked, rollbackIndex: lastToRollBack(pipeline, lastCalled(order)) });
    }
    case "pause":
      return event({ kind: callUnderWay ? "pause_requested" : "paused", atMs, by });
    case "resume":
      return event({ kind: "resumed", atMs, by });
    case "retry":
      return event({ kind: state.status === "set_aside" ? "retried" : "rollback_retried", atMs, by });
    case "skip": {
      const held = heldState(state);
      const stepIndex = held.status === "rolling_back" ? held.call.stepIndex : order.steps.length - 1;
      const skipped = held.status === "rollback_incomplete" ? held.stepIndex : stepIndex;
      const rollbackIndex = lastToRollBack(pipeline, skipped - 1);
      return event({ kind: "rollback_skipped", atMs, by, reason: request.reason, rollbackIndex });
    }
    case "complete": {
      const at = stepAtSignal(order);
      if (at === null) throw new Error("no step to complete");
      const { stepName, result } = request;
      if (stepAt(pipeline, at.stepIndex).name !== stepName) {
        return { kind: "refused", reason: `the order is not at the step "${stepName}"` };
      }
      return at.waits
        ? event(completion(pipeline, at.stepIndex, atMs, result, by))
        : event({ kind: "signal_received", atMs, result, by });
    }
  }
}

/** Why an order does not allow an action, as a sentence's end; null: it does. */
export function refusalOf(order: Order, pipeline: Pipeline, action: Action): string | null {
  const { state, asked } = order;
  const { status } = state;
  if (!ACTIONS_BY_STATUS[status].includes(action)) return `the order is ${status}`;
  if (state.status === "set_aside") return refusalOfDecision(pipeline, state, action);
  const held = heldState(state);
  const mayRepeat = action === "pause" || (action === "retry" && status === "rollback_incomplete");
  if (mayRepeat && order.interventions >= INTERVENTIONS_MAX) {
    return `people have done something to the order ${INTERVENTIONS_MAX} times, and its history is to stay readable`;
  }
  switch (action) {
    case "cancel": {
      if (held.status === "rolling_back") return "the order is paused while it is rolled back";
      if (asked === "cancel") return null;
      const stepIndex = held.status === "running" ? held.call.stepIndex : order.steps.length - 1;
      const mayBeDone = held.status === "waiting" || (held.status === "running" && mayHaveBegun(state, held.call));
      return isCommitted(pipeline, stepIndex, mayBeDone) ? "the order has passed its point of no return" : null;
    }
    case "pause":
      return asked === "cancel" ? "the order is being canceled" : null;
    case "resume":
      return status === "paused" || asked === "pause" ? null : "the order is not paused";
    case "complete": {
      if (asked === "cancel") return "the order is being canceled";
      if (held.status === "running" && held.call.signal !== null) return "its signal has come already";
      const at = stepAtSignal(order);
      if (at === null) return "the order is at no step";
      const { name, wait } = stepAt(pipeline, at.stepIndex);
      return wait !== null ? null : `the order is at "${name}", which waits for no signal`;
    }
    case "retry":
    case "skip":
      return null;
  }
}

/** Whether an attempt of a call may have begun that has not been found to have done nothing. A pause comes before the call that it holds. */
function mayHaveBegun(state: OrderState, { hasBegun, isUnknown }: CurrentCall): boolean {
  return isUnknown || (hasBegun && state.status !== "paused");
}

/** The last step that may have done something: the one that the order is at, unless that has never been called. */
function lastCalled({ state, steps }: Order): number {
  const isUncalled = heldState(state).status === "running" && steps.at(-1)?.attempts === 0;
  return steps.length - (isUncalled ? 2 : 1);
}

/** What an operator can decide of an order that was set aside. */
function refusalOfDecision(
  pipeline: Pipeline,
  { reason, held }: Extract<OrderState, { status: "set_aside" }>,
  action: Action,
): string | null {
  const allowed: readonly Action[] =
    reason === "unknown_commit"
      ? ["complete", "cancel"]
      : held.status === "rolling_back"
        ? ["retry", "skip"]
        : isCommitted(pipeline, held.call.stepIndex, true)
          ? ["retry", "complete"]
          : ["retry", "cancel"];
  return allowed.includes(action) ? null : `the order is set aside (${reason}), and allows ${allowed.join(" and ")}`;
}

/** An operator says that the point of no return was not passed: the order fails, and is rolled back. */
function notCommitted(
  order: Order,
  pipeline: Pipeline,
  { atMs, by, reason }: { readonly atMs: number; readonly by: string; readonly reason: string | null },
): LaterEvent {
  const stepIndex = order.steps.length - 1;
  return {
    kind: "step_failed",
    atMs,
    error: order.steps[stepIndex]?.error ?? "",
    rollbackIndex: lastToRollBack(pipeline, stepIndex),
    by,
    ...(reason === null ? {} : { reason }),
  };
}

/** What a node can do to an order whose pipeline no live node has: nothing needs to be called for it. */
export const ACTIONS_WITHOUT_PIPELINE: readonly Action[] = ["cancel", "skip"];

/** The actions that an order allows now. */
export function allowedActions(order: Order, pipeline: Pipeline): Action[] {
  return ACTIONS_BY_STATUS[order.state.status].filter((action) => refusalOf(order, pipeline, action) === null);
}

/** Where a failed or canceled order can be made again from. */
export type RetryFrom = "start" | "failed_step";

/**
 * What a new order goes on from that is made again from a failed or canceled one. That one stays as it is: it is final, and the keys
 * of its calls have been used.
 * @param pipeline what the new order will go through
 * @returns the steps that it need not do again; or, as a sentence's end, why it can't be made
 */
export function stepsToCarry(
  order: Order,
  pipeline: Pipeline,
  from: RetryFrom,
):
  | { readonly kind: "carried"; readonly steps: readonly CarriedStep[] }
  | { readonly kind: "refused"; readonly reason: string } {
  const { status } = order.state;
  if (status !== "failed" && status !== "canceled") return { kind: "refused", reason: `the order is ${status}` };
  if (from === "start") return { kind: "carried", steps: [] };
  const earlier = order.steps.slice(0, Math.max(0, order.steps.length - 1));
  const undone = earlier.filter(
    ({ completeTimeMs, rollbackTimeMs, skipReason }) =>
      completeTimeMs === null || rollbackTimeMs !== null || skipReason !== null,
  );
  if (undone.length > 0) {
    const names = undone.map(({ name }) => `"${name}"`).join(", ");
    return {
      kind: "refused",
      reason: `what these steps did was rolled back: ${names}; it can be retried from the start`,
    };
  }
  const changed = earlier.find(({ name }, index) => pipeline.steps[index]?.name !== name);
  if (changed !== undefined || pipeline.steps.length <= earlier.length) {
    return { kind: "refused", reason: "its pipeline has other steps by now; it can be retried from the start" };
  }
  return { kind: "carried", steps: earlier.map(({ name, result }) => ({ stepName: name, result })) };
}

/** The names of the steps that a cancellation would roll back, in that order. */
export function stepsToUndo(order: Order, pipeline: Pipeline): string[] {
  const names: string[] = [];
  for (let from: number | null = lastToRollBack(pipeline, lastCalled(order)); from !== null;) {
    names.push(stepAt(pipeline, from).name);
    from = lastToRollBack(pipeline, from - 1);
  }
  return names;
}

/** Whether what is asked has been asked, or done, before: a client may not have heard the answer. */
export function isDoneAlready(order: Order, request: ActionRequest): boolean {
  const { state, asked, steps } = order;
  switch (request.action) {
    case "cancel": {
      const held = heldState(state);
      const isCanceled = "ending" in held && held.ending.status === "canceled";
      // By an operator who has said that a point of no return was not passed.
      const isDecided = "ending" in held && steps.at(-1)?.by === request.by && steps.at(-1)?.outcome === "not_done";
      return asked === "cancel" || isCanceled || isDecided;
    }
    case "pause":
      return asked === "pause" || state.status === "paused";
    case "complete": {
      const index = steps.findIndex(({ name }) => name === request.stepName);
      const step = steps[index];
      if (step?.outcome === "done") return step.by === request.by && step.result === request.result;
      const held = heldState(state);
      if (held.status !== "running" || held.call.stepIndex !== index) return false;
      return held.call.signal?.by === request.by && held.call.signal.result === request.result;
    }
    case "resume":
    case "retry":
    case "skip":
      return false;
  }
}

/** The step that a signal would complete, and whether it waits for it already. */
function stepAtSignal({ state }: Order): { readonly stepIndex: number; readonly waits: boolean } | null {
  const held = heldState(state);
  if (state.status === "set_aside" && held.status === "running") return { stepIndex: held.call.stepIndex, waits: true };
  if (held.status === "waiting") return { stepIndex: held.stepIndex, waits: true };
  return held.status === "running" ? { stepIndex: held.call.stepIndex, waits: false } : null;
}
