/** Nothing from orders, services, files or the environment reaches a terminal that it would obey. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { acceptedOrderId, finalOrder } from "../support/client.ts";
import { type FinishedCommand, runCommand, startService, temporaryFolder } from "../support/service.ts";

/** Clears the screen, sets the title, is a C1 sequence, is deleted, turns the direction, and forges a line. */
const HOSTILE = "evil\u001b[2J\u001b]0;owned\u0007\u009b31m\u007f\u202e\u2028\r\nlevel=fatal msg=forged";
const OBEYED = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u;

function assertHarmless({ stdout, stderr }: Pick<FinishedCommand, "stdout" | "stderr">, what: string): void {
  for (const text of [stdout, stderr]) {
    assert.doesNotMatch(text, OBEYED, `${what}: ${JSON.stringify(text)}`);
    assert.doesNotMatch(text, /^level=fatal/m, what);
  }
}

const PIPELINE = `
export default {
  name: "hostile",
  version: 1,
  steps: [{ name: "Fail", retry: { attempts: 1 }, run: () => { throw new Error(${JSON.stringify(HOSTILE)}); } }],
};
`;

test("an order's error, user and reasons are shown harmlessly by all commands and in the log of every format", async (t) => {
  const pipelines = temporaryFolder(t);
  writeFileSync(
    join(pipelines, "hostile.ts"),
    PIPELINE.replace(
      "export default",
      'import { definePipeline } from "order-process";\nexport default definePipeline(',
    ).replace(/};\n$/, "});\n"),
  );
  for (const format of ["logfmt", "json", "pretty"]) {
    const args = ["--pipelines", pipelines, "--log-format", format, "--log-level", "trace"];
    const service = await startService(t, { args });
    const orderId = await acceptedOrderId(service.url, { text: HOSTILE });
    assert.equal((await finalOrder(service.url, orderId)).status, "failed");
    const asked = ["--url", service.url, "--user", "user"];
    for (const command of [["get", orderId], ["history", orderId], ["watch", orderId], ["list"]]) {
      for (const more of [[], ["--json"]]) {
        const ran = await runCommand(["orders", ...command, ...more, ...asked]);
        assertHarmless(ran, command.join(" "));
        if (command[0] !== "list") assert.match(ran.stdout, /evil\\u001b\[2J/, "what was there can be seen");
      }
    }
    await service.end("SIGTERM");
    assertHarmless({ stdout: service.output(), stderr: "" }, format);
    assert.ok(service.output().includes(orderId), "the log tells of the order");
  }
});

/** A service that answers everything with the worst. */
async function hostileService(t: TestContext, answer: (response: ServerResponse) => void): Promise<string> {
  const server = createServer((_request, response) => answer(response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => server.close());
  const address = server.address();
  assert.ok(typeof address === "object" && address !== null);
  return `http://127.0.0.1:${address.port}`;
}

test("whatever a service answers, the commands show it harmlessly", async (t) => {
  const order = {
    ...Object.fromEntries(
      [
        "order_id",
        "start_time",
        "complete_time",
        "status",
        "pipeline",
        "pending_action",
        "waiting_for",
        "service_id",
      ].map((name) => [name, HOSTILE]),
    ),
    current_step: HOSTILE,
    pipeline_version: HOSTILE,
    allowed_actions: [HOSTILE],
    would_roll_back: [HOSTILE],
    steps: [{ step_name: HOSTILE, step_start_time: HOSTILE, error: HOSTILE, by: HOSTILE, skip_reason: HOSTILE }],
    interventions: [{ action: HOSTILE, by: HOSTILE, time: HOSTILE, reason: HOSTILE }],
    events: [{ time: HOSTILE, event: HOSTILE, status: HOSTILE, step: HOSTILE, reason: HOSTILE }],
    orders: [
      {
        order_id: HOSTILE,
        status: HOSTILE,
        current_step: HOSTILE,
        pipeline: HOSTILE,
        start_time: HOSTILE,
        user: HOSTILE,
      },
    ],
    counts: { [HOSTILE]: HOSTILE },
    next_cursor: HOSTILE,
  };
  const answers: Readonly<Record<string, (response: ServerResponse) => void>> = {
    "an order": (response) => void response.end(JSON.stringify(order)),
    "a refusal": (response) => void response.writeHead(409).end(JSON.stringify({ code: HOSTILE, detail: HOSTILE })),
    "no JSON": (response) => void response.writeHead(500, "\u009bX").end(HOSTILE),
    "half of JSON": (response) => void response.end(`{"${HOSTILE}`),
    "no HTTP": (response) => void response.socket?.end(`${HOSTILE}\r\n\r\n`),
  };
  for (const [what, answer] of Object.entries(answers)) {
    const url = await hostileService(t, answer);
    const asked = ["--url", url, "--user", "user"];
    const all = [["get", "1"], ["list", "--limit", "1"], ["history", "1"], ["cancel", "1", "--dry-run"], ["submit"]];
    for (const command of what === "an order" ? all : [["list"]]) {
      for (const more of [[], ["--json"]]) {
        assertHarmless(await runCommand(["orders", ...command, ...more, ...asked]), `${what}: ${command.join(" ")}`);
      }
    }
  }
});

test("refusals of starts show options, variables and names of files harmlessly", async (t) => {
  const folder = join(temporaryFolder(t), "evil\u001b[2J\u202e");
  mkdirSync(folder);
  writeFileSync(join(folder, "evil\u009b31m.yaml"), `name: "evil\\u001b[2J\\u009b"\nsteps: 1\n`);
  writeFileSync(join(folder, "config.yaml"), `"port\\u001b[2J": 1\n`);
  for (const [args, env] of [
    [["check", folder], {}],
    [["check", HOSTILE], {}],
    [[`--${HOSTILE}`], {}],
    [["--port", HOSTILE], {}],
    [[HOSTILE], {}],
    [["--config", join(folder, "config.yaml")], {}],
    [["--config", HOSTILE], {}],
    [["--data", `/proc/${HOSTILE}`], {}],
    [["--pipelines", folder, "--port", "0", "--data", temporaryFolder(t)], {}],
    [["--host", `nowhere${HOSTILE}`, "--data", temporaryFolder(t)], {}],
    [["--help"], {}],
    [["orders", "list", "--help"], { ORDER_PROCESS_USER: HOSTILE, ORDER_PROCESS_URL: HOSTILE }],
    [["orders", "list"], { ORDER_PROCESS_URL: HOSTILE }],
    [["orders", "list", "--status", HOSTILE], {}],
    [["orders", "submit", HOSTILE], {}],
    [[], { ORDER_PROCESS_PORT: HOSTILE }],
    [["--port", "99999"], { [`ORDER_PROCESS_${HOSTILE}`]: "1" }],
  ] as [string[], Record<string, string>][]) {
    assertHarmless(await runCommand(args, { env }), args.join(" "));
  }
});
