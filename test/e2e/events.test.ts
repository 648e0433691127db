/** Finding orders, and following what happens to them. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { join } from "node:path";
import { connect, type Socket } from "node:net";
import { describe, test } from "node:test";
import Fastify from "fastify";
import { EventStream } from "../../src/http/event-stream.ts";
import type { OrderEvent } from "../../src/order/events.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import type { AdvanceWrite, ChangePage, StoredOrder } from "../../src/store/store.ts";
import { BARE, startBareServer } from "../support/bare-server.ts";
import { assertProblem, heartbeatStatus } from "../support/checks.ts";
import { acceptedOrderId, type Answer, finalOrder, readOrder, send, submitOrder } from "../support/client.ts";
import { gatedPipeline } from "../support/gated-pipeline.ts";
import { startService, temporaryFolder } from "../support/service.ts";
import { openStream } from "../support/sse.ts";
import { waitFor } from "../support/wait.ts";

/** An order that waits for its time, and is paused and resumed again and again. */
function pausedOften(times: number): OrderEvent[] {
  const again = Array.from({ length: times }, (_, index): OrderEvent[] => [
    { kind: "paused", atMs: 10 * index + 2 },
    { kind: "resumed", atMs: 10 * index + 3, by: "user" },
  ]);
  return [{ kind: "created", atMs: 1, owner: 1, stepName: "Scheduling", startAtMs: 9e12 }, ...again.flat()];
}

/** As long as a stream says nothing (event-stream.ts). */
const KEEP_ALIVE_MS = 15_000;

const OPERATOR = ["--operators", "olga"];

function get(url: string, user = "user"): Promise<Answer> {
  return send(url, { headers: { authorization: user } });
}

interface List {
  readonly orders: { readonly order_id: string; readonly status: string; readonly user?: string }[];
  readonly next_cursor?: string;
  readonly counts: Record<string, number>;
}

async function list(url: string, query = "", user = "user"): Promise<List> {
  const answer = await get(`${url}/orders${query}`, user);
  assert.equal(answer.status, 200, answer.text);
  return answer.json as unknown as List;
}

test("orders are listed to their users, and all to operators, with filters, pages and counts", async (t) => {
  const { url } = await startService(t, { args: ["--step-time", "0ms", ...OPERATOR] });
  const mine: string[] = [];
  for (let count = 0; count < 5; count++)
    mine.push(await acceptedOrderId(url, count === 2 ? { fail_at: "Processing" } : {}));
  await submitOrder(url, {}, { authorization: "ann" });
  for (const id of mine) await finalOrder(url, id);
  await waitFor(async () => (await list(url, "", "olga")).counts["completed"] === 5, { what: "all have ended" });
  const all = await list(url);
  assert.deepEqual(all.orders.map(({ order_id: id }) => id).toSorted(), mine.toSorted());
  assert.deepEqual(all.counts, { completed: 4, failed: 1 });
  assert.equal(all.orders[0]?.user, undefined);
  const everybodys = await list(url, "", "olga");
  assert.equal(everybodys.orders.length, 6);
  assert.ok(everybodys.orders.some(({ user }) => user === "ann"));
  assert.equal((await list(url, "?user=ann", "olga")).orders.length, 1);
  assert.deepEqual(
    (await list(url, "?status=failed")).orders.map(({ order_id: id }) => id),
    [mine[2]],
  );
  assert.deepEqual((await list(url, "?step=Failed&pipeline=default")).orders.length, 1);
  assert.deepEqual((await list(url, "?pipeline=none")).orders, []);
  const { service_id: node } = await readOrder(url, mine[0] ?? "");
  assert.equal((await list(url, `?node=${node}&status=completed`)).orders.length, 4);
  const paged: string[] = [];
  for (let cursor: string | undefined, first = true; first || cursor !== undefined; first = false) {
    const page: List = await list(url, `?limit=2${cursor === undefined ? "" : `&cursor=${cursor}`}`);
    paged.push(...page.orders.map(({ order_id: id }) => id));
    cursor = page.next_cursor;
  }
  assert.deepEqual(
    paged,
    all.orders.map(({ order_id: id }) => id),
  );

  for (const query of [
    "?status=done",
    "?cursor=x",
    "?limit=0",
    "?limit=201",
    "?limit=-1",
    "?from=now",
    "?colour=red",
    "?user=ann",
    "?status=failed&status=failed",
  ]) {
    assertProblem(await get(`${url}/orders${query}`), 400, "request_invalid");
  }
  assertProblem(await send(`${url}/orders`), 401, "authorization_required");
  assert.deepEqual(
    (await list(url, "?cursor=00000000-0000-7000-8000-000000000000")).orders,
    [],
    "a made-up cursor does no harm",
  );
});

