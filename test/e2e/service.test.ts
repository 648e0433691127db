/** The service as its users meet it: the earlier system's calls, the log, stopping and starting. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { Ajv2020 } from "ajv/dist/2020.js";
import { ERRORS } from "../../src/order/errors.ts";
import {
  acceptedOrderId,
  type Answer,
  finalOrder,
  type OrderAnswer,
  readOrder,
  send,
  submitOrder,
} from "../support/client.ts";
import { gatedPipeline } from "../support/gated-pipeline.ts";
import { startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const RFC3339_UTC = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/;
const STEPS = ["Scheduling", "Pre-Processing", "Processing", "Post-Processing"];
const USER = { authorization: "user" };
const FAST = ["--step-time", "30ms"];

/** The order's lines of the log, without its id. */
function storyOf(output: string, orderId: string): string[] {
  const lines = output.split("\n").filter((line) => line.includes(orderId));
  return lines.map((line) => (/msg="(?:\[[^\]]*\])?(.*)"$/.exec(line)?.[1] ?? line).replace(`[${orderId}]`, "[id]"));
}

function passOf(step: string): string[] {
  return [`handling step[${step}]`, `Start step[${step}]`, `Finish step[${step}]`];
}

function dispatch(from: string, to: string): string {
  return `DispatchStepTask,current step: [${from}], next step:[${to}]`;
}

function assertTimesRise(order: OrderAnswer): void {
  let before = order.start_time;
  for (const step of order.steps) {
    assert.ok(step.step_start_time >= before, `${step.step_name} starts after what was before it`);
    before = step.step_complete_time ?? step.step_start_time;
  }
  assert.ok(order.complete_time === undefined || order.complete_time >= before);
}

test("the earlier system's calls: an order is submitted with curl's defaults and goes through four steps to Completed", async (t) => {
  const { url, output } = await startService(t, { args: [...FAST, "--log-level", "debug"] });
  const answer = await send(`${url}/orders`, {
    method: "POST",
    body: "{}",
    headers: { authorization: "user", "content-type": "application/x-www-form-urlencoded" },
  });
  assert.equal(answer.status, 201);
  const orderId = String(answer.json?.["order_id"]);
  assert.match(orderId, UUID);
  assert.match(String(answer.json?.["start_time"]), RFC3339_UTC);
  assert.equal(answer.headers.get("location"), `/orders/${orderId}`);

  const order = await finalOrder(url, orderId);
  assert.deepEqual([order.current_step, order.curent_step, order.status], ["Completed", "Completed", "completed"]);
  assert.deepEqual(
    order.steps.map((step) => step.step_name),
    [...STEPS, "Completed"],
  );
  assert.ok(order.steps.every((step) => RFC3339_UTC.test(step.step_complete_time ?? "")));
  assert.equal(order.start_time, answer.json?.["start_time"]);
  assertTimesRise(order);

  const names = [...STEPS, "Completed"];
  await waitFor(() => output().includes(`[${orderId}]Finish Order`), { what: "the order's end is in the log" });
  assert.deepEqual(storyOf(output(), orderId), [
    "New order created with ID: [id]".replace("[id]", `[${orderId}]`).replace(orderId, "id"),
    dispatch("Scheduling", "Scheduling"),
    ...names.flatMap((name, index) => [
      ...(index === 0 ? [] : [dispatch(names[index - 1] ?? "", name)]),
      ...passOf(name),
    ]),
    "Finish Order",
  ]);
});

