/** What happened to an order, one entry a revision, as its user sees it. */
import type { Incarnation, OrderEvent } from "../order/events.ts";
import { createdOrder, evolve } from "../order/evolve.ts";
import { currentCall, currentStepName, heldState, type Order } from "../order/order.ts";
import type { StoredOrder } from "../store/store.ts";
import { rfc3339 } from "./rfc3339.ts";
import type { HistoryEntry } from "./schemas.ts";

/** Names the service of an incarnation that has owned an order. */
export type ServiceOf = (incarnation: Incarnation) => Promise<string>;

/** The entries of the revisions from `after` (exclusive) on. */
export async function historyView(stored: StoredOrder, after: number, serviceOf: ServiceOf): Promise<HistoryEntry[]> {
  const { orderId } = stored;
  const entries: HistoryEntry[] = [];
  let order: Order | null = null;
  for (const event of stored.history) {
    const before: Order | null = order;
    if (event.kind === "created") order = createdOrder(orderId, event);
    else if (order !== null) order = evolve(order, event);
    if (order === null || order.revision <= after) continue;
    entries.push(entryOf(order, event, stepOf(before ?? order), await serviceOf(order.owner)));
  }
  return entries;
}

/** The step that an order is at, also while it is rolled back. */
function stepOf({ state, steps }: Order): string {
  const held = heldState(state);
  if (held.status === "scheduled") return held.stepName;
  const index = "call" in held ? held.call.stepIndex : "stepIndex" in held ? held.stepIndex : -1;
  return steps[index]?.name ?? "";
}

function entryOf(order: Order, event: OrderEvent, step: string, serviceId: string): HistoryEntry {
  const attempt = currentCall(order)?.attempt;
  return {
    order_id: order.orderId,
    revision: order.revision,
    time: rfc3339(order.changeTimeMs),
    event: event.kind,
    step,
    status: order.state.status,
    current_step: currentStepName(order),
    ...(attempt === undefined ? {} : { attempt }),
    service_id: serviceId,
    ...("error" in event && event.error !== undefined ? { error: event.error } : {}),
    ...("by" in event && event.by !== undefined ? { by: event.by } : {}),
    ...("reason" in event && event.reason != null ? { reason: event.reason } : {}),
  };
}
