/** What clients hold of a node is given back however they end, and nobody can hold so much that others get nothing. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { test, type TestContext } from "node:test";
import { MessageChannel } from "node:worker_threads";
import { PROOF_HEADER } from "../../src/cluster/proof.ts";
import { Budget } from "../../src/http/budget.ts";
import type { Capacity } from "../../src/http/capacity.ts";
import { closeServer, DEFAULT_HTTP_LIMITS } from "../../src/http/server.ts";
import type { StoredOrder } from "../../src/store/store.ts";
import { startBareServer } from "../support/bare-server.ts";
import { send, submitOrder } from "../support/client.ts";
import { openConnection, requestHead } from "../support/raw.ts";
import { startService } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const ORDER_ID = "019ac000-0000-7000-8000-000000000000";
const LARGE = `{"a":"${"x".repeat(20_000)}"}`;

/** A connection on which that was sent. */
async function connectionWith(t: TestContext, url: string, sent: string): Promise<Socket> {
  const socket = openConnection(url);
  t.after(() => socket.destroy());
  socket.on("error", () => undefined);
  await once(socket, "connect");
  if (sent !== "") await new Promise((resolve) => socket.write(sent, resolve));
  return socket;
}

function connections(t: TestContext, url: string, count: number, sent: (index: number) => string): Promise<Socket[]> {
  return Promise.all(Array.from({ length: count }, (_, index) => connectionWith(t, url, sent(index))));
}

function posted(path: string, length: number, headers: Record<string, string> = {}): string {
  return requestHead("POST", path, { "content-length": String(length), ...headers });
}

function used(capacity: Capacity): Record<string, number> {
  return Object.fromEntries(Object.entries(capacity).map(([name, budget]) => [name, (budget as Budget).used]));
}

/** Connections may be kept for the next request. */
function assertAllFree(capacity: Capacity): Promise<unknown> {
  return waitFor(
    () => Object.entries(used(capacity)).every(([name, amount]) => amount === 0 || name === "connections"),
    {
      what: () => `all is given back; held are ${JSON.stringify(used(capacity))}`,
    },
  );
}

const ORDER = {
  orderId: ORDER_ID,
  user: "user",
  revision: 1,
  status: "running",
  history: [],
} as unknown as StoredOrder;

