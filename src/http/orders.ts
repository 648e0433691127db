/** `/orders`: submit an order, look at one. */
import type { FastifyInstance } from "fastify";
import type { SubmitOutcome, Submission } from "../engine/engine.ts";
import { CatalogueError } from "../order/errors.ts";
import type { StoredOrder } from "../store/store.ts";
import { isUuid } from "../uuid.ts";
import { orderView } from "./order-view.ts";
import { rfc3339 } from "./rfc3339.ts";
import { requireUser, USER_SECURITY } from "./authorization.ts";
import { named, OrderBody, problemResponses } from "./schemas.ts";

export interface OrdersResource {
  readonly submit: (submission: Submission) => Promise<SubmitOutcome>;
  readonly readOrder: (orderId: string) => Promise<StoredOrder | null>;
}

/** As the IETF draft's examples, with room: a UUID or a hash. */
const IDEMPOTENCY_KEY_CHARS_MAX = 255;

export function ordersRoutes(app: FastifyInstance, { submit, readOrder }: OrdersResource): void {
  app.route({
    method: "POST",
    url: "/orders",
    schema: {
      operationId: "submitOrder",
      summary: "Submit an order",
      description: "Answered only when the order is durable. It then goes through the steps of its pipeline.",
      security: USER_SECURITY,
      headers: {
        type: "object",
        properties: {
          "idempotency-key": {
            type: "string",
            minLength: 1,
            maxLength: IDEMPOTENCY_KEY_CHARS_MAX,
            description: "Makes the request safe to repeat: the same user, key and body give the same order.",
          },
        },
      },
      body: OrderBody,
      response: {
        201: named("AcceptedOrder", "The order is durable. `Location` says where to look at it."),
        ...problemResponses(
          "body_not_json",
          "body_not_object",
          "body_too_deep",
          "body_key_refused",
          "request_invalid",
          "authorization_required",
          "body_too_large",
          "media_type_unsupported",
          "idempotency_key_reused",
          "headers_too_large",
          "too_many_in_flight",
          "store_unavailable",
          "shutting_down",
        ),
      },
    },
    onRequest: requireUser,
    handler: async (request, reply) => {
      // The parsed body can take many times what its text takes, and the request lives until the order is durable.
      request.body = null;
      const key = request.headers["idempotency-key"];
      const outcome = await submit({
        user: request.user,
        body: request.bodyText,
        idempotencyKey: typeof key === "string" ? key : null,
      });
      if (outcome.kind !== "accepted") throw refusal(outcome);
      reply.code(201).header("location", `/orders/${outcome.orderId}`);
      return { order_id: outcome.orderId, start_time: rfc3339(outcome.startTimeMs) };
    },
  });

  app.route<{ Params: { order_id: string } }>({
    method: "GET",
    url: "/orders/:order_id",
    schema: {
      operationId: "getOrder",
      summary: "Look at an order",
      description: "Only its user sees it; to all others it does not exist.",
      security: USER_SECURITY,
      params: { type: "object", required: ["order_id"], properties: { order_id: { type: "string" } } },
      response: {
        200: named("Order", "The order as it is now."),
        ...problemResponses(
          "request_invalid",
          "authorization_required",
          "order_not_found",
          "headers_too_large",
          "store_unavailable",
        ),
      },
    },
    onRequest: requireUser,
    handler: async (request) => {
      const orderId = request.params.order_id.toLowerCase();
      const stored = isUuid(orderId) ? await readOrder(orderId) : null;
      if (stored === null || stored.user !== request.user) {
        throw new CatalogueError(
          "order_not_found",
          "You have no order with this id; check the id and the Authorization header.",
        );
      }
      return orderView(stored);
    },
  });
}

function refusal(outcome: Exclude<SubmitOutcome, { kind: "accepted" }>): CatalogueError {
  switch (outcome.kind) {
    case "idempotency_key_reused":
      return new CatalogueError(
        outcome.kind,
        `This Idempotency-Key made order ${outcome.orderId} from another body; use a new key for a new order.`,
      );
    case "too_many_in_flight":
      return new CatalogueError(outcome.kind, "The node has as many orders in flight as it takes; try again.");
    case "store_unavailable":
      return new CatalogueError(
        outcome.kind,
        `The order may not have been accepted: ${outcome.reason}. Send it again with the same Idempotency-Key.`,
      );
    case "shutting_down":
      return new CatalogueError(outcome.kind, "The node is stopping; try another, or this one later.");
  }
}
