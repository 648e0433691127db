/** Which statuses an order can have, as people see them and as stores find orders by them. */

/** Every status, in the sequence of an order's life. */
export const ORDER_STATUSES = [
  /** Its first step starts later. */
  "scheduled",
  "running",
  /** Its step has been done on our side and waits for a signal from outside. */
  "waiting",
  "paused",
  "rolling_back",
  /** A rollback has used up its attempts: it waits for an operator. */
  "rollback_incomplete",
  /** Nothing runs it until an operator decides (SPEC: its calls ended their nodes, or nobody knows whether a commit was made). */
  "set_aside",
  "completed",
  "failed",
  "canceled",
] as const;

export type OrderStatus = (typeof ORDER_STATUSES)[number];

/**
 * What a store finds orders by: the status; or, for those whose call is tried again without end as it can't be given up, `retrying`
 * (people see `running`) or `retrying_rollback` (`rolling_back`).
 */
export type ListedStatus = OrderStatus | (typeof ENDLESS_STATUSES)[number];

const ENDLESS_STATUSES = ["retrying", "retrying_rollback"] as const;

/** Every status that a store finds orders by. */
export const LISTED_STATUSES: readonly ListedStatus[] = [...ORDER_STATUSES, ...ENDLESS_STATUSES];

/** The statuses of orders that a person should look at. */
export const STATUSES_FOR_PEOPLE: readonly ListedStatus[] = ["set_aside", "rollback_incomplete", ...ENDLESS_STATUSES];

/** Why an order was set aside. */
export type SetAsideReason =
  /** Nodes died again and again while a call of it was under way. */
  | "crashes"
  /** Nobody knows whether its point of no return was passed. */
  | "unknown_commit";

/** Whether the order's life has ended: nothing changes it any more. */
export function isFinal(status: ListedStatus): boolean {
  return status === "completed" || status === "failed" || status === "canceled";
}

/** The status that people see. */
export function statusOfListed(listed: ListedStatus): OrderStatus {
  if (listed === "retrying") return "running";
  return listed === "retrying_rollback" ? "rolling_back" : listed;
}
