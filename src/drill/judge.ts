/**
 * Looks at the orders of a drill in the store itself, past the nodes: an acknowledged order that is not there was lost; one whose
 * history can't have happened by the order's rules has taken a write that it should have refused.
 */
import { replay } from "../order/evolve.ts";
import { isFinal } from "../order/status.ts";
import { BUILT_IN_STEPS } from "../pipelines/built-in.ts";
import type { Store, StoredOrder } from "../store/store.ts";
import type { AcknowledgedOrder } from "./workload.ts";

export interface Verdict {
  readonly acknowledged: number;
  readonly completed: number;
  /** Asked to fail, and rolled back to the first step. */
  readonly rolledBack: number;
  readonly notFinal: number;
  readonly lost: number;
  readonly lateWritesAccepted: number;
  /** What is wrong with which order; the first few. */
  readonly complaints: readonly string[];
}

const COMPLAINTS_MAX = 10;

export async function judgeOrders(
  store: Pick<Store, "readOrder">,
  acknowledged: readonly AcknowledgedOrder[],
): Promise<Verdict> {
  const counts = { completed: 0, rolledBack: 0, notFinal: 0, lost: 0, lateWritesAccepted: 0 };
  const complaints: string[] = [];
  for (const order of acknowledged) {
    const stored = await store.readOrder(order.orderId);
    const [finding, detail] = judgeOrder(order, stored);
    counts[finding]++;
    if (detail !== null && complaints.length < COMPLAINTS_MAX) complaints.push(`Order ${order.orderId}: ${detail}`);
  }
  return { acknowledged: acknowledged.length, ...counts, complaints };
}

type Finding = "completed" | "rolledBack" | "notFinal" | "lost" | "lateWritesAccepted";

function judgeOrder({ orderId, failAt }: AcknowledgedOrder, stored: StoredOrder | null): [Finding, string | null] {
  if (stored === null) return ["lost", "it was acknowledged and is not in the store"];
  if (!isFinal(stored.status)) return ["notFinal", `it is ${stored.status}`];
  const kinds = stored.history.map((event) => event.kind).join(", ");
  let steps: readonly string[];
  try {
    steps = replay(orderId, stored.history).steps.map((step) => step.name);
  } catch (error) {
    return ["lateWritesAccepted", error instanceof Error ? error.message : String(error)];
  }
  const due = failAt === null ? BUILT_IN_STEPS : BUILT_IN_STEPS.slice(0, BUILT_IN_STEPS.indexOf(failAt) + 1);
  if (steps.join() !== due.join() || stored.revision !== stored.history.length) {
    return ["lateWritesAccepted", `its history can't have happened: ${kinds}`];
  }
  if ((stored.status === "failed") !== (failAt !== null))
    return ["lateWritesAccepted", `it ended ${stored.status}: ${kinds}`];
  return [failAt === null ? "completed" : "rolledBack", null];
}
