/** Deploys: pipelines that change under orders that are under way, on nodes of several versions side by side. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { assertProblem, assertRefused } from "../support/checks.ts";
import { acceptedOrderId, type Answer, finalOrder, readOrder, send } from "../support/client.ts";
import { gatedPipeline } from "../support/gated-pipeline.ts";
import { runCommand, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

/** A file with a pipeline of those steps; each waits for a signal if its name says so. */
function pipelineFile(t: TestContext, version: number, steps: readonly string[]): string {
  const file = join(temporaryFolder(t), `trip-v${version}.ts`);
  const written = steps.map((name) =>
    name.startsWith("Wait")
      ? `{ name: "${name}", wait: {} }`
      : `{ name: "${name}", run: () => "v${version}", rollback: () => {} }`,
  );
  writeFileSync(
    file,
    `import { definePipeline } from "order-process";
export default definePipeline({ name: "trip", version: ${version}, steps: [${written.join(", ")}] });
`,
  );
  return file;
}

function act(url: string, orderId: string, action: string, body: object = {}): Promise<Answer> {
  const headers = { authorization: "user", "content-type": "application/json" };
  return send(`${url}/orders/${orderId}/${action}`, { method: "POST", headers, body: JSON.stringify(body) });
}

async function complete(url: string, orderId: string, step: string): Promise<number> {
  return (await act(url, orderId, "complete", { step })).status;
}

test("orders keep the version that they began with, wait for a node that has it, and end as they should", async (t) => {
  const [old, next] = [
    pipelineFile(t, 1, ["Book", "Wait", "Send"]),
    pipelineFile(t, 2, ["Book", "Insure", "Wait", "Post"]),
  ];
  const ttl = ["--node-ttl", "3s"];
  const first = await startService(t, { args: ["--pipelines", old, ...ttl] });
  const [begun, doomed] = [await acceptedOrderId(first.url), await acceptedOrderId(first.url)];
  for (const orderId of [begun, doomed]) {
    await waitFor(async () => (await readOrder(first.url, orderId)).status === "waiting", { what: "it waits" });
  }

  // A new version, side by side: the old order stays with the old node.
  const second = await startService(t, {
    args: ["--pipelines", next, ...ttl, "--join", first.url.replace("http://", "")],
  });
  const fresh = await acceptedOrderId(second.url);
  assert.equal((await readOrder(second.url, begun)).waiting_for, undefined);

  // The old node goes: its order is the new one's, which lacks its pipeline, and says so.
  await first.end("SIGKILL");
  const waits = await waitFor(
    async () => {
      const order = await readOrder(second.url, begun);
      return order.waiting_for === undefined ? undefined : order;
    },
    { what: "the order waits for a node that has its pipeline" },
  );
  assert.match(waits.waiting_for ?? "", /trip v1/);
  assert.deepEqual([waits.status, waits.allowed_actions], ["waiting", ["cancel"]]);
  const dryRun = await act(second.url, begun, "cancel", { dry_run: true });
  assert.deepEqual([dryRun.status, dryRun.json], [200, { order_id: begun, would_roll_back: ["Book"] }]);
  assert.equal(await complete(second.url, begun, "Wait"), 503);
  const resumed = await act(second.url, begun, "resume");
  assert.deepEqual([resumed.status, resumed.json?.["code"]], [409, "action_not_allowed"]);
  assert.equal((await act(second.url, doomed, "cancel")).status, 200);
  assert.equal((await readOrder(second.url, doomed)).status, "rolling_back");

  // A node with the old version comes back, and gets what it can go on with.
  const third = await startService(t, {
    args: ["--pipelines", old, ...ttl, "--join", second.url.replace("http://", "")],
  });
  await waitFor(async () => (await complete(second.url, begun, "Wait")) === 200, {
    what: "the order can be gone on with",
  });
  const ended = await finalOrder(third.url, begun);
  const canceled = await finalOrder(third.url, doomed);
  assert.equal(canceled.status, "canceled");
  assert.ok(canceled.steps[0]?.step_rollback_time !== undefined, "what was booked is rolled back");
  assert.deepEqual(
    [ended.status, ended.pipeline_version, ended.steps.map(({ step_name: name }) => name)],
    ["completed", 1, ["Book", "Wait", "Send", "Completed"]],
  );
  await waitFor(async () => (await complete(third.url, fresh, "Wait")) === 200, { what: "the newer one goes on" });
  const newer = await finalOrder(third.url, fresh);
  assert.deepEqual(
    newer.steps.map(({ step_name: name }) => name),
    ["Book", "Insure", "Wait", "Post", "Completed"],
  );
});

test("a cancel that waited for a call is carried out where the pipeline is lacking, when the call went with its node", async (t) => {
  const ttl = ["--node-ttl", "2s"];
  const first = await startService(t, { args: [...gatedPipeline(t).args, ...ttl] });
  const second = await startService(t, { args: [...ttl, "--join", first.url.replace("http://", "")] });
  const orderId = await acceptedOrderId(first.url);
  await waitFor(async () => (await readOrder(first.url, orderId)).steps.length === 2, {
    what: "its call is under way",
  });
  assert.equal((await act(first.url, orderId, "cancel")).status, 200);
  await first.end("SIGKILL");
  const canceled = await waitFor(
    async () => {
      await act(second.url, orderId, "cancel");
      const order = await readOrder(second.url, orderId);
      return order.status === "canceled" && order;
    },
    { what: "the order is canceled" },
  );
  assert.equal(canceled.steps[1]?.outcome, "unknown");
});

