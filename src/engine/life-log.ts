/** The order's life, in the words of the earlier system that ours took over: one line each, at level debug. */
import { currentCall, type Order } from "../order/order.ts";
import { isFinal } from "../order/status.ts";
import type { Pipeline } from "../order/pipeline.ts";

/** Takes a line. */
export type LifeLog = (line: string) => void;

/** A new order is durable. */
export function logCreation(lifeLog: LifeLog, orderId: string, stepName: string): void {
  lifeLog(`New order created with ID: [${orderId}]`);
  lifeLog(`[${orderId}]DispatchStepTask,current step: [${stepName}], next step:[${stepName}]`);
}

/** A call begins. */
export function logCall(lifeLog: LifeLog, orderId: string, step: string, direction: "run" | "rollback"): void {
  lifeLog(`[${orderId}]handling step[${step}]`);
  lifeLog(direction === "run" ? `[${orderId}]Start step[${step}]` : `[${orderId}]Rollback step[${step}]`);
}

/** What a committed event did. */
export function logTransition(lifeLog: LifeLog, pipeline: Pipeline, before: Order, after: Order): void {
  const id = `[${after.orderId}]`;
  const nameAt = (order: Order): string =>
    order.state.status === "running" || order.state.status === "rolling_back"
      ? (pipeline.steps[order.state.call.stepIndex]?.name ?? "")
      : "";
  const dispatch = (from: string, to: string): void =>
    lifeLog(`${id}DispatchStepTask,current step: [${from}], next step:[${to}]`);
  const passThrough = (end: string): void => {
    lifeLog(`${id}handling step[${end}]`);
    lifeLog(`${id}Start step[${end}]`);
    lifeLog(`${id}Finish step[${end}]`);
  };

  const from = nameAt(before);
  const { status } = after.state;
  const [callBefore, callAfter] = [currentCall(before), currentCall(after)];
  const isSameCall = callBefore?.stepIndex === callAfter?.stepIndex && callBefore?.attempt === callAfter?.attempt;
  if (callAfter !== null && isSameCall && before.state.status === status) return; // it goes on
  const isAtRest = ["paused", "waiting", "scheduled", "set_aside"].includes(status);
  if (isAtRest || (before.state.status !== "running" && before.state.status !== "rolling_back")) {
    lifeLog(`${id}Order is ${status}`);
    if (status === "running" || status === "rolling_back") dispatch(nameAt(after), nameAt(after));
    if (isFinal(status)) lifeLog(`${id}Finish Order`);
    return;
  }
  if (before.state.status === "running") {
    const advanced = after.steps.length > before.steps.length;
    const failed = status === "rolling_back" || status === "failed" || status === "canceled";
    const end = "ending" in after.state && after.state.ending.status === "canceled" ? "Canceled" : "Failed";
    if (advanced || status === "completed") lifeLog(`${id}Finish step[${from}]`);
    else lifeLog(`${id}Failure occurs when handling step[${from}]`);
    if (advanced) dispatch(from, nameAt(after));
    else if (failed) dispatch(from, end);
    else if (status === "completed") dispatch(from, "Completed");
    else dispatch(from, from);
    if (failed) passThrough(end);
    if (status === "completed") passThrough("Completed");
  }
  if (status === "rolling_back") dispatch("Failed", nameAt(after));
  if (status === "rollback_incomplete") lifeLog(`${id}Failure occurs when handling step[${from}]`);
  if (isFinal(status)) lifeLog(`${id}Finish Order`);
}
