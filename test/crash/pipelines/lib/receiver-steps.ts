/** What the steps of both pipelines do: each run and rollback is one call of the receiver. */
import { existsSync } from "node:fs";
import { permanent, type RetryOptions, type RollbackContext, type StepContext } from "order-process";
import type { Direction, StepCall } from "../../receiver.ts";
import { witness } from "../../witness.ts";

/** Short waits: what is tested is that a retry survives a crash, not how long it waits. */
const RETRY: RetryOptions = { attempts: 5, delay: 20, factor: 1, delayMax: 20, jitter: 0 };

/**
 * A step that calls the receiver and then does as the order's body says: `fail_at` names the step that fails for good,
 * `flaky_at` the one whose first attempt fails in a way that may pass. Both fail after the receiver has acted, which is
 * the worse moment. `block_at` names the step whose first attempt blocks the whole event loop until there is a file `block_until`.
 */
export function receiverStep<const Name extends string>(name: Name) {
  return {
    name,
    retry: RETRY,
    run: async (context: StepContext): Promise<void> => {
      await callReceiver(name, "run", context);
      const { body, attempt } = context;
      if (body["block_at"] === name && attempt === 1) blockEventLoop(String(body["block_until"]));
      if (body["fail_at"] === name) throw permanent(`the order asks to fail at ${name}`);
      if (body["flaky_at"] === name && attempt === 1) throw new Error("the first attempt fails");
    },
    rollback: (context: RollbackContext): Promise<void> => callReceiver(name, "rollback", context),
  };
}

async function callReceiver(step: string, direction: Direction, context: StepContext): Promise<void> {
  const { orderId } = context.order;
  const call: StepCall = {
    orderId,
    step,
    direction,
    attempt: context.attempt,
    fence: context.fence,
    incarnation: witness.current.incarnation(),
    durableRevision: witness.current.durableRevision(orderId),
  };
  const response = await fetch(process.env["CRASH_RECEIVER"] ?? "", {
    method: "POST",
    headers: { "idempotency-key": context.idempotencyKey },
    body: JSON.stringify(call),
    signal: context.signal,
  });
  await response.text();
}

const LOOK_MS = 20;

/** Nothing of this thread goes on meanwhile, as with a step that calculates for long. */
function blockEventLoop(untilPath: string): void {
  while (!existsSync(untilPath)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, LOOK_MS);
}
