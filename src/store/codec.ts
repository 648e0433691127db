/**
 * Events as text: one compact JSON array each, joined by commas, so that a store can append to a history without reading
 * it, and a person can read it in the database.
 *
 *     ["created",1700000000000,1,"Scheduling"],["step_completed",1700000005000,"Pre-Processing"]
 */
import type { OrderEvent, OrderStatus } from "../order/order.ts";

/** One event as text, without separators. */
export function encodeEvent(event: OrderEvent): string {
  switch (event.kind) {
    case "created":
      return `["created",${event.atMs},${event.owner},${JSON.stringify(event.stepName)}]`;
    case "step_completed":
      return event.nextStepName === null
        ? `["step_completed",${event.atMs}]`
        : `["step_completed",${event.atMs},${JSON.stringify(event.nextStepName)}]`;
    case "attempt_failed":
      return `["attempt_failed",${event.atMs},${event.retryAtMs},${JSON.stringify(event.error)}]`;
    case "step_failed":
      return `["step_failed",${event.atMs},${event.rollbackIndex},${JSON.stringify(event.error)}]`;
    case "step_rolled_back":
      return `["step_rolled_back",${event.atMs},${event.rollbackIndex}]`;
    case "rollback_abandoned":
      return `["rollback_abandoned",${event.atMs},${JSON.stringify(event.error)}]`;
    case "owner_changed":
      return `["owner_changed",${event.atMs},${event.owner}${event.callBegun === false ? ",false" : ""}]`;
  }
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
  const atMs = asNumber(entry[1]);
  switch (entry[0]) {
    case "created":
      return { kind: "created", atMs, owner: asNumber(entry[2]), stepName: asString(entry[3]) };
    case "step_completed":
      return { kind: "step_completed", atMs, nextStepName: entry.length < 3 ? null : asString(entry[2]) };
    case "attempt_failed":
      return { kind: "attempt_failed", atMs, retryAtMs: asNumber(entry[2]), error: asString(entry[3]) };
    case "step_failed":
      return { kind: "step_failed", atMs, rollbackIndex: asIndex(entry[2]), error: asString(entry[3]) };
    case "step_rolled_back":
      return { kind: "step_rolled_back", atMs, rollbackIndex: asIndex(entry[2]) };
    case "rollback_abandoned":
      return { kind: "rollback_abandoned", atMs, error: asString(entry[2]) };
    case "owner_changed":
      return {
        kind: "owner_changed",
        atMs,
        owner: asNumber(entry[2]),
        ...(entry[3] === false ? { callBegun: false } : {}),
      };
    default:
      throw new Error(`not an event: ${JSON.stringify(entry)}`);
  }
}

const STATUSES: ReadonlySet<string> = new Set<OrderStatus>([
  "running",
  "rolling_back",
  "rollback_incomplete",
  "completed",
  "failed",
]);

/**
 * A status from its text.
 * @throws Error when it is none
 */
export function decodeStatus(text: unknown): OrderStatus {
  if (typeof text === "string" && isStatus(text)) return text;
  throw new Error(`not a status: ${JSON.stringify(text)}`);
}

function isStatus(text: string): text is OrderStatus {
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
