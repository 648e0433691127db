/** Orders as tables for people. */
import { printable } from "../printable.ts";
import type { OrderList, OrderSummary, OrderView } from "./client.ts";

/** Why an order was set aside, for its operator. */
const SET_ASIDE = {
  crashes: "nodes died again and again during a call of it",
  unknown_commit: "nobody knows whether its point of no return was passed",
} as const;

/** An order, with its steps below. */
export function showOrder(order: OrderView): string {
  const { order_id: id, status, pending_action: pending, pipeline, pipeline_version: version } = order;
  const facts: [string, string | undefined][] = [
    ["order", id],
    ["pipeline", `${pipeline} v${version}`],
    ["status", pending === undefined ? status : `${status}, ${pending} is asked for`],
    ["set aside", order.set_aside_reason === undefined ? undefined : SET_ASIDE[order.set_aside_reason]],
    ["waits for", order.waiting_for],
    ["created", showTime(order.start_time)],
    ["starts", order.start_at === undefined ? undefined : showTime(order.start_at)],
    ["signal until", order.wait_deadline === undefined ? undefined : showTime(order.wait_deadline)],
    ["ended", order.complete_time === undefined ? undefined : showTime(order.complete_time)],
    ["made again of", order.retry_of],
    ["node", order.service_id],
    ["can be done", order.allowed_actions.join(", ") || undefined],
  ];
  const head = facts.flatMap(([name, value]) => (value === undefined ? [] : [[name, value]]));
  const steps = order.steps.map((step) => [
    step.step_name,
    showTime(step.step_start_time),
    showDuration(step.step_start_time, step.step_complete_time),
    step.attempts === undefined ? "" : String(step.attempts),
    stateOf(step),
  ]);
  const done = order.interventions?.map(({ action, by, time, reason }) => [
    showTime(time),
    `${action} by ${by}${reason === undefined ? "" : `: ${reason}`}`,
  ]);
  return [
    table(head),
    steps.length === 0 ? "" : table([["STEP", "STARTED", "TOOK", "ATTEMPTS", ""], ...steps]),
    done === undefined ? "" : table(done),
  ]
    .filter((text) => text !== "")
    .join("\n");
}

/** Orders, one a line, and how many there are. */
export function showList(orders: readonly OrderSummary[], counts: OrderList["counts"], user: string): string {
  const withUser = orders.some((order) => order.user !== undefined);
  const rows = orders.map((order) => [
    order.order_id,
    order.needs_person === true && order.status !== "set_aside" ? `${order.status} (!)` : order.status,
    order.current_step,
    `${order.pipeline} v${order.pipeline_version}`,
    showTime(order.start_time),
    ...(withUser ? [order.user ?? ""] : []),
  ]);
  const head = ["ORDER", "STATUS", "STEP", "PIPELINE", "CREATED", ...(withUser ? ["USER"] : [])];
  const sums = Object.entries(counts).map(([status, count]) => `${count} ${status}`);
  return `${orders.length === 0 ? `${printable(user)} has no such orders.\n` : table([head, ...rows])}${sums.length === 0 ? "" : `\nIn all: ${printable(sums.join(", "))}.\n`}`;
}

/** What became of a step, in a few words. */
export function stateOf(step: OrderView["steps"][number]): string {
  const {
    step_complete_time: completed,
    step_rollback_time: rolledBack,
    error,
    outcome,
    skip_reason: skipped,
    by,
  } = step;
  const words = [
    completed === undefined ? undefined : by === undefined || skipped !== undefined ? "done" : `done by ${by}`,
    outcome === "unknown" ? "outcome unknown" : undefined,
    rolledBack === undefined ? undefined : "rolled back",
    skipped === undefined ? undefined : `rollback left out by ${by ?? "somebody"}: ${skipped}`,
    error,
  ];
  return words.filter((word) => word !== undefined).join(", ");
}

/** Columns as wide as they must be, parted by two spaces. */
function table(written: readonly (readonly string[])[]): string {
  const rows = written.map((row) => row.map(printable));
  const widths: number[] = [];
  for (const row of rows) for (const [at, cell] of row.entries()) widths[at] = Math.max(widths[at] ?? 0, cell.length);
  const lines = rows.map((row) =>
    row
      .map((cell, at) => cell.padEnd(widths[at] ?? 0))
      .join("  ")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n`;
}

/** A time without its milliseconds, as people read it. */
function showTime(time: string): string {
  return time.replace("T", " ").replace(/\.\d+Z$/, "Z");
}

function showDuration(from: string, to: string | undefined): string {
  if (to === undefined) return "";
  const ms = Date.parse(to) - Date.parse(from);
  return ms < 1_000 ? `${ms} ms` : `${(ms / 1_000).toFixed(1)} s`;
}