test("an order's history tells every transition, with its time, node and attempt", async (t) => {
  const { url } = await startService(t, { args: ["--step-time", "0ms"] });
  const orderId = await acceptedOrderId(url, { fail_at: "Pre-Processing" });
  const { service_id: node } = await finalOrder(url, orderId);
  const { json } = await get(`${url}/orders/${orderId}/history`);
  const events = json?.["events"] as Record<string, unknown>[];
  assert.deepEqual(
    events.map(({ revision, event, status, current_step: step, attempt, service_id: by }) => [
      revision,
      event,
      status,
      step,
      attempt,
      by,
    ]),
    [
      [1, "created", "running", "Scheduling", 1, node],
      [2, "step_completed", "running", "Pre-Processing", 1, node],
      [3, "step_failed", "rolling_back", "Failed", 1, node],
      [4, "step_rolled_back", "rolling_back", "Failed", 1, node],
      [5, "step_rolled_back", "failed", "Failed", undefined, node],
    ],
  );
  assert.match(String(events[2]?.["error"]), /asks to fail/);
  assert.ok(events.every(({ time }) => !Number.isNaN(Date.parse(String(time)))));
  assertProblem(await get(`${url}/orders/${orderId}/history`, "mallory"), 404, "order_not_found");
});

test("an order is followed from any node, over its owner's death, from wherever one was, until it is final", async (t) => {
  const gate = gatedPipeline(t);
  const args = [...gate.args, "--node-ttl", "3s"];
  const first = await startService(t, { args });
  const second = await startService(t, { args: [...args, "--join", first.url.replace("http://", "")] });
  const orderId = await acceptedOrderId(first.url);
  const stream = await openStream(`${second.url}/orders/${orderId}/events`);
  await waitFor(() => stream.events.length >= 2, { what: "the first step has ended" });
  await first.end("SIGKILL");
  gate.open();
  await stream.ended;
  const told = stream.events.map(({ data }) => data["event"]);
  assert.ok(told.includes("owner_changed"), told.join(", "));
  assert.deepEqual(
    stream.events.map(({ id }) => Number(id)),
    told.map((_, index) => index + 1),
    "no gaps, no repeats",
  );
  assert.equal(stream.events.at(-1)?.data["status"], "completed");
  const rest = await openStream(`${second.url}/orders/${orderId}/events`, { lastEventId: "3" });
  await rest.ended;
  assert.deepEqual(rest.events, stream.events.slice(3));
  const nothing = await openStream(`${second.url}/orders/${orderId}/events`, { lastEventId: String(told.length) });
  assert.equal(nothing.status, 204, "who has the last event need not come again");
  for (const made of ["-1", "x", "99"]) {
    const answer = await send(`${second.url}/orders/${orderId}/events`, {
      headers: { authorization: "user", "last-event-id": made },
    });
    assertProblem(answer, 400, "request_invalid");
  }
  assertProblem(await get(`${second.url}/orders/${orderId}/events`, "mallory"), 404, "order_not_found");
});

