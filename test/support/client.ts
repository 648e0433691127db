/** The few requests that most tests make. */
import type { OrderView } from "../../src/http/schemas.ts";
import { DEADLINE_MS, waitFor } from "./wait.ts";

export type OrderAnswer = OrderView;

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The body where it is JSON, else undefined. */
  readonly json: Record<string, unknown> | undefined;
}

/** Sends a request and reads the answer whole. */
export async function send(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, init);
  const text = await response.text();
  const isJson = (response.headers.get("content-type") ?? "").includes("json");
  return {
    status: response.status,
    headers: response.headers,
    text,
    json: isJson && text !== "" ? (JSON.parse(text) as Record<string, unknown>) : undefined,
  };
}

/** Submits an order as `user`. */
export function submitOrder(
  serviceUrl: string,
  body: unknown = {},
  headers: Record<string, string> = {},
  signal: AbortSignal | null = null,
): Promise<Answer> {
  return send(`${serviceUrl}/orders`, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    headers: { authorization: "user", "content-type": "application/json", ...headers },
    signal,
  });
}

/**
 * Submits an order and returns its id; fails when it isn't accepted. A node whose heartbeats are late, on a busy machine, takes none for
 * the moment: it is asked again.
 */
export function acceptedOrderId(serviceUrl: string, body: unknown = {}): Promise<string> {
  let answered = "";
  return waitFor(
    async () => {
      const answer = await submitOrder(serviceUrl, body);
      answered = `${answer.status} ${answer.text}`;
      const id = answer.json?.["order_id"];
      if (answer.status === 201 && typeof id === "string") return id;
      if (answer.json?.["code"] !== "store_unavailable") throw new Error(`not accepted: ${answered}`);
      return undefined;
    },
    { what: () => `an order is accepted; the last one was not: ${answered}` },
  );
}

/** The order as the service shows it. */
export async function readOrder(serviceUrl: string, orderId: string): Promise<OrderAnswer> {
  const answer = await send(`${serviceUrl}/orders/${orderId}`, { headers: { authorization: "user" } });
  if (answer.status !== 200) throw new Error(`order ${orderId}: ${answer.status} ${answer.text}`);
  return answer.json as unknown as OrderAnswer;
}

/** The order when it is final. */
export function finalOrder(serviceUrl: string, orderId: string, deadlineMs = DEADLINE_MS): Promise<OrderAnswer> {
  return waitFor(
    async () => {
      const order = await readOrder(serviceUrl, orderId);
      return order.complete_time === undefined ? undefined : order;
    },
    { deadlineMs, what: `order ${orderId} is final` },
  );
}