test("an order that fails in Post-Processing is rolled back step by step, last first, and ends Failed", async (t) => {
  const { url, output } = await startService(t, { args: [...FAST, "--log-level", "debug"] });
  const orderId = await acceptedOrderId(url, { fail_at: "Post-Processing" });
  const order = await finalOrder(url, orderId);
  assert.deepEqual([order.current_step, order.status], ["Failed", "failed"]);
  assert.deepEqual(
    order.steps.map((step) => step.step_name),
    [...STEPS, "Failed"],
  );
  const [scheduling, , , postProcessing] = order.steps;
  assert.ok(scheduling?.step_complete_time !== undefined && scheduling.step_rollback_time !== undefined);
  assert.equal(postProcessing?.step_complete_time, undefined);
  assert.match(postProcessing?.error ?? "", /fail at Post-Processing/);
  assert.equal(postProcessing?.attempts, 1);
  assertTimesRise(order);

  await waitFor(() => output().includes(`[${orderId}]Finish Order`), { what: "the order's end is in the log" });
  const story = storyOf(output(), orderId);
  assert.deepEqual(story.slice(story.indexOf("Failure occurs when handling step[Post-Processing]")), [
    "Failure occurs when handling step[Post-Processing]",
    dispatch("Post-Processing", "Failed"),
    ...passOf("Failed"),
    ...STEPS.toReversed().flatMap((step) => [
      dispatch("Failed", step),
      `handling step[${step}]`,
      `Rollback step[${step}]`,
    ]),
    "Finish Order",
  ]);
});

test("an order on its way shows the steps that have started, and no completion", async (t) => {
  const { url } = await startService(t, { args: ["--step-time", "60s"] });
  const order = await readOrder(url, await acceptedOrderId(url));
  assert.deepEqual(
    [order.status, order.current_step, order.complete_time, order.steps.length],
    ["running", "Scheduling", undefined, 1],
  );
  assert.equal(order.steps[0]?.step_complete_time, undefined);
});

test("heartbeat and cluster answer without authorization, in the earlier system's words and the right ones", async (t) => {
  const { url } = await startService(t);
  const heartbeat = (await send(`${url}/diagnostic/heartbeat`)).json;
  assert.match(String(heartbeat?.["service_id"]), UUID);
  assert.equal(heartbeat?.["serive_id"], heartbeat?.["service_id"]);
  assert.deepEqual([heartbeat?.["service_name"], heartbeat?.["status"]], ["order_process", "OK"]);
  assert.match(String(heartbeat?.["generated_at"]), RFC3339_UTC);

  const cluster = (await send(`${url}/diagnostic/cluster`)).json;
  assert.equal(cluster?.["leader_name"], heartbeat?.["service_id"]);
  assert.equal(cluster?.["nodes_count"], 1);
  const [node] = (cluster?.["nodes"] ?? []) as Record<string, unknown>[];
  assert.deepEqual(
    [node?.["name"], node?.["connection_string"], node?.["connected"]],
    [heartbeat?.["service_id"], url, true],
  );
});

test("the OpenAPI document is 3.1, lists every resource and error, marks the misspelt names, and has a page", async (t) => {
  const { url } = await startService(t);
  const { text, json } = await send(`${url}/openapi.json`);
  assert.match(String(json?.["openapi"]), /^3\.1\./);
  assert.deepEqual(Object.keys(json?.["paths"] ?? {}).toSorted(), [
    "/cluster/actions",
    "/cluster/join",
    "/cluster/orders",
    "/diagnostic/cluster",
    "/diagnostic/heartbeat",
    "/events",
    "/orders",
    "/orders/{order_id}",
    "/orders/{order_id}/cancel",
    "/orders/{order_id}/complete",
    "/orders/{order_id}/events",
    "/orders/{order_id}/history",
    "/orders/{order_id}/pause",
    "/orders/{order_id}/resume",
    "/orders/{order_id}/retry",
    "/orders/{order_id}/skip",
    "/service/transfer",
  ]);
  for (const name of ["curent_step", "serive_id", "tranferred_service_id"]) {
    assert.match(text, new RegExp(`"${name}":\\{"type":"string","deprecated":true`));
  }
  assert.ok(text.includes("application/problem+json"));
});

