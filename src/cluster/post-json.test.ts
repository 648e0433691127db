import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { setImmediate } from "node:timers/promises";
import { Worker } from "node:worker_threads";
import { systemClock } from "../runtime/clock.ts";
import { type JsonAnswer, postJson } from "./post-json.ts";

/** Long enough for an answer at once. */
const LONG_MS = 10_000;
const SHORT_MS = 300;

async function ask(t: TestContext, answer: (response: ServerResponse) => void, timeoutMs: number): Promise<JsonAnswer> {
  const server = createServer((request, response) => {
    request.resume().once("end", () => answer(response));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return postJson(new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`), "{}", {
    timeoutMs,
    clock: systemClock(),
  });
}

test("an answer is read with its status, whatever that is", async (t) => {
  const refuse = (response: ServerResponse): void => void response.writeHead(409).end('{"detail":"no"}');
  assert.deepEqual(await ask(t, refuse, LONG_MS), { status: 409, answer: { detail: "no" } });
});

test("an answer that is no JSON is null", async (t) => {
  assert.deepEqual(await ask(t, (response) => void response.end("<p>"), LONG_MS), { status: 200, answer: null });
});

test("a redirection is an answer, and not followed", async (t) => {
  const redirect = (response: ServerResponse): void => void response.writeHead(307, { location: "/" }).end();
  assert.equal((await ask(t, redirect, LONG_MS)).status, 307);
});

for (const [what, answer] of [
  ["that does not come", () => undefined],
  ["that stands still in the middle", (response) => void response.write('{"a":')],
  [
    "that never ends",
    (response) => {
      const timer = setInterval(() => response.write(" "), SHORT_MS / 10);
      response.once("close", () => clearInterval(timer));
    },
  ],
] as const satisfies readonly (readonly [string, (response: ServerResponse) => void])[]) {
  test(`an answer ${what} is given up in time`, async (t) => {
    await assert.rejects(ask(t, answer, SHORT_MS), /no whole answer within 300 ms/);
  });
}

test("an answer that is there is read, though this process was busy for longer than it may take", async (t) => {
  const server = new Worker(
    `const { parentPort } = require("node:worker_threads");
    require("node:http")
      .createServer((request, response) => request.resume().once("end", () => response.end("{}")))
      .listen(0, "127.0.0.1", function () { parentPort.postMessage(this.address().port); });`,
    { eval: true },
  );
  t.after(() => server.terminate());
  const [port] = (await once(server, "message")) as [number];
  const answer = postJson(new URL(`http://127.0.0.1:${port}/`), "{}", { timeoutMs: SHORT_MS, clock: systemClock() });
  // As a node is that cuts thousands of calls at once when it stops.
  for (let turn = 0; turn < 4; turn++) {
    await setImmediate();
    const endMs = performance.now() + SHORT_MS;
    while (performance.now() < endMs);
  }
  assert.deepEqual(await answer, { status: 200, answer: {} });
});

test("an answer that breaks off is none", async (t) => {
  const breakOff = (response: ServerResponse): void => {
    response.writeHead(200, { "content-length": "100" });
    response.write('{"a":1}', () => response.destroy());
  };
  await assert.rejects(ask(t, breakOff, LONG_MS), /aborted|hang up|ECONNRESET/);
});

test("an answer that is too long is not read to its end", async (t) => {
  await assert.rejects(
    ask(t, (response) => void response.end(" ".repeat(2 * 1024 * 1024)), LONG_MS),
    /too long/,
  );
});
