/**
 * The contract between the engine and whatever keeps the orders. Small on purpose: a store is a batch of compare-and-set
 * writes and a few reads. What a cluster's nodes know of each other is kept beside the orders (cluster-store.ts).
 *
 * 1. `commit` is durable when it resolves, and not before: it then survives the loss of power (guarantee G1).
 * 2. Each write is applied, or refused, by itself and atomically; the batch only shares the cost of the commit.
 * 3. A write names owner and expected revision and is applied only if both match (guarantee G2); applying it adds one to the
 *    revision (G3). A write to an order that does not exist, or that is final, never matches.
 * 4. When `commit` rejects, none of its writes may be assumed applied or not applied. Making the same write again is safe:
 *    at most one of the two is applied.
 * 5. Every read sees all that was committed before it was asked.
 * 6. Orders are claimed from dead incarnations only. Once a claim has found nothing left, no write of that incarnation is
 *    applied any more, to whatever order: what it still sends is `fenced`.
 */
import type { Incarnation, LaterEvent, OrderEvent } from "../order/events.ts";
import type { ListedStatus, OrderStatus } from "../order/status.ts";
import type { ClusterStore } from "./cluster-store.ts";

/** Makes an order at revision 1, unless its id exists or the user has used the idempotency key. */
export interface CreateWrite {
  readonly kind: "create";
  /** Made by `newOrderId` (order-id.ts), with the same user and key. */
  readonly orderId: string;
  readonly user: string;
  readonly idempotencyKey: string | null;
  readonly pipelineName: string;
  readonly pipelineVersion: number;
  readonly event: Extract<OrderEvent, { kind: "created" }>;
  /** The order's body as JSON text. */
  readonly body: string;
}

/** Adds an event to an order's history. The event `owner_changed` gives the order away. */
export interface AdvanceWrite {
  readonly kind: "advance";
  readonly orderId: string;
  /** The writer, which must be the owner. */
  readonly owner: Incarnation;
  /** The revision that the event follows. */
  readonly expectedRevision: number;
  readonly event: LaterEvent;
  /** What the order is found by after the event, or null when that stays. */
  readonly newStatus: ListedStatus | null;
  /** The status before it: that of the expected revision. */
  readonly formerStatus: ListedStatus;
  /** The order's. */
  readonly user: string;
}

export type Write = CreateWrite | AdvanceWrite;

export type WriteOutcome =
  | { readonly kind: "applied" }
  /** Owner or revision did not match, or the id exists: the order has not been touched. */
  | { readonly kind: "conflict" }
  /** The writing incarnation is dead: nothing that it writes is applied any more (invariant 6). */
  | { readonly kind: "fenced" }
  /** The user has used the idempotency key, for this order. */
  | { readonly kind: "key_taken"; readonly orderId: string; readonly startTimeMs: number; readonly body: string };

/** An order as the store holds it. */
export interface StoredOrder {
  readonly orderId: string;
  readonly user: string;
  readonly pipelineName: string;
  readonly pipelineVersion: number;
  readonly status: OrderStatus;
  readonly owner: Incarnation;
  /** The service whose incarnation the owner is. */
  readonly ownerServiceId: string;
  readonly revision: number;
  /** One event a revision, oldest first. */
  readonly history: readonly OrderEvent[];
}

/** An order with all that its owner needs to go on with it. */
export interface OwnedOrder extends StoredOrder {
  readonly body: string;
}

/** Some of an owner's orders. */
export interface OwnedOrders {
  readonly orders: readonly OwnedOrder[];
  /** Orders that are the owner's, too, but can't be read: what the store holds of them is damaged. */
  readonly damaged: readonly { readonly orderId: string; readonly reason: string }[];
}

/** The moment of a claim. */
export interface ClaimTimes {
  /** On the claiming node's clock, in milliseconds since the epoch. */
  readonly atMs: number;
  /** On the dead owner's clock, as far as the claiming node knows. */
  readonly formerAtMs: number;
}

/** How a claim ended. */
export type ClaimOutcome =
  | ({ readonly kind: "claimed" } & OwnedOrders)
  /** The present owner is not dead, or never was: its orders are its own. */
  | { readonly kind: "owner_alive" }
  /** The claiming incarnation is dead itself. */
  | { readonly kind: "fenced" };

/** An incarnation that owns orders which are not final. */
export interface OwnerSummary {
  readonly incarnation: Incarnation;
  readonly serviceId: string;
  /** How many. */
  readonly orders: number;
}

/** The ids of some of an owner's orders. */
export interface OrderIdPage {
  readonly orderIds: readonly string[];
  /** Where the next page begins; null: this was the last. */
  readonly next: string | null;
}

