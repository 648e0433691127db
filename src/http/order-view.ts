/** An order as its user sees it. */
import { allowedActions } from "../order/actions.ts";
import { type Intervention, interventionsOf } from "../order/events.ts";
import { replay } from "../order/evolve.ts";
import { currentStepName, endOf, heldState, listedStatus, type Order, type OrderState } from "../order/order.ts";
import { STATUSES_FOR_PEOPLE } from "../order/status.ts";
import type { Pipeline } from "../order/pipeline.ts";
import type { StoredOrder } from "../store/store.ts";
import { rfc3339 } from "./rfc3339.ts";
import type { OrderSummary, OrderView, StepView } from "./schemas.ts";

/**
 * What `GET /orders/{order_id}` answers.
 * @param pipeline the order's, or null: nobody knows what it allows
 */
export function orderView(stored: StoredOrder, pipeline: Pipeline | null): OrderView {
  const order = replay(stored.orderId, stored.history);
  const summary = orderSummary(stored, order);
  return {
    ...summary,
    curent_step: summary.current_step,
    allowed_actions: pipeline === null ? [] : allowedActions(order, pipeline),
    steps: [...order.steps.map(stepView), ...endView(order.state)],
    ...interventionsView(interventionsOf(stored.history)),
  };
}

/** What is told of each order in a list. */
export function orderSummary(stored: StoredOrder, order: Order): OrderSummary {
  const { state, asked } = order;
  const held = heldState(state);
  return {
    order_id: order.orderId,
    start_time: rfc3339(order.startTimeMs),
    ...("completeTimeMs" in state ? { complete_time: rfc3339(state.completeTimeMs) } : {}),
    current_step: currentStepName(order),
    status: state.status,
    ...(STATUSES_FOR_PEOPLE.includes(listedStatus(order)) ? { needs_person: true } : {}),
    ...(state.status === "set_aside" ? { set_aside_reason: state.reason } : {}),
    ...(asked === null ? {} : { pending_action: asked }),
    ...(held.status === "scheduled" ? { start_at: rfc3339(held.startAtMs) } : {}),
    ...(held.status === "waiting" && held.limitMs !== null
      ? { wait_deadline: rfc3339(held.sinceMs + held.limitMs) }
      : {}),
    pipeline: stored.pipelineName,
    pipeline_version: stored.pipelineVersion,
    service_id: stored.ownerServiceId,
    ...(order.retryOf === null ? {} : { retry_of: order.retryOf }),
  };
}

function stepView(step: Order["steps"][number]): StepView {
  const { completeTimeMs, rollbackTimeMs, error, result, outcome, by, skipReason } = step;
  return {
    step_name: step.name,
    step_start_time: rfc3339(step.startTimeMs),
    ...(completeTimeMs === null ? {} : { step_complete_time: rfc3339(completeTimeMs) }),
    ...(rollbackTimeMs === null ? {} : { step_rollback_time: rfc3339(rollbackTimeMs) }),
    attempts: step.attempts,
    ...(error === null ? {} : { error }),
    ...(result === null ? {} : { result: JSON.parse(result) as unknown }),
    // Of a step that completed the time says it.
    ...(outcome === null || outcome === "done" ? {} : { outcome }),
    ...(by === null ? {} : { by }),
    ...(skipReason === null ? {} : { skip_reason: skipReason }),
  };
}

function interventionsView(interventions: readonly Intervention[]): Pick<OrderView, "interventions"> {
  if (interventions.length === 0) return {};
  return {
    interventions: interventions.map(({ action, atMs, by, reason }) => ({
      action,
      time: rfc3339(atMs),
      by,
      ...(reason === null ? {} : { reason }),
    })),
  };
}

/** The entry after the steps. As in the earlier system, `Failed` is passed when the run forward ends; the rollbacks come after it. */
function endView(state: OrderState): StepView[] {
  const end = endOf(state);
  if (end === null) return [];
  const time = rfc3339(end.atMs);
  return [{ step_name: end.name, step_start_time: time, step_complete_time: time }];
}