test("all of a user's orders are followed without gaps or repeats, by one who goes away and comes again", async (t) => {
  const { url, end } = await startService(t, { args: ["--step-time", "0ms", ...OPERATOR] });
  const before = await openStream(`${url}/events`);
  const operator = await openStream(`${url}/events`, { user: "olga" });
  const stranger = await openStream(`${url}/events`, { user: "mallory" });
  const early: string[] = [];
  for (let count = 0; count < 10; count++) early.push(await acceptedOrderId(url));
  await waitFor(() => before.events.length >= 20, { what: "some events have come" });
  before.close();
  await before.ended;
  const late: string[] = [];
  for (let count = 0; count < 10; count++) late.push(await acceptedOrderId(url));
  const after = await openStream(`${url}/events`, { lastEventId: before.events.at(-1)?.id ?? "" });
  await waitFor(() => before.events.length + after.events.length >= 100, { what: "all events have come" });
  const seen = [...before.events, ...after.events];
  assert.equal(seen.length, 100);
  for (const orderId of [...early, ...late]) {
    const revisions = seen.filter(({ data }) => data["order_id"] === orderId).map(({ data }) => data["revision"]);
    assert.deepEqual(revisions, [1, 2, 3, 4, 5]);
  }
  await waitFor(() => operator.events.length >= 100, { what: "the operator has seen them, too" });
  assert.deepEqual(stranger.events, []);
  for (const made of ["x", "-1", "99999999", "1.5"]) {
    const answer = await send(`${url}/events`, { headers: { authorization: "user", "last-event-id": made } });
    assertProblem(answer, 410, "events_gone");
  }
  assert.equal(await end("SIGTERM"), 0);
  await Promise.all([after.ended, operator.ended, stranger.ended]);
});

test("a history of more than a megabyte is followed to its end, alone and among all", async (t) => {
  const ATTEMPTS = 1_500;
  const data = temporaryFolder(t);
  const store = await openSqliteStore({ path: join(data, "orders.sqlite"), now: Date.now, onBroken: assert.ifError });
  const owner = await store.cluster.register(
    { serviceId: randomUUID(), url: "", version: "0.0.0", ttlMs: 5_000, process: null },
    Date.now(),
  );
  const [orderId, atMs] = [newOrderId("user", null), Date.now()];
  const advance = (
    revision: number,
    event: AdvanceWrite["event"],
    newStatus: AdvanceWrite["newStatus"],
  ): AdvanceWrite => ({
    kind: "advance",
    orderId,
    owner,
    expectedRevision: revision,
    event,
    newStatus,
    formerStatus: "running",
    user: "user",
  });
  const error = "x".repeat(900);
  await store.commit([
    {
      kind: "create",
      orderId,
      user: "user",
      idempotencyKey: null,
      pipelineName: "default",
      pipelineVersion: 1,
      event: { kind: "created", atMs, owner, stepName: "Scheduling" },
      body: "{}",
    },
    ...Array.from({ length: ATTEMPTS }, (_, index) =>
      advance(index + 1, { kind: "attempt_failed", atMs, error, delayMs: 0 }, null),
    ),
    advance(ATTEMPTS + 1, { kind: "step_failed", atMs, error: "no", rollbackIndex: null }, "failed"),
  ]);
  await store.cluster.leave(owner);
  await store.close();
  const { url } = await startService(t, { data });
  const revisions = Array.from({ length: ATTEMPTS + 2 }, (_, index) => index + 1);
  const alone = await openStream(`${url}/orders/${orderId}/events`);
  await alone.ended;
  assert.deepEqual(
    alone.events.map((event) => event.data["revision"]),
    revisions,
  );
  const all = await openStream(`${url}/events`, { lastEventId: "0" });
  await waitFor(() => all.events.length === revisions.length, { what: () => `${all.events.length} events have come` });
});

