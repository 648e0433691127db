/**
 * Judges what happened, from three records that know nothing of each other: what clients were promised, what the store
 * holds at the end, and what the receiver was asked to do. Shares no rule with the code it judges: what a legal history
 * is, is said here once more, in another way.
 *
 * It supposes a pipeline whose every step has a rollback, rollbacks that never fail for good, and bodies that name the
 * step that fails in `fail_at`; then every order must end, and how it must end is known. Where people steer the orders meanwhile, one
 * step of the pipeline waits for a signal, and whoever pauses an order resumes or cancels it.
 */
import type { OrderEvent } from "../../src/order/events.ts";
import type { Direction, ReceivedCall } from "./receiver.ts";
import type { StoreRow } from "./store-content.ts";

/** A client's order that was answered with 201. */
export interface Acknowledgement {
  readonly orderId: string;
  readonly idempotencyKey: string | null;
  /** The body as it was sent. */
  readonly body: string;
}

/** Something that was asked of an order and answered with 200. */
export interface AcknowledgedAction {
  readonly orderId: string;
  readonly action: SteeringAction;
}

export type SteeringAction = "cancel" | "pause" | "resume" | "complete";

export interface Evidence {
  /** Names of the steps. */
  readonly pipeline: readonly string[];
  /** What people did to the orders; absent: nobody did anything. */
  readonly actions?: readonly AcknowledgedAction[];
  readonly acknowledged: readonly Acknowledgement[];
  readonly stored: readonly StoreRow[];
  /** In the order they came. */
  readonly calls: readonly ReceivedCall[];
}

/** Each rule, with the guarantee (docs/guarantees.md) that it watches over. */
const GUARANTEE_OF = {
  /** An acknowledged order is not in the store. */
  lost_order: "G1",
  /** An acknowledged order has another body in the store than was sent. */
  body_differs: "G1",
  /** One Idempotency-Key has made two orders. */
  key_made_two_orders: "G1",
  /** Two requests that had no key in common were acknowledged with one order. */
  order_acknowledged_twice: "G1",
  /** An order is not final at the end. */
  stuck_order: "G5",
  /** The owner in the row is not the one that the history says. */
  owner_differs: "G2",
  /** An incarnation made a call at a revision at which another owned the order. */
  called_by_non_owner: "G2",
  /** The revision is not the number of events. */
  revision_gap: "G3",
  /** The events can't follow each other, or name the wrong steps. */
  illegal_history: "G3",
  /** The status in the row is not the one that the history says. */
  status_differs: "G3",
  completed_and_rolled_back: "G3",
  event_after_final: "G3",
  /** What somebody was told was done is not in the history. */
  lost_action: "G1",
  /** One signal has completed its step twice. */
  signal_applied_twice: "G3",
  /** An order went on by itself while it was paused. */
  went_on_while_paused: "G3",
  /** The rollbacks are not the started steps, last first; but for a last one that was never called before its order was canceled. */
  rollbacks_not_reversed: "G3",
  /** The order ended otherwise than its body asks. */
  wrong_outcome: "G3",
  /** A key is not `<order_id>:<step>:<direction>`. */
  malformed_key: "G4",
  /** Attempts of one run or rollback carried different keys. */
  different_keys: "G4",
  /** Two calls of one run or rollback were the same attempt. */
  attempt_repeated: "G4",
  /** Two calls of an order had one fence: a receiver can't tell which came late. */
  fence_repeated: "G6",
  /** A call was made for an order that the store doesn't have. */
  unknown_order_called: "G4",
  /** A call was made that was not the order's current one, going by what was durable when it was made. */
  called_before_durable: "G4",
  /** The history says that a run or rollback ended which the receiver never saw. */
  effect_missing: "G4",
  /** The receiver saw a run or rollback that the history doesn't have. */
  effect_unrecorded: "G4",
  /** The effects did not happen in the order in which the history has them. */
  effect_out_of_order: "G4",
} as const;

export type Rule = keyof typeof GUARANTEE_OF;

export interface Violation {
  readonly guarantee: (typeof GUARANTEE_OF)[Rule];
  readonly rule: Rule;
  readonly orderId: string;
  readonly detail: string;
}

/** How a rule reports. */
type Report = (rule: Rule, orderId: string, detail: string) => void;

