/**
 * Events as text: one compact JSON array each, joined by commas, so that a store can append to a history without reading
 * it, and a person can read it in the database.
 *
 *     ["created",1700000000000,1,"Scheduling"],["step_completed",1700000005000,"Pre-Processing",{"id":7}]
 *
 * A step's result stands in it as it is, for it is JSON already. What is usually absent comes last.
 */
import type { CarriedStep, JsonText, OrderEvent, Outcome } from "../order/events.ts";
import {
  LISTED_STATUSES,
  type ListedStatus,
  type OrderStatus,
  type SetAsideReason,
  statusOfListed,
} from "../order/status.ts";

/** One event as text, without separators. */
export function encodeEvent(event: OrderEvent): string {
  const { kind, atMs } = event;
  switch (kind) {
    case "created":
      return `["created",${atMs},${event.owner},${quoted(event.stepName)}${createdMore(event)}]`;
    case "started":
      return `["started",${atMs},${quoted(event.stepName)}]`;
    case "step_completed": {
      const { nextStepName, result, by } = event;
      if (result !== undefined) return `["step_completed",${atMs},${quoted(nextStepName)},${result}${optional(by)}]`;
      return nextStepName === null
        ? `["step_completed",${atMs}]`
        : `["step_completed",${atMs},${quoted(nextStepName)}]`;
    }
    case "step_waiting":
      return `["step_waiting",${atMs},${event.limitMs === null ? null : `[${event.limitMs}]`}${raw(event.result)}]`;
    case "signal_received":
      return `["signal_received",${atMs},${quoted(event.by)},${event.result}]`;
    case "attempt_failed":
      return `["attempt_failed",${atMs},${waitOf(event)},${quoted(event.error)}${optional(event.unknown)}]`;
    case "step_failed":
      return `["step_failed",${atMs},${event.rollbackIndex},${quoted(event.error)}${stepFailedMore(event)}]`;
    case "attempt_queued":
    case "attempt_started":
      return `["${kind}",${atMs}]`;
    case "set_aside":
      return `["set_aside",${atMs},"${event.reason}"${optional(event.error)}]`;
    case "step_rolled_back":
      return `["step_rolled_back",${atMs},${event.rollbackIndex}]`;
    case "rollback_abandoned":
      return `["rollback_abandoned",${atMs},${quoted(event.error)}]`;
    case "rollback_retried":
    case "pause_requested":
    case "resumed":
    case "retried":
      return `["${kind}",${atMs},${quoted(event.by)}]`;
    case "paused":
      return `["paused",${atMs}${optional(event.by)}]`;
    case "rollback_skipped":
      return `["rollback_skipped",${atMs},${event.rollbackIndex},${quoted(event.by)},${quoted(event.reason)}]`;
    case "cancel_requested":
      return `["cancel_requested",${atMs},${quoted(event.by)},${quoted(event.reason)}]`;
    case "canceled":
      return `["canceled",${atMs},${event.rollbackIndex},${quoted(event.by)},${quoted(event.reason)}]`;
    case "step_canceled":
      return `["step_canceled",${atMs},${event.rollbackIndex},"${event.outcome}",${quoted(event.error ?? null)}${raw(event.result)}]`;
    case "owner_changed":
      return `["owner_changed",${atMs},${event.owner}${ownerChangedMore(event)}]`;
  }
}

function quoted(text: string | null): string {
  return JSON.stringify(text);
}

function optional(value: string | boolean | undefined): string {
  return value === undefined ? "" : `,${JSON.stringify(value)}`;
}

function raw(json: JsonText | undefined): string {
  return json === undefined ? "" : `,${json}`;
}

/** The wait before the next attempt: a list of lengths. Before waits were lengths, it was the time at which it ends. */
function waitOf({
  atMs,
  delayMs,
  elapsedMs,
  shortage,
  endless,
  lingers,
}: Extract<OrderEvent, { kind: "attempt_failed" }>): string {
  if (elapsedMs === undefined) return String(atMs + delayMs);
  const traits = [shortage === true, endless === true, lingers === true];
  return JSON.stringify([delayMs, elapsedMs, ...traits.slice(0, traits.lastIndexOf(true) + 1)]);
}

