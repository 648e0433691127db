/** Bounds how much clients have the store read at once: what is read waits in memory until it has been made an answer. */
import type { ServerResponse } from "node:http";
import type { onRequestHookHandler } from "fastify";
import { CatalogueError } from "../order/errors.ts";
import type { StoredOrder } from "../store/store.ts";
import type { Budget } from "./budget.ts";
import { whenClosed } from "./capacity.ts";
import type { EventsResource } from "./events.ts";
import { holderOf } from "./intake.ts";
import type { OrderListResource } from "./order-list.ts";
import type { OrdersResource } from "./orders.ts";
import type { ShownOrdersResource } from "./shown-orders.ts";

/** Enough to keep a store busy. */
const READS_MAX = 32;

/** What routes that have the store read orders do first. */
export interface ReadGate {
  /** Finds the user, and a place. */
  readonly findReader: onRequestHookHandler[];
}

/**
 * An onRequest hook, behind that which finds the user: a place among the requests that have the store read orders, until it is answered. How long
 * a client takes for its answer does not matter here.
 * @throws CatalogueError too_many_reads
 */
export function takeReadPlace(reads: Budget): onRequestHookHandler {
  return (request, { raw }, done) => {
    const place = reads.open(holderOf(request), () => {
      raw.destroy();
      return true;
    });
    raw.once("prefinish", () => place.close());
    whenClosed(raw, () => place.close());
    if (place.set(1)) return done();
    const message = `This node has ${reads.max} places to ask for orders at once, all are taken, and nobody has more of them than you.`;
    return done(new CatalogueError("too_many_reads", message));
  };
}

type Reads = Pick<OrdersResource, "readOrder"> &
  Pick<ShownOrdersResource, "recordedShape"> &
  Pick<OrderListResource, "countOrders"> &
  Pick<EventsResource, "follow">;

/** Reads of which a few are under way at once, and the others wait for their turn. */
export interface BoundReads extends Reads {
  /** Null, too, where it is only for this answer and nobody waits for that any more. */
  readonly readOrder: (orderId: string, answer?: ServerResponse) => Promise<StoredOrder | null>;
}

export function boundReads({ readOrder, recordedShape, countOrders, follow }: Reads): BoundReads {
  const inTurn = turns(READS_MAX);
  return {
    readOrder: (orderId, answer) =>
      answer === undefined
        ? inTurn(() => readOrder(orderId))
        : inTurn(
            async () => (answer.destroyed ? null : readOrder(orderId)),
            (action) => whenClosed(answer, action),
          ),
    recordedShape: (name, version) => inTurn(() => recordedShape(name, version)),
    countOrders: (user) => inTurn(() => countOrders(user)),
    follow: {
      readChanges: (cursor, limit) => follow.readChanges(cursor, limit),
      readOrder: (orderId) => inTurn(() => follow.readOrder(orderId)),
      readOrders: (orderIds) => inTurn(() => follow.readOrders(orderIds)),
    },
  };
}

/**
 * Has something done when its turn comes.
 * @param whenGone calls back when nobody waits for it any more, if it ever is so: it does not wait either then, but is run at once to see that
 */
export type InTurn = <T>(run: () => Promise<T>, whenGone?: (action: () => void) => void) => Promise<T>;

/**
 * Runs so many at once; the others wait, who came first is first. Of those that wait no more begin in a turn of the event loop: a store that
 * answers at once would otherwise have a thousand of them done in one, and Node accepts one connection in each.
 */
export function turns(max: number): InTurn {
  const waiting = new Set<() => void>();
  let under = 0;
  let isDue = false;
  const begin = (): void => {
    isDue = false;
    for (const next of waiting) {
      if (under >= max) return;
      waiting.delete(next);
      under++;
      next();
    }
  };
  const isTurn = (whenGone?: (action: () => void) => void): Promise<boolean> =>
    new Promise((resolve) => {
      const next = (): void => resolve(true);
      waiting.add(next);
      whenGone?.(() => {
        if (waiting.delete(next)) resolve(false);
      });
    });
  return async (run, whenGone) => {
    if (under < max && waiting.size === 0) under++;
    else if (!(await isTurn(whenGone))) return run();
    try {
      return await run();
    } finally {
      under--;
      if (waiting.size > 0 && !isDue) {
        isDue = true;
        setImmediate(begin);
      }
    }
  };
}