/** Everything that is wrong. */
export function findViolations(evidence: Evidence): Violation[] {
  const violations: Violation[] = [];
  const report: Report = (rule, orderId, detail) => {
    violations.push({ guarantee: GUARANTEE_OF[rule], rule, orderId, detail });
  };
  const rows = new Map(evidence.stored.map((row) => [row.orderId, row]));
  checkAcknowledgements(evidence.acknowledged, rows, report);
  checkIdempotencyKeys([...evidence.acknowledged, ...evidence.stored], report);
  checkCallKeys(evidence.calls, report);
  const callsByOrder = Map.groupBy(evidence.calls, (call) => call.orderId);
  for (const [orderId, calls] of callsByOrder) {
    if (!rows.has(orderId)) report("unknown_order_called", orderId, `${calls.length} calls`);
  }
  checkActions(evidence.actions ?? [], rows, report);
  for (const row of evidence.stored) {
    checkRow(row, report);
    const calls = callsByOrder.get(row.orderId) ?? [];
    checkHistory(row, evidence, calls, report);
    checkCalls(row, evidence.pipeline, calls, report);
  }
  return violations;
}

function checkAcknowledgements(
  acknowledged: readonly Acknowledgement[],
  rows: ReadonlyMap<string, StoreRow>,
  report: Report,
): void {
  const requestOfOrder = new Map<string, Acknowledgement>();
  for (const request of acknowledged) {
    const { orderId, idempotencyKey: key, body } = request;
    const row = rows.get(orderId);
    if (row === undefined) report("lost_order", orderId, "it was acknowledged and is not in the store");
    else if (row.body !== body) report("body_differs", orderId, `sent ${body}, stored ${row.body}`);

    const before = requestOfOrder.get(orderId);
    if (before !== undefined && (key === null || before.idempotencyKey !== key)) {
      report("order_acknowledged_twice", orderId, "to requests without a common key");
    }
    requestOfOrder.set(orderId, request);
  }
}

/** The clients' keys, among what was acknowledged and what is stored. All clients are one user. */
function checkIdempotencyKeys(made: readonly (Acknowledgement | StoreRow)[], report: Report): void {
  const orderOf = new Map<string, string>();
  for (const { orderId, idempotencyKey: key } of made) {
    if (key === null) continue;
    const other = orderOf.get(key) ?? orderId;
    if (other !== orderId) report("key_made_two_orders", orderId, `key ${key} had made ${other}`);
    orderOf.set(key, orderId);
  }
}

function checkCallKeys(calls: readonly ReceivedCall[], report: Report): void {
  const keyOf = new Map<string, string>();
  const attempts = new Set<string>();
  const fences = new Set<string>();
  for (const { orderId, step, direction, key, attempt, sequence, fence } of calls) {
    if (fences.has(`${orderId}:${fence}`)) report("fence_repeated", orderId, `call ${sequence} has ${fence}`);
    fences.add(`${orderId}:${fence}`);
    const name = `${orderId}:${step}:${direction}`;
    if (key !== name) report("malformed_key", orderId, `call ${sequence} has ${key}, expected ${name}`);
    const earlier = keyOf.get(name) ?? key;
    if (earlier !== key) report("different_keys", orderId, `${earlier} and ${key} for ${name}`);
    keyOf.set(name, key);
    if (attempts.has(`${name}:${attempt}`)) report("attempt_repeated", orderId, `attempt ${attempt} of ${name}`);
    attempts.add(`${name}:${attempt}`);
  }
}

/** What an order's row says, against its own history. */
function checkRow({ orderId, status, owner, revision, history }: StoreRow, report: Report): void {
  if (revision !== history.length) {
    report("revision_gap", orderId, `revision ${revision} with ${history.length} events`);
  }
  if (!FINAL.has(status)) report("stuck_order", orderId, `it is ${status} at the end`);
  const due = statusAfter(history);
  if (status !== due) report("status_differs", orderId, `it is ${status}, by its history ${due}`);
  const lastOwner = history.findLast((event) => "owner" in event)?.owner;
  if (owner !== lastOwner) report("owner_differs", orderId, `it is ${owner}, by its history ${lastOwner}`);
}

/** Each event as a letter, so that what may follow what is one regular expression; capitals begin or end something. */
function letterOf(event: OrderEvent): string {
  switch (event.kind) {
    case "created":
      return "C";
    case "step_completed":
      return event.nextStepName === null ? "E" : "n";
    case "attempt_failed":
      return "r";
    case "step_failed":
      return event.rollbackIndex === null ? "X" : "F";
    case "step_rolled_back":
      return event.rollbackIndex === null ? "B" : "b";
    case "rollback_abandoned":
      return "a";
    case "owner_changed":
      return "o";
    case "attempt_queued":
      return "h";
    case "attempt_started":
      return "t";
    case "step_waiting":
      return "w";
    case "signal_received":
      return "s";
    case "pause_requested":
      return "q";
    case "paused":
      return "p";
    case "resumed":
      return "u";
    case "cancel_requested":
      return "c";
    case "canceled":
      return event.rollbackIndex === null ? "Z" : "K";
    case "step_canceled":
      return "D";
    default:
      return "?"; // these orders start at once, and their rollbacks succeed
  }
}

