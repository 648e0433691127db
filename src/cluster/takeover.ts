/**
 * Has the living take over the orders of the dead, spread by load, in bounded batches (cluster rule 5).
 *
 * Owns nothing but the record of what it has done: a takeover that is cut off anywhere is simply begun again.
 */
import type { Incarnation } from "../order/events.ts";
import type { Logger } from "../log.ts";
import type { Clock } from "../runtime/clock.ts";
import type { NodeRow } from "../store/cluster-store.ts";
import { type OwnerSummary, type Store, StoreUnavailableError } from "../store/store.ts";
import type { TransferOutcome, TransferRecord, TransferRequest } from "./cluster.ts";
import type { Peers } from "./peers.ts";
import { type Share, spreadOrders } from "./spread.ts";

export interface TakeoverOptions {
  readonly store: Store;
  readonly incarnation: Incarnation;
  readonly peers: Peers;
  readonly log: Logger;
  readonly clock: Clock;
  /** This node's own part of a takeover. */
  readonly transfer: (request: TransferRequest) => Promise<TransferOutcome>;
  readonly record: (record: TransferRecord) => void;
}

/** Orders asked for in one request: answered within some hundredths of a second, and with the largest bodies (64 MiB together) in time, too. */
const REQUEST_ORDERS_MAX = 250;

/** An owner that is not alive, and has orders that are not final. */
interface Orphaned extends OwnerSummary {
  readonly takers: readonly NodeRow[];
}

/**
 * Transfers what the dead own, until nothing is left or nobody takes any. Never rejects. A node that did not take what it was asked to
 * is not asked again; the next sweep asks it.
 */
export async function sweepOrders(options: TakeoverOptions): Promise<void> {
  const { store, log } = options;
  // Whoever has least gets most; a node that can't be asked, or has no room, would be given all of them again and again.
  const exhausted = new Set<Incarnation>();
  try {
    for (;;) {
      const orphaned = await findOrphaned(store);
      const exhaustedBefore = exhausted.size;
      let transferred = 0;
      for (const owner of orphaned) transferred += await transferOrders(options, owner, exhausted);
      if (transferred === 0 && exhausted.size === exhaustedBefore) return;
    }
  } catch (error) {
    // The store is away, or a request failed in a way of its own: the next sweep is never far.
    const reason = error instanceof Error ? error.message : String(error);
    if (!(error instanceof StoreUnavailableError)) log.error({ err: error }, `A transfer failed: ${reason}`);
  }
}

/** The rows are read after the owners: an incarnation that is not alive then is dead, however new. */
async function findOrphaned(store: Store): Promise<Orphaned[]> {
  const owners = await store.listOwners();
  if (owners.length === 0) return [];
  const { nodes } = await store.cluster.read();
  const takers = nodes.filter(({ alive }) => alive);
  const alive = new Set(takers.map(({ incarnation }) => incarnation));
  return owners.flatMap((owner) => (alive.has(owner.incarnation) ? [] : [{ ...owner, takers }]));
}

async function transferOrders(
  options: TakeoverOptions,
  orphaned: Orphaned,
  exhausted: Set<Incarnation>,
): Promise<number> {
  const { clock, log, record } = options;
  const { serviceId, orders: ordersLeft, takers } = orphaned;
  const [atMs, startMs] = [clock.now(), clock.monotonic()];
  const shares = spreadOrders(
    ordersLeft,
    takers
      .filter(({ incarnation }) => !exhausted.has(incarnation))
      .map((node) => ({ node, ordersInFlight: node.ordersInFlight })),
  );
  const taken = await Promise.all(
    shares.map(({ node, orders }) => takeShare(options, orphaned, { node, orders }, exhausted)),
  );
  const orders = taken.reduce((sum, part) => sum + part, 0);
  if (orders > 0) {
    const durationMs = clock.monotonic() - startMs;
    record({ serviceId, atMs, orders, durationMs });
    const nodes = taken.filter((part) => part > 0).length;
    log.info(`Orders of ${serviceId} transferred: ${orders}, to ${nodes} node(s), in ${Math.round(durationMs)} ms`);
  }
  return orders;
}

/** One node's share, request by request. A node that fails is left out: the others get the rest at the next turn. */
async function takeShare(
  { incarnation, peers, transfer, log }: TakeoverOptions,
  orphaned: OwnerSummary,
  { node, orders: share }: Share<NodeRow>,
  exhausted: Set<Incarnation>,
): Promise<number> {
  let taken = 0;
  while (taken < share) {
    const ordersMax = Math.min(REQUEST_ORDERS_MAX, share - taken);
    const request = { serviceId: orphaned.serviceId, incarnation: orphaned.incarnation, ordersMax };
    let orders = 0;
    if (node.incarnation === incarnation) {
      const outcome = await transfer(request);
      orders = outcome.kind === "transferred" ? outcome.orders : 0;
    } else {
      try {
        orders = await peers.transfer(node, request);
      } catch (error) {
        log.warn(`${node.serviceId} (${node.url}) did not take orders over: ${reasonOf(error)}`);
      }
    }
    taken += orders;
    if (orders === ordersMax) continue;
    exhausted.add(node.incarnation);
    break;
  }
  return taken;
}

function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}
