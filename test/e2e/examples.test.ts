/** The examples as they stand, against the shop in another language, also when a node dies in the middle. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { atEnd } from "../support/at-end.ts";
import { acceptedOrderId, finalOrder, readOrder, send } from "../support/client.ts";
import { redisIsMissing, startRedis } from "../support/redis.ts";
import { startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const pythonIsMissing = spawnSync("python3", ["--version"]).status === 0 ? false : "there is no python3";

const EXAMPLES = fileURLToPath(new URL("../../examples/checkout/", import.meta.url));
const GOOD = { sku: "book", amount: 30, to: "Ann", email: "ann@example.org" };

interface Shop {
  readonly url: string;
  /** What there is, by path, and how often something was done, by key. */
  readonly state: () => Promise<{ resources: Record<string, unknown>; effects: Record<string, number> }>;
}

async function startShop(t: TestContext, delayS: number): Promise<Shop> {
  const child = spawn("python3", [join(EXAMPLES, "shop.py"), "--port", "0", "--delay", String(delayS)], {
    stdio: ["ignore", "pipe", "pipe"],
  });
  atEnd(t, () => child.kill("SIGKILL"));
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => (output += text));
  const url = await waitFor(() => /listens at (http:\S+)/.exec(output)?.[1], {
    what: () => `the shop listens; it said ${output}`,
  });
  const state: Shop["state"] = async () =>
    (await send(`${url}/effects`)).json as unknown as Awaited<ReturnType<Shop["state"]>>;
  return { url, state };
}

async function storeArgs(t: TestContext, store: string): Promise<string[]> {
  if (store === "sqlite") return [];
  const { location } = await startRedis(t);
  return ["--store", `redis://${location.host}:${location.port}`];
}

for (const [file, store] of [
  ["checkout.ts", "sqlite"],
  ["checkout.yaml", "sqlite"],
  ["checkout.yaml", "redis"],
] as const) {
  const skip = store === "redis" && redisIsMissing !== false ? redisIsMissing : pythonIsMissing;
  test(
    `${file} on ${store} completes and rolls back, each effect once, though a node dies in the middle`,
    { skip },
    async (t) => {
      const shop = await startShop(t, 0.5);
      const args = ["--pipelines", join(EXAMPLES, file), "--node-ttl", "3s", ...(await storeArgs(t, store))];
      const env = { SHOP_URL: shop.url };
      const first = await startService(t, { args, env });
      const second = await startService(t, { args: [...args, "--join", first.url.replace("http://", "")], env });
      const good = await acceptedOrderId(first.url, GOOD);
      const dear = await acceptedOrderId(first.url, { ...GOOD, amount: 2_000 });
      const nowhere = await acceptedOrderId(first.url, { ...GOOD, to: "nowhere" });
      await waitFor(async () => (await readOrder(second.url, good)).steps[0]?.step_complete_time, {
        what: "the first step has ended",
      });
      await first.end("SIGKILL");

      const [done, poor, lost] = await Promise.all([good, dear, nowhere].map((id) => finalOrder(second.url, id)));
      assert.deepEqual([done?.status, poor?.status, lost?.status], ["completed", "failed", "failed"]);
      assert.match(
        poor?.steps[1]?.error ?? "",
        file === "checkout.ts" ? /the bank says no/ : /answered 402: the bank says no/,
      );
      assert.ok(poor?.steps[0]?.step_rollback_time !== undefined && lost?.steps[1]?.step_rollback_time !== undefined);
      const { resources, effects } = await shop.state();
      assert.deepEqual(
        Object.keys(resources).toSorted(),
        ["charges", "couriers", "receipts", "reservations"].map((kind) => `/${kind}/${good}`),
        "of the others nothing is left",
      );
      assert.deepEqual((resources[`/receipts/${good}`] as { text: string }).text, "You paid 30 for book");
      assert.ok(
        Object.values(effects).every((count) => count === 1),
        JSON.stringify(effects),
      );
      assert.ok(done?.steps.some(({ attempts }) => (attempts ?? 1) > 1) === true, "a step was called again");
    },
  );
}

for (const store of ["sqlite", "redis"] as const) {
  const skip = store === "redis" && redisIsMissing !== false ? redisIsMissing : pythonIsMissing;
  test(`a step that times out after it has done its work is rolled back, on ${store}`, { skip }, async (t) => {
    const shop = await startShop(t, 1.2);
    const file = join(temporaryFolder(t), "impatient.yaml");
    const patient = readFileSync(join(EXAMPLES, "checkout.yaml"), "utf8");
    // The card is charged at once, and the answer comes too late.
    writeFileSync(
      file,
      patient.replace(
        "timeout: 10s\n    retry: { attempts: 5, delay: 200ms }",
        "timeout: 800ms\n    retry: { attempts: 1 }",
      ),
    );
    const args = ["--pipelines", file, ...(await storeArgs(t, store))];
    const service = await startService(t, { args, env: { SHOP_URL: shop.url } });
    const orderId = await acceptedOrderId(service.url, GOOD);
    const order = await finalOrder(service.url, orderId);
    assert.equal(order.status, "failed");
    assert.deepEqual([order.steps[1]?.outcome, order.steps[1]?.error], ["unknown", "timed out after 800 ms"]);
    const { resources, effects } = await shop.state();
    assert.deepEqual(resources, {}, "the charge is undone, and the reservation before it");
    assert.deepEqual(effects, {
      [`${orderId}:Reserve stock:run`]: 1,
      [`${orderId}:Charge card:run`]: 1,
      [`${orderId}:Charge card:rollback`]: 1,
      [`${orderId}:Reserve stock:rollback`]: 1,
    });
  });
}

test("the shop refuses a call that comes after the one that undid it", { skip: pythonIsMissing }, async (t) => {
  const shop = await startShop(t, 0);
  const call = (method: string, fence: number): Promise<{ status: number }> =>
    send(`${shop.url}/charges/o-1`, {
      method,
      headers: { "idempotency-key": `o-1:${method}`, "order-fence": String(fence) },
      body: method === "PUT" ? JSON.stringify({ amount: 1 }) : null,
    });
  assert.equal((await call("DELETE", 3)).status, 200);
  assert.equal((await call("PUT", 2)).status, 409);
  assert.deepEqual((await shop.state()).resources, {});
});
