/** Fills a store with finished orders, as many as there are in one that has been in use for long. */
import type { Incarnation, JsonText } from "../src/order/events.ts";
import { newOrderId } from "../src/store/order-id.ts";
import type { Store, Write } from "../src/store/store.ts";

export interface FillOptions {
  readonly orders: number;
  /** Whose orders they are, in turn: user-0, user-1, … */
  readonly users: number;
  /** One order in so many has failed, the others are completed. */
  readonly failedOneIn: number;
  readonly onProgress?: (orders: number) => void;
}

const BATCH_ORDERS = 1_000;

/** So many batches under way: one is made while another is written. */
const BATCHES_UNDER_WAY = 2;

/** Makes the orders as a node of their own, which has left in the end. */
export async function fillStore(store: Store, options: FillOptions): Promise<void> {
  const owner = await store.cluster.register(
    { serviceId: "00000000-0000-4000-8000-000000000000", url: "", version: "0.0.0", ttlMs: 5_000, process: null },
    Date.now(),
  );
  let begun = 0;
  const fill = async (): Promise<void> => {
    while (begun < options.orders) {
      const first = begun;
      begun += BATCH_ORDERS;
      const count = Math.min(BATCH_ORDERS, options.orders - first);
      await store.commit(Array.from({ length: count }, (_, at) => orderOf(first + at, owner, options)).flat());
      options.onProgress?.(first + count);
    }
  };
  await Promise.all(Array.from({ length: BATCHES_UNDER_WAY }, fill));
  await store.cluster.leave(owner);
}

/** As many characters as three more steps would add to an order's history. */
const MORE_STEPS = "x".repeat(160);

/** An order's whole life in two writes, with a history as long as that of four steps. */
function orderOf(number: number, owner: Incarnation, { users, failedOneIn }: FillOptions): Write[] {
  const user = `user-${number % users}`;
  const orderId = newOrderId(user, null);
  const atMs = Date.now();
  const body: JsonText = '{"item":"book","amount":3}';
  const pipeline = { pipelineName: number % 1_000 === 7 ? "other" : "default", pipelineVersion: 1 };
  const failed = number % failedOneIn === 7;
  return [
    {
      kind: "create",
      orderId,
      user,
      idempotencyKey: null,
      ...pipeline,
      event: { kind: "created", atMs, owner, stepName: "Scheduling" },
      body,
    },
    {
      kind: "advance",
      orderId,
      owner,
      user,
      expectedRevision: 1,
      event: failed
        ? { kind: "step_failed", atMs, error: MORE_STEPS, rollbackIndex: null }
        : { kind: "step_completed", atMs, nextStepName: null, result: `"${MORE_STEPS}"` },
      newStatus: failed ? "failed" : "completed",
      formerStatus: "running",
    },
  ];
}
