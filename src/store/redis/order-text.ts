/**
 * An order as text: what one key of Redis holds. A header in one line, the body, and the history as codec.ts writes it, so
 * that an event is added by appending, and the body is found without being parsed: the header ends with its length.
 *
 *     ["alice",null,"default",1,15]
 *     {"item":"book"}
 *     ["created",1700000000000,1,"Scheduling"],["step_completed",1700000005000,"Pre-Processing"]
 *
 * Owner, revision and status are not kept: they follow from the history.
 */
import type { Incarnation, OrderEvent } from "../../order/events.ts";
import { replay } from "../../order/evolve.ts";
import type { OrderStatus } from "../../order/status.ts";
import { decodeHistory, encodeEvent } from "../codec.ts";
import type { CreateWrite } from "../store.ts";

export interface DecodedOrder {
  readonly user: string;
  readonly pipelineName: string;
  readonly pipelineVersion: number;
  readonly status: OrderStatus;
  readonly owner: Incarnation;
  readonly revision: number;
  readonly history: readonly OrderEvent[];
  readonly body: string;
}

/** A new order as text. */
export function encodeOrder(write: CreateWrite): string {
  const { user, idempotencyKey, pipelineName, pipelineVersion, event, body } = write;
  const header = JSON.stringify([user, idempotencyKey, pipelineName, pipelineVersion, body.length]);
  return `${header}\n${body}\n${encodeEvent(event)}`;
}

/** An event as it is appended to an order's text. */
export function encodeNextEvent(event: OrderEvent): string {
  return `,${encodeEvent(event)}`;
}

/**
 * An order from its text.
 * @throws Error when the text is not an order
 */
export function decodeOrder(text: string): DecodedOrder {
  const { user, pipelineName, pipelineVersion, body, historyText } = split(text);
  const history = decodeHistory(historyText);
  const { owner, revision, state } = replay("in Redis", history);
  return { user, pipelineName, pipelineVersion, status: state.status, owner, revision, history, body };
}

/**
 * What stands in the first line of an order's text.
 * @throws Error when the text is not an order
 */
export function decodeHeader(text: string): {
  readonly user: string;
  readonly pipelineName: string;
  readonly pipelineVersion: number;
  /** In characters. */
  readonly bodyLength: number;
  /** Where the line ends. */
  readonly end: number;
} {
  const end = text.indexOf("\n");
  const header: unknown = JSON.parse(text.slice(0, Math.max(end, 0)));
  const [user, , pipelineName, pipelineVersion, bodyLength] = Array.isArray(header) ? (header as unknown[]) : [];
  if (
    typeof user !== "string" ||
    typeof pipelineName !== "string" ||
    typeof pipelineVersion !== "number" ||
    typeof bodyLength !== "number"
  ) {
    throw new Error(`not the header of an order: ${text.slice(0, end)}`);
  }
  return { user, pipelineName, pipelineVersion, bodyLength, end };
}

function split(text: string): {
  user: string;
  pipelineName: string;
  pipelineVersion: number;
  body: string;
  historyText: string;
} {
  const { user, pipelineName, pipelineVersion, bodyLength, end } = decodeHeader(text);
  const bodyEnd = end + 1 + bodyLength;
  if (text[bodyEnd] !== "\n") throw new Error("an order's body is not as long as its header says");
  return {
    user,
    pipelineName,
    pipelineVersion,
    body: text.slice(end + 1, bodyEnd),
    historyText: text.slice(bodyEnd + 1),
  };
}
