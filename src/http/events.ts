/**
 * `/orders/{order_id}/events`, `/orders/{order_id}/history` and `/events`: what happens to orders, as it happens and as it was.
 *
 * An order's events are its history, and the id of one is its revision; so a client that connects again goes on without gaps or repeats.
 * Those of all orders are numbered by the store's changes; each is read from its order's history.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { Logger } from "../log.ts";
import { CatalogueError } from "../order/errors.ts";
import { isFinal } from "../order/status.ts";
import type { Change, ChangePage, Store, StoredOrder } from "../store/store.ts";
import { requireUser, USER_SECURITY } from "./authorization.ts";
import type { Budget, Holding } from "./budget.ts";
import { type Capacity, whenClosed } from "./capacity.ts";
import { ChangeFeed } from "./change-feed.ts";
import { EventStream, eventText } from "./event-stream.ts";
import { historyView, type ServiceOf } from "./history-view.ts";
import { holderOf } from "./intake.ts";
import type { ReadVisible } from "./orders.ts";
import { type HistoryEntry, named, problemResponses } from "./schemas.ts";
import { type InTurn, type ReadGate, turns } from "./store-reads.ts";

export interface EventsResource {
  readonly log: Logger;
  readonly follow: Pick<Store, "readChanges" | "readOrders" | "readOrder">;
  readonly serviceOf: ServiceOf;
  readonly isOperator: (user: string) => boolean;
}

/** Events that are sent at once, before it is looked whether the client takes them. */
const PIECE_CHARS = 64 * 1024;

/** Changes that are read and told at once to who follows all orders. Each may be of another order, with a hundred events. */
const ALL_PAGE_CHANGES = 100;

/** How many streams may ask the store at once whether anything has happened. */
const LOOKS_MAX = 8;

/** So many pages are made at once, of all who follow all orders: one takes some milliseconds of the main thread. */
const PAGES_MAX = 1;

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

