/** The pipeline of the crash tests: each run and rollback is one call of the receiver. */
import type { Pipeline, StepContext } from "../../src/order/pipeline.ts";
import { permanent } from "../../src/order/step-error.ts";
import { buildPipeline, type RetryOptions } from "../../src/pipelines/define-pipeline.ts";
import type { Witness } from "./fault-stores.ts";
import type { Direction, StepCall } from "./receiver.ts";

export const STEP_NAMES = ["Reserve", "Charge", "Ship"] as const;

/** Short waits: what is tested is that a retry survives a crash, not how long it waits. */
const RETRY: RetryOptions = { attempts: 5, delay: 20, factor: 1, delayMax: 20, jitter: 0 };

/**
 * Steps that call the receiver and then do as the order's body says: `fail_at` names the step that fails for good,
 * `flaky_at` the one whose first attempt fails in a way that may pass. Both fail after the receiver has acted, which is
 * the worse moment. `block_at` names the step whose first attempt blocks the whole event loop for `block_ms`.
 */
export function receiverPipeline(receiverUrl: string, witness: Witness): Pipeline {
  const callReceiver = async (step: string, direction: Direction, context: StepContext): Promise<void> => {
    const { orderId } = context.order;
    const call: StepCall = {
      orderId,
      step,
      direction,
      attempt: context.attempt,
      incarnation: witness.incarnation(),
      durableRevision: witness.durableRevision(orderId),
    };
    const response = await fetch(receiverUrl, {
      method: "POST",
      headers: { "idempotency-key": context.idempotencyKey },
      body: JSON.stringify(call),
      signal: context.signal,
    });
    await response.text();
  };
  return buildPipeline({
    name: "crash-test",
    version: 1,
    steps: STEP_NAMES.map((name) => ({
      name,
      retry: RETRY,
      run: async (context) => {
        await callReceiver(name, "run", context);
        if (context.body["block_at"] === name && context.attempt === 1)
          blockEventLoop(Number(context.body["block_ms"]));
        if (context.body["fail_at"] === name) throw permanent(`the order asks to fail at ${name}`);
        if (context.body["flaky_at"] === name && context.attempt === 1) throw new Error("the first attempt fails");
      },
      rollback: (context) => callReceiver(name, "rollback", context),
    })),
  });
}

/** Nothing of this thread goes on meanwhile, as with a step that calculates for long. */
function blockEventLoop(timeMs: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, timeMs);
}
