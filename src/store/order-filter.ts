/** Which orders are those that were looked for: what no index decides. */
import type { OrderEvent } from "../order/events.ts";
import { replay } from "../order/evolve.ts";
import { currentStepName } from "../order/order.ts";
import { isFinal, LISTED_STATUSES, type ListedStatus, STATUSES_FOR_PEOPLE, statusOfListed } from "../order/status.ts";
import { RESERVED_STEP_NAMES } from "../order/pipeline.ts";
import type { OrderFilter } from "./store.ts";

/** An order's id is made within this time of its creation, whatever the machine has to do meanwhile. */
export const ID_TIME_MS = 60_000;

/** What the filter looks at. */
export interface Filtered {
  readonly orderId: string;
  readonly user: string;
  readonly status: ListedStatus;
  readonly pipelineName: string;
  readonly ownerServiceId: string;
  readonly history: readonly OrderEvent[];
}

/**
 * The statuses that orders are found by which the filter asks for, where few orders have them: an index has those alone; null: many have
 * them, or any will do.
 */
export function rareStatuses({ status, needsPerson }: OrderFilter): readonly ListedStatus[] | null {
  if (needsPerson) return STATUSES_FOR_PEOPLE;
  const listed = LISTED_STATUSES.filter((each) => statusOfListed(each) === status);
  return status === null || listed.includes("running") || listed.includes("completed") ? null : listed;
}

/** Whether all holds that the filter says. An order whose history is damaged is at no step. */
export function matchesFilter(order: Filtered, filter: OrderFilter): boolean {
  const { fromMs, toMs, stepName } = filter;
  if (
    (filter.user !== null && order.user !== filter.user) ||
    (filter.status !== null && statusOfListed(order.status) !== filter.status) ||
    (filter.needsPerson && !STATUSES_FOR_PEOPLE.includes(order.status)) ||
    (filter.pipelineName !== null && order.pipelineName !== filter.pipelineName) ||
    (filter.ownerServiceId !== null && order.ownerServiceId !== filter.ownerServiceId)
  ) {
    return false;
  }
  const startMs = fromMs === null && toMs === null ? 0 : (order.history[0]?.atMs ?? 0);
  if ((fromMs !== null && startMs < fromMs) || (toMs !== null && startMs >= toMs)) return false;
  return stepName === null || isAtStep(order, stepName);
}

function isAtStep({ orderId, status, history }: Filtered, stepName: string): boolean {
  // Most are told apart without going through their history.
  if (stepName === "Completed" || status === "completed") return stepName === "Completed" && status === "completed";
  if (isFinal(status) && !RESERVED_STEP_NAMES.has(stepName)) return false;
  try {
    return currentStepName(replay(orderId, history)) === stepName;
  } catch {
    return false;
  }
}