export function eventsRoutes(
  app: FastifyInstance,
  resource: EventsResource & ReadGate,
  readVisible: ReadVisible,
  capacity: Pick<Capacity, "streams" | "followers" | "outgoing">,
): void {
  const { log, follow, serviceOf } = resource;
  const feed = new ChangeFeed(follow, log);
  const watched = new WatchedOrders(resource, feed);
  const inTurn = turns(PAGES_MAX);
  const lookInTurn = turns(LOOKS_MAX);
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
        ...problemResponses(
          "authorization_required",
          "order_not_found",
          "headers_too_large",
          "too_many_reads",
          "store_unavailable",
        ),
      },
    },
    onRequest: resource.findReader,
    handler: async (request, { raw }) => {
      const stored = await readVisible(request, request.params.order_id, raw);
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
          "too_many_watchers",
          "store_unavailable",
        ),
      },
    },
    onRequest: requireUser,
    handler: async (request, reply) => {
      takePlace(request, reply, capacity.streams);
      const stored = await readVisible(request, request.params.order_id, reply.raw);
      const after = lastRevision(request, stored);
      if (isFinal(stored.status) && after === stored.revision) return reply.code(204).send();
      const stream = remember(new EventStream(reply, { unread: unreadOf(request, reply, capacity.outgoing) }));
      const leave = watched.watch(stored, after, stream);
      stream.onEnd(() => {
        leave();
        streams.delete(stream);
      });
      return reply;
    },
  });

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
      for (const places of [capacity.streams, capacity.followers]) takePlace(request, reply, places);
      const header = request.headers["last-event-id"];
      const cursor = typeof header === "string" && header !== "" ? header : null;
      const { raw } = reply;
      const first = await lookInTurn(
        async () => (raw.destroyed ? null : follow.readChanges(cursor, 1)),
        (action) => whenClosed(raw, action),
      );
      if (first === null) return reply.hijack(); // nobody waits for it any more
      if (first.kind === "gone") {
        throw new CatalogueError(
          "events_gone",
          "What followed that Last-Event-ID is no longer kept, or it is none; begin anew without it.",
        );
      }
      const { user } = request;
      const following = new Following({
        resource,
        feed,
        inTurn,
        lookInTurn,
        user: resource.isOperator(user) ? null : user,
        cursor: cursor ?? first.next,
      });
      const unread = unreadOf(request, reply, capacity.outgoing);
      const stream = remember(new EventStream(reply, { unread, position: () => following.cursor }));
      stream.onEnd(() => streams.delete(stream));
      void following.follow(stream).catch((error: unknown) => {
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

/**
 * A place for a stream until the answer ends, which it does when the place is taken back.
 * @throws CatalogueError too_many_watchers
 */
function takePlace(request: FastifyRequest, { raw }: FastifyReply, places: Budget): void {
  const place = places.open(holderOf(request), () => {
    raw.destroy();
    return true;
  });
  whenClosed(raw, () => place.close());
  if (place.set(1)) return;
  throw new CatalogueError(
    "too_many_watchers",
    `This node has ${places.max} places to follow such events at once, all are taken, and nobody has more of them than you.`,
  );
}

/** What counts for a stream's events that its client has not taken. */
function unreadOf(request: FastifyRequest, { raw }: FastifyReply, outgoing: Budget): Holding {
  const unread = outgoing.open(holderOf(request), () => {
    raw.destroy();
    return true;
  });
  whenClosed(raw, () => unread.close());
  return unread;
}

interface FollowingOptions {
  readonly resource: EventsResource;
  readonly feed: ChangeFeed;
  /** Has one page made after another. */
  readonly inTurn: InTurn;
  /** Has a few look at once what has happened. */
  readonly lookInTurn: InTurn;
  /** Null: all. */
  readonly user: string | null;
  readonly cursor: string;
}

/** One who follows the events of all orders, or of all of a user's. */
class Following {
  readonly #options: FollowingOptions;
  #cursor: string;

  constructor(options: FollowingOptions) {
    this.#options = options;
    this.#cursor = options.cursor;
  }

  /** All up to it was sent, or is not to be seen. */
  get cursor(): string {
    return this.#cursor;
  }

  /** Sends what has happened behind the cursor, and then what happens, until the stream ends. */
  async follow(stream: EventStream): Promise<void> {
    const { resource, feed, inTurn, lookInTurn, user } = this.#options;
    const { follow, serviceOf } = resource;
    let wake: () => void = () => undefined;
    let isDue = true;
    const stop = feed.listen({
      changed: () => {
        isDue = true;
        wake();
      },
    });
    let leave: () => void = () => undefined;
    stream.onEnd(() => {
      wake();
      leave();
    });
    try {
      while (!stream.hasEnded) {
        isDue = false;
        const whenGone = (action: () => void): void => (stream.hasEnded ? action() : void (leave = action));
        const look = async (): Promise<ChangePage | null> =>
          stream.hasEnded ? null : follow.readChanges(this.#cursor, ALL_PAGE_CHANGES);
        const page = await lookInTurn(look, whenGone);
        // It has ended, or fallen so far behind that it must begin anew; it is told so when it connects again.
        if (page === null || page.kind === "gone") return stream.end();
        const visible = page.changes.filter((change) => user === null || change.user === user);
        const make = async (): Promise<string[]> => (stream.hasEnded ? [] : eventsOf(visible, follow, serviceOf));
        const texts = visible.length === 0 ? [] : await inTurn(make, whenGone);
        for (let at = 0; at < texts.length && !stream.hasEnded;) {
          const piece = pieceOf(texts, at);
          stream.send(piece.join(""));
          at += piece.length;
          if (stream.isFull) stream.keepFor(charsOf(texts, at));
          await stream.drained();
        }
        this.#cursor = page.next;
        if (page.changes.length === ALL_PAGE_CHANGES || isDue || stream.hasEnded) continue;
        await new Promise<void>((resolve) => (wake = resolve));
      }
      return undefined;
    } finally {
      stop();
    }
  }
}

/** So many texts, one at least, as are sent at once. */
function pieceOf(texts: readonly string[], from: number): string[] {
  let chars = 0;
  let to = from;
  while (to < texts.length && (to === from || chars < PIECE_CHARS)) chars += texts[to++]?.length ?? 0;
  return texts.slice(from, to);
}

/** The events of changes, in their order. An order's history has whatever the change has made of it, and is gone through once. */
async function eventsOf(
  changes: readonly Change[],
  follow: EventsResource["follow"],
  serviceOf: ServiceOf,
): Promise<string[]> {
  const revisions = new Map<string, number>();
  for (const { orderId, revision } of changes)
    revisions.set(orderId, Math.min(revision, revisions.get(orderId) ?? revision));
  const entries = new Map<string, Map<number, HistoryEntry>>();
  for (const stored of await follow.readOrders([...revisions.keys()])) {
    const first = revisions.get(stored.orderId) ?? 1;
    const view = await historyView(stored, first - 1, serviceOf);
    entries.set(stored.orderId, new Map(view.map((entry) => [entry.revision, entry])));
  }
  return changes.flatMap(({ orderId, revision, cursor }) => {
    const entry = entries.get(orderId)?.get(revision);
    return entry === undefined ? [] : [eventText(cursor, entry)];
  });
}

interface Watcher {
  readonly stream: EventStream;
  /** The last revision that was sent to it. */
  sent: number;
  /** It has not taken yet what was sent. */
  waits: boolean;
}

/** An order that somebody follows. */
interface WatchedOrder {
  readonly watchers: Set<Watcher>;
  /** Those that have not been sent all that is known: who comes is no matter for the others. */
  readonly behind: Set<Watcher>;
  /** Up to that revision all are sent its events, or are behind. */
  known: number;
  /** Its events from behind that revision on; those before have been sent to all. */
  after: number;
  texts: string[];
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
      behind: new Set(),
      known: 0,
      after,
      texts: [],
      isFinal: false,
      reading: false,
      isDue: false,
    };
    this.#orders.set(orderId, order);
    const watcher = { stream, sent: after, waits: false };
    order.watchers.add(watcher);
    order.behind.add(watcher);
    if (after < order.after) {
      order.after = after;
      order.texts = [];
      order.isFinal = false; // as far as is known here
    }
    this.#stop ??= this.#feed.listen({ changed: (ids) => this.#changed(ids) });
    this.#send(order);
    if (order.after + order.texts.length < revision) void this.#read(orderId, order);
    return () => {
      order.watchers.delete(watcher);
      order.behind.delete(watcher);
      forgetSent(order);
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
        const known = order.after + order.texts.length;
        const entries = await historyView(stored, known, serviceOf);
        if (known !== order.after + order.texts.length) {
          order.isDue = true; // somebody came who needs what was sent to all before
          continue;
        }
        order.texts.push(...entries.map((entry) => eventText(String(entry.revision), entry)));
        order.isFinal = isFinal(stored.status);
        const end = order.after + order.texts.length;
        if (end > order.known) {
          order.known = end;
          for (const watcher of order.watchers) order.behind.add(watcher);
        }
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
    for (const watcher of order.behind) this.#sendTo(order, watcher);
    forgetSent(order);
  }

  /** Sends what the client takes, and the rest when it has taken that. */
  #sendTo(order: WatchedOrder, watcher: Watcher): void {
    const { stream } = watcher;
    const end = order.after + order.texts.length;
    while (watcher.sent < end && !stream.isFull && !stream.hasEnded) {
      const piece = pieceOf(order.texts, watcher.sent - order.after);
      stream.send(piece.join(""));
      watcher.sent += piece.length;
    }
    if (stream.isFull && !stream.hasEnded) {
      if (watcher.waits) return;
      watcher.waits = true;
      stream.keepFor(charsOf(order.texts, watcher.sent - order.after));
      void stream.drained().then(() => {
        watcher.waits = false;
        this.#sendTo(order, watcher);
        forgetSent(order);
      });
    } else if (watcher.sent >= Math.max(end, order.known)) {
      order.behind.delete(watcher);
      if (order.isFinal) stream.end();
    }
  }
}

/** Events that all who follow have been sent are read again for whoever comes later: there may be a megabyte of them. */
function forgetSent(order: WatchedOrder): void {
  if (order.behind.size > 0) return;
  order.after += order.texts.length;
  order.texts = [];
}

function charsOf(texts: readonly string[], from: number): number {
  let chars = 0;
  for (let at = from; at < texts.length; at++) chars += texts[at]?.length ?? 0;
  return chars;
}
