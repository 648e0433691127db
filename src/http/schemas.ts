/** The shapes that go in and out over HTTP, for Fastify's validation and serializers and the OpenAPI document alike. */
import type { FromSchema } from "json-schema-to-ts";
import { type Action, ACTIONS } from "../order/actions.ts";
import { catalogueEntry, type ErrorCode, type ErrorDetail } from "../order/errors.ts";
import { ORDER_STATUSES, type OrderStatus } from "../order/status.ts";

/** The type of what a schema lets through, without what it does not name. */
type Shape<Schema extends object> = Named<FromSchema<Schema>>;
type Named<T> = T extends object ? { [Key in keyof T as string extends Key ? never : Key]: T[Key] } : T;

const text = { type: "string" } as const;
const integer = { type: "integer" } as const;
const time = (description: string) => ({ type: "string", format: "date-time", description }) as const;
const uuid = (description: string) => ({ type: "string", format: "uuid", description }) as const;
const misspelt = (correct: string) =>
  ({
    type: "string",
    deprecated: true,
    description: `The same as \`${correct}\`, as an earlier version spelt it.`,
  }) as const;

export const OrderBody = {
  type: "object",
  additionalProperties: true,
  description: "The order's content: any JSON object.",
} as const;

const AcceptedOrder = {
  $id: "AcceptedOrder",
  type: "object",
  required: ["order_id", "start_time"],
  properties: { order_id: uuid("Of the order."), start_time: time("When the order was created.") },
} as const;

const StepView = {
  type: "object",
  required: ["step_name", "step_start_time"],
  properties: {
    step_name: text,
    step_start_time: time("When the step was started."),
    step_complete_time: time("When it ended well; absent if it has not."),
    step_rollback_time: time("When it was rolled back; absent if it was not."),
    attempts: {
      type: "integer",
      description:
        "Calls of the step so far. One that a stop or a crash may have kept from beginning counts, and one that only asked `verify`, too.",
    },
    error: { type: "string", description: "What its last failed attempt said." },
    result: { description: "What it has returned, or what the signal brought that it waited for: any JSON." },
    outcome: {
      enum: ["not_done", "unknown"],
      description:
        "Of a step that ended without completing: whether it is known that its work was not done. It is rolled back in either case.",
    },
    by: { type: "string", description: "Who completed it from outside, or had its rollback left out." },
    skip_reason: { type: "string", description: "Why its rollback was left out." },
  },
} as const;
export type StepView = Shape<typeof StepView>;

/** What is told of an order in a list, too. */
const summaryProperties = {
  order_id: uuid("Of the order."),
  start_time: time("When the order was created."),
  complete_time: time("When the order became final; absent until then."),
  current_step: {
    type: "string",
    description: "The step it is at; `Failed` or `Canceled` from then on, `Completed` at the end.",
  },
  status: { enum: ORDER_STATUSES },
  needs_person: {
    type: "boolean",
    description:
      "True: a person should look at it. Its rollback has failed, it was set aside, or its call is tried again without end.",
  },
  set_aside_reason: {
    enum: ["crashes", "unknown_commit"],
    description:
      "Nodes died again and again during a call of it; or nobody knows whether its point of no return was passed.",
  },
  pending_action: {
    enum: ["pause", "cancel"],
    description: "Asked for, and to happen when the call that is under way has ended.",
  },
  start_at: time("When its first step starts; absent once it has."),
  wait_deadline: time("Until when its step waits for a signal; absent where it waits for none, or for good."),
  pipeline: text,
  pipeline_version: integer,
  service_id: uuid("Of the service that owns the order."),
  retry_of: uuid("Of the failed or canceled order that this one was made again from."),
} as const;
const SUMMARY_REQUIRED = [
  "order_id",
  "start_time",
  "current_step",
  "status",
  "pipeline",
  "pipeline_version",
  "service_id",
] as const;

const OrderSummary = {
  type: "object",
  required: SUMMARY_REQUIRED,
  properties: { ...summaryProperties, user: { type: "string", description: "For operators: whose order it is." } },
} as const;
export type OrderSummary = Shape<typeof OrderSummary>;

const OrderList = {
  $id: "OrderList",
  type: "object",
  required: ["orders", "counts"],
  properties: {
    orders: { type: "array", items: OrderSummary, description: "Newest first." },
    next_cursor: { type: "string", description: "Where the next page begins; absent on the last." },
    counts: {
      type: "object",
      description: "How many orders have each status: of all that one may see, whatever else was asked for.",
      additionalProperties: integer,
    },
  },
} as const;
export type OrderList = Omit<Shape<typeof OrderList>, "orders" | "counts"> & {
  readonly orders: OrderSummary[];
  readonly counts: Readonly<Partial<Record<OrderStatus, number>>>;
};

