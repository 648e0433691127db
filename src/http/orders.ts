/** `/orders`: submit an order, look at one. */
import type { ServerResponse } from "node:http";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { SubmitOutcome, Submission } from "../engine/engine.ts";
import { CatalogueError } from "../order/errors.ts";
import type { BodyFinding, BodyIssue, JsonObject, Pipeline } from "../order/pipeline.ts";
import type { PipelineSet } from "../order/pipeline-set.ts";
import type { StoredOrder } from "../store/store.ts";
import { isUuid } from "../uuid.ts";
import { parseRfc3339, rfc3339 } from "./rfc3339.ts";
import { requireUser, USER_SECURITY } from "./authorization.ts";
import { named, OrderBody, problemResponses } from "./schemas.ts";
import type { ShownOrders } from "./shown-orders.ts";
import type { BoundReads, ReadGate } from "./store-reads.ts";

export interface OrdersResource {
  readonly pipelines: PipelineSet;
  readonly submit: (submission: Submission) => Promise<SubmitOutcome>;
  readonly readOrder: (orderId: string) => Promise<StoredOrder | null>;
  /** Whether a user may see and steer the orders of all. */
  readonly isOperator: (user: string) => boolean;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** As the IETF draft's examples, with room: a UUID or a hash. */
const IDEMPOTENCY_KEY_CHARS_MAX = 255;

/** A mistake beyond that: who plans for years keeps his plan elsewhere. */
const START_LATER_MS_MAX = 366 * 24 * 3_600_000;

/** Of what is wrong with a body, so much is told at once. */
const SHOWN_ISSUES_MAX = 10;

/**
 * An order that the request's user may see. Throws CatalogueError order_not_found.
 * @param answer nobody else waits for the order: it is not read where the client has left before its turn has come
 */
export type ReadVisible = (request: FastifyRequest, orderId: string, answer?: ServerResponse) => Promise<StoredOrder>;

/** Users see their own orders, operators those of all. */
export function visibleOrders({
  readOrder,
  isOperator,
}: Pick<BoundReads, "readOrder"> & Pick<OrdersResource, "isOperator">): ReadVisible {
  return async (request, id, answer) => {
    const orderId = id.toLowerCase();
    const stored = isUuid(orderId) ? await readOrder(orderId, answer) : null;
    if (stored !== null && (stored.user === request.user || isOperator(request.user))) return stored;
    throw new CatalogueError(
      "order_not_found",
      "You have no order with this id; check the id and the Authorization header.",
    );
  };
}

export function ordersRoutes(
  app: FastifyInstance,
  { pipelines, submit, now, findReader }: OrdersResource & ReadGate,
  readVisible: ReadVisible,
  shown: ShownOrders,
): void {
  app.route<{ Querystring: { pipeline?: string; start_at?: string } }>({
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
      querystring: {
        type: "object",
        additionalProperties: false,
        properties: {
          pipeline: {
            type: "string",
            description:
              "Which pipeline it goes through, in its newest version. May be left out where there is one only.",
          },
          start_at: {
            type: "string",
            description: "When its first step starts (RFC 3339), within a year. Left out, or past: at once.",
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
          "pipeline_not_found",
          "body_too_large",
          "media_type_unsupported",
          "body_refused",
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
      const { pipeline: name = null, start_at: startAt } = request.query;
      const pipeline = choosePipeline(pipelines, name);
      const startAtMs = startAt === undefined ? undefined : parseStartAt(startAt, now());
      const kept = bodyToKeep(pipeline, request);
      const body = typeof kept === "string" ? kept : await kept;
      const key = request.headers["idempotency-key"];
      const outcome = await submit({
        user: request.user,
        body,
        idempotencyKey: typeof key === "string" ? key : null,
        pipeline,
        ...(startAtMs === undefined ? {} : { options: { startAtMs } }),
      });
      if (outcome.kind !== "accepted") throw submitRefusal(outcome);
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
      description: "Only its user sees it, and operators; to all others it does not exist.",
      security: USER_SECURITY,
      params: { type: "object", required: ["order_id"], properties: { order_id: { type: "string" } } },
      response: {
        200: named("Order", "The order as it is now."),
        ...problemResponses(
          "request_invalid",
          "authorization_required",
          "order_not_found",
          "headers_too_large",
          "too_many_reads",
          "store_unavailable",
        ),
      },
    },
    onRequest: findReader,
    handler: async (request, { raw }) => shown.view(await readVisible(request, request.params.order_id, raw)),
  });
}

/** @throws CatalogueError pipeline_not_found, request_invalid */
function choosePipeline(pipelines: PipelineSet, name: string | null): Pipeline {
  const choice = pipelines.choose(name);
  switch (choice.kind) {
    case "chosen":
      return choice.pipeline;
    case "unknown":
      throw new CatalogueError(
        "pipeline_not_found",
        `This node has no pipeline of that name; it has ${shownNames(pipelines)}.`,
      );
    case "ambiguous":
      throw new CatalogueError(
        "request_invalid",
        `There are several pipelines; name one with ?pipeline=: ${shownNames(pipelines)}.`,
      );
  }
}

function shownNames({ names }: PipelineSet): string {
  return names.map((name) => `"${name}"`).join(", ");
}

/** @throws CatalogueError request_invalid */
function parseStartAt(text: string, nowMs: number): number {
  const timeMs = parseRfc3339(text);
  if (timeMs === null) {
    throw new CatalogueError("request_invalid", "start_at is no time; write it as 2026-11-24T18:00:00Z.");
  }
  if (timeMs > nowMs + START_LATER_MS_MAX) {
    throw new CatalogueError("request_invalid", "start_at is more than a year away.");
  }
  return timeMs;
}

/**
 * The body as it is kept: as it came, or as the pipeline's schema has made it. Only its text is left of it afterwards: the parsed body can
 * take many times what that takes, and the request lives until the order is durable. In a function of its own, for the same reason: what
 * an async function has had in its hands stays in memory until it ends.
 * @throws CatalogueError body_refused, body_too_large
 */
function bodyToKeep(pipeline: Pipeline, request: FastifyRequest): string | Promise<string> {
  const parsed = request.body as JsonObject;
  request.body = null;
  if (pipeline.checkBody === null) return request.bodyText;
  const bytesMax = request.routeOptions.bodyLimit;
  const came = { body: parsed, text: request.bodyText, bytesMax };
  const finding = pipeline.checkBody(parsed, { user: request.user, bytesMax });
  return finding instanceof Promise ? finding.then((found) => acceptedText(found, came)) : acceptedText(finding, came);
}

/** What a pipeline's schema says against a body. */
function bodyRefused(issues: readonly BodyIssue[]): CatalogueError {
  const shown = issues.slice(0, SHOWN_ISSUES_MAX);
  const sentence = shown.map(({ pointer, message }) => `${pointer || "the body"}: ${message}`).join("; ");
  const more = issues.length - shown.length;
  return new CatalogueError(
    "body_refused",
    `${sentence}${more > 0 ? `; and ${more} more` : ""}.`,
    shown.map(({ pointer, message }) => ({ detail: message, pointer: `#${pointer}` })),
  );
}

/** A body as it was given to a pipeline's schema. */
interface CheckedBody {
  readonly body: JsonObject;
  readonly text: string;
  /** How large the schema may make it. */
  readonly bytesMax: number;
}

/**
 * The text of a body that a schema has accepted: its own, or that of what the schema has made of it.
 * @throws CatalogueError body_refused, body_too_large, too_many_in_flight
 */
export function acceptedText(finding: BodyFinding, { body, text, bytesMax }: CheckedBody): string {
  if (finding.kind === "refused") throw bodyRefused(finding.issues);
  if (finding.kind === "no_turn") {
    const message = "Many bodies are being checked, and the turn of this one did not come in time; send it again.";
    throw new CatalogueError("too_many_in_flight", message);
  }
  if (finding.kind === "accepted") {
    if (finding.body === body) return text;
    const made = JSON.stringify(finding.body);
    if (Buffer.byteLength(made) <= bytesMax) return made;
  }
  throw new CatalogueError("body_too_large", `With what the pipeline adds the body is larger than ${bytesMax} bytes.`);
}

/** What a refused submission is answered with. */
export function submitRefusal(outcome: Exclude<SubmitOutcome, { kind: "accepted" }>): CatalogueError {
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
        // Why is for operators, and in the log: it may tell where the store is, and anybody can call himself a user.
        "The order may not have been accepted: the store can't be used now, or this node is joining its cluster. Send it again with the same Idempotency-Key.",
      );
    case "shutting_down":
      return new CatalogueError(outcome.kind, "The node is stopping; try another, or this one later.");
  }
}
