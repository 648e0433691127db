/** The shapes that go in and out over HTTP, for Fastify's serializers and the OpenAPI document alike. */
import { type Static, Type } from "typebox";
import { catalogueEntry, type ErrorCode } from "../order/errors.ts";
import { PROBLEM_MEDIA_TYPE } from "./problem.ts";

const Time = (description: string) => Type.String({ format: "date-time", description });
const Uuid = (description: string) => Type.String({ format: "uuid", description });
const Misspelt = (correct: string) =>
  Type.String({ deprecated: true, description: `The same as \`${correct}\`, as an earlier version spelt it.` });

export const OrderBody = Type.Object(
  {},
  { additionalProperties: true, description: "The order's content: any JSON object." },
);

export const AcceptedOrder = Type.Object(
  { order_id: Uuid("Of the order."), start_time: Time("When the order was created.") },
  { $id: "AcceptedOrder" },
);

const StepView = Type.Object({
  step_name: Type.String(),
  step_start_time: Time("When the step was started."),
  step_complete_time: Type.Optional(Time("When it ended well; absent if it has not.")),
  step_rollback_time: Type.Optional(Time("When it was rolled back; absent if it was not.")),
  attempts: Type.Optional(Type.Integer({ description: "Calls of the step so far." })),
  error: Type.Optional(Type.String({ description: "What its last failed attempt said." })),
});

export const OrderView = Type.Object(
  {
    order_id: Uuid("Of the order."),
    start_time: Time("When the order was created."),
    complete_time: Type.Optional(Time("When the order became final; absent until then.")),
    current_step: Type.String({
      description: "The step it is at; `Failed` from the failure on, `Completed` at the end.",
    }),
    curent_step: Misspelt("current_step"),
    status: Type.Enum(["running", "rolling_back", "rollback_incomplete", "completed", "failed"]),
    service_id: Uuid("Of the service that owns the order."),
    steps: Type.Array(StepView, { description: "In the order they started, then `Completed` or `Failed`." }),
  },
  { $id: "Order" },
);
export type OrderView = Static<typeof OrderView>;
export type StepView = Static<typeof StepView>;

export const TransferRequest = Type.Object({
  service_id: Type.String({ description: "The service_id of the dead node." }),
  incarnation: Type.Optional(
    Type.Integer({ minimum: 1, description: "Only the orders of that start of the node; nodes say so to each other." }),
  ),
  orders_max: Type.Optional(Type.Integer({ minimum: 1, description: "How many orders to take at the most." })),
});
export type TransferRequest = Static<typeof TransferRequest>;

export const Transfer = Type.Object(
  {
    current_service_id: Uuid("Of the node that took the orders over."),
    transferred_service_id: Uuid("Of the node whose orders they were."),
    tranferred_service_id: Misspelt("transferred_service_id"),
    orders_transferred: Type.Integer(),
  },
  { $id: "Transfer" },
);

export const JoinRequest = Type.Object({
  service_id: Type.String({ description: "Of the node that wants to join." }),
  version: Type.String({ description: "Of the node that wants to join." }),
  protocol: Type.Integer({ description: "What it says to other nodes." }),
});
export type JoinRequest = Static<typeof JoinRequest>;

export const GivenOrders = Type.Object({
  order_ids: Type.Array(Type.String(), { maxItems: 1_000, description: "Orders that the node asked owns now." }),
});
export type GivenOrders = Static<typeof GivenOrders>;

export const GivenOrdersAnswer = Type.Object({ service_id: Uuid("Of this node.") }, { $id: "GivenOrdersAnswer" });

const DurabilityName = Type.Enum(["fsync-always", "fsync-every-second", "none", "unknown"], {
  description: "What an acknowledged order outlives, by the store's settings: with `fsync-always`, the loss of power.",
});

export const Heartbeat = Type.Object(
  {
    service_id: Uuid("Of this node."),
    serive_id: Misspelt("service_id"),
    service_name: Type.String(),
    version: Type.String(),
    status: Type.Enum(["OK", "STORE_UNAVAILABLE", "SHUTTING_DOWN"]),
    durability: DurabilityName,
    generated_at: Time("When this was said."),
  },
  { $id: "Heartbeat" },
);
export type HeartbeatStatus = Static<typeof Heartbeat>["status"];

export const Cluster = Type.Object(
  {
    leader_name: Type.String({ description: "The service_id of the leader; empty while there is none." }),
    cluster_id: Uuid("Of the cluster, and of its store."),
    durability: DurabilityName,
    term: Type.Integer({ description: "Counts elections." }),
    nodes_count: Type.Integer(),
    generated_at: Time("When this was said."),
    nodes: Type.Array(
      Type.Object({
        name: Uuid("The service_id of the node."),
        connection_string: Type.String({ description: "Where the node listens." }),
        connected: Type.Boolean({ description: "Whether it is alive, as far as this node knows." }),
        last_activity: Time("When the node was last heard of."),
        version: Type.String(),
        orders_in_flight: Type.Integer({ description: "As of its last heartbeat." }),
      }),
    ),
    transfers: Type.Array(
      Type.Object({
        service_id: Uuid("Of the node whose orders they were."),
        orders_transferred: Type.Integer(),
        start_time: Time("When it began."),
        duration_ms: Type.Integer(),
      }),
      { description: "The last transfers that this node led or was asked for by hand, newest first." },
    ),
  },
  { $id: "Cluster" },
);

const ProblemSchema = Type.Object(
  {
    type: Type.String({ description: "A URN that ends in the code." }),
    title: Type.String(),
    status: Type.Integer(),
    detail: Type.String({ description: "What is wrong this time, and what to do." }),
    code: Type.String({ description: "Stable; see docs/errors.md." }),
  },
  { $id: "Problem", description: "RFC 9457" },
);

/** All schemas that the OpenAPI document lists by name. */
export const NAMED_SCHEMAS = [AcceptedOrder, OrderView, Transfer, GivenOrdersAnswer, Heartbeat, Cluster, ProblemSchema];

type SchemaName = "AcceptedOrder" | "Order" | "Transfer" | "GivenOrdersAnswer" | "Heartbeat" | "Cluster";

/** A successful response, by the name of its schema. Without `content`, which would cost a look-up at every answer. */
export function named(name: SchemaName, description: string): object {
  return { description, $ref: `${name}#` };
}

/** The problem responses of a route, by status. */
export function problemResponses(...codes: ErrorCode[]): Record<number, object> {
  const responses: Record<number, object> = {};
  for (const status of new Set(codes.map((code) => catalogueEntry(code).status))) {
    const same = codes.filter((code) => catalogueEntry(code).status === status);
    responses[status] = {
      description: same.map((code) => `\`${code}\`: ${catalogueEntry(code).title}`).join("; "),
      content: { [PROBLEM_MEDIA_TYPE]: { schema: { $ref: "Problem#" } } },
      headers: same.some((code) => catalogueEntry(code).retryAfterS !== undefined)
        ? { "Retry-After": { type: "integer", description: "Seconds to wait." } }
        : {},
    };
  }
  return responses;
}
