/** Orders that people steer over HTTP, on a node of a cluster that need not own them. */
import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { assertProblem } from "../support/checks.ts";
import { type Answer, finalOrder, readOrder, send, submitOrder } from "../support/client.ts";
import { type Service, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

/** Book; Approve, which waits; Send. What the body says fails: Send's run for good, or Book's rollback. */
const PIPELINE = `import { definePipeline, permanent } from "order-process";
export default definePipeline({
  name: "trip",
  version: 1,
  steps: [
    {
      name: "Book",
      run: () => ({ booking: "b-1" }),
      rollback: ({ body }) => {
        if (body.stuck === true) throw permanent("the hotel does not answer");
      },
    },
    { name: "Approve", wait: { deadline: "1h" } },
    {
      name: "Send",
      run: ({ body, results }) => {
        if (body.fails === true) throw permanent("no address");
        return { to: body.to ?? null, approved: results.Approve };
      },
    },
  ],
});
`;

interface Cluster {
  readonly first: Service;
  readonly second: Service;
}

async function cluster(t: TestContext): Promise<Cluster> {
  const pipelines = join(temporaryFolder(t), "trip.ts");
  writeFileSync(pipelines, PIPELINE);
  const args = ["--pipelines", pipelines, "--operators", "olga, otto"];
  const first = await startService(t, { args });
  const second = await startService(t, { args: [...args, "--join", first.url.replace("http://", "")] });
  return { first, second };
}

function act(url: string, orderId: string, action: string, body: unknown = {}, user = "user"): Promise<Answer> {
  return send(`${url}/orders/${orderId}/${action}`, {
    method: "POST",
    headers: { authorization: user, "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

async function submitted(url: string, body: object = {}, query = ""): Promise<string> {
  const answer = await send(`${url}/orders${query}`, {
    method: "POST",
    headers: { authorization: "user", "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  assert.equal(answer.status, 201, answer.text);
  return String(answer.json?.["order_id"]);
}

function reaches(url: string, orderId: string, status: string): Promise<unknown> {
  return waitFor(async () => (await readOrder(url, orderId)).status === status, { what: `the order is ${status}` });
}

test("orders are steered from any node of the cluster, by their users and by operators", async (t) => {
  const { first, second } = await cluster(t);

  await t.test("a waiting step is completed through the node that does not own the order, and once only", async () => {
    const orderId = await submitted(first.url, { to: "Ann" });
    await reaches(first.url, orderId, "waiting");
    const waits = await readOrder(second.url, orderId);
    assert.deepEqual(waits.allowed_actions, ["cancel", "pause", "complete"]);
    assert.ok(Date.parse(waits.wait_deadline ?? "") > Date.now());
    const signal = { step: "Approve", result: { by: "the boss" } };
    assert.equal((await act(second.url, orderId, "complete", signal)).status, 200);
    assert.equal((await finalOrder(second.url, orderId)).status, "completed");
    assert.equal((await act(first.url, orderId, "complete", signal)).status, 200, "asked twice, done once");
    const other = { ...signal, result: { by: "somebody else" } };
    assertProblem(await act(second.url, orderId, "complete", other), 409, "action_not_allowed");
    const { steps, interventions } = await readOrder(first.url, orderId);
    assert.deepEqual(
      steps.map(({ result }) => result),
      [{ booking: "b-1" }, { by: "the boss" }, { to: "Ann", approved: { by: "the boss" } }, undefined],
    );
    assert.deepEqual(
      interventions?.map(({ action, by }) => [action, by]),
      [["complete", "user"]],
    );
  });

  await t.test(
    "a dry run says what a cancellation would roll back, and a cancellation does it, with its reason",
    async () => {
      const orderId = await submitted(first.url);
      await reaches(first.url, orderId, "waiting");
      const dry = await act(second.url, orderId, "cancel", { dry_run: true });
      assert.deepEqual(dry.json, { order_id: orderId, would_roll_back: ["Book"] });
      assert.equal((await readOrder(first.url, orderId)).status, "waiting");
      const answer = await act(second.url, orderId, "cancel", { reason: "too expensive" }, "olga");
      assert.equal(answer.status, 200, answer.text);
      const order = await finalOrder(second.url, orderId);
      assert.deepEqual(
        [order.status, order.current_step, order.steps.at(-1)?.step_name],
        ["canceled", "Canceled", "Canceled"],
      );
      assert.deepEqual(
        order.interventions?.map(({ by, reason }) => [by, reason]),
        [["olga", "too expensive"]],
      );
      assert.equal((await act(first.url, orderId, "cancel")).status, 200, "asked twice, done once");
    },
  );

  await t.test("a paused order stays where it is, over its signal, until it is resumed", async () => {
    const orderId = await submitted(second.url);
    await reaches(second.url, orderId, "waiting");
    assert.equal((await act(first.url, orderId, "pause")).json?.["status"], "paused");
    assert.equal((await act(first.url, orderId, "complete", { step: "Approve" })).json?.["status"], "paused");
    assert.equal((await act(first.url, orderId, "resume")).status, 200);
    assert.equal((await finalOrder(first.url, orderId)).status, "completed");
  });

  await t.test(
    "a failed order is made again from its start, and from its failed step only if nothing was rolled back",
    async () => {
      const orderId = await submitted(first.url, { fails: true });
      await reaches(first.url, orderId, "waiting");
      await act(first.url, orderId, "complete", { step: "Approve" });
      assert.equal((await finalOrder(first.url, orderId)).status, "failed");
      const refused = await act(second.url, orderId, "retry", { from: "failed_step" });
      assertProblem(refused, 409, "action_not_allowed");
      assert.match(String(refused.json?.["detail"]), /"Book"/);
      const answer = await act(second.url, orderId, "retry", {}, "otto");
      assert.equal(answer.status, 201, answer.text);
      const [again, twice] = [answer, await act(first.url, orderId, "retry")].map(({ json }) =>
        String(json?.["order_id"]),
      );
      assert.equal(again, twice, "asked twice, made once");
      assert.equal(answer.headers.get("location"), `/orders/${again}`);
      const order = await readOrder(first.url, again ?? "");
      assert.equal(order.retry_of, orderId);
      assert.deepEqual(
        order.interventions?.map(({ action, by }) => [action, by]),
        [["retry", "otto"]],
      );
      assert.equal((await readOrder(first.url, orderId)).status, "failed", "a final order never changes");
    },
  );

  await t.test("a rollback that failed waits for an operator, who tries again, or skips it with a reason", async () => {
    const orderId = await submitted(first.url, { stuck: true });
    await reaches(first.url, orderId, "waiting");
    await act(first.url, orderId, "cancel");
    await reaches(first.url, orderId, "rollback_incomplete");
    assert.match(first.output(), new RegExp(`level=error .*Order ${orderId} waits for an operator`));
    assert.equal((await act(second.url, orderId, "retry", {}, "olga")).status, 200);
    await reaches(first.url, orderId, "rollback_incomplete");
    assertProblem(await act(second.url, orderId, "skip", {}, "olga"), 400, "request_invalid");
    assert.equal((await act(second.url, orderId, "skip", { reason: "called them" }, "olga")).status, 200);
    const order = await finalOrder(first.url, orderId);
    assert.deepEqual(
      [order.status, order.steps[0]?.by, order.steps[0]?.skip_reason],
      ["canceled", "olga", "called them"],
    );
  });

  await t.test("an order starts when it was told to", async () => {
    const later = new Date(Date.now() + 3_600_000).toISOString();
    const order = await readOrder(second.url, await submitted(first.url, {}, `?start_at=${later}`));
    assert.deepEqual([order.status, order.start_at, order.steps], ["scheduled", later, []]);
    const startAt = new Date(Date.now() + 500).toISOString();
    const orderId = await submitted(first.url, {}, `?start_at=${startAt}`);
    await reaches(second.url, orderId, "waiting");
    assert.ok(((await readOrder(second.url, orderId)).steps[0]?.step_start_time ?? "") >= startAt);
  });

  await t.test(
    "what can't be is refused: other users, unknown orders, wrong bodies, wrong times and pipelines",
    async () => {
      const orderId = await submitted(first.url);
      assertProblem(await act(first.url, orderId, "cancel", {}, "mallory"), 404, "order_not_found");
      const swallowed = await act(first.url, orderId, "cancel?dry_run=true");
      assertProblem(swallowed, 400, "request_invalid");
      assert.equal(swallowed.json?.["detail"], 'There is no query parameter "dry_run" here.');
      assertProblem(await act(first.url, "none", "cancel"), 404, "order_not_found");
      assertProblem(await act(first.url, orderId, "explode"), 404, "route_not_found");
      assertProblem(await act(first.url, orderId, "cancel", { why: "so" }), 400, "request_invalid");
      assertProblem(await act(first.url, orderId, "complete", {}), 400, "request_invalid");
      assertProblem(
        await act(first.url, orderId, "complete", { step: "Approve", result: "x".repeat(70_000) }),
        400,
        "request_invalid",
      );
      const { json: missing } = await act(first.url, orderId, "skip", {});
      assert.equal(missing?.["detail"], 'The property "reason" is missing.');
      assertProblem(await act(first.url, orderId, "complete", { step: "Send" }), 409, "action_not_allowed");
      assertProblem(await act(first.url, orderId, "resume"), 409, "action_not_allowed");
      const asked = (query: string): Promise<Answer> =>
        send(`${first.url}/orders${query}`, {
          method: "POST",
          headers: { authorization: "user", "content-type": "application/json" },
          body: "{}",
        });
      assertProblem(await asked("?pipeline=none"), 404, "pipeline_not_found");
      assertProblem(await asked("?start_at=tomorrow"), 400, "request_invalid");
      assertProblem(await asked("?start_at=2126-01-01T00:00:00Z"), 400, "request_invalid");
      assertProblem(await asked("?piepline=trip"), 400, "request_invalid");
      assertProblem(await submitOrder(first.url, "[]"), 400, "body_not_object");
      const forged = { order_id: orderId, request: { action: "cancel", by: "mallory", reason: null } };
      const cut = await send(`${first.url}/cluster/actions`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(forged),
      });
      assertProblem(cut, 403, "membership_unproven");
    },
  );

  await t.test("orders of a node that is killed stay as they are, and can be steered at the other one", async () => {
    const orderId = await submitted(first.url, { to: "Eve" });
    await reaches(first.url, orderId, "waiting");
    await act(first.url, orderId, "pause");
    await first.end("SIGKILL");
    await waitFor(async () => (await act(second.url, orderId, "resume")).status === 200, {
      what: "the order is resumed at the other node",
    });
    assert.equal((await act(second.url, orderId, "complete", { step: "Approve" })).status, 200);
    assert.equal((await finalOrder(second.url, orderId)).status, "completed");
  });
});