test("who follows all orders is told at once from where to go on, and leaves places for others", async (t) => {
  const { url } = await startService(t);
  const response = await fetch(`${url}/events`, { headers: { authorization: "user" } });
  const reader = (response.body ?? assert.fail()).getReader();
  let text = "";
  while (!/^id: \d+$/m.test(text)) text += new TextDecoder().decode((await reader.read()).value);
  const missed = await acceptedOrderId(url);
  await reader.cancel();
  const later = await openStream(`${url}/events`, { lastEventId: /^id: (\d+)$/m.exec(text)?.[1] ?? "" });
  await waitFor(() => later.events.some((event) => event.data["order_id"] === missed), { what: "nothing is missed" });
  for (let count = 1; count < 100; count++) await openStream(`${url}/events`);
  assertProblem(await get(`${url}/events`, "user"), 503, "too_many_watchers");
  assert.equal((await openStream(`${url}/events`, { user: "another" })).status, 200);
});

test("who goes away before an answer has begun leaves its place to others", async (t) => {
  const { url } = await startService(t);
  const { port } = new URL(url);
  for (let count = 0; count < 60; count++) {
    const socket = connect(Number(port), "127.0.0.1");
    socket.on("error", () => undefined);
    socket.write("GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: user\r\n\r\n");
    await new Promise((resolve) => socket.once("connect", resolve));
    socket.resetAndDestroy();
  }
  await waitFor(async () => (await openStream(`${url}/events`)).status === 200, { what: "there is a place" });
});

test("who says goodbye before an answer has begun leaves its place to others", async (t) => {
  const held = Promise.withResolvers<undefined>();
  let asked = 0;
  const { url, app } = await startBareServer(t, {
    follow: {
      ...BARE.follow,
      readChanges: async () => {
        asked++;
        await held.promise;
        return { kind: "changes", changes: [], next: "1" };
      },
    },
  });
  const { port } = new URL(url);
  const sockets = Array.from({ length: 10 }, () => connect(Number(port), "127.0.0.1"));
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  for (const socket of sockets) socket.end("GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: user\r\n\r\n");
  await waitFor(() => app.capacity.followers.used === sockets.length, { what: "all have asked" });
  assert.equal(asked, 8, "a few look at once");
  held.resolve(undefined);
  await waitFor(() => app.capacity.followers.used === 0, { what: "all is given back", deadlineMs: KEEP_ALIVE_MS / 2 });
});

describe("who follows events, sends something behind, and says goodbye leaves its place to others", () => {
  const follow = "GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: user\r\n\r\n";
  const behind = {
    "an empty line": "\r\n",
    "another request": follow,
    "what fits into no read": "\r\n".repeat(40_000),
    "what is no request": "garbage\r\n\r\n",
  };
  for (const [what, text] of Object.entries(behind)) {
    for (const when of ["before an answer has begun", "later"] as const) {
      test(`${what}, ${when}`, async (t) => {
        const held = Promise.withResolvers<undefined>();
        if (when === "later") held.resolve(undefined);
        const { url, app } = await startBareServer(t, {
          follow: {
            ...BARE.follow,
            readChanges: async () => {
              await held.promise;
              return { kind: "changes", changes: [], next: "1" };
            },
          },
        });
        const { port } = new URL(url);
        const sockets = Array.from({ length: 10 }, () => connect(Number(port), "127.0.0.1"));
        t.after(() => sockets.forEach((socket) => socket.destroy()));
        for (const socket of sockets) socket.write(follow);
        await waitFor(() => app.capacity.followers.used === sockets.length, { what: "all have asked" });
        if (when === "later") await Promise.all(sockets.map((socket) => once(socket, "data")));
        const { received, followers } = app.capacity;
        const before = received.used;
        for (const socket of sockets) socket.end(text);
        if (when !== "later") {
          const more = sockets.length * Math.min(text.length, 16_384);
          await waitFor(() => received.used >= before + more, { what: "it has come" });
          held.resolve(undefined);
        }
        for (const budget of [followers, received]) {
          await waitFor(() => budget.used === 0, { what: "all is given back", deadlineMs: KEEP_ALIVE_MS / 2 });
        }
      });
    }
  }
});

