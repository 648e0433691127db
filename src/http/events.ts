/**
 * `/orders/{order_id}/events`, `/orders/{order_id}/history` and `/events`: what happens to orders, as it happens and as it was.
 *
 * An order's events are its history, and the id of one is its revision; so a client that connects again goes on without gaps or repeats.
 * Those of all orders are numbered by the store's changes; each is read from its order's history.
 */
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Logger } from "../log.ts";
import { CatalogueError } from "../order/errors.ts";
import { isFinal } from "../order/order.ts";
import type { Change, Store, StoredOrder } from "../store/store.ts";
import { requireUser, USER_SECURITY } from "./authorization.ts";
import { ChangeFeed } from "./change-feed.ts";
import { EventStream, eventText } from "./event-stream.ts";
import { historyView, type ServiceOf } from "./history-view.ts";
import type { ReadVisible } from "./orders.ts";
import { named, problemResponses } from "./schemas.ts";

export interface EventsResource {
  readonly log: Logger;
  readonly follow: Pick<Store, "readChanges" | "readOrders" | "readOrder">;
  readonly serviceOf: ServiceOf;
  readonly isOperator: (user: string) => boolean;
}

/** Who follows all orders reads much. */
const ALL_WATCHERS_MAX = 100;

/** Changes that are read and told at once to who follows all orders. */
const ALL_PAGE_CHANGES = 500;

const LAST_EVENT_ID = {
  type: "object",
  properties: {
    "last-event-id": {
      type: "string",
      maxLength: 4_096,
      description: "The id of the last event that was received: those that came after it are sent first.",
    },
  },
} as const;

const STREAM_RESPONSE = {
  description: "Server-sent events; the data of each is a `HistoryEntry`.",
  content: { "text/event-stream": { schema: { type: "string" } } },
} as const;

