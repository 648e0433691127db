/** Waits go on at nodes whose wall clocks are hours off: what is left of them is the same there, to about a TTL (cluster rule 2). */
import assert from "node:assert/strict";
import { describe, type TestContext, test } from "node:test";
import { fileURLToPath } from "node:url";
import { finalOrder, readOrder, send } from "../support/client.ts";
import { type Service, startService } from "../support/service.ts";
import { monotonicMs, waitFor } from "../support/wait.ts";
import { type Backend, startBackend } from "./backend.ts";

const CRASH_NODE = fileURLToPath(new URL("../crash/crash-node.ts", import.meta.url));
const TTL_MS = 2_000;
/** That of test/crash/pipelines/waits.ts. */
const WAIT_MS = 15_000;
/** When the order changes hands: one that then waited all over again would be late by this. */
const PASSED_MS = 8_000;
/** For a machine that does much else: less than what would be wrong. */
const LATE_MS_MAX = TTL_MS + 4_000;

/** An order, and when its wait was seen first. */
interface Waiting {
  readonly orderId: string;
  readonly sinceMs: number;
}

/** @param setMs by how much its clock can be set (SIGUSR2) */
function startNode(
  t: TestContext,
  { args }: Backend,
  clockMs: number,
  { pipeline = "waits", setMs = 0 } = {},
): Promise<Service> {
  return startService(t, {
    script: CRASH_NODE,
    args: [...args, "--node-ttl", `${TTL_MS}ms`],
    env: {
      CRASH_RECEIVER: "http://127.0.0.1:9",
      CRASH_PIPELINE: pipeline,
      CRASH_CLOCK_MS: String(clockMs),
      CRASH_CLOCK_SET_MS: String(setMs),
    },
  });
}

async function waitingOrder({ url }: Service, pipeline: string): Promise<Waiting> {
  const answer = await send(`${url}/orders?pipeline=${pipeline}`, {
    method: "POST",
    headers: { authorization: "user", "content-type": "application/json" },
    body: "{}",
  });
  assert.equal(answer.status, 201, answer.text);
  const orderId = String(answer.json?.["order_id"]);
  await waitFor(
    async () => {
      const { status, steps } = await readOrder(url, orderId);
      return status === "waiting" || steps[0]?.error !== undefined;
    },
    { what: "the order waits" },
  );
  return { orderId, sinceMs: monotonicMs() };
}

function bothWait(node: Service): Promise<Waiting[]> {
  return Promise.all(["signal", "retry"].map((pipeline) => waitingOrder(node, pipeline)));
}

/** Resolves when so much of the wait has passed. */
async function passed(waiting: readonly Waiting[], partMs: number): Promise<void> {
  await waitFor(() => waiting.every(({ sinceMs }) => monotonicMs() - sinceMs >= partMs), {
    what: "a part of the wait has passed",
  });
}

/** Sees the orders end at a node, each when its wait is over. */
async function endInTime({ url }: Service, waiting: readonly Waiting[]): Promise<void> {
  await Promise.all(
    waiting.map(async ({ orderId, sinceMs }) => {
      const { status, steps } = await finalOrder(url, orderId);
      const tookMs = Math.round(monotonicMs() - sinceMs);
      const [step] = steps;
      assert.equal(step?.attempts, step?.step_name === "Approve" ? 1 : 2);
      assert.equal(status, step?.step_name === "Approve" ? "failed" : "completed");
      assert.ok(tookMs >= WAIT_MS - TTL_MS - 500, `${step?.step_name} was over after ${tookMs} ms`);
      assert.ok(tookMs <= WAIT_MS + LATE_MS_MAX, `${step?.step_name} was over only after ${tookMs} ms`);
    }),
  );
}

describe("two nodes whose clocks differ by two hours", { concurrency: true }, () => {
  for (const [what, clockMs] of [
    ["ahead", 7_200_000],
    ["behind", -7_200_000],
  ] as const) {
    for (const [how, signal] of [
      ["dies", "SIGKILL"],
      ["stops", "SIGTERM"],
    ] as const) {
      test(`waits are over in their time at a node that is ${what}, when their owner ${how}`, async (t) => {
        const backend = await startBackend(t);
        const owner = await startNode(t, backend, 0);
        const other = await startNode(t, backend, clockMs);
        const waiting = await bothWait(owner);
        await passed(waiting, PASSED_MS);
        await owner.end(signal);
        await endInTime(other, waiting);
      });
    }

    test(`waits are over in their time at another node when their owner's clock was set ${what}, and it dies`, async (t) => {
      const backend = await startBackend(t);
      const owner = await startNode(t, backend, 0, { setMs: clockMs });
      const other = await startNode(t, backend, 0);
      const waiting = await bothWait(owner);
      process.kill(owner.pid, "SIGUSR2");
      await waitFor(() => owner.output().includes("The clock was set by"), { what: "the owner has noticed" });
      await passed(waiting, PASSED_MS);
      await owner.end("SIGKILL");
      await endInTime(other, waiting);
    });

    test(`waits are over in their time when they come through a node that is ${what} and lacks their pipeline`, async (t) => {
      const backend = await startBackend(t);
      const owner = await startNode(t, backend, 0);
      const between = await startNode(t, backend, clockMs, { pipeline: "steered" });
      const waiting = await bothWait(owner);
      const [{ owner: former } = { owner: 0 }] = await backend.readContent();
      await owner.end("SIGKILL");
      await waitFor(async () => (await backend.countOpen(former)) === 0, {
        what: () => `the orders are the other node's; it said:\n${between.output()}`,
      });
      await passed(waiting, PASSED_MS);
      const last = await startNode(t, backend, 0);
      await endInTime(last, waiting);
    });
  }
});