test("a page of changes goes through an order's history once", async (t) => {
  let reads = 0;
  const history = new Proxy<readonly OrderEvent[]>(pausedOften(50), {
    get: (events, key) => {
      if (/^\d+$/.test(String(key))) reads++;
      return Reflect.get(events, key) as unknown;
    },
  });
  const stored: StoredOrder = {
    orderId: newOrderId("user", null),
    user: "user",
    pipelineName: "default",
    pipelineVersion: 1,
    status: "scheduled",
    owner: 1,
    ownerServiceId: "",
    revision: history.length,
    history,
  };
  const follow = {
    readOrder: () => Promise.resolve(null),
    readChanges: (cursor: string | null): Promise<ChangePage> => {
      const after = Number(cursor ?? 0);
      const changes = history.slice(after, after + 100).map((_, index) => ({
        ...stored,
        revision: after + index + 1,
        cursor: String(after + index + 1),
      }));
      return Promise.resolve({ kind: "changes", changes, next: String(after + changes.length) });
    },
    readOrders: () => Promise.resolve([stored]),
  };
  const { url } = await startBareServer(t, { follow });
  const stream = await openStream(`${url}/events`, { lastEventId: "0" });
  await waitFor(() => stream.events.length === history.length, { what: "all is told" });
  assert.deepEqual(
    stream.events.map(({ data }) => data["revision"]),
    history.map((_, index) => index + 1),
  );
  assert.ok(reads < 10 * history.length, `${reads} of ${history.length} events were read`);
});

test("ten thousand watchers of one order all see its end, and the service goes on", async (t) => {
  const WATCHERS = 10_000;
  const { url } = await startService(t);
  // It waits for its time until it is canceled, however long it takes until all watch it.
  const startAt = new Date(Date.now() + 3_600_000).toISOString();
  const submitted = await send(`${url}/orders?start_at=${startAt}`, {
    method: "POST",
    headers: { authorization: "user", "content-type": "application/json" },
    body: "{}",
  });
  assert.equal(submitted.status, 201, submitted.text);
  const orderId = String(submitted.json?.["order_id"]);
  const { port } = new URL(url);
  const sockets: Socket[] = [];
  t.after(() => sockets.forEach((socket) => socket.destroy()));
  let seen = 0;
  for (let count = 0; count < WATCHERS; count++) {
    const socket = connect(Number(port), "127.0.0.1");
    sockets.push(socket);
    let text = "";
    socket.on("data", (chunk) => {
      if (text.includes('"status":"canceled"')) return;
      text += chunk.toString("latin1");
      if (text.includes('"status":"canceled"')) seen++;
    });
    socket.write(`GET /orders/${orderId}/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: user\r\n\r\n`);
    if (count % 500 === 499) await waitFor(() => socket.bytesRead > 0, { what: "the last of 500 is served" });
  }
  await send(`${url}/orders/${orderId}/cancel`, { method: "POST", headers: { authorization: "user" } });
  await waitFor(() => seen === WATCHERS, { what: () => `all see the end; so far ${seen}` });
  sockets.forEach((socket) => socket.destroy());
  await waitFor(async () => (await heartbeatStatus(url)) === "OK", { what: "the service is well" });
  await acceptedOrderId(url);
});

test("a watcher that never reads is left behind, with little in memory, and cut off in the end", async (t) => {
  const app = Fastify();
  t.after(() => app.close());
  let stream: EventStream | undefined;
  app.get("/", (_request, reply) => {
    stream = new EventStream(reply, { stuckMsMax: 200, unread: { set: () => true, close: () => undefined } });
    return reply;
  });
  await app.listen({ port: 0, host: "127.0.0.1" });
  const address = app.server.address();
  assert.ok(typeof address === "object" && address !== null);
  const socket = connect(address.port, "127.0.0.1");
  t.after(() => socket.destroy());
  socket.pause();
  socket.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  const opened = await waitFor(() => stream, { what: "the stream is open" });
  let sent = 0;
  while (!opened.hasEnded && sent < 1_000) {
    opened.send("x".repeat(64 * 1024));
    sent++;
    await opened.drained();
  }
  assert.ok(opened.hasEnded && sent < 1_000, `it took ${sent} times 64 KiB`);
});
