/** The event by which an order that is claimed becomes its new owner's: the same for all orders of one claim. */
import type { Incarnation, OrderEvent } from "../order/events.ts";
import type { ClaimTimes } from "./store.ts";

/** @param hasDrained whether the former owner has stopped in good order, or died */
export function claimEvent(
  owner: Incarnation,
  { atMs, formerAtMs }: ClaimTimes,
  hasDrained: boolean,
): Extract<OrderEvent, { kind: "owner_changed" }> {
  return {
    kind: "owner_changed",
    atMs,
    owner,
    callBegun: true,
    former: hasDrained ? "drained" : "died",
    ...(formerAtMs === atMs ? {} : { formerAtMs }),
  };
}
