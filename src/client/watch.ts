/** `order_process orders watch`: an order's progress as it happens. On a terminal a picture that is drawn over; else a line an event. */
import type { Client, HistoryEntry, OrderView } from "./client.ts";
import type { Terminal } from "./commands.ts";
import { stateOf } from "./tables.ts";

/** @returns 0: it completed; 1: it ended otherwise */
export async function watchOrder(client: Client, orderId: string, terminal: Terminal, json: boolean): Promise<number> {
  let drawn = "";
  let status = "";
  for await (const { entry } of client.follow(orderId)) {
    ({ status } = entry);
    if (json) {
      terminal.write(`${JSON.stringify(entry)}\n`);
    } else if (terminal.isWatched) {
      const lines = draw(await client.get(orderId), terminal.columns);
      const picture = `${lines.join("\n")}\n`;
      if (picture === drawn) continue;
      // Back to the first line, and everything below it is erased.
      const back = drawn === "" ? "" : `\u001b[${drawn.split("\n").length - 1}A\u001b[J`;
      terminal.write(`${back}${picture}`);
      drawn = picture;
    } else {
      terminal.write(`${lineOf(entry)}\n`);
    }
  }
  if (status === "") ({ status } = await client.get(orderId)); // all had been told before
  return status === "completed" ? 0 : 1;
}

function lineOf({ time, event, status, current_step: step, attempt, error, by, reason }: HistoryEntry): string {
  const more = [
    attempt !== undefined && attempt > 1 ? `attempt ${attempt}` : undefined,
    by === undefined ? undefined : `by ${by}`,
    reason,
    error,
  ].filter((word) => word !== undefined);
  return `${time}  ${event.padEnd(18)} ${status.padEnd(12)} ${step}${more.length === 0 ? "" : `  (${more.join(", ")})`}`;
}

function draw({ order_id: id, pipeline, status, current_step: current, steps }: OrderView, columns: number): string[] {
  const width = Math.max(...steps.map(({ step_name: name }) => name.length), 0);
  const lines = steps.map((step) => {
    const isCurrent = step.step_name === current && step.step_complete_time === undefined;
    return `  ${markOf(step, isCurrent)} ${step.step_name.padEnd(width)}  ${isCurrent ? status : stateOf(step)}`.trimEnd();
  });
  return [`${pipeline}  ${id}  ${status}`, ...lines].map((line) => line.slice(0, Math.max(20, columns - 1)));
}

function markOf(step: OrderView["steps"][number], isCurrent: boolean): string {
  if (step.step_name === "Failed" || step.step_name === "Canceled") return "✗";
  if (step.step_complete_time === undefined) return isCurrent ? "▸" : "✗";
  return step.step_rollback_time === undefined ? "✓" : "↩";
}