const HistoryEntry = {
  $id: "HistoryEntry",
  type: "object",
  required: ["order_id", "revision", "time", "event", "step", "status", "current_step", "service_id"],
  properties: {
    order_id: uuid("Of the order."),
    revision: { type: "integer", description: "Counts what has happened to the order, from 1, without gaps." },
    time: time("When it happened."),
    event: { type: "string", description: "What happened, such as `step_completed` or `owner_changed`." },
    step: { type: "string", description: "The step that it happened to: the one that was run or rolled back then." },
    status: { enum: ORDER_STATUSES, description: "The order's, after that." },
    current_step: { type: "string", description: "As in the order, after that." },
    attempt: { type: "integer", description: "The attempt that the order is at after that, if it is at one." },
    service_id: uuid("Of the service that owned the order after that."),
    error: { type: "string", description: "What the attempt said that failed." },
    by: { type: "string", description: "The user who asked for it." },
    reason: { type: "string", description: "That the user gave." },
  },
} as const;
export type HistoryEntry = Shape<typeof HistoryEntry>;

const History = {
  $id: "History",
  type: "object",
  required: ["order_id", "events"],
  properties: { order_id: uuid("Of the order."), events: { type: "array", items: { $ref: "HistoryEntry#" } } },
} as const;

const OrderView = {
  $id: "Order",
  type: "object",
  required: [...SUMMARY_REQUIRED, "curent_step", "allowed_actions", "steps"],
  properties: {
    ...summaryProperties,
    curent_step: misspelt("current_step"),
    waiting_for: {
      type: "string",
      description:
        "What keeps it from going on, where that is the cluster: no live node has its pipeline in its version.",
    },
    allowed_actions: {
      type: "array",
      items: { enum: Object.keys(ACTIONS) as Action[] },
      description: "What can be done to it now.",
    },
    steps: {
      type: "array",
      items: StepView,
      description: "In the order they started, then `Completed`, `Failed` or `Canceled`.",
    },
    interventions: {
      type: "array",
      description: "What people did to it; absent where that is nothing.",
      items: {
        type: "object",
        required: ["action", "time", "by"],
        properties: {
          action: { enum: Object.keys(ACTIONS) as Action[] },
          time: time("When it was asked."),
          by: { type: "string", description: "The user who asked it." },
          reason: text,
        },
      },
    },
  },
} as const;
export type OrderView = Shape<typeof OrderView>;

export const TransferRequest = {
  type: "object",
  required: ["service_id"],
  properties: {
    service_id: { type: "string", description: "The service_id of the dead node." },
    incarnation: {
      type: "integer",
      minimum: 1,
      description: "Only the orders of that start of the node; nodes say so to each other.",
    },
    orders_max: { type: "integer", minimum: 1, description: "How many orders to take at the most." },
  },
} as const;
export type TransferRequest = Shape<typeof TransferRequest>;

const Transfer = {
  $id: "Transfer",
  type: "object",
  required: ["current_service_id", "transferred_service_id", "tranferred_service_id", "orders_transferred"],
  properties: {
    current_service_id: uuid("Of the node that took the orders over."),
    transferred_service_id: uuid("Of the node whose orders they were."),
    tranferred_service_id: misspelt("transferred_service_id"),
    orders_transferred: integer,
  },
} as const;

export const JoinRequest = {
  type: "object",
  required: ["service_id", "version", "protocol"],
  properties: {
    service_id: { type: "string", description: "Of the node that wants to join." },
    version: { type: "string", description: "Of the node that wants to join." },
    protocol: { type: "integer", description: "What it says to other nodes." },
    nonce: { type: "string", maxLength: 100, description: "Made up by it for this request." },
  },
} as const;
export type JoinRequest = Shape<typeof JoinRequest>;

/** What may be said with an action on an order. */
export const ActionBodies = {
  cancel: {
    type: "object",
    additionalProperties: false,
    properties: {
      reason: { type: "string", maxLength: 1_000 },
      dry_run: { type: "boolean", description: "Only say what would be rolled back, in that order." },
    },
  },
  pause: { type: "object", additionalProperties: false },
  resume: { type: "object", additionalProperties: false },
  retry: {
    type: "object",
    additionalProperties: false,
    properties: {
      from: {
        enum: ["failed_step", "start"],
        description:
          "Of a failed or canceled order: where the new one begins. From the failed step only if nothing before it was rolled back.",
      },
    },
  },
  skip: {
    type: "object",
    required: ["reason"],
    additionalProperties: false,
    properties: { reason: { type: "string", minLength: 1, maxLength: 1_000, description: "Is kept." } },
  },
  complete: {
    type: "object",
    required: ["step"],
    additionalProperties: false,
    properties: {
      step: { type: "string", description: "The step that waits." },
      result: { description: "What the step gives: any JSON, 64 KiB at the most." },
    },
  },
} as const satisfies Record<Action, object>;

const DryRun = {
  $id: "DryRun",
  type: "object",
  required: ["order_id", "would_roll_back"],
  properties: {
    order_id: uuid("Of the order."),
    would_roll_back: {
      type: "array",
      items: text,
      description: "The names of steps, in the order of their rollbacks.",
    },
  },
} as const;