test("the page at /docs has all that it loads, and says when a browser has it already", async (t) => {
  const { url } = await startService(t, { args: FAST });
  for (const path of ["/docs", "/docs/"]) {
    const page = await send(`${url}${path}`);
    assert.equal(page.status, 200);
    const names = [...page.text.matchAll(/(?:href|src)="([^"]+)"/g)].map(([, name]) => name ?? "");
    assert.equal(names.length, 7);
    for (const name of names) {
      const file = new URL(name, `${url}${path}`).href;
      const { status, text, headers } = await send(file);
      assert.equal(status, 200, file);
      assert.ok(text.length > 100, file);
      const again = await send(file, { headers: { "if-none-match": headers.get("etag") ?? "" } });
      assert.equal(again.status, 304, file);
    }
  }
});

test("answers have the fields that the OpenAPI document gives them, and no other", async (t) => {
  const { url } = await startService(t, { args: FAST });
  const { text } = await send(`${url}/openapi.json`);
  const document = JSON.parse(text, (_key, value: unknown) => {
    const isClosed =
      typeof value === "object" && value !== null && "properties" in value && !("additionalProperties" in value);
    return isClosed ? { ...value, additionalProperties: false } : value;
  }) as Record<string, unknown>;
  const ajv = new Ajv2020({
    strict: false,
    allErrors: true,
    formats: { uuid: UUID, "date-time": RFC3339_UTC },
  }).addSchema(document, "document");
  const assertDescribed = (method: string, path: string, answer: Answer): void => {
    const at = ["paths", path, method, "responses", String(answer.status), "content"];
    const type = answer.status < 400 ? "application/json" : "application/problem+json";
    const pointer = [...at, type, "schema"].map((part) => part.replaceAll("~", "~0").replaceAll("/", "~1")).join("/");
    const validate = ajv.getSchema(`document#/${pointer}`);
    assert.ok(validate !== undefined, `the document has ${method} ${path} with ${answer.status}`);
    assert.ok(validate(answer.json), `${method} ${path}: ${ajv.errorsText(validate.errors)}`);
  };
  const failing = await submitOrder(url, { fail_at: "Processing" });
  assertDescribed("post", "/orders", failing);
  for (const accepted of [failing, await submitOrder(url, {})]) {
    const orderId = String(accepted.json?.["order_id"]);
    for (const read of [readOrder, finalOrder]) {
      await read(url, orderId);
      assertDescribed("get", "/orders/{order_id}", await send(`${url}/orders/${orderId}`, { headers: USER }));
    }
  }
  assertDescribed("post", "/orders", await submitOrder(url, "no JSON"));
  assertDescribed("get", "/orders/{order_id}", await send(`${url}/orders/none`, { headers: USER }));
  for (const path of ["/diagnostic/heartbeat", "/diagnostic/cluster"]) {
    assertDescribed("get", path, await send(`${url}${path}`));
  }
  const transfer = { method: "POST", body: JSON.stringify({ service_id: "none" }) };
  assertDescribed("post", "/service/transfer", await send(`${url}/service/transfer`, transfer));
});

test("the page of all errors names every code with its status", () => {
  const page = readFileSync(new URL("../../docs/errors.md", import.meta.url), "utf8");
  const listed = [...page.matchAll(/^\| `(\w+)` +\| +(\d+) +\|/gm)].map(([, code, status]) => [code, Number(status)]);
  assert.deepEqual(
    listed,
    Object.entries(ERRORS).map(([code, { status }]) => [code, status]),
  );
});

