/** Starting, waiting for and judging the service of the crash tests. */
import assert from "node:assert/strict";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { submitOrder } from "../support/client.ts";
import { type Service, startService } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";
import { type Acknowledgement, findViolations, type Violation } from "./checker.ts";
import type { BrokenGuarantee, KillPoint } from "./fault-stores.ts";
import type { Receiver } from "./receiver.ts";
import { STEP_NAMES } from "./step-names.ts";
import { countOpenOrders, readStoreContent, storePathIn } from "./store-content.ts";

const CRASH_NODE = fileURLToPath(new URL("crash-node.ts", import.meta.url));

export interface CrashServiceOptions {
  readonly receiver: Receiver;
  readonly data: string;
  /** More options of the command line. */
  readonly args?: readonly string[];
  /** Path of a store to share with another process; default: one in the data folder. */
  readonly sharedStore?: string;
  readonly kill?: KillPoint;
  readonly broken?: BrokenGuarantee;
}

/** Starts the service of the crash tests; rejects when it dies before it listens. */
export function startCrashService(t: TestContext, options: CrashServiceOptions): Promise<Service> {
  const { receiver, data, sharedStore, kill, broken, args = [] } = options;
  return startService(t, {
    script: CRASH_NODE,
    data,
    env: {
      CRASH_RECEIVER: receiver.url,
      ...(kill === undefined
        ? {}
        : { CRASH_KILL: [kill.moment, kill.write, ...(kill.kind === undefined ? [] : [kill.kind])].join(":") }),
      ...(broken === undefined ? {} : { CRASH_BREAK: broken }),
    },
    args: [...(sharedStore === undefined ? [] : ["--store", `sqlite:${sharedStore}`]), ...args],
  });
}

/** Resolves when no order in the store is open any more. */
export async function allFinal(storePath: string): Promise<void> {
  await waitFor(() => countOpenOrders(storePath) === 0, {
    what: () => `every order is final; ${countOpenOrders(storePath)} are not`,
  });
}

/** Everything that is wrong with what the store and the receiver hold. The service must have ended. */
export function judge(storePath: string, receiver: Receiver, acknowledged: readonly Acknowledgement[]): Violation[] {
  return findViolations({
    pipeline: STEP_NAMES,
    acknowledged,
    stored: readStoreContent(storePath),
    calls: receiver.calls,
  });
}

/** Fails with how many violations there are, and the first of them. */
export function expectNoViolation(violations: readonly Violation[]): void {
  const first = violations
    .slice(0, 20)
    .map(({ guarantee, rule, orderId, detail }) => [guarantee, rule, orderId, detail]);
  const lines = first.map((parts) => parts.join(" "));
  assert.equal(violations.length, 0, `${violations.length} violations, the first:\n${lines.join("\n")}`);
}

/** What a client sends. */
export interface OrderRequest {
  readonly body: object;
  readonly idempotencyKey: string | null;
}

/** Submits an order; null when the connection fails, and nobody knows whether there is an order now. */
export async function submit(serviceUrl: string, request: OrderRequest): Promise<Acknowledgement | null> {
  const { idempotencyKey } = request;
  const body = JSON.stringify(request.body);
  try {
    const answer = await submitOrder(
      serviceUrl,
      body,
      idempotencyKey === null ? {} : { "idempotency-key": idempotencyKey },
    );
    assert.equal(answer.status, 201, answer.text);
    return { orderId: String(answer.json?.["order_id"]), idempotencyKey, body };
  } catch (error) {
    if (isConnectionFailure(error)) return null;
    throw error;
  }
}

/** fetch throws a TypeError when the connection fails. */
export function isConnectionFailure(error: unknown): boolean {
  return error instanceof TypeError;
}

/** Waits until a service that is to kill itself has done so. */
export async function expectKilled(service: Service): Promise<void> {
  let how: number | string | undefined;
  void service.exited.then((exit) => (how = exit));
  assert.equal(await waitFor(() => how, { what: "the service comes to the write that it dies at" }), "SIGKILL");
}

/**
 * Starts the service once more, without faults, lets it finish what is open, stops it and expects nothing wrong.
 * @param request sent again after the start, as by a client that had no answer
 */
export async function finishAndExpectNoViolation(
  t: TestContext,
  { receiver, data }: { receiver: Receiver; data: string },
  acknowledged: readonly Acknowledgement[],
  request?: OrderRequest,
): Promise<void> {
  const service = await startCrashService(t, { receiver, data });
  const acknowledgedNow = request === undefined ? null : await submit(service.url, request);
  const all = acknowledgedNow === null ? acknowledged : [...acknowledged, acknowledgedNow];
  await allFinal(storePathIn(data));
  assert.equal(await service.end("SIGTERM"), 0);
  expectNoViolation(judge(storePathIn(data), receiver, all));
}