/** Which orders are looked for: those for which all holds that is said. */
export interface OrderFilter {
  /** Null: those of all users. */
  readonly user: string | null;
  readonly status: OrderStatus | null;
  /** Only those that a person should look at (STATUSES_FOR_PEOPLE). */
  readonly needsPerson: boolean;
  readonly pipelineName: string | null;
  /** The step that they are at, or their end (currentStepName in order.ts). */
  readonly stepName: string | null;
  /** The service that owns them. */
  readonly ownerServiceId: string | null;
  /** Created then or later. */
  readonly fromMs: number | null;
  /** Created before then. */
  readonly toMs: number | null;
}

/** Some of the orders that were looked for, newest first. */
export interface OrderPage {
  readonly orders: readonly StoredOrder[];
  /**
   * Where the next page begins: the id of the last order that was looked at; null: there is no more. A page may have fewer orders than
   * wanted, or none, and yet not be the last: only so many are looked at for one.
   */
  readonly next: string | null;
}

/** That an order has changed. What has changed, its history tells. */
export interface Change {
  readonly orderId: string;
  readonly revision: number;
  readonly user: string;
  /** Where to read on behind this change. */
  readonly cursor: string;
}

/** What has changed behind a cursor, in the order of the commits. */
export type ChangePage =
  | {
      readonly kind: "changes";
      readonly changes: readonly Change[];
      /** Where to read on. */
      readonly next: string;
    }
  /** It was so long ago that what came next is forgotten; or the cursor is none. */
  | { readonly kind: "gone" };

/** What a write outlives, as far as the store's settings tell. */
export type Durability = "fsync-always" | "fsync-every-second" | "none" | "unknown";

/** How the store keeps what it is given. */
export interface StoreReport {
  readonly durability: Durability;
  /** What should be changed in the store's settings, one line each, for an operator. */
  readonly advice: readonly string[];
}

/** How many changes are remembered unless said otherwise: about half an hour of 300 a second, in some 30 MB. */
export const CHANGES_KEPT = 500_000;

export interface Store {
  readonly cluster: ClusterStore;
  /** Reads the store's settings. */
  report(): Promise<StoreReport>;
  /** Applies a batch of writes (invariants 1 to 4). Outcomes come in the order of the writes. */
  commit(writes: readonly Write[]): Promise<readonly WriteOutcome[]>;
  /** One order, or null. */
  readOrder(orderId: string): Promise<StoredOrder | null>;
  /** Those of the orders that there are, in no particular order. */
  readOrders(orderIds: readonly string[]): Promise<readonly StoredOrder[]>;
  /**
   * Orders, newest first. Pages stay right while orders change: each order is on one page at the most.
   * @param before the `next` of the page before; null: from the newest on
   */
  listOrders(filter: OrderFilter, before: string | null, limit: number): Promise<OrderPage>;
  /** How many orders of a user, or (null) of all, have each status; a status that none has may be left out. Kept, not counted. */
  countOrders(user: string | null): Promise<Partial<Record<OrderStatus, number>>>;
  /**
   * What has changed behind a cursor, without gaps or repeats.
   * @param cursor null: from now on
   */
  readChanges(cursor: string | null, limit: number): Promise<ChangePage>;
  /** The body of an order, or null: there is no such order. */
  readBody(orderId: string): Promise<string | null>;
  /** Those of the orders that are this owner's and not final, whole. */
  readOwned(owner: Incarnation, orderIds: readonly string[]): Promise<OwnedOrders>;
  /** Every incarnation that owns orders which are not final. */
  listOwners(): Promise<readonly OwnerSummary[]>;
  /**
   * The orders of one owner that are not final, about `limit` a page.
   * @param cursor where to begin; null: at the first page. Orders that stay the owner's while the pages are read are in one of them.
   */
  listOrderIds(owner: Incarnation, cursor: string | null, limit: number): Promise<OrderIdPage>;
  /**
   * Gives up to `limit` orders that are not final from a dead owner to another (one event, one revision each) and returns
   * them as they are after that. Fewer than `limit` together: none is left.
   */
  claimOrders(from: Incarnation, to: Incarnation, times: ClaimTimes, limit: number): Promise<ClaimOutcome>;
  /** Makes one durable write of no meaning; resolves when the store can be written again. */
  probe(): Promise<void>;
  /** Waits for what was asked and lets go of the store. */
  close(): Promise<void>;
}

/** The store did not do what was asked, for a reason that may pass. `message` is one line for an operator. */
export class StoreUnavailableError extends Error {
  override readonly name: string = "StoreUnavailableError";
}

/** There is no store, or no cluster in it, where there should be one. */
export class StoreMissingError extends StoreUnavailableError {
  override readonly name = "StoreMissingError";
}
