/** The client, and the commands on top of it, against a real service. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { type Client, createClient, ServiceError } from "../../src/client/client.ts";
import { describeClientError, runOrdersCommand } from "../../src/client/commands.ts";
import { UsageError } from "../../src/config.ts";
import { assertRefused } from "../support/checks.ts";
import { freePort } from "../support/ports.ts";
import { runCommand, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

interface Ran {
  readonly code: number;
  readonly text: string;
  readonly warned: string;
}

/** Runs a command as `user` would, without the start of a process. */
async function run(url: string, args: readonly string[], { watched = false, input = "" } = {}): Promise<Ran> {
  let warned = "";
  let text = "";
  const code = await runOrdersCommand(
    [...args, "--url", url],
    { ORDER_PROCESS_USER: "user" },
    {
      write: (more) => (text += more),
      eraseLines: () => undefined,
      warn: (line) => (warned += line),
      isWatched: watched,
      columns: 100,
      readInput: () => input,
    },
  );
  return { code, text, warned };
}

async function clientOf(t: TestContext, stepTime: string): Promise<{ client: Client; url: string }> {
  const { url } = await startService(t, { args: ["--step-time", stepTime] });
  return { url, client: createClient({ url, user: "user" }) };
}

test("an order is submitted, listed, shown and watched at the command line", async (t) => {
  const { url } = await clientOf(t, "20ms");
  const submitted = await run(url, ["submit", "-", "--key", "k-1"], { input: '{"item":"book"}' });
  const id = submitted.text.trim();
  assert.match(id, /^[0-9a-f-]{36}$/);
  assert.equal((await run(url, ["submit", '{"item":"book"}', "--key", "k-1"])).text.trim(), id);

  const watched = await run(url, ["watch", id]);
  assert.equal(watched.code, 0);
  assert.deepEqual(
    watched.text
      .trim()
      .split("\n")
      .map((line) => line.split(/ +/).slice(1)),
    [
      ["created", "Scheduling", "running"],
      ["step_completed", "Scheduling", "running"],
      ["step_completed", "Pre-Processing", "running"],
      ["step_completed", "Processing", "running"],
      ["step_completed", "Post-Processing", "completed"],
    ],
  );
  assert.equal((await run(url, ["history", id])).text, watched.text);
  const failed = await run(url, ["submit", '{"fail_at":"Processing"}', "--watch"], { watched: true });
  assert.equal(failed.code, 1);
  assert.match(failed.text, /✗ Processing +rolled back, the order asks to fail/);
  assert.match(failed.text, /↩ Scheduling +done, rolled back\n/);

  const shown = (await run(url, ["get", id])).text;
  assert.match(shown, new RegExp(`^order +${id}\npipeline +default v1\nstatus +completed\n`));
  assert.match(shown, /\nSTEP +STARTED +TOOK +ATTEMPTS\nScheduling .* ms +1 +done\n/);
  const listed = (await run(url, ["list"])).text;
  assert.match(listed, /^ORDER +STATUS +STEP +PIPELINE +CREATED\n/);
  assert.match(listed, /In all: 1 completed, 1 failed\.\n$/);
  assert.match((await run(url, ["list", "--status", "paused"])).text, /^user has no such orders\.\n/);
  const json = JSON.parse((await run(url, ["list", "--status", "completed", "--json"])).text) as {
    orders: { order_id: string }[];
  };
  assert.deepEqual(
    json.orders.map(({ order_id: each }) => each),
    [id],
  );

  const cursor = /--cursor (\S+)\n$/.exec((await run(url, ["list", "--limit", "1"])).text)?.[1];
  assert.match((await run(url, ["list", "--cursor", cursor ?? ""])).text, new RegExp(`\n${id} `));

  const again = JSON.parse(
    (
      await run(url, [
        "retry",
        JSON.parse((await run(url, ["list", "--status", "failed", "--json"])).text).orders[0].order_id,
        "--json",
      ])
    ).text,
  ) as { retry_of?: string };
  assert.ok(again.retry_of !== undefined);
});

test("an order is paused, resumed and canceled at the command line", async (t) => {
  const { url } = await clientOf(t, "1h");
  const later = (await run(url, ["submit", "--start-at", new Date(Date.now() + 3_600_000).toISOString()])).text.trim();
  assert.match((await run(url, ["pause", later])).text, /\nstatus +paused\n/);
  assert.match((await run(url, ["resume", later])).text, /\nstatus +scheduled\n/);
  assert.match((await run(url, ["cancel", later, "--dry-run"])).text, /^Nothing would be rolled back\.\n$/);
  assert.match(
    (await run(url, ["cancel", later, "--reason", "no more"])).text,
    /\nstatus +canceled\n[^]*cancel by user: no more\n/,
  );
});