const GivenOrdersAnswer = {
  $id: "GivenOrdersAnswer",
  type: "object",
  required: ["service_id", "room"],
  properties: {
    service_id: uuid("Of this node."),
    room: { type: "integer", description: "How many more orders may be given to it now." },
  },
} as const;

const durabilityName = {
  enum: ["fsync-always", "fsync-every-second", "none", "unknown"],
  description: "What an acknowledged order outlives, by the store's settings: with `fsync-always`, the loss of power.",
} as const;

const Heartbeat = {
  $id: "Heartbeat",
  type: "object",
  required: ["service_id", "serive_id", "service_name", "version", "status", "durability", "generated_at"],
  properties: {
    service_id: uuid("Of this node."),
    serive_id: misspelt("service_id"),
    service_name: text,
    version: text,
    status: { enum: ["OK", "STORE_UNAVAILABLE", "SHUTTING_DOWN"] },
    durability: durabilityName,
    generated_at: time("When this was said."),
  },
} as const;
export type HeartbeatStatus = Shape<typeof Heartbeat>["status"];

const Cluster = {
  $id: "Cluster",
  type: "object",
  required: ["leader_name", "cluster_id", "durability", "term", "nodes_count", "generated_at", "nodes", "transfers"],
  properties: {
    leader_name: { type: "string", description: "The service_id of the leader; empty while there is none." },
    cluster_id: uuid("Of the cluster, and of its store."),
    durability: durabilityName,
    term: { type: "integer", description: "Counts elections." },
    nodes_count: integer,
    generated_at: time("When this was said."),
    nodes: {
      type: "array",
      items: {
        type: "object",
        required: [
          "name",
          "connection_string",
          "connected",
          "last_activity",
          "version",
          "orders_in_flight",
          "pipelines",
        ],
        properties: {
          name: uuid("The service_id of the node."),
          connection_string: { type: "string", description: "Where the node listens." },
          connected: { type: "boolean", description: "Whether it is alive, as far as this node knows." },
          last_activity: time("When the node was last heard of."),
          version: text,
          orders_in_flight: { type: "integer", description: "As of its last heartbeat." },
          pipelines: { type: "array", items: text, description: "That it has, with their versions." },
        },
      },
    },
    transfers: {
      type: "array",
      description: "The last transfers that this node led or was asked for by hand, newest first.",
      items: {
        type: "object",
        required: ["service_id", "orders_transferred", "start_time", "duration_ms"],
        properties: {
          service_id: uuid("Of the node whose orders they were."),
          orders_transferred: integer,
          start_time: time("When it began."),
          duration_ms: integer,
        },
      },
    },
  },
} as const;

export const PROBLEM_MEDIA_TYPE = "application/problem+json";

/** What is answered to a request that failed (RFC 9457). */
export interface Problem {
  readonly type: string;
  readonly title: string;
  readonly status: number;
  readonly detail: string;
  /** Stable: docs/errors.md. Empty: it was not this service that answered. */
  readonly code: ErrorCode | "";
  /** Each thing that is wrong, where several may be. */
  readonly errors?: readonly ErrorDetail[];
}

const ProblemSchema = {
  $id: "Problem",
  type: "object",
  description: "RFC 9457",
  required: ["type", "title", "status", "detail", "code"],
  properties: {
    type: { type: "string", description: "A URN that ends in the code." },
    title: text,
    status: integer,
    detail: { type: "string", description: "What is wrong this time, and what to do." },
    code: { type: "string", description: "Stable; see docs/errors.md." },
    errors: {
      type: "array",
      description: "Each thing that is wrong, where several may be.",
      items: {
        type: "object",
        required: ["detail", "pointer"],
        properties: {
          detail: text,
          pointer: { type: "string", description: "Where in the body (RFC 6901)." },
        },
      },
    },
  },
} as const;

/** All schemas that the OpenAPI document lists by name. */
export const NAMED_SCHEMAS = [
  AcceptedOrder,
  OrderView,
  OrderList,
  HistoryEntry,
  History,
  DryRun,
  Transfer,
  GivenOrdersAnswer,
  Heartbeat,
  Cluster,
  ProblemSchema,
];

type SchemaName =
  | "AcceptedOrder"
  | "Order"
  | "OrderList"
  | "History"
  | "DryRun"
  | "Transfer"
  | "GivenOrdersAnswer"
  | "Heartbeat"
  | "Cluster";

/** A successful response, by the name of its schema. Without `content`, which would cost a look-up at every answer. */
export function named(name: SchemaName, description: string): object {
  return { description, $ref: `${name}#` };
}

/** The problem responses of a route, by status. */
export function problemResponses(...ownCodes: ErrorCode[]): Record<number, object> {
  const codes: ErrorCode[] = [...ownCodes, "host_not_allowed"]; // what each route may answer
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
