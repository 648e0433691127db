/** Orders that were made to keep a node, and receivers that tell what they were sent, on a running service. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { type Answer, finalOrder, send } from "../support/client.ts";
import { runCommand, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const REDOS = "^([a-zA-Z0-9]+[._-]?)+@example[.]org$";
const SLOW = { email: `${"a".repeat(66)}!` };

const CODE = `import { definePipeline } from "order-process";
const validate = (value: { email: string }) =>
  /${REDOS}/.test(value.email) ? { value } : { issues: [{ message: "no address", path: ["email"] }] };
export default definePipeline({
  name: "code", version: 1, body: { "~standard": { version: 1, vendor: "test", validate } } as never,
  steps: [{ name: "A", run: () => undefined }],
});
`;

const DATA = `name: data
version: 1
body: { properties: { email: { pattern: '${REDOS}' }, path: true, a: true } }
steps:
  - name: Ask
    run: { url: "\${env.SHOP}/\${body.path}", method: PUT, headers: { x-key: "\${env.KEY}" }, body: { key: "\${env.KEY}" } }
    retry: { attempts: 1 }
  - name: Compare
    run: { url: "\${env.SHOP}/x", method: PUT, body: { all: "\${body.a.all(x, body.a.all(y, x != y + 0.5))}" } }
    retry: { attempts: 1 }
`;

function submit(url: string, pipeline: string, body: object): Promise<Answer> {
  return send(`${url}/orders?pipeline=${pipeline}`, {
    method: "POST",
    body: JSON.stringify(body),
    headers: { authorization: "user", "content-type": "application/json" },
  });
}

test("a node judges bodies and expressions that would not end, and an order tells nothing of the environment", async (t) => {
  const echo = createServer((request, response) => {
    const status = request.url === "/refused" ? 422 : 200;
    const said = { detail: `no: ${JSON.stringify(request.headers)}`, headers: request.headers };
    request.resume().on("end", () => {
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(said));
    });
  });
  await new Promise<void>((resolve) => echo.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    echo.closeAllConnections();
    echo.close();
  });
  const host = `127.0.0.1:${(echo.address() as AddressInfo).port}`;
  const env = { SHOP: `http://anna:hidden-word@${host}`, KEY: "sk_live_4f9c1a7be2" };
  const pipelines = temporaryFolder(t);
  writeFileSync(join(pipelines, "code.ts"), CODE);
  writeFileSync(join(pipelines, "data.yaml"), DATA);
  const { url, output } = await startService(t, { env, args: ["--pipelines", pipelines, "--log-level", "debug"] });

  const byCode = await submit(url, "code", SLOW);
  assert.equal(byCode.status, 422);
  assert.match(byCode.text, /takes more than 100 ms/);
  assert.equal((await submit(url, "code", { email: "a@example.org" })).status, 201);
  const byData = await submit(url, "data", SLOW);
  assert.equal(byData.status, 422);
  assert.match(byData.text, /must match pattern/);

  const told: string[] = [];
  for (const path of ["answered", "refused"]) {
    const a = Array.from({ length: 3_000 }, (_, index) => index);
    const accepted = await submit(url, "data", { path, a });
    const id = String(accepted.json?.["order_id"]);
    const order = await finalOrder(url, id);
    assert.equal(order.status, "failed");
    const history = await send(`${url}/orders/${id}/events`, { headers: { authorization: "user" } });
    told.push(JSON.stringify(order), history.text);
  }
  assert.match(told[0] ?? "", /body\.a\.all\(x, .*: it takes more than 1,000,000 steps/);
  assert.match(told[2] ?? "", /answered 422: no: .*\[env\.KEY\]/);
  for (const secret of [env.KEY, "hidden-word", host, Buffer.from("anna:hidden").toString("base64").slice(0, 12)])
    assert.ok(!`${told.join("\n")}${output()}`.includes(secret), `${secret} is in ${told.join("\n")}\n${output()}`);
});

test("patterns of no linear time are refused before anything starts, by file and place", async (t) => {
  const pipelines = temporaryFolder(t);
  const file = join(pipelines, "data.yaml");
  writeFileSync(file, DATA.replace(REDOS, "^(?!x)"));
  for (const args of [
    ["check", file],
    ["--pipelines", file, "--port", "0", "--data", join(pipelines, "data")],
  ]) {
    const { code, stdout, stderr } = await runCommand(args);
    assert.equal(code, 1);
    assert.match(`${stdout}${stderr}`, /data\.yaml:3:41: the pattern "\^\(\?!x\)" is none of RE2/);
  }
});

const ENDLESS = `import { definePipeline } from "order-process";
const validate = async (value: { isEndless: boolean, text?: string }) => {
  for (let at = 0; value.isEndless; at++) await null;
  if (value.text !== undefined) await new Promise(() => setTimeout(() => { throw new Error(value.text); }, 1));
  return { value };
};
export default definePipeline({
  name: "endless", version: 1, body: { "~standard": { version: 1, vendor: "test", validate } } as never,
  steps: [{ name: "A", run: () => undefined }],
});
`;

/** Processes that a process has started, and that have not ended. */
function childrenOf(pid: number): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((each) => {
      try {
        const [, state, parent] = /\) (\S) (\d+) /.exec(readFileSync(`/proc/${each}/stat`, "latin1")) ?? [];
        return Number(parent) === pid && state !== "Z";
      } catch {
        return false;
      }
    });
}

