/** Orders whose calls end or block their node: others go on, and an operator can decide (guarantee G10). */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { acceptedOrderId, type Answer, finalOrder, readOrder, send } from "../support/client.ts";
import { type Service, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

/** What a poisoned order's first step does, by the name in its body. */
const PIPELINE = `import { appendFileSync } from "node:fs";
import { definePipeline } from "order-process";

const DEEDS = {
  exit: () => process.exit(7),
  block: () => { for (;;); },
  stop: () => process.kill(process.pid, "SIGTERM"),
  exhaust: () => { const hoard = []; for (;;) hoard.push(Array.from({ length: 100_000 }, (_, at) => at + 0.5)); },
};

export default definePipeline({
  name: "poison",
  version: 1,
  steps: [
    {
      name: "Deed",
      run: async ({ body, order }) => {
        appendFileSync(process.env.CALLS, \`\${body.deed ?? "none"} \${order.orderId}\\n\`);
        await new Promise((resolve) => setTimeout(resolve, 200));
        DEEDS[body.deed]?.();
        return "done";
      },
      rollback: () => undefined,
    },
    { name: "After", run: () => "done" },
  ],
});
`;

interface Rig {
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly calls: string;
}

function rigOf(t: TestContext): Rig {
  const folder = temporaryFolder(t);
  const [file, calls] = [join(folder, "poison.ts"), join(folder, "calls")];
  writeFileSync(file, PIPELINE);
  writeFileSync(calls, "");
  return { args: ["--pipelines", file, "--blocked-limit", "2s"], env: { CALLS: calls }, calls };
}

function act(url: string, orderId: string, action: string, body: object = {}): Promise<Answer> {
  return send(`${url}/orders/${orderId}/${action}`, {
    method: "POST",
    headers: { authorization: "user", "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

async function listed(url: string): Promise<string[]> {
  const { json } = await send(`${url}/orders?needs_person=true`, { headers: { authorization: "user" } });
  return ((json?.["orders"] ?? []) as { order_id: string }[]).map(({ order_id }) => order_id);
}

for (const [deed, how] of [
  ["exit", /Start/],
  ["stop", /a step has sent the node's process a signal to stop/],
  ["block", /event loop was blocked for \d+ ms.*step "(Deed|After)" of order/],
  // It dies of its memory, or is blocked by collecting garbage before it does.
  ["exhaust", /heap out of memory|heap limit|event loop was blocked/i],
] as const) {
  test(`an order whose step does ${deed} is set aside after three deaths of its node, and the others complete`, async (t) => {
    const { args, env } = rigOf(t);
    const options = { args, env: { ...env, NODE_OPTIONS: "--max-old-space-size=192" } };
    let service: Service = await startService(t, options);
    const { data } = service;
    // The poisoned one last: with its first call the node is gone.
    const healthy = await Promise.all(Array.from({ length: 5 }, () => acceptedOrderId(service.url)));
    const poisoned = await acceptedOrderId(service.url, { deed });
    for (let deaths = 1; deaths <= 3; deaths++) {
      assert.notEqual(await service.exited, 0);
      assert.match(service.output(), how);
      service = await startService(t, { ...options, data });
    }
    for (const orderId of healthy) assert.equal((await finalOrder(service.url, orderId, 60_000)).status, "completed");
    const order = await waitFor(
      async () => {
        const read = await readOrder(service.url, poisoned);
        return read.status === "set_aside" ? read : undefined;
      },
      { what: "the order is set aside" },
    );
    assert.equal(order.set_aside_reason, "crashes");
    assert.equal(order.steps[0]?.attempts, 3);
    assert.deepEqual(order.allowed_actions.toSorted(), ["cancel", "retry"]);
    assert.deepEqual(await listed(service.url), [poisoned]);
    assert.match(service.output(), new RegExp(`level=error msg="Order ${poisoned} is set aside`));
    assert.equal((await act(service.url, poisoned, "cancel")).status, 200);
    assert.equal((await finalOrder(service.url, poisoned)).status, "canceled");
    assert.equal(await service.end("SIGTERM"), 0);
  });
}

/** Past its point of no return the poisoned one is tried without end, and each call ends the node after it was given up. */
const LATE = `import { definePipeline } from "order-process";
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
export default [
  definePipeline({ name: "late", version: 1, steps: [
    { name: "Pay", commit: true, run: () => "paid" },
    { name: "Send", timeout: "300ms", retry: { attempts: 3, delay: "2s" }, run: () => pause(900).then(() => process.exit(7)) },
  ] }),
  definePipeline({ name: "slow", version: 1, steps: [{ name: "Slow", run: () => pause(3_000) }] }),
];
`;

test("an order that ends its node after its call was given up is set aside, and no other in its place", async (t) => {
  const file = join(temporaryFolder(t), "late.ts");
  writeFileSync(file, LATE);
  const args = ["--pipelines", file];
  let service = await startService(t, { args });
  const { url, data } = service;
  const [poisoned, ...healthy] = await Promise.all(
    ["late", "slow", "slow", "slow"].map(async (name) => {
      const headers = { authorization: "user", "content-type": "application/json" };
      const { json } = await send(`${url}/orders?pipeline=${name}`, { method: "POST", headers, body: "{}" });
      return String(json?.["order_id"]);
    }),
  );
  for (let deaths = 1; deaths <= 3; deaths++) {
    assert.equal(await service.exited, 7);
    service = await startService(t, { args, data });
  }
  for (const orderId of healthy) assert.equal((await finalOrder(service.url, orderId)).status, "completed");
  const { status, allowed_actions: allowed } = await readOrder(service.url, poisoned ?? "");
  assert.deepEqual([status, allowed.toSorted()], ["set_aside", ["complete", "retry"]]);
});

test("an order that ends its node can be tried again by an operator when its step is mended, and by nobody else", async (t) => {
  const rig = rigOf(t);
  const options = { ...rig, args: [...rig.args, "--operators", "user", "--set-aside-after", "1"] };
  const first = await startService(t, options);
  const poisoned = await acceptedOrderId(first.url, { deed: "exit" });
  await first.exited;
  writeFileSync(rig.args[1] ?? "", PIPELINE.replace("process.exit(7)", "undefined"));
  const second = await startService(t, { ...options, data: first.data });
  await waitFor(async () => (await readOrder(second.url, poisoned)).status === "set_aside", {
    what: "it is set aside",
  });
  assert.equal((await act(second.url, poisoned, "skip", { reason: "no" })).status, 409);
  assert.equal((await act(second.url, poisoned, "retry")).status, 200);
  assert.equal((await finalOrder(second.url, poisoned)).status, "completed");
});

test("in a cluster a poisoned order ends three nodes at the most, and the orders beside it are called few times more", async (t) => {
  const { args, env, calls } = rigOf(t);
  const ttl = ["--node-ttl", "2s"];
  const first = await startService(t, { args: [...args, ...ttl], env });
  const toJoin = ["--join", first.url.replace("http://", "")];
  const others = await Promise.all([1, 2, 3].map(() => startService(t, { args: [...args, ...ttl, ...toJoin], env })));
  const healthy = await Promise.all(Array.from({ length: 10 }, () => acceptedOrderId(first.url)));
  const poisoned = await acceptedOrderId(first.url, { deed: "exit" });
  const nodes = [first, ...others];
  const gone = new Set<Service>();
  for (const node of nodes) void node.exited.then(() => gone.add(node));
  await waitFor(() => gone.size === 3, { what: () => `three nodes have died; ${gone.size} have`, deadlineMs: 60_000 });
  const left = nodes.find((node) => !gone.has(node));
  assert.ok(left !== undefined);
  await waitFor(async () => (await readOrder(left.url, poisoned)).status === "set_aside", { what: "it is set aside" });
  for (const orderId of healthy) assert.equal((await finalOrder(left.url, orderId)).status, "completed");
  const made = readFileSync(calls, "utf8").trim().split("\n");
  assert.equal(made.filter((line) => line.startsWith("exit")).length, 3);
  for (const orderId of healthy) {
    const times = made.filter((line) => line.endsWith(orderId)).length;
    assert.ok(times <= 3, `a healthy order was called ${times} times`);
  }
});