/** Creation, steps, then completion or failure and rollbacks; retries, waits for a slot and changes of owner anywhere before the end. */
const LEGAL = /^C[roth]*(n[roth]*)*(E|F[roth]*(b[roth]*)*B?)?$/;

/** The same, with pauses anywhere; a step may wait, and a cancellation, asked for and done or both at once, does what a failure does. */
const LEGAL_STEERED = /^C[ropquwsth]*(n[ropquwsth]*)*(E|Z|c[oth]*|(F|K|c[oth]*D)[ropquth]*(b[ropquth]*)*B?)?$/;

function checkHistory(
  row: StoreRow,
  { pipeline, actions }: Evidence,
  calls: readonly ReceivedCall[],
  report: Report,
): void {
  const { orderId, history } = row;
  const letters = history.map(letterOf).join("");
  if (!(actions === undefined ? LEGAL : LEGAL_STEERED).test(letters)) report("illegal_history", orderId, letters);
  if (/[EBXZ]./.test(letters)) report("event_after_final", orderId, letters);
  if (pausesOf(history).some(({ isPaused }, index) => isPaused && /[rwcbBDEFX]/.test(letters[index + 1] ?? ""))) {
    report("went_on_while_paused", orderId, letters);
  }
  if (/s.*s/.test(letters) || history.filter(isCompletedBySomebody).length > 1) {
    report("signal_applied_twice", orderId, letters);
  }
  if (/E/.test(letters) && /[FKZDXbBa]/.test(letters)) report("completed_and_rolled_back", orderId, letters);

  const started = startedSteps(history);
  const isCompleted = letters.includes("E");
  const due = isCompleted ? pipeline : pipeline.slice(0, started.length);
  if (started.join() !== due.join()) report("illegal_history", orderId, `its steps are ${started.join(", ")}`);

  const rolledBack = history.flatMap((event) => ("rollbackIndex" in event ? [event.rollbackIndex] : []));
  const wasCalled = calls.some(({ step, direction }) => direction === "run" && step === started.at(-1));
  const isLeftOut = /[KZ]/.test(letters) && !wasCalled && rolledBack[0] !== started.length - 1;
  const reversed = [...started.keys()].toReversed().slice(isLeftOut ? 1 : 0);
  const dueRollbacks = [...reversed, null].slice(0, rolledBack.length);
  if (rolledBack.join() !== dueRollbacks.join()) {
    report("rollbacks_not_reversed", orderId, `${rolledBack.join(", ")} after ${started.length} steps`);
  }

  if (/[KZD]/.test(letters)) return; // whether it would have failed, nobody knows
  const failAt = failingStep(row.body);
  const failedAt = letters.includes("F") ? started.at(-1) : undefined;
  if (failAt !== failedAt && (isCompleted || failedAt !== undefined)) {
    report("wrong_outcome", orderId, `asked to fail at ${failAt}, failed at ${failedAt}`);
  }
}

function startedSteps(history: readonly OrderEvent[]): string[] {
  return history.flatMap((event) => {
    if (event.kind === "created") return [event.stepName];
    return event.kind === "step_completed" && event.nextStepName !== null ? [event.nextStepName] : [];
  });
}

function isCompletedBySomebody(event: OrderEvent): boolean {
  return event.kind === "step_completed" && event.by !== undefined;
}

/** What an acknowledged action must have left in the history. */
const TRACES: Readonly<Record<SteeringAction, RegExp>> = {
  cancel: /[cKZ]/,
  pause: /[qp]/,
  resume: /u/,
  complete: /[sn]/,
};

function checkActions(
  actions: readonly AcknowledgedAction[],
  rows: ReadonlyMap<string, StoreRow>,
  report: Report,
): void {
  for (const { orderId, action } of actions) {
    const history = rows.get(orderId)?.history ?? [];
    const letters = history.map(letterOf).join("");
    const isSignal = action === "complete";
    const isThere =
      TRACES[action].test(letters) && (!isSignal || /s/.test(letters) || history.some(isCompletedBySomebody));
    if (!isThere) report("lost_action", orderId, `${action}: ${letters}`);
  }
}

const FINAL: ReadonlySet<string> = new Set(["completed", "failed", "canceled"]);

