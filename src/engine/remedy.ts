/** What an operator is told of an order that a person must look at, once, when it comes to that. Pure. */
import { isCommitted } from "../order/decide.ts";
import { heldState, listedStatus, type Order, type OrderState } from "../order/order.ts";
import { STATUSES_FOR_PEOPLE } from "../order/status.ts";
import type { Pipeline } from "../order/pipeline.ts";

/** The line for the log; null: nothing has come up by this change. */
export function remedyOf(before: Order, after: Order, pipeline: Pipeline): string | null {
  const status = listedStatus(after);
  if (!STATUSES_FOR_PEOPLE.includes(status) || status === listedStatus(before)) return null;
  const held = heldState(after.state);
  const stepIndex = "call" in held ? held.call.stepIndex : "stepIndex" in held ? held.stepIndex : -1;
  const { name = "", error = null } = after.steps[stepIndex] ?? {};
  return `Order ${after.orderId} ${sentence(after.state, pipeline, { stepIndex, name, error: error ?? "no error" })}`;
}

function sentence(
  state: OrderState,
  pipeline: Pipeline,
  { stepIndex, name, error }: { readonly stepIndex: number; readonly name: string; readonly error: string },
): string {
  switch (state.status) {
    case "rollback_incomplete":
      return `waits for an operator: the rollback of "${name}" has failed for good (${error}); retry it, or skip it with a reason`;
    case "set_aside": {
      if (state.reason === "unknown_commit") {
        return `is set aside: "${name}" is a point of no return, it failed for good (${error}), and an earlier attempt may have been done; find out, and complete it if it was, or cancel the order if it was not`;
      }
      const instead =
        state.held.status === "rolling_back"
          ? "skip the rollback with a reason"
          : isCommitted(pipeline, stepIndex, true)
            ? `complete "${name}" by hand`
            : "cancel the order";
      return `is set aside: nodes died again and again while "${name}" was called; mend the step and retry, or ${instead}`;
    }
    default:
      return `tries "${name}" again without end, as it can't be given up (${error}); mend what it needs`;
  }
}