for (const signal of ["SIGTERM", "SIGINT"] as const) {
  test(`${signal} lets a running step end, takes no order meanwhile, and exits 0; the next start goes on`, async (t) => {
    const gate = gatedPipeline(t);
    const first = await startService(t, { args: [...gate.args, "--grace", "60s"] });
    const orderId = await acceptedOrderId(first.url);
    await waitFor(async () => (await readOrder(first.url, orderId)).current_step === "Wait", { what: "a step runs" });
    const ended = first.end(signal);
    const refused = await waitFor(
      async () => {
        const answer = await submitOrder(first.url).catch(() => undefined);
        return answer?.status === 503 ? answer : undefined;
      },
      { what: "new orders are refused" },
    );
    assert.equal(refused.json?.["code"], "shutting_down");
    assert.ok(refused.headers.has("retry-after"));
    gate.open();
    assert.equal(await ended, 0);

    const second = await startService(t, { data: first.data, args: gate.args });
    const order = await finalOrder(second.url, orderId);
    assert.equal(order.status, "completed");
    assert.equal(order.steps[1]?.attempts, 1, "the step that ended within the grace time is not called again");
    assert.deepEqual(order.service_id, (await send(`${second.url}/diagnostic/heartbeat`)).json?.["service_id"]);
  });
}

test("a step that outlasts the grace time is cut, and called again at the next start", async (t) => {
  const first = await startService(t, { args: ["--step-time", "60s", "--grace", "100ms"] });
  const orderId = await acceptedOrderId(first.url);
  assert.equal(await first.end("SIGTERM"), 0);
  assert.match(first.output(), /steps cut short, to be called again: 1/);
  const second = await startService(t, { data: first.data, args: FAST });
  const order = await finalOrder(second.url, orderId);
  assert.equal(order.steps[0]?.attempts, 2);
});

test("a second signal ends the process at once", async (t) => {
  const { url, end, exited, output } = await startService(t, { args: ["--step-time", "60s", "--grace", "60s"] });
  await acceptedOrderId(url);
  void end("SIGTERM");
  await waitFor(() => output().includes("Stopping"), { what: "the first signal is heard" });
  void end("SIGTERM");
  assert.equal(await exited, 1);
});

test("after kill -9 every acknowledged order goes on from its last committed step, as the same service", async (t) => {
  const first = await startService(t, { args: ["--step-time", "200ms"] });
  const ids = await Promise.all(Array.from({ length: 50 }, () => acceptedOrderId(first.url)));
  const serviceId = (await send(`${first.url}/diagnostic/heartbeat`)).json?.["service_id"];
  await waitFor(async () => (await readOrder(first.url, ids[0] ?? "")).steps.length >= 2, { what: "a step is done" });
  assert.equal(await first.end("SIGKILL"), "SIGKILL");

  const second = await startService(t, { data: first.data, args: FAST });
  for (const id of ids) {
    const order = await finalOrder(second.url, id);
    assert.deepEqual([order.status, order.service_id], ["completed", serviceId]);
    assertTimesRise(order);
  }
});

test("a store of its own path is used", async (t) => {
  const store = join(temporaryFolder(t), "shop.sqlite");
  const first = await startService(t, { args: [...FAST, "--store", `sqlite:${store}`] });
  const orderId = await acceptedOrderId(first.url);
  await finalOrder(first.url, orderId);
  await first.end("SIGTERM");
  const second = await startService(t, { args: [...FAST, "--store", `sqlite:${store}`] });
  assert.equal((await readOrder(second.url, orderId)).status, "completed");
});

for (const format of ["json", "pretty", "logfmt"]) {
  test(`the log can be written as ${format}`, async (t) => {
    const { output } = await startService(t, { args: ["--log-format", format] });
    const line =
      output()
        .split("\n")
        .find((text) => text.includes("Listening at")) ?? "";
    if (format === "json") assert.equal((JSON.parse(line) as { level: string }).level, "info");
    if (format === "logfmt") assert.match(line, /^time="[^"]+Z" level=info msg="Listening at: http:/);
    if (format === "pretty") assert.match(line, /INFO/);
  });
}

test("the pid of the command is the service's, and it listens on the loopback address unless told otherwise", async (t) => {
  const { url, pid, output } = await startService(t);
  assert.match(output(), new RegExp(`process ${pid}\\)`));
  assert.ok(url.startsWith("http://127.0.0.1:"));
});
