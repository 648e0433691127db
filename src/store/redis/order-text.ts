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
import type { Incarnation, OrderEvent, OrderStatus } from "../../order/order.ts";
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
  return { user, pipelineName, pipelineVersion, ...presentOf(history), revision: history.length, history, body };
}

function split(text: string): {
  user: string;
  pipelineName: string;
  pipelineVersion: number;
  body: string;
  historyText: string;
} {
  const headerEnd = text.indexOf("\n");
  const header: unknown = JSON.parse(text.slice(0, Math.max(headerEnd, 0)));
  const [user, , pipelineName, pipelineVersion, bodyLength] = Array.isArray(header) ? (header as unknown[]) : [];
  if (
    typeof user !== "string" ||
    typeof pipelineName !== "string" ||
    typeof pipelineVersion !== "number" ||
    typeof bodyLength !== "number"
  ) {
    throw new Error(`not the header of an order: ${text.slice(0, headerEnd)}`);
  }
  const bodyEnd = headerEnd + 1 + bodyLength;
  if (text[bodyEnd] !== "\n") throw new Error("an order's body is not as long as its header says");
  return {
    user,
    pipelineName,
    pipelineVersion,
    body: text.slice(headerEnd + 1, bodyEnd),
    historyText: text.slice(bodyEnd + 1),
  };
}

/**
 * The owner and the status after a history. Says of each event only which status it names; whether the events can follow each
 * other is checked where the order is run (`replay` in order.ts), and order-text.test.ts checks that the two agree.
 */
function presentOf(history: readonly OrderEvent[]): { owner: Incarnation; status: OrderStatus } {
  let owner: Incarnation | null = null;
  let status: OrderStatus = "running";
  for (const event of history) {
    switch (event.kind) {
      case "created":
      case "owner_changed":
        owner = event.owner;
        break;
      case "step_completed":
        status = event.nextStepName === null ? "completed" : "running";
        break;
      case "step_failed":
      case "step_rolled_back":
        status = event.rollbackIndex === null ? "failed" : "rolling_back";
        break;
      case "rollback_abandoned":
        status = "rollback_incomplete";
        break;
      case "attempt_failed":
        break;
    }
  }
  if (owner === null) throw new Error("an order's history does not begin with its creation");
  return { owner, status };
}
