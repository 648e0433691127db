/** Calls of a real server, which behaves well or badly. */
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import type { RollbackContext } from "../order/pipeline.ts";
import { failureTraits, StepError } from "../order/step-error.ts";
import {
  type CallContext,
  type CallOptions,
  parseCall,
  parseRetryAfter,
  rollbackOutcome,
  runOutcome,
  verifyOutcome,
} from "./http-call.ts";

const scope = { steps: ["Reserve"], hasResult: true, bodyNames: null };
const noLog = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };

function contextOf(change: Partial<RollbackContext> = {}): RollbackContext {
  return {
    order: { orderId: "o-1", user: "alice" },
    stepName: "Charge card",
    body: { amount: 3, "a/b": "c?d" },
    results: { Reserve: { id: "r-1" } },
    result: undefined,
    attempt: 1,
    idempotencyKey: "o-1:Charge card:run",
    fence: 4,
    signal: new AbortController().signal,
    log: noLog,
    ...change,
  };
}

/** A server that answers each request so; and its address. */
async function serve(
  t: TestContext,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer(answer);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

async function run(
  options: CallOptions,
  context: CallContext = contextOf(),
  env: Record<string, string> = {},
): Promise<unknown> {
  return runOutcome(await parseCall(options, scope).make(context, env));
}

function json(response: ServerResponse, status: number, content: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(status, { "content-type": "application/json", ...headers }).end(JSON.stringify(content));
}

test("a call carries what a receiver needs to act once, and its JSON answer is the result", async (t) => {
  const seen: IncomingMessage[] = [];
  let sent = "";
  const url = await serve(t, (request, response) => {
    seen.push(request);
    request.on("data", (chunk) => (sent += String(chunk)));
    request.on("end", () => json(response, 201, { id: "c-1" }));
  });
  const call = {
    method: "PUT",
    url: `${url}/charges/\${results.Reserve.id}?note=\${body["a/b"]}`,
    headers: { Authorization: "Bearer ${env.TOKEN}", "Order-Id": "of someone else" },
    body: { amount: "${body.amount}" },
  };
  assert.deepEqual(await run(call, contextOf(), { TOKEN: "s3cret" }), { id: "c-1" });
  const [request] = seen;
  assert.equal(`${request?.method} ${request?.url}`, "PUT /charges/r-1?note=c%3Fd");
  assert.equal(sent, '{"amount":3}');
  const headers: Readonly<Record<string, unknown>> = request?.headers ?? {};
  assert.deepEqual(
    ["authorization", "content-type", "idempotency-key", "order-id", "order-step", "order-fence"].map(
      (name) => headers[name],
    ),
    ["Bearer s3cret", "application/json", "o-1:Charge card:run", "o-1", "Charge card", "4"],
  );
});

test("connections are used again", async (t) => {
  const sockets = new Set<unknown>();
  const url = await serve(t, (request, response) => {
    sockets.add(request.socket);
    json(response, 200, {});
  });
  for (let count = 0; count < 20; count++) await run({ url: `${url}/` });
  assert.ok(sockets.size <= 2, `20 calls, one after the other, over ${sockets.size} connections`);
});

/** What an answer means: whether another attempt may help, whether the work may be done, and what is said. */
async function failure(
  t: TestContext,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  timeoutMs = 5_000,
): Promise<StepError> {
  const url = await serve(t, answer);
  try {
    await run({ method: "POST", url: `${url}/x` }, contextOf({ signal: AbortSignal.timeout(timeoutMs) }));
  } catch (error) {
    assert.ok(error instanceof StepError, String(error));
    return error;
  }
  return assert.fail("the call did not fail");
}

for (const [what, answer, traits, message] of [
  ["400", (_, response) => json(response, 400, {}), { permanent: true, unknown: false }, /answered 400/],
  [
    "422 and a reason",
    (_, response) => json(response, 422, { type: "x", title: "No", detail: "no courier goes there" }),
    { permanent: true, unknown: false },
    /answered 422: no courier goes there$/,
  ],
  ["409", (_, response) => json(response, 409, {}), { permanent: true, unknown: false }, /answered 409/],
  ["408", (_, response) => json(response, 408, {}), { permanent: false, unknown: false }, /answered 408/],
  ["425", (_, response) => json(response, 425, {}), { permanent: false, unknown: false }, /answered 425/],
  ["500", (_, response) => json(response, 500, {}), { permanent: false, unknown: true }, /answered 500/],
  ["503", (_, response) => json(response, 503, {}), { permanent: false, unknown: true }, /answered 503/],
  [
    "a redirect to itself",
    (_, response) => response.writeHead(307, { location: "/x" }).end(),
    { permanent: true, unknown: false },
    /redirects are not followed/,
  ],
  [
    "another content type",
    (_, response) => response.writeHead(200, { "content-type": "text/html" }).end("<p>"),
    { permanent: true, unknown: true },
    /answered 200 with text\/html, and not with JSON/,
  ],
  [
    "no content type",
    (_, response) => response.writeHead(200).end("{}"),
    { permanent: true, unknown: true },
    /no content type/,
  ],
  [
    "half of its JSON",
    (_, response) => response.writeHead(200, { "content-type": "application/json" }).end('{"a":'),
    { permanent: true, unknown: true },
    /not the JSON that it says it is/,
  ],
  [
    "a connection that closes early",
    (request) => request.socket.destroy(),
    { permanent: false, unknown: true },
    /failed: /,
  ],
  [
    "half a body",
    (_, response) =>
      response
        .writeHead(200, { "content-type": "application/json", "content-length": "100" })
        .write('{"a":', () => response.destroy()),
    { permanent: false, unknown: true },
    /its answer broke off/,
  ],
  [
    "a body without end",
    (_, response) => endless(response),
    { permanent: true, unknown: true },
    /more than 196608 bytes/,
  ],
] as const satisfies readonly (readonly [
  string,
  (request: IncomingMessage, response: ServerResponse) => unknown,
  object,
  RegExp,
])[]) {
  test(`a server that answers with ${what} is judged as it should be`, async (t) => {
    const error = await failure(t, answer);
    assert.deepEqual({ permanent: error.permanent, unknown: error.unknown }, traits);
    assert.match(error.message, message);
  });
}

for (const [what, answer] of [
  ["never answers", () => undefined],
  [
    "hangs after its headers",
    (_: IncomingMessage, response: ServerResponse) =>
      void response.writeHead(200, { "content-type": "application/json" }).write("{"),
  ],
] as const) {
  test(`a server that ${what} is left when the step's time is over, and may have done the work`, async (t) => {
    const error = await failure(t, answer, 50);
    assert.deepEqual([error.permanent, error.unknown], [false, true]);
    assert.match(error.message, /timeout/i);
  });
}

test("a server that is not there has done nothing", async () => {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  const call = run({ url: `http://127.0.0.1:${port}/` });
  await assert.rejects(call, (error) => error instanceof StepError && !error.unknown && !error.permanent);
});

test("a server that says when to come again is heard, in seconds or as a date", async (t) => {
  const error = await failure(t, (_, response) => json(response, 429, {}, { "retry-after": "7" }));
  assert.deepEqual([error.permanent, error.unknown, error.retryAfterMs], [false, false, 7_000]);
  const nowMs = Date.UTC(2026, 10, 24, 18, 0, 0);
  assert.equal(parseRetryAfter("Tue, 24 Nov 2026 18:00:09 GMT", nowMs), 9_000);
  assert.equal(parseRetryAfter("Tue, 24 Nov 2026 17:00:00 GMT", nowMs), 0);
  for (const text of ["soon", "", "-5", undefined]) assert.equal(parseRetryAfter(text, nowMs), null);
});

test("an answer without a body is a result that is nothing", async (t) => {
  const url = await serve(t, (_, response) => response.writeHead(204).end());
  assert.equal(await run({ url: `${url}/` }), undefined);
});

test("a rollback of what is not there has undone it, and whatever a rollback answers with 2xx is well", async (t) => {
  const url = await serve(t, (request, response) => {
    response.writeHead(Number(request.url?.slice(1)), { "content-type": "text/plain" }).end("done");
  });
  const undo = async (status: number): Promise<void> =>
    rollbackOutcome(await parseCall({ method: "DELETE", url: `${url}/${status}` }, scope).make(contextOf(), {}));
  for (const status of [200, 204, 404, 410]) await undo(status);
  await assert.rejects(undo(403), (error) => error instanceof StepError && error.permanent);
  await assert.rejects(undo(500), (error) => error instanceof StepError && !error.permanent);
});

test("a verification finds what is there, and that something is not there", async (t) => {
  const url = await serve(t, (request, response) => json(response, request.url === "/there" ? 200 : 404, { id: 7 }));
  const verify = async (path: string): Promise<unknown> =>
    verifyOutcome(await parseCall({ url: `${url}/${path}` }, scope).make(contextOf(), {}));
  assert.deepEqual(await verify("there"), { done: true, result: { id: 7 } });
  assert.deepEqual(await verify("nowhere"), { done: false });
});

test("what can't be filled in, or sent, fails for good and says which part of the file it was, and no secret", async (t) => {
  const url = await serve(t, (_, response) => json(response, 500, {}));
  const refused = async (options: CallOptions): Promise<string> => {
    const error: unknown = await run(options, contextOf(), { TOKEN: "s3cret\n" }).catch((thrown: unknown) => thrown);
    assert.ok(error instanceof StepError && error.permanent, String(error));
    return error.message;
  };
  assert.match(await refused({ url: `${url}/\${body.nothing}` }), /\$\{body\.nothing\}: No such key: nothing/);
  assert.match(await refused({ url: `${url}/`, headers: { a: "${env.TOKEN}" } }), /can't be sent/);
  const failed: unknown = await run({ url: `${url}/\${env.TOKEN}` }, contextOf(), { TOKEN: "s3cret" }).catch(
    (thrown: unknown) => thrown,
  );
  assert.ok(failed instanceof StepError);
  assert.doesNotMatch(failed.message, /s3cret/);
});

for (const url of [
  "${body.url}/x",
  "ftp://host/x",
  "http://${body.host}/x",
  "http://host${body.x}/",
  "/x",
  "${env.HOST}${body.x}",
  "http://",
]) {
  test(`the url ${url} is refused: an order must not choose the host`, () => {
    assert.throws(() => parseCall({ url }, scope), /an order can't choose the host/);
  });
}

for (const url of [
  "http://host",
  "https://host:8080/x/${body.amount}",
  "http://host/${body.amount}",
  "${env.HOST}/x",
  "${env.HOST}",
]) {
  test(`the url ${url} is a good one`, () => assert.doesNotThrow(() => parseCall({ url }, scope)));
}

/** As much as the other side takes. */
function endless(response: ServerResponse): void {
  response.writeHead(200, { "content-type": "application/json" });
  const more = (): void => {
    while (!response.destroyed && response.write("[".repeat(65_536)));
  };
  response.on("drain", more);
  more();
}

for (const [what, item, tail] of [
  ["two dots", "..", "/charge"],
  ["a dot", ".", "/charge"],
  ["two dots at the end", "..", ""],
] as const) {
  test(`an order that names ${what} as a part of a path is refused, and nothing is sent`, async (t) => {
    const url = await serve(t, () => assert.fail("it was sent"));
    const context = contextOf({ body: { item } });
    await assert.rejects(run({ url: `${url}/items/\${body.item}${tail}` }, context), (error: Error) => {
      const { permanent } = failureTraits(error);
      return permanent && /has a part that is "\." or "\.\."/.test(error.message);
    });
    await assert.rejects(
      run({ url: `${url}/items/\${body.item}%2E${tail}` }, contextOf({ body: { item: "." } })),
      /has a part/,
    );
  });
}

test("a request that an expression makes too large is not made, nor written down", async (t) => {
  let requests = 0;
  const url = await serve(t, (request, response) => {
    requests++;
    request.resume();
    request.on("end", () => json(response, 200, {}));
  });
  const kept: number[] = [];
  const context = (body: object, givenChars = 0): CallContext =>
    Object.assign(contextOf({ body: { ...body } }), {
      givenChars,
      keepsOnly: (bytes: number) => void kept.push(bytes),
    });
  const whole = { url, body: "${body}" };
  const mostChars = 65_536 + JSON.stringify([url, {}, whole.body]).length;
  const noteOf = (chars: number): object => ({
    note: "x".repeat(chars - url.length - JSON.stringify({ note: "" }).length),
  });
  await run(whole, context(noteOf(mostChars)));
  assert.equal(requests, 1);
  assert.deepEqual(kept, [mostChars]);
  for (const [call, body] of [
    [whole, noteOf(mostChars + 1)],
    [
      { url, body: { lines: "${body.items.map(i, {'note': body.note})}" } },
      { note: "\u0001".repeat(1_000), items: Array(15).fill(1) },
    ],
    // Each of its characters takes six.
    [whole, { note: "\u0001".repeat(12_000) }],
    [{ url: `${url}/\${body.note}` }, { note: "x".repeat(70_000) }],
    [{ url, headers: { note: "${body.note}" } }, { note: "x".repeat(70_000) }],
  ] as const) {
    await assert.rejects(run(call, context(body)), (error: Error) => {
      assert.match(error.message, /would be a request of more than \d+ characters, and is not made$/);
      assert.deepEqual(failureTraits(error).permanent, true);
      assert.deepEqual(failureTraits(error).unknown, false);
      return true;
    });
  }
  assert.equal(requests, 1);
  // What is made of a large order may be four times as large, and a file may have many words of its own.
  await run(whole, context(noteOf(mostChars + 4_000), 1_000));
  await run({ url, body: { text: "y".repeat(200_000), note: "${body.note}" } }, context({ note: "x".repeat(60_000) }));
  assert.equal(requests, 3);
});

test("half of a surrogate pair in a url is refused for good", async () => {
  const context = contextOf({ body: { item: "\ud800" } });
  await assert.rejects(
    run({ url: "http://127.0.0.1:1/${body.item}" }, context),
    (error: Error) => failureTraits(error).permanent,
  );
});
