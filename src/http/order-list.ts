/** `GET /orders`: find orders. */
import type { FastifyInstance } from "fastify";
import { CatalogueError } from "../order/errors.ts";
import { replay } from "../order/evolve.ts";
import { ORDER_STATUSES, type OrderStatus } from "../order/status.ts";
import type { OrderFilter, OrderPage, StoredOrder } from "../store/store.ts";
import { isUuid } from "../uuid.ts";
import { USER_SECURITY } from "./authorization.ts";
import { whenClosed } from "./capacity.ts";
import { orderSummary } from "./order-view.ts";
import { parseRfc3339 } from "./rfc3339.ts";
import { named, type OrderList, type OrderSummary, problemResponses } from "./schemas.ts";
import { type ReadGate, turns } from "./store-reads.ts";

export interface OrderListResource {
  readonly isOperator: (user: string) => boolean;
  readonly listOrders: (filter: OrderFilter, before: string | null, limit: number) => Promise<OrderPage>;
  readonly countOrders: (user: string | null) => Promise<Partial<Record<OrderStatus, number>>>;
}

/**
 * So many pages are made at once; the others wait. One takes some milliseconds of the main thread, and Node accepts one connection in each turn
 * of the event loop: several in one turn would have new clients wait for long.
 */
const PAGES_MAX = 1;

const LIMIT_DEFAULT = 50;
const LIMIT_MAX = 200;

interface ListQuery {
  readonly status?: OrderStatus;
  readonly needs_person?: "true" | "false";
  readonly step?: string;
  readonly pipeline?: string;
  readonly node?: string;
  readonly user?: string;
  readonly from?: string;
  readonly to?: string;
  readonly limit?: string;
  readonly cursor?: string;
}

export function orderListRoute(
  app: FastifyInstance,
  { isOperator, listOrders, countOrders, findReader }: OrderListResource & ReadGate,
): void {
  const inTurn = turns(PAGES_MAX);
  app.route<{ Querystring: ListQuery }>({
    method: "GET",
    url: "/orders",
    schema: {
      operationId: "listOrders",
      summary: "Find orders, newest first",
      description:
        "One's own orders; operators find those of all users. A page may have fewer orders than `limit`, or none, and yet not be the last: " +
        "it is the last when there is no `next_cursor`.",
      security: USER_SECURITY,
      querystring: {
        type: "object",
        additionalProperties: false,
        properties: {
          status: { enum: ORDER_STATUSES },
          needs_person: {
            enum: ["true", "false"],
            description:
              "`true`: only those that a person should look at: `set_aside`, `rollback_incomplete`, and those whose call is tried again without end.",
          },
          step: { type: "string", description: "The step that they are at; or `Completed`, `Failed`, `Canceled`." },
          pipeline: { type: "string" },
          node: { type: "string", description: "The service_id of the node that owns them." },
          user: { type: "string", description: "Operators only: whose orders." },
          from: { type: "string", description: "Created then or later (RFC 3339)." },
          to: { type: "string", description: "Created before then (RFC 3339)." },
          limit: {
            type: "string",
            pattern: "^\\d{1,3}$",
            description: `Up to ${LIMIT_MAX}; default ${LIMIT_DEFAULT}.`,
          },
          cursor: { type: "string", description: "The `next_cursor` of the page before." },
        },
      },
      response: {
        200: named("OrderList", "A page of orders, and how many there are of each status."),
        ...problemResponses(
          "request_invalid",
          "authorization_required",
          "headers_too_large",
          "too_many_reads",
          "store_unavailable",
        ),
      },
    },
    onRequest: findReader,
    handler: async (request, reply) => {
      const { query, user } = request;
      const seesAll = isOperator(user);
      if (query.user !== undefined && !seesAll && query.user !== user) {
        throw new CatalogueError("request_invalid", "Only operators find the orders of others; leave out user.");
      }
      const scope = seesAll ? (query.user ?? null) : user;
      const filter: OrderFilter = {
        user: scope,
        status: query.status ?? null,
        needsPerson: query.needs_person === "true",
        pipelineName: query.pipeline ?? null,
        stepName: query.step ?? null,
        ownerServiceId: query.node?.toLowerCase() ?? null,
        fromMs: timeOf("from", query.from),
        toMs: timeOf("to", query.to),
      };
      const [cursor, limit] = [cursorOf(query.cursor), limitOf(query.limit)];
      const makePage = async (): Promise<OrderList | null> => {
        if (reply.raw.destroyed) return null; // nobody waits for it any more
        const [{ orders, next }, counts] = await Promise.all([listOrders(filter, cursor, limit), countOrders(scope)]);
        return {
          orders: orders.map((stored) => summaryOf(stored, seesAll)),
          ...(next === null ? {} : { next_cursor: next }),
          counts,
        };
      };
      const page = await inTurn(makePage, (action) => whenClosed(reply.raw, action));
      return page ?? reply.hijack();
    },
  });
}

function summaryOf(stored: StoredOrder, withUser: boolean): OrderSummary {
  const order = replay(stored.orderId, stored.history);
  return { ...orderSummary(stored, order), ...(withUser ? { user: stored.user } : {}) };
}

/** @throws CatalogueError request_invalid */
function timeOf(name: string, text: string | undefined): number | null {
  if (text === undefined) return null;
  const timeMs = parseRfc3339(text);
  if (timeMs !== null) return timeMs;
  throw new CatalogueError("request_invalid", `${name} is no time; write it as 2026-11-24T18:00:00Z.`);
}

/** @throws CatalogueError request_invalid */
function cursorOf(text: string | undefined): string | null {
  if (text === undefined) return null;
  if (isUuid(text)) return text.toLowerCase();
  throw new CatalogueError(
    "request_invalid",
    "cursor is none that was given out; take next_cursor from the page before.",
  );
}

/** @throws CatalogueError request_invalid */
function limitOf(text: string | undefined): number {
  const limit = text === undefined ? LIMIT_DEFAULT : Number(text);
  if (limit >= 1 && limit <= LIMIT_MAX) return limit;
  throw new CatalogueError("request_invalid", `limit is not from 1 to ${LIMIT_MAX}.`);
}