/** Whether an order is paused after each of its events. */
function pausesOf(history: readonly OrderEvent[]): { readonly isPaused: boolean }[] {
  let isPaused = false;
  let isAsked = false;
  return history.map((event) => {
    const letter = letterOf(event);
    if (letter === "q") isAsked = true;
    // Where it was asked for during a call, it begins with the end of that call, unless the order's end comes with it.
    else if (letter === "p" || (isAsked && /[nrwFb]/.test(letter))) [isPaused, isAsked] = [true, false];
    else if (/[ucKZDEBX]/.test(letter)) [isPaused, isAsked] = [false, false];
    return { isPaused };
  });
}

/** The status that the events leave an order in. */
function statusAfter(history: readonly OrderEvent[]): string {
  if (pausesOf(history).at(-1)?.isPaused === true) return "paused";
  const letters = history.map(letterOf);
  const isCanceled = letters.some((each) => /[KDZ]/.test(each));
  const byLetter: Readonly<Record<string, string>> = {
    C: "running",
    n: "running",
    w: "waiting",
    E: "completed",
    F: "rolling_back",
    K: "rolling_back",
    Z: "canceled",
    D: "rolling_back",
    b: "rolling_back",
    X: "failed",
    B: isCanceled ? "canceled" : "failed",
    a: "rollback_incomplete",
  };
  const letter = letters.findLast((each) => !/[ropquscth]/.test(each));
  return byLetter[letter ?? ""] ?? "none";
}

function failingStep(body: string): string | undefined {
  const { fail_at: step } = JSON.parse(body) as { fail_at?: string };
  return step;
}

/** Where an order is after one of its events: whose it is, and which call it is at. */
interface Moment {
  readonly owner: number;
  /** `<step>:<direction>`, or null at the end, and while it waits or is paused. */
  readonly call: string | null;
  /** The call that was given up with this event, begun or not. */
  readonly givenUp: string | null;
}

/** One for each revision. */
function momentsOf(history: readonly OrderEvent[], pipeline: readonly string[]): Moment[] {
  const callOf = (step: string | null | undefined, direction: Direction): string | null =>
    typeof step === "string" ? `${step}:${direction}` : null;
  const pauses = pausesOf(history);
  let owner = 0;
  let call: string | null = null;
  return history.map((event, index) => {
    const isCanceled = event.kind === "canceled" || event.kind === "step_canceled";
    const givenUp = isCanceled ? call : null;
    if (event.kind === "created") [owner, call] = [event.owner, callOf(event.stepName, "run")];
    else if (event.kind === "owner_changed") ({ owner } = event);
    else if (event.kind === "step_completed") call = callOf(event.nextStepName, "run");
    else if (event.kind === "step_waiting") call = null;
    else if ("rollbackIndex" in event) {
      call = callOf(event.rollbackIndex === null ? null : pipeline[event.rollbackIndex], "rollback");
    }
    return { owner, call: pauses[index]?.isPaused === true ? null : call, givenUp };
  });
}

/** What the receiver was asked for, against the order's history. */
function checkCalls(
  { orderId, history }: StoreRow,
  pipeline: readonly string[],
  calls: readonly ReceivedCall[],
  report: Report,
): void {
  const moments = momentsOf(history, pipeline);
  for (const { step, direction, incarnation, durableRevision, sequence } of calls) {
    const moment = moments[durableRevision - 1];
    const detail = `call ${sequence}, ${step}:${direction} by incarnation ${incarnation} at revision ${durableRevision}`;
    if (moment?.call !== `${step}:${direction}`) report("called_before_durable", orderId, detail);
    else if (moment.owner !== incarnation)
      report("called_by_non_owner", orderId, `${detail}, owned by ${moment.owner}`);
  }

  const begun = [...new Set(moments.flatMap(({ call }) => (call === null ? [] : [call])))];
  const current = moments.at(-1)?.call ?? null;
  const givenUp = moments.flatMap((moment) => (moment.givenUp === null ? [] : [moment.givenUp]));
  const effects = calls.flatMap(({ hadEffect, step, direction }) => (hadEffect ? [`${step}:${direction}`] : []));
  for (const call of begun) {
    if (call !== current && !givenUp.includes(call) && !effects.includes(call)) report("effect_missing", orderId, call);
  }
  for (const effect of effects) {
    if (!begun.includes(effect)) report("effect_unrecorded", orderId, effect);
  }
  const recorded = effects.filter((effect) => begun.includes(effect));
  const inDueOrder = begun.filter((call) => effects.includes(call));
  if (recorded.join() !== inDueOrder.join()) {
    report("effect_out_of_order", orderId, `${recorded.join(", ")}; in the history ${inDueOrder.join(", ")}`);
  }
}
