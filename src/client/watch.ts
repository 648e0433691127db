/** `order_process orders watch`: an order's progress as it happens. On a terminal a picture that is drawn over; else a line an event. */
import type { Client, HistoryEntry, OrderView } from "./client.ts";
import { printable } from "../printable.ts";
import { stateOf } from "./tables.ts";
import type { Terminal } from "./terminal.ts";

const WAITING_FOR_OPERATOR = ["rollback_incomplete", "set_aside"];

/** It waits for a person: what was watched will not end by itself. */
const EXIT_NEEDS_OPERATOR = 3;

/** @returns 0: it completed; 1: it ended otherwise; 3: it waits for an operator */
export async function watchOrder(client: Client, orderId: string, terminal: Terminal, json: boolean): Promise<number> {
  let drawn = "";
  let status = "";
  let isConnected = true;
  const onDisconnect = (): void => {
    if (isConnected) terminal.warn("the connection is lost; it is tried again");
    isConnected = false;
  };
  for await (const { entry } of client.follow(orderId, { onDisconnect })) {
    isConnected = true;
    ({ status } = entry);
    if (json) {
      terminal.write(`${JSON.stringify(entry)}\n`);
    } else if (terminal.isWatched) {
      const lines = draw(await client.get(orderId), terminal.columns);
      const picture = `${lines.join("\n")}\n`;
      if (picture === drawn) continue;
      if (drawn !== "") terminal.eraseLines(drawn.split("\n").length - 1);
      terminal.write(picture);
      drawn = picture;
    } else {
      terminal.write(`${lineOf(entry)}\n`);
    }
    if (WAITING_FOR_OPERATOR.includes(status) && (await client.get(orderId)).status === status) break;
  }
  if (WAITING_FOR_OPERATOR.includes(status)) {
    const [first = "get", ...others] = (await client.get(orderId)).allowed_actions;
    const more = others.map((action) => `, or ${action}`).join("");
    terminal.warn(`the order waits for an operator: order_process orders ${first} ${orderId}${more}`);
    return EXIT_NEEDS_OPERATOR;
  }
  if (status === "") ({ status } = await client.get(orderId)); // all had been told before
  return status === "completed" ? 0 : 1;
}

/** An event in a line, with the step that it happened to and what the order is then. */
export function lineOf({ time, event, status, step, attempt, error, by, reason }: HistoryEntry): string {
  const more = [
    attempt !== undefined && attempt > 1 ? `attempt ${attempt}` : undefined,
    by === undefined ? undefined : `by ${by}`,
    reason,
    error,
  ].filter((word) => word !== undefined);
  const line = `${time}  ${event.padEnd(18)} ${step.padEnd(20)} ${status}`;
  return printable(more.length === 0 ? line : `${line}  (${more.join(", ")})`);
}

function draw({ order_id: id, pipeline, status, current_step: current, steps }: OrderView, columns: number): string[] {
  const width = Math.max(...steps.map(({ step_name: name }) => name.length), 0);
  const lines = steps.map((step) => {
    const isCurrent = step.step_name === current && step.step_complete_time === undefined;
    return `  ${markOf(step, isCurrent)} ${step.step_name.padEnd(width)}  ${isCurrent ? status : stateOf(step)}`.trimEnd();
  });
  return [`${pipeline}  ${id}  ${status}`, ...lines].map((line) => printable(line).slice(0, Math.max(20, columns - 1)));
}

function markOf(step: OrderView["steps"][number], isCurrent: boolean): string {
  if (step.step_name === "Failed" || step.step_name === "Canceled") return "✗";
  if (step.step_complete_time === undefined) return isCurrent ? "▸" : "✗";
  return step.step_rollback_time === undefined ? "✓" : "↩";
}