/** Of processor time, in user mode. */
function busyTicks(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ")[11]);
}

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
}

for (const [signal, isEndless] of [
  ["SIGKILL", false],
  ["SIGKILL", true],
  ["SIGTERM", true],
] as const) {
  test(`the process that checks bodies ends with its node, which is ended by ${signal}${isEndless ? " in the middle of a body that does not end" : ""}`, async (t) => {
    if (process.platform !== "linux") return t.skip("the system does not tell which processes a process has started");
    const pipelines = temporaryFolder(t);
    writeFileSync(join(pipelines, "endless.ts"), ENDLESS);
    const service = await startService(t, { args: ["--pipelines", pipelines] });
    assert.equal((await submit(service.url, "endless", { isEndless: false })).status, 201);
    const [child = -1] = childrenOf(service.pid);
    assert.ok(child > 0, "there is one");
    assert.match(readFileSync(`/proc/${child}/cmdline`, "latin1"), /body-judge-child/);
    for (const each of ["SIGTERM", "SIGINT"] as const) process.kill(child, each); // as whoever ends a group of processes does
    assert.equal((await submit(service.url, "endless", { isEndless: false })).status, 201);
    assert.deepEqual(childrenOf(service.pid), [child], "it is the same");
    if (isEndless) {
      const formerly = busyTicks(child);
      void submit(service.url, "endless", { isEndless }).catch(() => undefined);
      await waitFor(() => busyTicks(child) > formerly + 10, { what: "it is at the body" });
    }
    const ended = service.end(signal);
    await waitFor(() => isGone(child), { what: "it has ended" });
    await ended;
  });
}

test("a body whose check does not end is refused, the log tells which schema it was, and others go on", async (t) => {
  const pipelines = temporaryFolder(t);
  writeFileSync(join(pipelines, "endless.ts"), ENDLESS);
  const service = await startService(t, { args: ["--pipelines", pipelines] });
  const refused = await submit(service.url, "endless", { isEndless: true });
  assert.equal(refused.status, 422, refused.text);
  assert.equal((await submit(service.url, "endless", { isEndless: false })).status, 201);
  const file = join(pipelines, "endless.ts");
  const said = `the process that checks bodies ended (SIGKILL) at a body of a pipeline in ${file}, which is refused`;
  await waitFor(() => service.output().includes(said), { what: "it is told" });
  const text = `card 4111\u001b[2J\nlevel=error msg=forged ${"x".repeat(100_000)}`;
  assert.equal((await submit(service.url, "endless", { isEndless: false, text })).status, 422);
  await waitFor(() => service.output().includes("that nobody caught: card 4111"), { what: "what it threw is told" });
  const output = service.output();
  assert.ok(!output.includes("\u001b") && !/^level=error/m.test(output) && output.length < 20_000, "in one line");
});