test("whatever requests hold is given back, however they end", async (t) => {
  const unanswered: (() => void)[] = [];
  const { url, app } = await startBareServer(t, {
    limits: { ...DEFAULT_HTTP_LIMITS, headersTimeoutMs: 1_000, requestTimeoutMs: 2_000 },
    submit: async ({ user }) => {
      if (user === "throws") throw new Error("a handler fails");
      if (user === "waits") await new Promise<void>((resolve) => unanswered.push(resolve));
      return { kind: "accepted", orderId: ORDER_ID, startTimeMs: 0 };
    },
    readOrder: (id) => Promise.resolve(id === ORDER_ID ? ORDER : null),
    follow: {
      readChanges: () => Promise.resolve({ kind: "changes", changes: [], next: "1" }),
      readOrders: () => Promise.resolve([]),
      readOrder: () => Promise.resolve(ORDER),
    },
  });
  const { capacity } = app;
  const holds = (name: keyof Capacity, what: string): Promise<unknown> =>
    waitFor(() => capacity[name].used > 0, { what: () => `${what}: ${JSON.stringify(used(capacity))}` });
  const user = (name: string): Record<string, string> => ({ authorization: name });

  await t.test("answered", async () => {
    assert.equal((await submitOrder(url, LARGE)).status, 201);
    assert.equal((await send(`${url}/docs/static/swagger-ui-bundle.js`)).status, 200);
    await assertAllFree(capacity);
  });
  await t.test("refused, wherever", async () => {
    const json = { "content-type": "application/json" };
    const refused: [number, RequestInit & { path?: string }][] = [
      [404, { path: "/nothing" }],
      [405, { path: "/diagnostic/heartbeat" }],
      [401, { headers: json }],
      [400, { body: LARGE.slice(0, -1) }],
      [413, { body: LARGE.repeat(20) }],
      [415, { headers: { ...user("user"), "content-type": "text/html" } }],
      [400, { path: "/orders?nonsense=1" }],
      [422, { body: LARGE.replace("a", "fail_at") }],
      [500, { headers: { ...user("throws"), ...json } }],
      [
        403,
        { path: "/cluster/orders", body: JSON.stringify({ order_ids: Array.from({ length: 100 }, () => ORDER_ID) }) },
      ],
    ];
    for (const [status, { path = "/orders", ...init }] of refused) {
      const answer = await send(`${url}${path}`, {
        method: "POST",
        body: LARGE,
        headers: { ...user("user"), ...json },
        ...init,
      });
      assert.equal(answer.status, status, `${path}: ${answer.text}`);
    }
    for (const path of ["/orders/none/events", "/orders/none"]) {
      assert.equal((await send(`${url}${path}`, { headers: user("user") })).status, 404);
    }
    await assertAllFree(capacity);
  });
  await t.test("the client is gone in the middle of the body", async () => {
    const sockets = await connections(t, url, 5, () => posted("/orders", 200_000) + LARGE);
    await holds("incoming", "bodies are being received");
    for (const [index, socket] of sockets.entries()) {
      if (index % 2 === 0) socket.resetAndDestroy();
      else socket.end();
    }
    await assertAllFree(capacity);
  });
  await t.test("the client is gone before the answer", async () => {
    const socket = await connectionWith(t, url, posted("/orders", LARGE.length, user("waits")) + LARGE);
    await waitFor(() => unanswered.length === 1, { what: "the order is being worked at" });
    assert.ok(capacity.incoming.used >= LARGE.length);
    socket.resetAndDestroy();
    await assertAllFree(capacity);
    unanswered.pop()?.();
  });
  await t.test("the body does not come in time", async () => {
    const socket = await connectionWith(t, url, posted("/orders", 200_000) + LARGE);
    socket.resume();
    await holds("incoming", "a body is being received");
    await waitFor(() => socket.closed, { what: "it is answered 408, and closed" });
    await assertAllFree(capacity);
  });
  await t.test("a request with a long head is under way", async () => {
    const socket = await connectionWith(t, url, posted(`/orders?${"x".repeat(14_000)}`, 2) + "{");
    socket.resume();
    await holds("received", "its head is kept");
    socket.write("}");
    await assertAllFree(capacity);
    socket.destroy();
  });
  await t.test("a request in chunks is answered, and its connection stays", async () => {
    const head = requestHead("POST", "/orders", { "transfer-encoding": "chunked" });
    const socket = await connectionWith(t, url, `${head}2\r\n{}\r\n0\r\na: b\r\n\r\n`);
    let received = "";
    socket.on("data", (bytes) => (received += String(bytes)));
    await waitFor(() => received.startsWith("HTTP/1.1 "), { what: "it is answered" });
    await assertAllFree(capacity);
    assert.ok(!socket.destroyed);
    socket.destroy();
  });
  await t.test("a request in chunks is answered before it has come whole, and its connection stays", async () => {
    const head = requestHead("POST", "/nothing", { "transfer-encoding": "chunked" });
    const socket = await connectionWith(t, url, `${head}2\r\n{}\r\n`);
    await once(socket, "data");
    socket.write(`0\r\n${`a: ${"b".repeat(50)}\r\n`.repeat(60)}`);
    await holds("received", "what comes behind its last chunk is kept");
    socket.write("\r\n");
    await assertAllFree(capacity);
    assert.ok(!socket.destroyed);
    socket.destroy();
  });
  await t.test("what comes behind the last chunk does not end", async () => {
    const head = requestHead("POST", "/orders", { "transfer-encoding": "chunked" });
    const socket = await connectionWith(t, url, `${head}2\r\n{}\r\n0\r\n${`a: ${"b".repeat(50)}\r\n`.repeat(60)}`);
    socket.resume();
    await holds("received", "it is being received");
    await waitFor(() => socket.closed, { what: "it is answered 408, and closed" });
    await assertAllFree(capacity);
  });
  await t.test("the head does not come in time", async () => {
    const socket = await connectionWith(t, url, `GET / HTTP/1.1\r\n${`a: ${"b".repeat(50)}\r\n`.repeat(60)}`);
    socket.resume();
    await holds("received", "a head is being received");
    await waitFor(() => socket.closed, { what: "it is answered 408, and closed" });
    await assertAllFree(capacity);
  });
  await t.test("the body breaks off in nonsense", async () => {
    const head = requestHead("POST", "/orders", { "transfer-encoding": "chunked" });
    const socket = await connectionWith(t, url, `${head}4e20\r\n${"x".repeat(20_000)}`);
    await holds("incoming", "a body is being received");
    socket.write("nonsense\r\n");
    socket.resume();
    await waitFor(() => socket.closed, { what: "it is answered 400, and closed" });
    await assertAllFree(capacity);
  });
  await t.test("requests are sent ahead, and the client goes", async () => {
    const waits = posted("/orders", 2, user("waits")) + "{}";
    const socket = await connectionWith(t, url, waits + requestHead("GET", "/openapi.json").repeat(500));
    await holds("received", "requests wait behind one that is not answered");
    socket.resetAndDestroy();
    await assertAllFree(capacity);
    unanswered.pop()?.();
  });
  await t.test("streams are left", async () => {
    const paths = ["/events", `/orders/${ORDER_ID}/events`];
    const sockets = await connections(t, url, 6, (index) => requestHead("GET", paths[index % 2] ?? ""));
    await waitFor(() => capacity.streams.used === 6 && capacity.followers.used === 3, { what: "they are followed" });
    for (const [index, socket] of sockets.entries()) {
      if (index < 3) socket.resetAndDestroy();
      else socket.end();
    }
    await assertAllFree(capacity);
  });
  await t.test("the node stops", async () => {
    await connections(t, url, 3, () => posted("/orders", 200_000) + LARGE);
    await connections(t, url, 3, () => requestHead("GET", "/events"));
    await connections(t, url, 3, () => "GET / HT");
    await holds("incoming", "bodies are being received");
    await waitFor(() => capacity.streams.used === 3, { what: "streams are open" });
    await closeServer(app);
    await assertAllFree(capacity);
    await waitFor(() => capacity.connections.used === 0, { what: "no connection is left" });
  });
});

