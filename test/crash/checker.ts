/**
 * Judges what happened, from three records that know nothing of each other: what clients were promised, what the store
 * holds at the end, and what the receiver was asked to do. Shares no rule with the code it judges: what a legal history
 * is, is said here once more, in another way.
 *
 * It supposes a pipeline whose every step has a rollback, rollbacks that never fail for good, and bodies that name the
 * step that fails in `fail_at`; then every order must end, and how it must end is known.
 */
import type { OrderEvent } from "../../src/order/order.ts";
import type { Direction, ReceivedCall } from "./receiver.ts";
import type { StoreRow } from "./store-content.ts";

/** A client's order that was answered with 201. */
export interface Acknowledgement {
  readonly orderId: string;
  readonly idempotencyKey: string | null;
  /** The body as it was sent. */
  readonly body: string;
}

export interface Evidence {
  /** Names of the steps. */
  readonly pipeline: readonly string[];
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
  /** The rollbacks are not the started steps, last first. */
  rollbacks_not_reversed: "G3",
  /** The order ended otherwise than its body asks. */
  wrong_outcome: "G3",
  /** A key is not `<order_id>:<step>:<direction>`. */
  malformed_key: "G4",
  /** Attempts of one run or rollback carried different keys. */
  different_keys: "G4",
  /** Two calls of one run or rollback were the same attempt. */
  attempt_repeated: "G4",
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
  for (const row of evidence.stored) {
    checkRow(row, report);
    checkHistory(row, evidence.pipeline, report);
    checkCalls(row, evidence.pipeline, callsByOrder.get(row.orderId) ?? [], report);
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
  for (const { orderId, step, direction, key, attempt, sequence } of calls) {
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
  if (status !== "completed" && status !== "failed") report("stuck_order", orderId, `it is ${status} at the end`);
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
    default:
      return "?"; // nobody steers these orders
  }
}

/** Creation, steps, then completion or failure and rollbacks; retries and changes of owner anywhere before the end. */
const LEGAL = /^C[ro]*(n[ro]*)*(E|F[ro]*(b[ro]*)*B?)?$/;

function checkHistory(row: StoreRow, pipeline: readonly string[], report: Report): void {
  const { orderId, history } = row;
  const letters = history.map(letterOf).join("");
  if (!LEGAL.test(letters)) report("illegal_history", orderId, letters);
  if (/[EBX]./.test(letters)) report("event_after_final", orderId, letters);
  if (/E/.test(letters) && /[FXbBa]/.test(letters)) report("completed_and_rolled_back", orderId, letters);

  const started = startedSteps(history);
  const isCompleted = letters.includes("E");
  const due = isCompleted ? pipeline : pipeline.slice(0, started.length);
  if (started.join() !== due.join()) report("illegal_history", orderId, `its steps are ${started.join(", ")}`);

  const rolledBack = history.flatMap((event) => ("rollbackIndex" in event ? [event.rollbackIndex] : []));
  const reversed = [...started.keys()].toReversed();
  const dueRollbacks = [...reversed, null].slice(0, rolledBack.length);
  if (rolledBack.join() !== dueRollbacks.join()) {
    report("rollbacks_not_reversed", orderId, `${rolledBack.join(", ")} after ${started.length} steps`);
  }

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

/** The status that the last event of consequence leaves an order in. */
function statusAfter(history: readonly OrderEvent[]): string {
  const letter = history.map(letterOf).findLast((each) => each !== "r" && each !== "o");
  const byLetter: Readonly<Record<string, string>> = {
    C: "running",
    n: "running",
    E: "completed",
    F: "rolling_back",
    b: "rolling_back",
    X: "failed",
    B: "failed",
    a: "rollback_incomplete",
  };
  return byLetter[letter ?? ""] ?? "none";
}

function failingStep(body: string): string | undefined {
  const { fail_at: step } = JSON.parse(body) as { fail_at?: string };
  return step;
}

/** Where an order is after one of its events: whose it is, and which call it is at. */
interface Moment {
  readonly owner: number;
  /** `<step>:<direction>`, or null at the end. */
  readonly call: string | null;
}

/** One for each revision. */
function momentsOf(history: readonly OrderEvent[], pipeline: readonly string[]): Moment[] {
  const callOf = (step: string | null | undefined, direction: Direction): string | null =>
    typeof step === "string" ? `${step}:${direction}` : null;
  let moment: Moment = { owner: 0, call: null };
  return history.map((event) => {
    if (event.kind === "created") moment = { owner: event.owner, call: callOf(event.stepName, "run") };
    else if (event.kind === "owner_changed") moment = { ...moment, owner: event.owner };
    else if (event.kind === "step_completed") moment = { ...moment, call: callOf(event.nextStepName, "run") };
    else if ("rollbackIndex" in event) {
      const step = event.rollbackIndex === null ? null : pipeline[event.rollbackIndex];
      moment = { ...moment, call: callOf(step, "rollback") };
    }
    return moment;
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
  const effects = calls.flatMap(({ hadEffect, step, direction }) => (hadEffect ? [`${step}:${direction}`] : []));
  for (const call of begun) {
    if (call !== current && !effects.includes(call)) report("effect_missing", orderId, call);
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
