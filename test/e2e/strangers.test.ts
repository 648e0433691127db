/** What web pages and careless clients send: hosts, doubled headers and credentials that are not the node's business. */
import assert from "node:assert/strict";
import { lookup } from "node:dns/promises";
import { readFileSync, readdirSync } from "node:fs";
import { isIPv4 } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { assertProblem, assertRefused } from "../support/checks.ts";
import { acceptedOrderId, type Answer, finalOrder, send } from "../support/client.ts";
import { openConnection, parseAnswer, sendBytes } from "../support/raw.ts";
import { runCommand, type Service, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

/** A request as it goes over the wire, with a body where there is a type for it. */
function ask(service: Service, first: string, lines: readonly string[], body = ""): Promise<Answer> {
  const length = body === "" ? [] : ["Content-Type: application/json", `Content-Length: ${Buffer.byteLength(body)}`];
  return sendBytes(service.url, `${[first, ...lines, ...length].join("\r\n")}\r\n\r\n${body}`);
}

test("a web page whose name was made to lead to the node gets nothing, whatever it asks", async (t) => {
  const service = await startService(t);
  for (const [first, body] of [
    ["POST /orders HTTP/1.1", "{}"],
    ["GET /orders HTTP/1.1", ""],
    ["GET /events HTTP/1.1", ""],
    ["GET /docs HTTP/1.1", ""],
    ["GET /docs/static/index.css HTTP/1.1", ""],
    ["GET /openapi.json HTTP/1.1", ""],
    ["GET /diagnostic/cluster HTTP/1.1", ""],
    ["POST /cluster/join HTTP/1.1", '{"service_id":"x","version":"1","protocol":1}'],
    ["POST /service/transfer HTTP/1.1", '{"service_id":"00000000-0000-4000-8000-000000000000"}'],
    ["GET /nothing HTTP/1.1", ""],
    ["OPTIONS /orders HTTP/1.1", ""],
  ] as const) {
    const lines = ["Host: evil.example:8080", "Authorization: user"];
    const answer = await ask(service, first, lines, body);
    assertProblem(answer, 421, "host_not_allowed");
    assert.match(String(answer.json?.["detail"]), /evil\.example/);
  }
  assertProblem(
    await ask(service, "GET http://evil.example/orders HTTP/1.1", ["Host: localhost", "Authorization: user"]),
    421,
    "host_not_allowed",
  );
});

test("the node's own names are taken: where it listens, what it tells others, and what --allowed-hosts says", async (t) => {
  const service = await startService(t, {
    args: ["--advertise", "Node-A.example:8080", "--allowed-hosts", "shop.example, .internal.example"],
  });
  for (const host of [
    "localhost",
    "127.0.0.1",
    "[::1]:80",
    "node-a.example",
    "shop.example:443",
    "x.internal.example",
  ]) {
    const { status } = await ask(service, "GET /diagnostic/heartbeat HTTP/1.1", [`Host: ${host}`]);
    assert.equal(status, 200, host);
  }
  const old = await ask(service, "GET /diagnostic/heartbeat HTTP/1.0", []);
  assert.equal(old.status, 200);
  assertProblem(await ask(service, "GET /orders HTTP/1.1", ["Host: node-b.example"]), 421, "host_not_allowed");
});

test("--allowed-hosts that are no names are refused", async () => {
  const finished = await runCommand(["--allowed-hosts", "shop.example,http://b"]);
  assertRefused(finished, 2, /--allowed-hosts can't be "shop\.example,http:\/\/b": write names/);
});

test("who joins by a name that the node does not go by is told which option allows it", async (t) => {
  const name = hostname();
  const isOwn = await lookup(name).then(
    ({ address }) => isIPv4(address),
    () => false,
  );
  if (!isOwn) return t.skip("this machine's name leads nowhere");
  const listening = ["--host", "0.0.0.0", "--advertise", "node-a.example:1"];
  const first = await startService(t, { args: listening });
  const alias = `${name}:${new URL(first.url).port}`;
  const refused = await runCommand(["--port", "0", "--data", temporaryFolder(t), "--join", alias]);
  assertRefused(refused, 1, new RegExp(`can't join ${alias}: .*--allowed-hosts ${name.toLowerCase()}`));
});

test("a request with two hosts or two users is refused, and makes no order", async (t) => {
  const service = await startService(t);
  for (const lines of [
    ["Host: localhost", "Host: localhost", "Authorization: user"],
    ["Host: localhost", "Authorization: user", "HOST: evil.example"],
    ["Host: localhost", "Authorization: user", "Authorization: user"],
    ["Host: localhost", "Authorization: user", "authorization: admin"],
  ]) {
    assertProblem(await ask(service, "POST /orders HTTP/1.1", lines, "{}"), 400, "request_invalid");
  }
  const list = await send(`${service.url}/orders`, { headers: { authorization: "user" } });
  assert.deepEqual(list.json?.["orders"], []);
});

test("every answer tells browsers to make no more of it than it is", async (t) => {
  const service = await startService(t, { args: ["--step-time", "0s"] });
  const orderId = await acceptedOrderId(service.url);
  await finalOrder(service.url, orderId);
  const host = ["Host: localhost"];
  const user = [...host, "Authorization: user"];
  const answers: [what: string, answer: Answer][] = [
    ["an order that is made", await ask(service, "POST /orders HTTP/1.1", user, "{}")],
    ["an order", await ask(service, `GET /orders/${orderId} HTTP/1.1`, user)],
    ["its history", await ask(service, `GET /orders/${orderId}/history HTTP/1.1`, user)],
    ["orders", await ask(service, "GET /orders HTTP/1.1", user)],
    ["a body that is refused", await ask(service, "POST /orders HTTP/1.1", user, "[]")],
    ["no user", await ask(service, "GET /orders HTTP/1.1", host)],
    ["another user's order", await ask(service, `GET /orders/${orderId} HTTP/1.1`, [...host, "Authorization: x"])],
    ["the heartbeat", await ask(service, "GET /diagnostic/heartbeat HTTP/1.1", host)],
    ["the cluster", await ask(service, "GET /diagnostic/cluster HTTP/1.1", host)],
    ["joining", await ask(service, "POST /cluster/join HTTP/1.1", host, "{}")],
    ["the interface's description", await ask(service, "GET /openapi.json HTTP/1.1", host)],
    ["nothing there", await ask(service, "GET /nothing HTTP/1.1", host)],
    ["a method that is not there", await ask(service, "DELETE /orders HTTP/1.1", host)],
    ["a method that nobody knows", await ask(service, "PURGE /orders HTTP/1.1", host)],
    ["a path that can't be read", await ask(service, "GET /orders/%zz HTTP/1.1", host)],
    ["another host", await ask(service, "GET /orders HTTP/1.1", ["Host: evil.example"])],
    ["no HTTP", await sendBytes(service.url, "hello\r\n\r\n")],
    ["headers that are too long", await ask(service, "GET / HTTP/1.1", [...host, `X: ${"x".repeat(20_000)}`])],
    ["an expectation that nobody knows", await ask(service, "GET /orders HTTP/1.1", [...user, "Expect: tea"])],
    ["the head of an order", await firstOf(t, service, `HEAD /orders/${orderId} HTTP/1.1`)],
    ["an order's events", await firstOf(t, service, `GET /orders/${orderId}/events HTTP/1.1`)],
    ["all events", await firstOf(t, service, "GET /events HTTP/1.1")],
  ];
  for (const [what, { headers }] of answers) {
    assert.equal(headers.get("x-content-type-options"), "nosniff", what);
    assert.equal(headers.get("referrer-policy"), "no-referrer", what);
    assert.match(headers.get("content-security-policy") ?? "", /^default-src 'none';.*frame-ancestors 'none'$/, what);
    assert.doesNotMatch(headers.get("content-security-policy") ?? "", /unsafe|self/, what);
    // Of what is the same for everybody, only whether it has changed is asked.
    const isPublic = what === "the interface's description";
    assert.equal(headers.get("cache-control"), isPublic ? "no-cache" : "no-store", what);
  }
});

test("the page to try the interface runs no scripts but its own files', and can't be framed", async (t) => {
  const service = await startService(t);
  const page = await ask(service, "GET /docs/ HTTP/1.1", ["Host: localhost"]);
  assert.equal(page.status, 200);
  const policy = page.headers.get("content-security-policy") ?? "";
  assert.match(policy, /script-src 'self';/);
  assert.match(policy, /frame-ancestors 'none'/);
  assert.doesNotMatch(page.text, /<script(?![^>]*\ssrc=)/, "a script in the page itself would not run");
  assert.doesNotMatch(page.text, /\son\w+=/, "nor would an attribute's");
  for (const [, file = ""] of page.text.matchAll(/(?:src|href)="\.?\/?([^"]+)"/g)) {
    const answer = await send(`${service.url}/docs/${file.replace(/^docs\//, "")}`);
    assert.equal(answer.status, 200, file);
    assert.equal(answer.headers.get("x-content-type-options"), "nosniff", file);
    assert.match(
      answer.headers.get("content-type") ?? "",
      /^(text\/css|(text|application)\/javascript|image\/png)/,
      file,
    );
  }
});

test("credentials in the place of a user are refused with a hint, and kept nowhere", async (t) => {
  const service = await startService(t, { args: ["--log-level", "trace"] });
  const secret = "c2VjcmV0LXRva2VuLTEyMw";
  for (const value of [
    `Bearer ${secret}`,
    `bearer ${secret}`,
    `BEARER   ${secret}`,
    `Bearer\t${secret}`,
    `Bearer:${secret}`,
    "Bearer",
    `Basic ${secret}==`,
    `basic ${secret}`,
    `Digest username="ann", response="${secret}"`,
    `Negotiate ${secret}`,
    `NTLM ${secret}`,
    `AWS4-HMAC-SHA256 Credential=${secret}`,
    `Token ${secret}`,
    `ApiKey ${secret}`,
    `DPoP ${secret}`,
    `SharedAccessSignature sr=${secret}`,
    `eyJhbGciOiJIUzI1NiJ9.${secret}.sig`,
    `Bearer ${secret.repeat(100)}`,
    `"Bearer ${secret}"`,
    `(Basic ${secret}==)`,
    `,Bearer ${secret}`,
    `\u00a0Bearer ${secret}`,
    `\u200bBearer ${secret}`,
    `Ｂｅａｒｅｒ ${secret}`,
    `Authorization: Bearer ${secret}`,
    `Proxy-Authorization: Basic ${secret}`,
    `ann, Bearer ${secret}`,
    `x-api-key: ${secret}`,
    `OAuth2 ${secret}`,
    `GoogleLogin auth=${secret}`,
    `Splunk ${secret}`,
    `MAC id="ann", mac="${secret}"`,
    `Signature keyId="ann",signature="${secret}"`,
  ]) {
    for (const first of ["POST /orders HTTP/1.1", "GET /orders HTTP/1.1", "GET /events HTTP/1.1"]) {
      const body = first.startsWith("POST") ? "{}" : "";
      const answer = await ask(service, first, ["Host: localhost", `Authorization: ${value}`], body);
      assertProblem(answer, 401, "authorization_required");
      assert.match(String(answer.json?.["detail"]), /holds credentials/);
      assert.ok(!answer.text.includes(secret), "the answer does not repeat it");
      assert.notEqual(answer.headers.get("www-authenticate"), null);
    }
  }
  for (const user of [
    "basic-user",
    "bearer@example.org",
    "Ann Bearer",
    "token_1",
    "Basically",
    "cluster",
    "tenant:ann",
    "tenant 550e8400-e29b-41d4-a716-446655440000",
    "svc order-importer-production-01",
    "CN = Jane Doe",
    "jane, basic user",
    "@hawk",
    "_token",
    "AWS管理者",
    "Ann Basic",
    "Jean-Luc Picard-Ω",
    "tenant:ann",
  ]) {
    const lines = ["Host: localhost", `Authorization: ${user}`];
    assert.equal((await ask(service, "POST /orders HTTP/1.1", lines, "{}")).status, 201, user);
  }
  const refused = await runCommand(["orders", "list", "--url", service.url, "--user", `Bearer ${secret}`]);
  assertRefused(refused, 1, /holds credentials.*Send Authorization: <user>/);
  await service.end("SIGTERM");
  assert.ok(!service.output().includes(secret), "the log does not have it");
  for (const name of readdirSync(service.data)) {
    assert.ok(!readFileSync(join(service.data, name)).includes(secret), name);
  }
});

/** The head of an answer that does not end. */
async function firstOf(t: TestContext, service: Service, first: string): Promise<Answer> {
  const socket = openConnection(service.url);
  t.after(() => socket.destroy());
  let received = "";
  socket.setEncoding("utf8").on("data", (text: string) => (received += text));
  socket.write(`${first}\r\nHost: localhost\r\nAuthorization: user\r\n\r\n`);
  const answer = await waitFor(() => parseAnswer(received), { what: () => `a head comes; it was: ${received}` });
  assert.equal(answer.status, 200);
  return answer;
}