test("half-sent bodies keep nobody from sending whole ones, with a user or without, to wherever", async (t) => {
  const { url, app } = await startBareServer(t, {
    limits: { ...DEFAULT_HTTP_LIMITS, incomingBytesMax: 600_000 },
    submit: () => Promise.resolve({ kind: "accepted", orderId: ORDER_ID, startTimeMs: 0 }),
    adopt: () => 0,
    admit: () => () => "signed",
  });
  const body = "x".repeat(200_000);
  const given = {
    method: "POST",
    headers: { "content-type": "application/json", [PROOF_HEADER]: "proof" },
    body: JSON.stringify({ order_ids: [ORDER_ID] }),
  };
  for (const [path, headers] of [
    ["/nothing", {}],
    ["/orders", {}],
    ["/orders", { authorization: "" }],
    ["/cluster/join", {}],
    ["/cluster/orders", {}],
  ] as const) {
    await connections(t, url, 100, () => posted(path, 250_000, headers));
    await connections(t, url, 30, (at) => posted(path, 250_000, { authorization: `user${at}`, ...headers }) + body);
    await connections(t, url, 30, () => posted(path, 60_000, headers) + body.slice(0, 59_000));
    assert.equal((await submitOrder(url, LARGE)).status, 201, path);
    assert.equal((await submitOrder(url, LARGE, { authorization: "another" })).status, 201, path);
    assert.equal((await send(`${url}/cluster/orders`, given)).status, 202, path);
    assert.ok(app.capacity.incoming.used <= 600_000);
  }
});

test("a connection has one request under way, in what order and in how many parts ever its bytes come", async (t) => {
  let [under, most, count] = [0, 0, 0];
  const { url } = await startBareServer(t, {
    submit: async ({ body }) => {
      most = Math.max(most, ++under);
      await new Promise((resolve) => setImmediate(resolve));
      under--;
      count += (JSON.parse(body) as { n: number }).n;
      return { kind: "accepted", orderId: ORDER_ID, startTimeMs: 0 };
    },
  });
  const body = '{"n":1,\r\n\r\n\r\n"a":1}';
  const chunked = requestHead("POST", "/orders", { "transfer-encoding": "chunked" });
  const chunks = '9\r\n{"n":1,\r\n\r\n4\r\n"a":\r\n2\r\n1}\r\n0\r\nTrailer: 1\r\n\r\n';
  const both = posted("/orders", body.length) + body + chunked + chunks + requestHead("GET", "/nothing");
  const all = both.repeat(20);
  for (const partLength of [1, 3, 7, 100, all.length]) {
    const socket = await connectionWith(t, url, "");
    socket.setNoDelay(true);
    let received = "";
    socket.setEncoding("utf8").on("data", (text: string) => (received += text));
    const before = count;
    for (let at = 0; at < all.length; at += partLength) {
      socket.write(all.slice(at, at + partLength));
      if (partLength < 100) await new Promise((resolve) => setImmediate(resolve));
    }
    socket.end();
    await once(socket, "close");
    assert.equal(count - before, 40, `in parts of ${partLength}: ${received.slice(0, 2_000)}`);
    assert.equal(received.split("HTTP/1.1 404").length - 1, 20);
  }
  assert.equal(most, 1);
});

