/** An order as its user sees it. */
import { type Order, replay } from "../order/order.ts";
import type { StoredOrder } from "../store/store.ts";
import { rfc3339 } from "./rfc3339.ts";
import type { OrderView, StepView } from "./schemas.ts";

/** What `GET /orders/{order_id}` answers. */
export function orderView(stored: StoredOrder): OrderView {
  const order = replay(stored.orderId, stored.history);
  const currentStep = currentStepName(order);
  return {
    order_id: order.orderId,
    start_time: rfc3339(order.startTimeMs),
    ...("completeTimeMs" in order.state ? { complete_time: rfc3339(order.state.completeTimeMs) } : {}),
    current_step: currentStep,
    curent_step: currentStep,
    status: order.state.status,
    service_id: stored.ownerServiceId,
    steps: [...order.steps.map(stepView), ...endView(order)],
  };
}

function stepView(step: Order["steps"][number]): StepView {
  return {
    step_name: step.name,
    step_start_time: rfc3339(step.startTimeMs),
    ...(step.completeTimeMs === null ? {} : { step_complete_time: rfc3339(step.completeTimeMs) }),
    ...(step.rollbackTimeMs === null ? {} : { step_rollback_time: rfc3339(step.rollbackTimeMs) }),
    attempts: step.attempts,
    ...(step.error === null ? {} : { error: step.error }),
  };
}

/** The entry after the steps. As in the earlier system, `Failed` is passed when the run forward ends; the rollbacks come after it. */
function endView({ state }: Order): StepView[] {
  if (state.status === "running") return [];
  const [name, timeMs] =
    state.status === "completed" ? ["Completed", state.completeTimeMs] : ["Failed", state.failTimeMs];
  return [{ step_name: name, step_start_time: rfc3339(timeMs), step_complete_time: rfc3339(timeMs) }];
}

function currentStepName({ state, steps }: Order): string {
  if (state.status === "running") return steps.at(-1)?.name ?? "";
  return state.status === "completed" ? "Completed" : "Failed";
}
