/**
 * The guarantees against a real threat, and the checker against a broken guarantee: each situation is played once with the
 * service as it is, where nothing may be wrong, and once with the guarantee broken on purpose, where the checker must see it.
 */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { acceptedOrderId, readOrder } from "../support/client.ts";
import { triesToFreeze } from "../support/freeze.ts";
import { type Service, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";
import type { Acknowledgement, Rule, Violation } from "./checker.ts";
import { allFinal, expectNoViolation, finishAndExpectNoViolation, judge, startCrashService } from "./crash-service.ts";
import type { BrokenGuarantee } from "./fault-stores.ts";
import { type HeldCall, type Receiver, startReceiver } from "./receiver.ts";
import { storePathIn } from "./store-content.ts";

test("an order acknowledged at the moment of a crash is there after it", async (t) => {
  const { receiver, data, acknowledged } = await crashAtAcknowledgement(t);
  await finishAndExpectNoViolation(t, { receiver, data }, acknowledged);
});

test("control: the checker sees an order lost that was acknowledged before its commit", async (t) => {
  const { receiver, data, acknowledged } = await crashAtAcknowledgement(t, "ack-before-commit");
  const service = await startCrashService(t, { receiver, data });
  await allFinal(storePathIn(data));
  await service.end("SIGTERM");
  expectRules(judge(storePathIn(data), receiver, acknowledged), ["lost_order", "unknown_order_called"]);
});

test("control: the checker sees steps called before their start is committed", async (t) => {
  const receiver = await startReceiver(t);
  const service = await startCrashService(t, { receiver, data: temporaryFolder(t), broken: "ack-before-commit" });
  const orderId = await acceptedOrderId(service.url);
  const storePath = storePathIn(service.data);
  await waitFor(() => receiver.calls.length === 3, { what: "the steps are called" });
  process.kill(service.pid, "SIGUSR2");
  await waitFor(() => readStatus(service.url, orderId, "completed"), {
    what: "the writes that were held back are made",
  });
  await service.end("SIGKILL");
  const violations = judge(storePath, receiver, [{ orderId, idempotencyKey: null, body: "{}" }]);
  assert.deepEqual(new Set(violations.map(({ rule }) => rule)), new Set(["called_before_durable"]));
});

test("a paused node that wakes up after its order was taken over changes nothing", async (t) => {
  const { storePath, receiver, acknowledged, former } = await wakeAfterTakeover(t);
  assert.match(former.output(), /was taken for dead: .* joins again/);
  expectNoViolation(judge(storePath, receiver, acknowledged));
});

test("control: the checker sees a paused node's late writes where owner and revision are not compared", async (t) => {
  const { storePath, receiver, acknowledged } = await wakeAfterTakeover(t, "no-owner-check");
  expectRules(judge(storePath, receiver, acknowledged), ["illegal_history", "called_by_non_owner", "attempt_repeated"]);
});

/** Submits an order and kills the service at once when it is acknowledged. */
async function crashAtAcknowledgement(
  t: TestContext,
  broken?: BrokenGuarantee,
): Promise<{ receiver: Receiver; data: string; acknowledged: Acknowledgement[] }> {
  const receiver = await startReceiver(t);
  const data = temporaryFolder(t);
  const service = await startCrashService(t, { receiver, data, ...(broken === undefined ? {} : { broken }) });
  const orderId = await acceptedOrderId(service.url);
  await waitFor(() => receiver.calls.length > 0, { what: "the first step is called" });
  await service.end("SIGKILL");
  return { receiver, data, acknowledged: [{ orderId, idempotencyKey: null, body: "{}" }] };
}

/**
 * Two nodes on one store. The former is stopped in the middle of its order's first step, the latter takes the order over
 * and is in the middle of the same step when the former wakes up and its call ends well. Only then does the latter's.
 */
async function wakeAfterTakeover(
  t: TestContext,
  broken?: BrokenGuarantee,
): Promise<{ storePath: string; receiver: Receiver; former: Service; acknowledged: Acknowledgement[] }> {
  const receiver = await startReceiver(t);
  const storePath = storePathIn(temporaryFolder(t));
  const start = (): Promise<Service> =>
    startCrashService(t, {
      receiver,
      data: temporaryFolder(t),
      sharedStore: storePath,
      args: ["--node-ttl", "2s"],
      ...(broken === undefined ? {} : { broken }),
    });
  receiver.hold();

  const former = await start();
  const orderId = await acceptedOrderId(former.url);
  const formerCall = await heldCall(receiver, "Reserve", 1);
  await waitFor(() => triesToFreeze(former.pid, "between writes", storePath), { what: "the former node is frozen" });
  const latter = await start();
  const latterCall = await heldCall(receiver, "Reserve", 2);

  process.kill(former.pid, "SIGCONT");
  formerCall.answer();
  // It finds itself dead and leaves its orders, or, where nobody refuses what it does, goes on to the second step.
  await waitFor(() => former.output().includes("joins again") || isHeld(receiver, "Charge"), {
    what: "the former node has had its answer",
  });
  latterCall.answer();
  await heldCall(receiver, "Charge", 1, latterCall.incarnation);
  receiver.letGo();
  await allFinal(storePath);
  await former.end("SIGKILL");
  await latter.end("SIGKILL");
  return { storePath, receiver, former, acknowledged: [{ orderId, idempotencyKey: null, body: "{}" }] };
}

function heldCall(receiver: Receiver, step: string, attempt: number, incarnation?: number): Promise<HeldCall> {
  return waitFor(
    () =>
      receiver.held.find(
        (call) =>
          call.step === step &&
          call.attempt === attempt &&
          (incarnation === undefined || call.incarnation === incarnation),
      ),
    { what: `attempt ${attempt} of ${step} is called` },
  );
}

function isHeld(receiver: Receiver, step: string): boolean {
  return receiver.held.some((call) => call.step === step);
}

async function readStatus(url: string, orderId: string, status: string): Promise<boolean> {
  return (await readOrder(url, orderId).catch(() => null))?.status === status;
}

function expectRules(violations: readonly Violation[], rules: readonly Rule[]): void {
  const found = new Set(violations.map(({ rule }) => rule));
  for (const rule of rules) assert.ok(found.has(rule), `expected ${rule}, found ${[...found].join(", ") || "nothing"}`);
}