test("who watches an order that comes to wait for an operator is told so, and waits no longer", async (t) => {
  const file = join(temporaryFolder(t), "stuck.ts");
  writeFileSync(
    file,
    `import { definePipeline, permanent } from "order-process";
    export default definePipeline({ name: "stuck", version: 1, steps: [{
      name: "Book",
      run: () => { throw permanent("no room"); },
      rollback: () => { throw permanent("nobody answers"); },
    }] });`,
  );
  const { url } = await startService(t, { args: ["--pipelines", file] });
  const { code, text, warned } = await run(url, ["submit", "--watch"]);
  assert.equal(code, 3);
  assert.match(
    text,
    /^[0-9a-f-]{36}\n.*created +Book +running\n.*rollback_abandoned +Book +rollback_incomplete +\(nobody/s,
  );
  assert.match(warned, /waits for an operator: order_process orders retry [0-9a-f-]{36}, or skip/);
});

test("what others have written does not move the cursor of whoever looks at it", async (t) => {
  const { url } = await clientOf(t, "1h");
  const id = (await run(url, ["submit", "--start-at", new Date(Date.now() + 3_600_000).toISOString()])).text.trim();
  await run(url, ["cancel", id, "--reason", "\u001b]0;pwned\u0007\u001b[2J\nforged\u202e"]);
  for (const command of ["history", "get", "watch"]) {
    const { text } = await run(url, [command, id]);
    assert.doesNotMatch(text.replaceAll("\n", ""), /[\p{Cc}\p{Cf}]/u);
    assert.doesNotMatch(text, /^forged/m);
  }
});

test("what goes wrong at the command line is one line, with a code", async (t) => {
  const { url } = await clientOf(t, "0ms");
  const failing = async (args: readonly string[], where = url): Promise<unknown> =>
    run(where, args).then(
      () => assert.fail("it went well"),
      (error: unknown) => error,
    );
  for (const [args, message] of [
    [["submit", "{bad"], /is no JSON/],
    [["submit", "[1]"], /no JSON object/],
    [["submit", "@/nowhere"], /\/nowhere can't be read/],
    [["submit", "--start-at", "soon"], /--start-at can't be "soon"/],
    [["list", "--limit", "0"], /--limit can't be "0"/],
    [["list", "--status", "done"], /Allowed choices are scheduled/],
    [["explode"], /unknown command 'explode'/],
    [["get"], /missing required argument 'order_id'/],
    [["skip", "x"], /required option '--reason/],
  ] as const) {
    const error = await failing(args);
    assert.ok(error instanceof UsageError && message.test(error.message), String(error));
  }
  assert.match(describeClientError(await failing(["get", "nope"])) ?? "", /You have no order.*\(order_not_found\)$/);
  for (const args of [["list"], ["watch", "nope"]]) {
    assert.match(
      describeClientError(await failing(args, `http://127.0.0.1:${await freePort()}`)) ?? "",
      /the service does not answer: .*ECONNREFUSED/,
    );
  }
  for (const address of ["localhost:8080", "ftp://localhost", ""]) {
    const refused = await runCommand(["orders", "get", "nope", "--url", address]);
    assertRefused(refused, 2, /--url can't be ".*": write http:\/\/host:port/);
  }
  const secret = "hunter2secret";
  for (const address of [
    `http://ann:${secret}@localhost:8080`,
    `http://${secret}@localhost`,
    `ann:${secret}@localhost`,
  ]) {
    const refused = await runCommand(["orders", "get", "nope", "--url", address]);
    assertRefused(refused, 2, /--url can't .*write http:\/\/host:port/);
    assert.doesNotMatch(refused.stderr, new RegExp(secret));
  }
  assertRefused(await runCommand(["orders"]), 2, /name a command; see order_process orders --help/);
  const asked = await runCommand(["orders", "get", "nope", "--url", url]);
  assert.deepEqual([asked.code, asked.stdout], [1, ""]);
  assert.match(asked.stderr, /^order_process: You have no order[^\n]*\n$/);
});

test("a stream that ends at once without an event is not asked for again at once", async (t) => {
  let asked = 0;
  const server = createServer((_, response) => {
    asked++;
    response.writeHead(200, { "content-type": "text/event-stream" }).end();
  });
  await once(server.listen(0, "127.0.0.1"), "listening");
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  const client = createClient({ url: `http://127.0.0.1:${port}`, user: "user" });
  const stop = new AbortController();
  const following = (async () => {
    for await (const each of client.follow("any", { signal: stop.signal })) assert.fail(JSON.stringify(each));
  })();
  await waitFor(() => asked > 1, { what: "it is asked for again" });
  assert.ok(asked < 10, `${asked} times`);
  stop.abort();
  await following;
});

test("a client follows an order to its end, and one that is over again", async (t) => {
  const { client } = await clientOf(t, "20ms");
  const { order_id: id } = await client.submit({ fail_at: "Pre-Processing" });
  const seen: string[] = [];
  for await (const { entry } of client.follow(id)) seen.push(entry.event);
  assert.deepEqual(seen, ["created", "step_completed", "step_failed", "step_rolled_back", "step_rolled_back"]);
  assert.deepEqual(
    (await client.history(id)).map(({ event }) => event),
    seen,
  );
  const rest: string[] = [];
  for await (const { id: at } of client.follow(id, { lastEventId: "3" })) rest.push(at);
  assert.deepEqual(rest, ["4", "5"]);
  const stop = new AbortController();
  const all: string[] = [];
  const following = (async () => {
    for await (const { entry } of client.followAll({ signal: stop.signal })) {
      all.push(entry.event);
      if (all.length === 5) stop.abort();
    }
  })();
  // From now on: what is submitted before it listens it does not see.
  while (!stop.signal.aborted) {
    await client.submit({});
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await following;
  await assert.rejects(
    client.get("nope"),
    (error) => error instanceof ServiceError && error.problem.code === "order_not_found",
  );
});