test("an order that is made again with a newer version needs a body that this one takes", async (t) => {
  const file = join(temporaryFolder(t), "trip.ts");
  const write = (version: number, body: string): void => {
    writeFileSync(
      file,
      `import { definePipeline, permanent } from "order-process";
const to = { "~standard": { version: 1, vendor: "test", validate: (value) =>
  "to" in value ? { value } : { issues: [{ message: "is missing", path: ["to"] }] } } };
export default definePipeline({ name: "trip", version: ${version}, ${body} steps: [
  { name: "Book", run: () => { throw permanent("no room"); } }] });
`,
    );
  };
  write(1, "");
  const first = await startService(t, { args: ["--pipelines", file] });
  const [without, withTo] = [await acceptedOrderId(first.url), await acceptedOrderId(first.url, { to: "Ann" })];
  for (const orderId of [without, withTo]) await finalOrder(first.url, orderId);
  await first.end("SIGTERM");
  write(2, "body: to,");
  const second = await startService(t, { data: first.data, args: ["--pipelines", file] });
  const retry = (orderId: string): Promise<Answer> =>
    send(`${second.url}/orders/${orderId}/retry`, { method: "POST", headers: { authorization: "user" } });
  const refused = await retry(without);
  assertProblem(refused, 422, "body_refused");
  assert.match(String(refused.json?.["detail"]), /to: is missing/);
  const again = await retry(withTo);
  assert.deepEqual([again.status, again.json?.["pipeline_version"]], [201, 2]);
});

test("an order that is made again has the very body that it had, and no larger one by a newer version", async (t) => {
  const file = join(temporaryFolder(t), "cents.ts");
  const write = (version: number): void => {
    writeFileSync(
      file,
      `import { definePipeline, permanent } from "order-process";
const cents = { "~standard": { version: 1, vendor: "test", validate: ({ amount, text }) => typeof amount !== "number"
  ? { issues: [{ message: "is no number", path: ["amount"] }] }
  : { value: { amount: amount * 100, ...(text ? { text: text + text } : {}), list: String(amount) } } } };
export default definePipeline({ name: "cents", version: ${version}, body: cents, steps: [
  { name: "Pay", run: ({ body }) => { throw permanent(JSON.stringify(body.amount)); } }] });
`,
    );
  };
  write(1);
  const first = await startService(t, { args: ["--pipelines", file] });
  const retry = (url: string, orderId: string): Promise<Answer> =>
    send(`${url}/orders/${orderId}/retry`, { method: "POST", headers: { authorization: "user" } });
  const large = await acceptedOrderId(first.url, { amount: 1, text: "x".repeat(100_000) });
  for (let orderId = await acceptedOrderId(first.url, { amount: 30 }), times = 0; times < 3; times++) {
    assert.match((await finalOrder(first.url, orderId)).steps[0]?.error ?? "", /3000/);
    const again = await retry(first.url, orderId);
    assert.equal(again.status, 201, again.text);
    orderId = String(again.json?.["order_id"]);
  }
  await finalOrder(first.url, large);
  await first.end("SIGTERM");
  write(2);
  const second = await startService(t, { data: first.data, args: ["--pipelines", file] });
  assertProblem(await retry(second.url, large), 413, "body_too_large");
});

test("a promise that a step leaves behind and that fails ends no node", async (t) => {
  const file = join(temporaryFolder(t), "careless.ts");
  writeFileSync(
    file,
    `import { definePipeline } from "order-process";
export default definePipeline({ name: "careless", version: 1, steps: [
  { name: "Fetch", run: () => void fetch("http://127.0.0.1:1/audit") },
  { name: "Reject", run: () => void Promise.reject(new Error("nobody hears")) },
  { name: "Timer", run: () => void setTimeout(() => { throw new Error("too late"); }, 1) },
  { name: "Wait", run: () => new Promise((resolve) => setTimeout(resolve, 100)) },
] });
`,
  );
  const service = await startService(t, { args: ["--pipelines", file] });
  assert.equal((await finalOrder(service.url, await acceptedOrderId(service.url))).status, "completed");
  for (const said of ["fetch failed", "nobody hears", "too late"]) {
    await waitFor(() => service.output().includes(`outside of its call, where nobody hears of it: ${said}`), {
      what: () => `the log tells of it: ${service.output()}`,
    });
  }
  assert.equal((await finalOrder(service.url, await acceptedOrderId(service.url))).status, "completed");
});

test("steps that change under one version are refused at the start, in one line; timeouts may change", async (t) => {
  const service = await startService(t, { args: ["--pipelines", pipelineFile(t, 1, ["Book", "Send"])] });
  assert.equal((await finalOrder(service.url, await acceptedOrderId(service.url))).status, "completed");
  await service.end("SIGTERM");
  const args = ["--port", "0", "--data", service.data, "--pipelines"];
  const refused = await runCommand([...args, pipelineFile(t, 1, ["Book", "Post"])]);
  assertRefused(refused, 1, /trip v1 has changed: .*"Book" \(rollback\), "Send" \(rollback\).*higher version/);
});

for (const [what, text, line] of [
  ["throws when it is loaded", 'throw new Error("no database");', /broken\.ts:1:7: no database/],
  ["is not there", null, /there is no such file/],
] as const) {
  test(`a node whose pipelines' file ${what} does not start, and says so in one line`, async (t) => {
    const file = join(temporaryFolder(t), "broken.ts");
    if (text !== null) writeFileSync(file, text);
    const refused = await runCommand(["--port", "0", "--data", temporaryFolder(t), "--pipelines", file]);
    assertRefused(refused, 1, line);
    const checked = await runCommand(["check", file]);
    assert.equal(checked.code, 1);
    assert.match(checked.stdout, line);
  });
}