function stepFailedMore({ unknown, by, reason }: Extract<OrderEvent, { kind: "step_failed" }>): string {
  if (by === undefined) return optional(unknown);
  return `,${unknown === true},${quoted(by)}${optional(reason)}`;
}

function ownerChangedMore({ callBegun, formerAtMs, former }: Extract<OrderEvent, { kind: "owner_changed" }>): string {
  const isPlain = formerAtMs === undefined && former === undefined;
  return isPlain ? optional(callBegun) : `,${callBegun ?? null},${formerAtMs ?? null},${quoted(former ?? null)}`;
}

/** What most orders don't have: when they start, which order they are made again from, and what they go on from. */
function createdMore({ startAtMs, retryOf, by, carried }: Extract<OrderEvent, { kind: "created" }>): string {
  const isPlain = startAtMs === undefined && retryOf === undefined && by === undefined && carried === undefined;
  if (isPlain) return "";
  const steps = carried?.map(({ stepName, result }) => `[${quoted(stepName)}${raw(result ?? undefined)}]`).join(",");
  return `,${startAtMs ?? null},${quoted(retryOf ?? null)},${quoted(by ?? null)}${steps === undefined ? "" : `,[${steps}]`}`;
}

/**
 * A whole history from its text.
 * @throws Error when the text is not a history
 */
export function decodeHistory(text: string): OrderEvent[] {
  const entries: unknown = JSON.parse(`[${text}]`);
  if (!Array.isArray(entries)) throw new Error("a history is not a list of events");
  return entries.map(decodeEvent);
}

function decodeEvent(entry: unknown): OrderEvent {
  if (!Array.isArray(entry)) throw new Error(`not an event: ${JSON.stringify(entry)}`);
  const [kind, time, one, two, three, four] = entry as unknown[];
  const atMs = asNumber(time);
  switch (kind) {
    case "created":
      return decodeCreated(entry, atMs);
    case "started":
      return { kind, atMs, stepName: asString(one) };
    case "step_completed":
      return {
        kind,
        atMs,
        nextStepName: one === undefined || one === null ? null : asString(one),
        ...(entry.length < 4 ? {} : { result: JSON.stringify(two) }),
        ...(three === undefined ? {} : { by: asString(three) }),
      };
    case "step_waiting":
      return { kind, atMs, limitMs: asLimit(one, atMs), ...(entry.length < 4 ? {} : { result: JSON.stringify(two) }) };
    case "signal_received":
      return { kind, atMs, by: asString(one), result: JSON.stringify(two) };
    case "attempt_failed":
      return { kind, atMs, error: asString(two), ...asWait(one, atMs), ...asUnknown(three) };
    case "attempt_queued":
    case "attempt_started":
      return { kind, atMs };
    case "set_aside":
      return { kind, atMs, reason: asReason(one), ...(two === undefined ? {} : { error: asString(two) }) };
    case "step_failed":
      return {
        kind,
        atMs,
        rollbackIndex: asIndex(one),
        error: asString(two),
        ...asUnknown(three),
        ...(four === undefined ? {} : { by: asString(four) }),
        ...(entry.length < 7 ? {} : { reason: asString(entry[6]) }),
      };
    case "step_rolled_back":
      return { kind, atMs, rollbackIndex: asIndex(one) };
    case "rollback_abandoned":
      return { kind, atMs, error: asString(one) };
    case "rollback_retried":
    case "pause_requested":
    case "resumed":
    case "retried":
      return { kind, atMs, by: asString(one) };
    case "paused":
      return { kind, atMs, ...(one === undefined ? {} : { by: asString(one) }) };
    case "rollback_skipped":
      return { kind, atMs, rollbackIndex: asIndex(one), by: asString(two), reason: asString(three) };
    case "cancel_requested":
      return { kind, atMs, by: asString(one), reason: asText(two) };
    case "canceled":
      return { kind, atMs, rollbackIndex: asIndex(one), by: asString(two), reason: asText(three) };
    case "step_canceled":
      return {
        kind,
        atMs,
        rollbackIndex: asIndex(one),
        outcome: asOutcome(two),
        ...(three === null ? {} : { error: asString(three) }),
        ...(entry.length < 6 ? {} : { result: JSON.stringify(four) }),
      };
    case "owner_changed":
      return {
        kind,
        atMs,
        owner: asNumber(one),
        ...(typeof two === "boolean" ? { callBegun: two } : {}),
        ...(typeof three === "number" ? { formerAtMs: three } : {}),
        ...(four === "died" || four === "drained" ? { former: four } : {}),
      };
    default:
      throw new Error(`not an event: ${JSON.stringify(entry)}`);
  }
}