test("whatever a head says of its body, the next request begins behind it, and not before it is answered", async (t) => {
  let [under, most] = [0, 0];
  const { url } = await startBareServer(t, {
    submit: async ({ body }) => {
      most = Math.max(most, ++under);
      await new Promise((resolve) => setTimeout(resolve, 5));
      under--;
      return { kind: "accepted", orderId: body.slice(2, 3).repeat(4), startTimeMs: 0 };
    },
  });
  const post = "POST /orders HTTP/1.1\r\nHost: localhost\r\nAuthorization: user\r\n";
  const inner = `${post}Content-Length: 7\r\n\r\n{"i":1}`;
  const long = (text: string): string => `Content-Length: ${text.length}\r\n\r\n${text}`;
  const cases: [string, string[]][] = [
    [`${post}Content-Length: 7\r\n\r\n{"a":1}`, ["201 aaaa"]],
    [`${post}content-length: 7\r\n\r\n{"a":1}`, ["201 aaaa"]],
    [`${post}CONTENT-LENGTH:\t7 \r\n\r\n{"a":1}`, ["201 aaaa"]],
    [`${post}Content-Length: 0000000000007\r\n\r\n{"a":1}`, ["201 aaaa"]],
    [`${post}Content-Length: 7\r\nX-Content-Length: 90\r\n\r\n{"a":1}`, ["201 aaaa"]],
    [`${post}X: Content-Length: 90\r\nContent-Length: 7\r\n\r\n{"a":1}`, ["201 aaaa"]],
    [`${post}${long(`{"a":${JSON.stringify(inner.repeat(3))}}`)}`, ["201 aaaa"]],
    [`${post}${long('{"a":1}\r\n\r\n')}`, ["201 aaaa"]],
    [`${post}${long('{"a":1}\r\n\r')}\n`, ["201 aaaa"]],
    [`${post}Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n${long('{"a":1}')}`, ["201 aaaa"]],
    [`GET /nothing HTTP/1.1\r\nHost: localhost\r\n${long(inner)}`, ["404"]],
    [`HEAD /nothing HTTP/1.1\r\nHost: localhost\r\n${long(inner)}`, ["404"]],
    [`${post}Content-Length: 0\r\n\r\n`, ["400"]],
    // After these, nothing is heard any more.
    [`${post}Content-Length: 7\r\nContent-Length: 7\r\n\r\n{"a":1}`, ["400", "end"]],
    [`${post}Content-Length: 7\r\ncontent-length: 8\r\n\r\n{"a":1}`, ["400", "end"]],
    [`${post}content-length: 8\r\nContent-Length: 7\r\n\r\n{"a":1}`, ["400", "end"]],
    [`${post}Transfer-Encoding: chunked\r\n${long(`0\r\n\r\n${inner}`)}`, ["400", "end"]],
    [`${post}${long(`0\r\n\r\n${inner}`).replace("\r\n", "\r\nTransfer-Encoding: chunked\r\n")}`, ["400", "end"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n${inChunks('{"a":1}', 1)}`, ["201 aaaa"]],
    [
      `${post}Transfer-Encoding: chunked\r\n\r\n${inChunks(`{"a":\r\n0\r\n\r\n}${"\r\n\r\n".repeat(500)}`, 900)}`,
      ["201 aaaa"],
    ],
    [`${post}Transfer-Encoding: chunked\r\n\r\n007;x="0"\r\n{"a":1}\r\n000;y\r\nA: 0\r\n\r\n`, ["201 aaaa"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n7\r\n{"a":1}\r\n${"0".repeat(40)}\r\n\r\n`, ["201 aaaa"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n${"0".repeat(40)}7\r\n{"a":1}\r\n0\r\n\r\n`, ["201 aaaa"]],
    [
      `${post}Transfer-Encoding: chunked\r\n\r\n${"0".repeat(19)}10\r\n{"a":"ffffff\r\n"}\r\n0\r\n\r\n`, // no JSON
      ["400"],
    ],
    [`${post}Transfer-Encoding: chunked\r\n\r\n8\r\n{"a":1}\r\n0\r\n\r\n`, ["400", "end"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n+7\r\n{"a":1}\r\n0\r\n\r\n`, ["400", "end"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n0x7\r\n{"a":1}\r\n0\r\n\r\n`, ["400", "end"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n7 \r\n{"a":1}\r\n0\r\n\r\n`, ["400", "end"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n7\n{"a":1}\r\n0\r\n\r\n`, ["400", "end"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n7\r\n{"a":1}\n0\r\n\r\n`, ["400", "end"]],
    [`${post}Transfer-Encoding: chunked\r\n\r\n${"f".repeat(17)}\r\n{"a":1}\r\n0\r\n\r\n`, ["400", "end"]],
    [`${post}Content-Length: +7\r\n\r\n{"a":1}`, ["400", "end"]],
    [`${post}Content-Length: 7, 7\r\n\r\n{"a":1}`, ["400", "end"]],
    [`${post}Content-Length: 7\n\r\n\r\n{"a":1}`, ["400", "end"]],
    [`${post}X: a\r\n Content-Length: 90\r\n\r\n{"a":1}`, ["400", "end"]],
    [`CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n${long(inner)}`, ["end"]],
  ];
  for (const [sent, expected] of cases) {
    const socket = await connectionWith(t, url, "");
    let received = "";
    socket.setEncoding("latin1").on("data", (text: string) => (received += text));
    const closed = once(socket, "close");
    socket.end(`${sent}${post}Content-Length: 7\r\n\r\n{"b":1}${requestHead("GET", "/nothing")}`);
    await closed;
    const answers = Array.from(received.matchAll(/HTTP\/1\.1 (\d+)|orders\/(\w+)/g), ([, status, id]) => status ?? id);
    const shown = answers.join(" ").replace(/ 404$/, " next");
    const wanted = expected.includes("end")
      ? expected.filter((each) => each !== "end")
      : [...expected, "201 bbbb next"];
    assert.equal(shown, wanted.join(" "), JSON.stringify({ sent, received }));
  }
  assert.equal(most, 1);
});

test("a request with an expectation that is not known makes one order, and is answered once", async (t) => {
  let submitted = 0;
  const { url } = await startBareServer(t, {
    submit: () => {
      submitted++;
      return Promise.resolve({ kind: "accepted", orderId: ORDER_ID, startTimeMs: 0 });
    },
  });
  const socket = await connectionWith(t, url, "");
  let received = "";
  socket.setEncoding("utf8").on("data", (text: string) => (received += text));
  for (const expectation of ["nonsense", "100-continue, nonsense", "100-continue"]) {
    socket.write(`${posted("/orders", 2, { expect: expectation })}{}`);
  }
  socket.end();
  await once(socket, "close");
  assert.equal(submitted, 3);
  assert.equal(received.split("HTTP/1.1 201").length - 1, 3, received);
});

test("what is sent ahead and not read costs little, and others are served meanwhile", async (t) => {
  const { url, app } = await startBareServer(t, { limits: { ...DEFAULT_HTTP_LIMITS, receivedBytesMax: 1024 * 1024 } });
  const paths = ["/openapi.json", "/docs/static/swagger-ui-bundle.js", "/nothing", "/diagnostic/heartbeat"];
  const sockets = await connections(t, url, 60, (at) => requestHead("GET", paths[at % 4] ?? "").repeat(1_500));
  for (const socket of sockets) socket.pause();
  for (let round = 0; round < 5; round++) assert.equal((await send(`${url}/diagnostic/heartbeat`)).status, 200);
  assert.ok(app.capacity.received.used <= 1024 * 1024);
});

test("what is sent while a request is worked at counts, although it is not looked at", async (t) => {
  const unanswered: (() => void)[] = [];
  const { url, app } = await startBareServer(t, {
    limits: { ...DEFAULT_HTTP_LIMITS, receivedBytesMax: 1024 * 1024 },
    readOrder: () => new Promise((resolve) => unanswered.push(() => resolve(null))),
  });
  const head = requestHead("GET", `/orders/${ORDER_ID}`);
  const sockets = await connections(t, url, 60, () => head.repeat(2));
  await waitFor(() => app.capacity.received.used === 60 * head.length, { what: "each has sent one ahead" });
  for (const socket of sockets) socket.write("E".repeat(60_000));
  await waitFor(() => app.capacity.connections.used <= 30, { what: "who has sent more than there is room for is cut" });
  assert.ok(app.capacity.received.used <= 1024 * 1024);
  for (const answer of unanswered) answer();
});

/** Keeps the whole process busy. */
function workFor(lengthMs: number): void {
  const endMs = performance.now() + lengthMs;
  let now = performance.now();
  while (now < endMs) now = performance.now();
}

for (const [how, body] of [
  ["of a known length", `{"a":"${"x".repeat(200_000)}"}`],
  ["in large chunks", `{"a":"${"x".repeat(200_000)}"}`],
  ["in large chunks, full of what looks like their end,", `{"a":[${"0,\r\n\r\n".repeat(30_000)}1]}`],
] as const) {
  test(`many bodies ${how} are answered at once, each of them: nobody is cut for what the node has not come to yet`, async (t) => {
    const { url } = await startService(t);
    const chunks = { "transfer-encoding": "chunked", "content-type": "application/json" };
    const sent = how.includes("chunks")
      ? requestHead("POST", "/orders", chunks) + inChunks(body)
      : posted("/orders", body.length) + body;
    const answers = await Promise.all(
      (await connections(t, url, 200, () => sent)).map(async (socket) => {
        const [answer] = await Promise.race([once(socket, "data"), once(socket, "close")]);
        return answer instanceof Buffer ? answer.toString("latin1").slice(9, 12) : "nothing";
      }),
    );
    const statuses = Map.groupBy(answers, (status) => status);
    assert.deepEqual(
      Array.from(statuses.keys()).filter((status) => status !== "201" && status !== "503"),
      [],
    );
    assert.ok((statuses.get("201")?.length ?? 0) > 100);
  });
}

function inChunks(text: string, chars = 16_384): string {
  const parts = Array.from({ length: Math.ceil(text.length / chars) }, (_, at) =>
    text.slice(at * chars, (at + 1) * chars),
  );
  return [...parts, ""].map((part) => `${part.length.toString(16)}\r\n${part}\r\n`).join("");
}

test("a body that nobody asked for is let go, while its request goes on", async (t) => {
  const { url, app } = await startBareServer(t, {
    follow: {
      readChanges: () => Promise.resolve({ kind: "changes", changes: [], next: "1" }),
      readOrders: () => Promise.resolve([]),
      readOrder: () => Promise.resolve(null),
    },
  });
  const body = Buffer.alloc(40_000_000, "x");
  const [stream] = await connections(t, url, 1, () =>
    requestHead("GET", "/events", { "content-length": String(2 * body.length) }),
  );
  stream?.write(body);
  await waitFor(() => stream?.writableLength === 0, { what: "all of it is taken" });
  assert.deepEqual([app.capacity.streams.used, stream?.destroyed], [1, false]);
});

test("what comes behind a request does not change its answer", async (t) => {
  let submitted = 0;
  const { url } = await startBareServer(t, {
    submit: async () => {
      await new Promise(setImmediate);
      return { kind: "accepted", orderId: `${ORDER_ID.slice(0, -1)}${++submitted}`, startTimeMs: 0 };
    },
  });
  const line = "GET /diagnostic/heartbeat HTTP/1.1\r\n";
  const cases: [string, string, string[]][] = [
    [posted("/orders", 7), '{"a":1}garbage', ["201", "400"]],
    [posted("/orders", 7), '{"a":1}}', ["201", "400"]],
    [posted("/orders", 7), '{"a":1}FOO /x HTTP/1.1\r\n', ["201", "400"]],
    [posted("/orders", 7), `{"a":1}${"\r\n".repeat(100_000)}${line}Host: localhost\r\n\r\n`, ["201", "200"]],
    [`${"\r\n".repeat(100_000)}${requestHead("GET", "/diagnostic/heartbeat")}`, "\r\n\rgarbage", ["200", "400"]],
  ];
  for (const [head, rest, statuses] of cases) {
    const [socket] = await connections(t, url, 1, () => head + rest);
    assert.ok(socket !== undefined);
    let received = "";
    socket.setEncoding("latin1").on("data", (text: string) => (received += text));
    const answers = (): string[] => Array.from(received.matchAll(/HTTP\/1\.1 (\d+)/g), ([, status = ""]) => status);
    await waitFor(() => answers().length >= statuses.length, { what: () => `${statuses.join()}: ${received}` });
    assert.deepEqual(answers(), statuses);
  }
  assert.equal(submitted, 4);
});

for (const isEnded of [false, true]) {
  const last = isEnded ? ", and the client sends no more" : "";
  test(`nobody is cut whose body comes while its head waits for its turn${last}`, async (t) => {
    const body = `{"a":"${"x".repeat(70_000)}"}`;
    const head = posted("/orders", body.length);
    let headsCame = 0;
    const { url, app } = await startBareServer(t, {
      onReceived: (bytes) => {
        if (bytes === head.length) headsCame++;
      },
      submit: ({ user }) => {
        if (user === "hog") workFor(5);
        return Promise.resolve({ kind: "accepted", orderId: ORDER_ID, startTimeMs: 0 });
      },
    });
    const hogs = await connections(t, url, 60, () => "");
    const others = await connections(t, url, 160, () => "");
    await waitFor(() => app.capacity.connections.used === 220, { what: "all are accepted" });
    for (const socket of hogs) socket.write(`${posted("/orders", 2, { authorization: "hog" })}{}`);
    for (const socket of others) socket.write(head);
    const answers = others.map(async (socket) => {
      const [answer] = await Promise.race([once(socket, "data"), once(socket, "close")]);
      return answer instanceof Buffer ? answer.toString("latin1").slice(9, 12) : "nothing";
    });
    await waitFor(() => headsCame === others.length, { what: "the heads have come" });
    for (const socket of others) {
      if (isEnded) socket.end(body);
      else socket.write(body);
    }
    assert.deepEqual(new Set(await Promise.all(answers)), new Set(["201"]));
  });
}

test("what was sent ahead in many small parts does not come in one turn, where others wait", async (t) => {
  const turn = { parts: 0, mostParts: 0 };
  let served = 0;
  const unanswered: (() => void)[] = [];
  const { url, app } = await startBareServer(t, {
    onReceived: (bytes) => {
      if (bytes === 1) turn.parts++;
    },
    readOrder: () => new Promise((resolve) => unanswered.push(() => resolve(null))),
    submit: () => {
      turn.mostParts = Math.max(turn.mostParts, turn.parts);
      turn.parts = 0;
      served++;
      workFor(5);
      return Promise.resolve({ kind: "accepted", orderId: ORDER_ID, startTimeMs: 0 });
    },
  });
  const hogs = await connections(t, url, 60, () => "");
  const [socket] = await connections(t, url, 1, () => requestHead("GET", `/orders/${ORDER_ID}`));
  assert.ok(socket !== undefined);
  await waitFor(() => unanswered.length === 1, { what: "it is worked at" });
  socket.setNoDelay();
  for (const part of requestHead("GET", "/nothing").padEnd(2_000, "x")) {
    socket.write(part);
    await new Promise(setImmediate);
  }
  await waitFor(() => app.capacity.received.used >= 2_000, { what: "all has come" });
  const hogsAnswered = Promise.all(hogs.map((hog) => once(hog, "data")));
  for (const hog of hogs) hog.write(`${posted("/orders", 2)}{}`);
  await waitFor(() => served > 0, { what: "a hog is served, and the others wait" });
  [turn.parts, turn.mostParts] = [0, 0];
  unanswered[0]?.();
  await hogsAnswered;
  assert.ok(turn.mostParts < 200, `${turn.mostParts}`);
});

for (const [what, start] of [
  ["a request that was answered", posted("/nothing", 1e12)],
  ["what is no request", "garbage\r\n\r\n"],
  ["a request that is being answered", requestHead("GET", "/events", { "content-length": String(1e12) })],
  ["a read that waits", requestHead("GET", `/orders/${ORDER_ID}`, { "content-length": String(1e12) })],
] as const) {
  test(`what comes without end behind the head of ${what} is read once a turn, when the turn's 5 ms are over`, async (t) => {
    const turn = { bytes: 0, mostBytes: 0 };
    let bytesCame = 0;
    const { url, app } = await startBareServer(t, {
      limits: { ...DEFAULT_HTTP_LIMITS, requestTimeoutMs: 300_000 },
      onReceived: (bytes) => {
        bytesCame += bytes;
        turn.bytes += bytes;
        if (bytes > 10_000) workFor(2);
      },
      readOrder: () => new Promise(() => undefined),
      follow: {
        readChanges: () => Promise.resolve({ kind: "changes", changes: [], next: "1" }),
        readOrders: () => Promise.resolve([]),
        readOrder: () => Promise.resolve(null),
      },
    });
    const sockets = await connections(t, url, 8, () => "");
    await waitFor(() => app.capacity.connections.used === sockets.length, { what: "all are accepted" });
    for (const socket of sockets) socket.write(start);
    // What is no request is answered with the end of the connection: then the client would send no more.
    if (what.includes("answered")) await Promise.all(sockets.map((socket) => once(socket, "data")));
    let isOver = false;
    const nextTurn = (): void => {
      turn.mostBytes = Math.max(turn.mostBytes, turn.bytes);
      turn.bytes = 0;
      if (!isOver) setImmediate(nextTurn);
    };
    nextTurn();
    const part = Buffer.alloc(4_000_000, "x");
    for (const socket of sockets) socket.write(part);
    await waitFor(() => bytesCame > 8_000_000, { what: "much of it has come" });
    isOver = true;
    // Three reads fit into the 5 ms; then each connection is read once, and waits. Two to spare.
    const due = (3 + sockets.length + 2) * 64 * 1024;
    assert.ok(turn.mostBytes <= due, `${turn.mostBytes} of ${due}`);
  });
}

test("a health check is answered before the requests that came before it, where many wait", async (t) => {
  let served = 0;
  const { url, app } = await startBareServer(t, {
    readOrder: () => {
      served++;
      workFor(5);
      return Promise.resolve(null);
    },
  });
  const sockets = await connections(t, url, 301, () => "");
  await waitFor(() => app.capacity.connections.used === sockets.length, { what: "all are accepted" });
  const heartbeat = sockets.pop();
  assert.ok(heartbeat !== undefined);
  for (const socket of sockets) socket.write(requestHead("GET", `/orders/${ORDER_ID}`));
  heartbeat.write(requestHead("GET", "/diagnostic/heartbeat"));
  await once(heartbeat, "data");
  assert.ok(served < 150, `${served} of 300 were answered before it`);
});

test("a health check is answered before requests as of nodes, where many wait, and those of people take one at a time", async (t) => {
  let [answered, underWay, most] = [0, 0, 0];
  const { url, app } = await startBareServer(t, {
    transfer: async () => {
      most = Math.max(most, ++underWay);
      workFor(5);
      await new Promise((resolve) => setImmediate(resolve));
      underWay--;
      return { kind: "service_not_found" };
    },
  });
  const sockets = await connections(t, url, 301, () => "");
  await waitFor(() => app.capacity.connections.used === sockets.length, { what: "all are accepted" });
  const heartbeat = sockets.pop();
  assert.ok(heartbeat !== undefined);
  const body = JSON.stringify({ service_id: ORDER_ID });
  const json = { "content-type": "application/json" };
  for (const socket of sockets) {
    socket.once("data", () => answered++);
    socket.write(`${posted("/service/transfer", body.length, json)}${body}`);
  }
  heartbeat.write(requestHead("GET", "/diagnostic/heartbeat"));
  await once(heartbeat, "data");
  assert.ok(answered < 150, `${answered} of 300 were answered before it`);
  await waitFor(() => answered === sockets.length, { what: "all are answered" });
  assert.equal(most, 1);
});

test("so many requests wait for orders to be read at most, who has most is refused, and all is given back", async (t) => {
  const held: (() => void)[] = [];
  const { url, app } = await startBareServer(t, {
    readOrder: () => new Promise((resolve) => held.push(() => resolve(null))),
  });
  const { reads } = app.capacity;
  const paths = [`/orders/${ORDER_ID}`, `/orders/${ORDER_ID}/history`];
  const statuses = new Map<string, number>();
  const sockets = await connections(t, url, reads.max + 100, (index) =>
    requestHead(index % 10 === 0 ? "HEAD" : "GET", paths[index % 2] ?? ""),
  );
  for (const socket of sockets) {
    socket.once("data", (data: Buffer) => {
      const status = data.toString("latin1").slice(9, 12);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    });
  }
  await waitFor(() => statuses.get("503") === 100, { what: () => `100 are refused; ${JSON.stringify([...statuses])}` });
  assert.equal(reads.used, reads.max);
  const other = fetch(`${url}/orders/${ORDER_ID}`, { headers: { authorization: "another" } });
  await waitFor(() => reads.used < reads.max, { what: "one of who has most gives way" });
  for (const socket of sockets.slice(0, 200)) socket.destroy();
  await waitFor(
    () => {
      for (const answer of held.splice(0)) answer();
      return reads.used === 0;
    },
    { what: () => `all are answered or gone; ${reads.used} are not` },
  );
  assert.equal((await other).status, 404);
  for (const socket of sockets) socket.destroy();
  await assertAllFree(app.capacity);
});

test("of those that wait for a page of orders, who has left takes nobody's turn", async (t) => {
  const held: (() => void)[] = [];
  const { url, app } = await startBareServer(t, {
    listOrders: () => new Promise((resolve) => held.push(() => resolve({ orders: [], next: null }))),
  });
  const { reads } = app.capacity;
  const request = requestHead("GET", "/orders");
  const first = await connectionWith(t, url, request);
  await waitFor(() => held.length === 1, { what: "the first page is under way" });
  const leavers = await connections(t, url, 300, () => request);
  await waitFor(() => reads.used === 301, { what: "all wait" });
  const last = await connectionWith(t, url, request);
  await waitFor(() => reads.used === 302, { what: "the last one waits, too" });
  for (const socket of leavers) socket.resetAndDestroy();
  await waitFor(() => reads.used === 2, { what: "they have left" });
  const [endFirst] = held.splice(0);
  endFirst?.();
  let loopTurns = 0;
  for (; held.length === 0 && loopTurns < 1_000; loopTurns++) await new Promise((resolve) => setImmediate(resolve));
  assert.ok(loopTurns < 100, `the page of the last one is begun ${loopTurns} turns after that of the first has ended`);
  for (const socket of [first, last]) socket.destroy();
  for (const end of held) end();
  await assertAllFree(app.capacity);
});

for (const [what, path, underWay] of [
  ["an order", `/orders/${ORDER_ID}`, 32],
  ["a history", `/orders/${ORDER_ID}/history`, 32],
  ["an order's events", `/orders/${ORDER_ID}/events`, 32],
  ["all events", "/events", 8],
] as const) {
  test(`for who has left before the turn of ${what} has come, the store is not asked`, async (t) => {
    const held: (() => void)[] = [];
    let asked = 0;
    const wait = <T>(answer: T): Promise<T> => {
      asked++;
      return new Promise((resolve) => held.push(() => resolve(answer)));
    };
    const { url, app } = await startBareServer(t, {
      readOrder: () => wait(null),
      follow: {
        readOrder: () => Promise.resolve(null),
        readOrders: () => Promise.resolve([]),
        readChanges: (_cursor, limit) =>
          limit > 1 ? Promise.resolve({ kind: "gone" as const }) : wait({ kind: "gone" as const }),
      },
    });
    const places = path.endsWith("/events") ? app.capacity.streams : app.capacity.reads;
    const request = requestHead("GET", path);
    const firsts = await connections(t, url, underWay, () => request);
    await waitFor(() => asked === underWay, { what: "as many are asked for as are at once" });
    const leavers = await connections(t, url, 60, () => request);
    await waitFor(() => places.used === underWay + 60, { what: "others wait" });
    const last = await connectionWith(t, url, request);
    await waitFor(() => places.used === underWay + 61, { what: "the last one waits, too" });
    for (const socket of leavers) socket.resetAndDestroy();
    await waitFor(() => places.used === underWay + 1, { what: "they have left" });
    assert.equal(asked, underWay);
    const isAnswered = once(last, "data");
    await waitFor(
      () => {
        for (const end of held.splice(0)) end();
        return places.used === 0;
      },
      { what: "the others are answered" },
    );
    await isAnswered;
    assert.equal(asked, underWay + 1);
    for (const socket of [...firsts, last]) socket.destroy();
    await assertAllFree(app.capacity);
  });
}

test("new clients are heard while many ask for orders, one time after another", async (t) => {
  let served = 0;
  // Answers as a store in another thread does: at once, and before anything else.
  const store = new MessageChannel();
  const waiting: (() => void)[] = [];
  store.port2.on("message", () => waiting.shift()?.());
  t.after(() => store.port1.close());
  const { url } = await startBareServer(t, {
    readOrder: () => {
      served++;
      return new Promise((resolve) => {
        waiting.push(() => resolve(null));
        store.port1.postMessage(null);
      });
    },
  });
  const request = requestHead("GET", `/orders/${ORDER_ID}`);
  for (const socket of await connections(t, url, 500, () => request)) socket.on("data", () => socket.write(request));
  await waitFor(() => served > 2_000, { what: "they are served" });
  await send(`${url}/diagnostic/heartbeat`); // the client has loaded what it needs
  for (let count = 0; count < 20; count++) {
    const before = served;
    await send(`${url}/diagnostic/heartbeat`, { headers: { connection: "close" } });
    assert.ok(served - before < 250, `${served - before} of 500 were served before it`);
  }
});

test("a client that does not take its answer is cut, and so is one that does not go when it was told to", async (t) => {
  const { url, app } = await startBareServer(t, { limits: { ...DEFAULT_HTTP_LIMITS, answerTimeoutMs: 100 } });
  const file = requestHead("GET", "/docs/static/swagger-ui-bundle.js");
  const [unread] = await connections(t, url, 1, () => file.repeat(20));
  unread?.pause();
  await connections(t, url, 1, () => "nonsense\r\n\r\n");
  await waitFor(() => app.capacity.connections.used === 0, { what: "the server has cut both", deadlineMs: 15_000 });
});

test("answers that are not read are bounded together", async (t) => {
  const orders = { orders: [], next: "x".repeat(6_000_000) };
  const { url, app } = await startBareServer(t, {
    limits: { ...DEFAULT_HTTP_LIMITS, outgoingBytesMax: 40_000_000 },
    listOrders: () => Promise.resolve(orders),
  });
  const sockets = await connections(t, url, 10, (at) =>
    requestHead("GET", "/orders", { authorization: `user${at}` }).repeat(3),
  );
  for (const socket of sockets) socket.pause();
  await waitFor(() => app.capacity.connections.used <= 3, { what: "who has waited longest is cut" });
  assert.ok(app.capacity.outgoing.used <= 40_000_000);
  assert.equal((await send(`${url}/orders`, { headers: { authorization: "another" } })).status, 200);
});

test("connections on which nothing is under way give way to new ones, and those that are served stay", async (t) => {
  const { url, app } = await startBareServer(t, {
    limits: { ...DEFAULT_HTTP_LIMITS, connectionsMax: 50 },
    follow: {
      readChanges: () => Promise.resolve({ kind: "changes", changes: [], next: "1" }),
      readOrders: () => Promise.resolve([]),
      readOrder: () => Promise.resolve(null),
    },
  });
  const [stream] = await connections(t, url, 1, () => requestHead("GET", "/events"));
  await waitFor(() => app.capacity.streams.used === 1, { what: "the stream is open" });
  for (const sent of ["", "GET / HT", posted("/orders", 1_000), requestHead("GET", "/nothing")]) {
    await connections(t, url, 60, () => sent);
    assert.equal((await send(`${url}/diagnostic/heartbeat`)).status, 200);
    assert.ok(app.capacity.connections.used <= 50);
  }
  assert.equal(stream?.destroyed, false);
});

test("streams of one user leave places for others, and made-up users do, too", async (t) => {
  const { url } = await startService(t);
  const { json } = await submitOrder(url);
  const path = `/orders/${String(json?.["order_id"])}/events`;
  await connections(t, url, 100, () => requestHead("GET", "/events"));
  for (let count = 0; count < 10; count++) {
    const another = await fetch(`${url}/events`, { headers: { authorization: `another${count}` } });
    assert.equal(another.status, 200);
  }
  await connections(t, url, 100, (at) => requestHead("GET", "/events", { authorization: `made-up${at % 10}` }));
  const answer = await fetch(`${url}/events`, { headers: { authorization: "somebody" } });
  assert.equal(answer.status, 200);
  assert.equal((await fetch(`${url}${path}`, { headers: { authorization: "user" } })).status, 200);
});

test("who has most gives way first, and what of it has stood still for longest", () => {
  let nowMs = 0;
  const budget = new Budget({ max: 10, keepMs: 100, keepOwnMs: 1_000, clock: () => nowMs });
  const taken: string[] = [];
  const open = (holder: string, name: string, amount: number, gives = true): boolean =>
    budget
      .open(holder, () => {
        if (gives) taken.push(name);
        return gives;
      })
      .set(amount);
  assert.ok(open("a", "a1", 4) && open("a", "a2", 3, false) && open("a", "a3", 2) && open("b", "b1", 1));
  assert.equal(open("a", "a4", 1), false, "its own are too young to give way");
  assert.ok(open("b", "b2", 1), "it has far less");
  assert.deepEqual(taken, ["a1"]);
  assert.ok(open("c", "c1", 3));
  assert.equal(open("c", "c2", 2), false, "it would have as much as who has most");
  nowMs = 2_000;
  assert.ok(open("c", "c2", 1), "what has stood still for that long gives way to it");
  assert.deepEqual(taken, ["a1", "a3"]);
  assert.equal(open("d", "d1", 11), false, "there is not so much at all");
  assert.ok(budget.used <= 10);
});