export function eventsRoutes(app: FastifyInstance, resource: EventsResource, readVisible: ReadVisible): void {
  const { log, follow, serviceOf } = resource;
  const feed = new ChangeFeed(follow, log);
  const watched = new WatchedOrders(resource, feed);
  const streams = new Set<EventStream>();
  const remember = (stream: EventStream): EventStream => {
    streams.add(stream);
    return stream;
  };
  app.addHook("preClose", async () => {
    for (const stream of streams) stream.end();
  });

  app.route<{ Params: { order_id: string } }>({
    method: "GET",
    url: "/orders/:order_id/history",
    schema: {
      operationId: "getOrderHistory",
      summary: "Everything that happened to an order",
      security: USER_SECURITY,
      params: { type: "object", required: ["order_id"], properties: { order_id: { type: "string" } } },
      response: {
        200: named("History", "One entry a revision, oldest first."),
        ...problemResponses("authorization_required", "order_not_found", "headers_too_large", "store_unavailable"),
      },
    },
    onRequest: requireUser,
    handler: async (request) => {
      const stored = await readVisible(request, request.params.order_id);
      return { order_id: stored.orderId, events: await historyView(stored, 0, serviceOf) };
    },
  });

  app.route<{ Params: { order_id: string } }>({
    method: "GET",
    url: "/orders/:order_id/events",
    exposeHeadRoute: false, // it would not end
    schema: {
      operationId: "followOrder",
      summary: "Follow an order",
      description: "Its events from the first on, or from `Last-Event-ID`. The stream ends when the order is final.",
      security: USER_SECURITY,
      params: { type: "object", required: ["order_id"], properties: { order_id: { type: "string" } } },
      headers: LAST_EVENT_ID,
      response: {
        200: STREAM_RESPONSE,
        204: {
          description: "The order is final, and its last event has been received: there is nothing more to come.",
        },
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
    handler: async (request, reply) => {
      const stored = await readVisible(request, request.params.order_id);
      const after = lastRevision(request, stored);
      if (isFinal(stored.status) && after === stored.revision) return reply.code(204).send();
      const stream = remember(new EventStream(reply));
      const leave = watched.watch(stored, after, stream);
      stream.onEnd(() => {
        leave();
        streams.delete(stream);
      });
      return reply;
    },
  });

  let allWatchers = 0;
  app.route({
    method: "GET",
    url: "/events",
    exposeHeadRoute: false,
    schema: {
      operationId: "followOrders",
      summary: "Follow all of one's orders",
      description: "Events from now on, or from `Last-Event-ID`. Operators follow the orders of all users.",
      security: USER_SECURITY,
      headers: LAST_EVENT_ID,
      response: {
        200: STREAM_RESPONSE,
        ...problemResponses(
          "authorization_required",
          "events_gone",
          "headers_too_large",
          "too_many_watchers",
          "store_unavailable",
        ),
      },
    },
    onRequest: requireUser,
    handler: async (request, reply) => {
      if (allWatchers >= ALL_WATCHERS_MAX) {
        throw new CatalogueError(
          "too_many_watchers",
          `${ALL_WATCHERS_MAX} follow the events of all orders at this node.`,
        );
      }
      const header = request.headers["last-event-id"];
      const cursor = typeof header === "string" && header !== "" ? header : null;
      const first = await follow.readChanges(cursor, 1);
      if (first.kind === "gone") {
        throw new CatalogueError(
          "events_gone",
          "What followed that Last-Event-ID is no longer kept, or it is none; begin anew without it.",
        );
      }
      const stream = remember(new EventStream(reply));
      allWatchers++;
      stream.onEnd(() => {
        allWatchers--;
        streams.delete(stream);
      });
      const user = resource.isOperator(request.user) ? null : request.user;
      void followAll(resource, feed, { stream, user, cursor: cursor ?? first.next }).catch((error: unknown) => {
        log.warn({ err: error }, "Following the events of all orders broke off");
        stream.end();
      });
      return reply;
    },
  });
}

/** @throws CatalogueError request_invalid */
function lastRevision(request: FastifyRequest, { revision }: StoredOrder): number {
  const header = request.headers["last-event-id"] ?? "";
  if (header === "") return 0;
  const number = typeof header === "string" && /^\d{1,15}$/.test(header) ? Number(header) : Number.NaN;
  if (number <= revision) return number;
  throw new CatalogueError("request_invalid", "This order has had no event with that Last-Event-ID.");
}

/** Sends what has happened behind a cursor, and then what happens, until the stream ends. */
async function followAll(
  { follow, serviceOf }: EventsResource,
  feed: ChangeFeed,
  {
    stream,
    user,
    cursor: start,
  }: { readonly stream: EventStream; readonly user: string | null; readonly cursor: string },
): Promise<void> {
  let cursor = start;
  let wake: () => void = () => undefined;
  let isDue = true;
  const stop = feed.listen({
    changed: () => {
      isDue = true;
      wake();
    },
  });
  stream.onEnd(() => wake());
  try {
    while (!stream.hasEnded) {
      isDue = false;
      const page = await follow.readChanges(cursor, ALL_PAGE_CHANGES);
      // It has fallen so far behind that it must begin anew; it is told so when it connects again.
      if (page.kind === "gone") return stream.end();
      const visible = page.changes.filter((change) => user === null || change.user === user);
      if (visible.length > 0) stream.send(await eventsOf(visible, follow, serviceOf));
      cursor = page.next;
      await stream.drained();
      if (page.changes.length === ALL_PAGE_CHANGES || isDue || stream.hasEnded) continue;
      await new Promise<void>((resolve) => (wake = resolve));
    }
    return undefined;
  } finally {
    stop();
  }
}

/** The events of changes, in their order. An order's history has whatever the change has made of it. */
async function eventsOf(
  changes: readonly Change[],
  follow: EventsResource["follow"],
  serviceOf: ServiceOf,
): Promise<string> {
  const ids = new Set(changes.map(({ orderId }) => orderId));
  const orders = new Map((await follow.readOrders([...ids])).map((order) => [order.orderId, order]));
  const texts: string[] = [];
  for (const { orderId, revision, cursor } of changes) {
    const stored = orders.get(orderId);
    if (stored === undefined) continue;
    const [entry] = await historyView(
      { ...stored, history: stored.history.slice(0, revision) },
      revision - 1,
      serviceOf,
    );
    if (entry !== undefined) texts.push(eventText(cursor, entry));
  }
  return texts.join("");
}

interface Watcher {
  readonly stream: EventStream;
  /** The last revision that was sent to it. */
  sent: number;
}

/** An order that somebody follows. */
interface WatchedOrder {
  readonly watchers: Set<Watcher>;
  /** Its events, by revision from 1. */
  readonly texts: string[];
  isFinal: boolean;
  reading: boolean;
  isDue: boolean;
}

/** The orders that are followed one by one. However many follow one, it is read once when it changes. */
class WatchedOrders {
  readonly #resource: EventsResource;
  readonly #feed: ChangeFeed;
  readonly #orders = new Map<string, WatchedOrder>();
  #stop: (() => void) | null = null;

  constructor(resource: EventsResource, feed: ChangeFeed) {
    this.#resource = resource;
    this.#feed = feed;
  }

  /** @returns ends it */
  watch({ orderId, revision }: StoredOrder, after: number, stream: EventStream): () => void {
    const order = this.#orders.get(orderId) ?? {
      watchers: new Set(),
      texts: [],
      isFinal: false,
      reading: false,
      isDue: false,
    };
    this.#orders.set(orderId, order);
    const watcher = { stream, sent: after };
    order.watchers.add(watcher);
    this.#stop ??= this.#feed.listen({ changed: (ids) => this.#changed(ids) });
    this.#send(order);
    if (order.texts.length < revision) void this.#read(orderId, order);
    return () => {
      order.watchers.delete(watcher);
      if (order.watchers.size === 0 && this.#orders.get(orderId) === order) this.#orders.delete(orderId);
      if (this.#orders.size > 0) return;
      this.#stop?.();
      this.#stop = null;
    };
  }

  #changed(orderIds: ReadonlySet<string> | null): void {
    for (const [orderId, order] of this.#orders) {
      if (orderIds === null || orderIds.has(orderId)) void this.#read(orderId, order);
    }
  }

  /** Reads what is new, and once more if it changed meanwhile. */
  async #read(orderId: string, order: WatchedOrder): Promise<void> {
    order.isDue = true;
    if (order.reading) return;
    order.reading = true;
    const { follow, serviceOf, log } = this.#resource;
    try {
      while (order.isDue && order.watchers.size > 0) {
        order.isDue = false;
        const stored = await follow.readOrder(orderId);
        if (stored === null) break;
        for (const entry of await historyView(stored, order.texts.length, serviceOf)) {
          order.texts.push(eventText(String(entry.revision), entry));
        }
        order.isFinal = isFinal(stored.status);
        this.#send(order);
      }
    } catch (error) {
      // The store is away, most likely. They connect again, and are told so.
      log.debug({ err: error }, `Order ${orderId} can't be followed`);
      for (const { stream } of order.watchers) stream.end();
    } finally {
      order.reading = false;
    }
  }

  #send(order: WatchedOrder): void {
    for (const watcher of order.watchers) {
      if (watcher.sent < order.texts.length) {
        watcher.stream.send(order.texts.slice(watcher.sent).join(""));
        watcher.sent = order.texts.length;
      }
      if (order.isFinal) watcher.stream.end();
    }
  }
}