function decodeCreated(entry: readonly unknown[], atMs: number): OrderEvent {
  const [, , owner, stepName, startAtMs = null, retryOf = null, by = null, carried] = entry;
  return {
    kind: "created",
    atMs,
    owner: asNumber(owner),
    stepName: asString(stepName),
    ...(startAtMs === null ? {} : { startAtMs: asNumber(startAtMs) }),
    ...(retryOf === null ? {} : { retryOf: asString(retryOf) }),
    ...(by === null ? {} : { by: asString(by) }),
    ...(Array.isArray(carried) ? { carried: carried.map(decodeCarried) } : {}),
  };
}

function decodeCarried(entry: unknown): CarriedStep {
  if (!Array.isArray(entry)) throw new Error(`not a step: ${JSON.stringify(entry)}`);
  return { stepName: asString(entry[0]), result: entry.length < 2 ? null : JSON.stringify(entry[1]) };
}

const STATUSES: ReadonlySet<string> = new Set(LISTED_STATUSES);

/**
 * A status from its text, as stores find orders by it.
 * @throws Error when it is none
 */
export function decodeStatus(text: unknown): OrderStatus {
  if (typeof text === "string" && isStatus(text)) return statusOfListed(text);
  throw new Error(`not a status: ${JSON.stringify(text)}`);
}

function isStatus(text: string): text is ListedStatus {
  return STATUSES.has(text);
}

function asNumber(value: unknown): number {
  if (typeof value !== "number") throw new Error(`not a number: ${JSON.stringify(value)}`);
  return value;
}

function asString(value: unknown): string {
  if (typeof value !== "string") throw new Error(`not a string: ${JSON.stringify(value)}`);
  return value;
}

function asIndex(value: unknown): number | null {
  return value === null ? null : asNumber(value);
}

/** @throws Error */
function asLimit(value: unknown, atMs: number): number | null {
  if (value === null) return null;
  return Array.isArray(value) ? asNumber(value[0]) : asNumber(value) - atMs;
}

function asWait(
  value: unknown,
  atMs: number,
): Pick<Extract<OrderEvent, { kind: "attempt_failed" }>, "delayMs" | "elapsedMs" | "shortage" | "endless" | "lingers"> {
  if (!Array.isArray(value)) return { delayMs: Math.max(0, asNumber(value) - atMs) };
  const [delayMs, elapsedMs, shortage, endless, lingers] = value as unknown[];
  return {
    delayMs: asNumber(delayMs),
    elapsedMs: asNumber(elapsedMs),
    ...(shortage === true ? { shortage } : {}),
    ...(endless === true ? { endless } : {}),
    ...(lingers === true ? { lingers } : {}),
  };
}

function asReason(value: unknown): SetAsideReason {
  if (value === "crashes" || value === "unknown_commit") return value;
  throw new Error(`not a reason to set an order aside: ${JSON.stringify(value)}`);
}

function asText(value: unknown): string | null {
  return value === null ? null : asString(value);
}

function asUnknown(value: unknown): { unknown?: true } {
  return value === true ? { unknown: true } : {};
}

function asOutcome(value: unknown): "done" | Outcome {
  if (value === "done" || value === "not_done" || value === "unknown") return value;
  throw new Error(`not an outcome: ${JSON.stringify(value)}`);
}
