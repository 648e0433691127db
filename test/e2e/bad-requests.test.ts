/** Requests that are wrong, odd or hostile: each gets the right answer, and the service goes on as if nothing had been. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { Socket } from "node:net";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { DEFAULT_HTTP_LIMITS } from "../../src/http/server.ts";
import { startBareServer } from "../support/bare-server.ts";
import { assertProblem, assertServes } from "../support/checks.ts";
import { acceptedOrderId, type Answer, finalOrder, readOrder, send, submitOrder } from "../support/client.ts";
import { openConnection, parseAnswer, requestHead, sendBytes } from "../support/raw.ts";
import { type Service, startService } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const UNKNOWN_UUID = "00000000-0000-4000-8000-000000000000";
const BODY_LIMIT_BYTES = DEFAULT_HTTP_LIMITS.bodyBytesMax;

test("a body that is not a sound JSON object is refused, and says why", async (t) => {
  const service = await startServiceThatMustServe(t);
  const nested = (levels: number): string => `{"a":${"[".repeat(levels)}${"]".repeat(levels)}}`;
  const refused: readonly [name: string, body: string | Uint8Array, status: number, code: string][] = [
    ["an empty body", "", 400, "body_not_json"],
    ["white space", " \r\n\t", 400, "body_not_json"],
    ["an array", "[]", 400, "body_not_object"],
    ["null", "null", 400, "body_not_object"],
    ["a string", '"order"', 400, "body_not_object"],
    ["a number", "42", 400, "body_not_object"],
    ["a truth value", "true", 400, "body_not_object"],
    ["JSON that is cut off", '{"a":', 400, "body_not_json"],
    ["JSON with something behind it", "{} {}", 400, "body_not_json"],
    ["JSON with a comment", '{"a":1 /* one */}', 400, "body_not_json"],
    ["a key without quotes", "{a:1}", 400, "body_not_json"],
    ["not a number", '{"a":NaN}', 400, "body_not_json"],
    ["a bare control character in a string", '{"a":"\u0000"}', 400, "body_not_json"],
    ["a form", "a=1&b=2", 400, "body_not_json"],
    ["a byte order mark", '\uFEFF{"a":1}', 400, "body_not_json"],
    ["a lone UTF-8 continuation byte", bytes('{"a":"', [0x80], '"}'), 400, "body_not_json"],
    ["an overlong UTF-8 form", bytes('{"a":"', [0xc0, 0xaf], '"}'), 400, "body_not_json"],
    ["a surrogate in UTF-8", bytes('{"a":"', [0xed, 0xa0, 0x80], '"}'), 400, "body_not_json"],
    ["UTF-16", Buffer.from('{"a":1}', "utf16le"), 400, "body_not_json"],
    ["101 levels", nested(100), 400, "body_too_deep"],
    ["100,000 levels", nested(100_000), 400, "body_too_deep"],
    ["100,000 levels that never close", `{"a":${"[".repeat(100_000)}`, 400, "body_too_deep"],
    ["the key __proto__", '{"__proto__":{"admin":true}}', 400, "body_key_refused"],
    ["the key __proto__ with an escape", '{"\\u005f_proto__":{"admin":true}}', 400, "body_key_refused"],
    ["the key __proto__, all escapes", `{"${escaped("__proto__")}":1}`, 400, "body_key_refused"],
    ["the key __proto__ inside", '{"a":[{"b":{"__proto__":1}}]}', 400, "body_key_refused"],
    ["one byte over the limit", bodyOf(BODY_LIMIT_BYTES + 1), 413, "body_too_large"],
  ];
  for (const [name, body, status, code] of refused) {
    await t.test(name, async () => assertProblem(await postOrder(service, body), status, code));
  }
  // A sender of that much still sends when the answer comes: the answer must reach it all the same, each time.
  const sizeBytes = 10 * 1024 ** 2;
  const body = bodyOf(sizeBytes);
  for (const [name, request] of [
    ["10 MiB", `${requestHead("POST", "/orders", { "content-length": String(sizeBytes) })}${body}`],
    [
      "10 MiB without a length said before",
      `${requestHead("POST", "/orders", { "transfer-encoding": "chunked" })}${sizeBytes.toString(16)}\r\n${body}\r\n0\r\n\r\n`,
    ],
  ] as const) {
    await t.test(name, async () => {
      for (let count = 0; count < 10; count++) {
        assertProblem(await sendBytes(service.url, request), 413, "body_too_large");
      }
    });
  }
});

test("a body that is odd but sound JSON is accepted and kept as it came", async (t) => {
  const service = await startServiceThatMustServe(t);
  const accepted: readonly [name: string, body: string][] = [
    ["an empty object", "{}"],
    ["white space around it", ' \r\n{ "a" : 1 }\t'],
    ["NUL in a string and a key", '{"a\\u0000b":"c\\u0000d"}'],
    ["lone surrogates", '{"a":"\\ud800","b":"\\udfff\\ud800"}'],
    ["characters of four bytes", '{"😀":"𝔘nicode \u2028 \u007f"}'],
    ["the same key twice", '{"a":1,"a":2}'],
    ["__proto__ as a value", '{"a":"__proto__"}'],
    ["the keys of every object", '{"constructor":{"prototype":{}},"toString":1,"hasOwnProperty":null,"then":1}'],
    ["an empty key", '{"":""}'],
    ["a number that no float holds", '{"a":1e999,"b":123456789012345678901234567890,"c":-0}'],
    ["100 levels", `{"a":${"[".repeat(99)}${"]".repeat(99)}}`],
    ["200,000 brackets in a string", `{"a":"${"[{".repeat(100_000)}"}`],
    ["100,000 siblings", `{"a":[${"1,".repeat(99_999)}1]}`],
    ["as many bytes as the limit", bodyOf(BODY_LIMIT_BYTES)],
  ];
  for (const [name, body] of accepted) {
    await t.test(name, async () => {
      const answer = await postOrder(service, body);
      assert.equal(answer.status, 201, answer.text);
      const orderId = String(answer.json?.["order_id"]);
      assert.equal((await finalOrder(service.url, orderId)).status, "completed");
      assert.equal(storedBody(service, orderId), body);
    });
  }
  await t.test("of two values for one key the last one counts", async () => {
    const last = await acceptedOrderId(service.url, '{"fail_at":"Scheduling","fail_at":"Processing"}');
    const failed = (await finalOrder(service.url, last)).steps.find(({ error }) => error !== undefined);
    assert.equal(failed?.step_name, "Processing");
  });
});

test("the content type may be JSON, a form (as curl says by itself) or nothing, and no other", async (t) => {
  const service = await startServiceThatMustServe(t);
  const accepted = [
    null,
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON ;charset=UTF-8",
    "application/vnd.x+json",
    "application/problem+json",
    "application/x-www-form-urlencoded",
    "application/x-www-form-urlencoded; charset=utf-8",
  ];
  const refused = [
    "text/plain",
    "text/xml",
    "application/xml",
    "multipart/form-data; boundary=x",
    "application/jsonp",
    "application/octet-stream",
    "text/plain; x=application/json",
    "nonsense",
    "*/*",
  ];
  for (const type of accepted) {
    await t.test(`${type ?? "no content type"} is accepted`, async () => {
      const answer = await postOrder(service, "{}", type === null ? {} : { "content-type": type });
      assert.equal(answer.status, 201, answer.text);
    });
  }
  for (const type of refused) {
    await t.test(`${type} is refused`, async () => {
      const answer = await postOrder(service, "{}", { "content-type": type });
      assertProblem(answer, 415, "media_type_unsupported");
    });
  }
});

test("a request that needs a user and names none, or an endless one, is refused", async (t) => {
  const service = await startServiceThatMustServe(t);
  const orderId = await acceptedOrderId(service.url);
  const needsUser: readonly [method: string, path: string, body: string | null][] = [
    ["POST", "/orders", "{}"],
    ["GET", `/orders/${orderId}`, null],
    ["POST", "/service/transfer", JSON.stringify({ service_id: UNKNOWN_UUID })],
  ];
  for (const [method, path, body] of needsUser) {
    const ask = (headers: Record<string, string>): Promise<Answer> =>
      send(`${service.url}${path}`, { method, body: body === null ? null : Buffer.from(body), headers });
    await t.test(`${method} ${path.replace(orderId, ":order_id")} without Authorization`, async () => {
      const answer = await ask({});
      assertProblem(answer, 401, "authorization_required");
      assert.ok(answer.headers.has("www-authenticate"), "says how to authorize");
    });
    await t.test(`${method} ${path.replace(orderId, ":order_id")} with a blank Authorization`, async () => {
      const answer = await ask({ authorization: " \t " });
      assertProblem(answer, 401, "authorization_required");
      assert.ok(answer.headers.has("www-authenticate"), "says how to authorize");
    });
    await t.test(`${method} ${path.replace(orderId, ":order_id")} with an Authorization of 5 KB`, async () =>
      assertProblem(await ask({ authorization: "u".repeat(5_000) }), 431, "headers_too_large"),
    );
    await t.test(`${method} ${path.replace(orderId, ":order_id")} with an Authorization of 17 KiB`, async () =>
      assertProblem(await ask({ authorization: "u".repeat(17 * 1024) }), 431, "headers_too_large"),
    );
  }
  await t.test("a user's name of any sort of bytes is a name like others", async () => {
    const authorization = "Zo\u00eb \u00e9\u00ff '; DROP TABLE orders; --";
    const answer = await submitOrder(service.url, {}, { authorization });
    assert.equal(answer.status, 201, answer.text);
    const url = `${service.url}/orders/${String(answer.json?.["order_id"])}`;
    assert.equal((await send(url, { headers: { authorization } })).status, 200);
    assertProblem(await send(url, { headers: { authorization: "Zoe" } }), 404, "order_not_found");
  });
});

test("an order is shown to its user only, and what is no order's id is not found", async (t) => {
  const service = await startServiceThatMustServe(t);
  const orderId = await acceptedOrderId(service.url);
  const notFound: readonly [name: string, id: string, user: string][] = [
    ["another user's order", orderId, "other"],
    ["another user's order, the user's name in other letters", orderId, "USER"],
    ["an id that no order has", UNKNOWN_UUID, "user"],
    ["an id that is no UUID", "1", "user"],
    ["an id with something before it", `x${orderId}`, "user"],
    ["an id with something behind it", `${orderId}%00`, "user"],
    ["an id without hyphens", orderId.replaceAll("-", ""), "user"],
    ["an id that is SQL", "'%20OR%201=1%20--", "user"],
    ["an id of 200 characters", "a".repeat(200), "user"],
    ["an id of 5,000 characters", "a".repeat(5_000), "user"],
  ];
  for (const [name, id, authorization] of notFound) {
    await t.test(name, async () => {
      const answer = await send(`${service.url}/orders/${id}`, { headers: { authorization } });
      assertProblem(answer, 404, "order_not_found");
      assert.ok(answer.text.length < 1_000, "the answer does not grow with the question");
    });
  }
  await t.test("the id in capital letters is the same id", async () => {
    assert.equal((await readOrder(service.url, orderId.toUpperCase())).order_id, orderId);
  });
});

test("a path that leads nowhere, out of the service or is no path is refused", async (t) => {
  const service = await startServiceThatMustServe(t);
  const paths: readonly [path: string, status: number, code: string][] = [
    ["/", 404, "route_not_found"],
    ["/nothing", 404, "route_not_found"],
    ["/orders/", 404, "order_not_found"],
    ["//orders", 404, "route_not_found"],
    ["/ORDERS", 404, "route_not_found"],
    ["/orders/a/b", 404, "route_not_found"],
    ["/diagnostic", 404, "route_not_found"],
    ["/orders/../diagnostic/heartbeat", 404, "route_not_found"],
    ["/orders/../../../../etc/passwd", 404, "route_not_found"],
    ["/../../etc/passwd", 404, "route_not_found"],
    ["/orders/..%2f..%2f..%2fetc%2fpasswd", 404, "order_not_found"],
    ["/docs/../../package.json", 404, "route_not_found"],
    ["/docs/static/../../../package.json", 404, "route_not_found"],
    ["/docs/static/..%2f..%2f..%2fpackage.json", 404, "route_not_found"],
    ["/docs/static/%2e%2e/%2e%2e/package.json", 404, "route_not_found"],
    ["/orders/%00", 404, "order_not_found"],
    ["/orders/%", 400, "request_invalid"],
    ["/orders/%zz", 400, "request_invalid"],
    ["/orders/%c3%28", 400, "request_invalid"],
    ["/%e0%a4%a", 400, "request_invalid"],
    [`/${"a".repeat(20_000)}`, 431, "headers_too_large"],
  ];
  for (const [path, status, code] of paths) {
    await t.test(path.slice(0, 60), async () =>
      assertProblem(await sendBytes(service.url, requestHead("GET", path)), status, code),
    );
  }
  await t.test("a query that is nonsense is not looked at", async () => {
    const path = "/diagnostic/heartbeat?__proto__[x]=1&a=%zz&&&=?";
    assert.equal((await sendBytes(service.url, requestHead("GET", path))).status, 200);
  });
});

test("a method that a resource does not have is refused with those that it has", async (t) => {
  const service = await startServiceThatMustServe(t);
  const methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"];
  const resources: readonly [path: string, allowed: readonly string[]][] = [
    ["/orders", ["POST", "GET", "HEAD"]],
    [`/orders/${UNKNOWN_UUID}/events`, ["GET"]],
    [`/orders/${UNKNOWN_UUID}/cancel`, ["POST"]],
    ["/events", ["GET"]],
    [`/orders/${UNKNOWN_UUID}`, ["GET", "HEAD"]],
    ["/service/transfer", ["POST"]],
    ["/diagnostic/heartbeat", ["GET", "HEAD"]],
    ["/diagnostic/cluster", ["GET", "HEAD"]],
  ];
  for (const [path, allowed] of resources) {
    for (const method of methods.filter((one) => !allowed.includes(one))) {
      await t.test(`${method} ${path}`, async () => {
        const head = requestHead(method, path, { connection: "close", "content-length": "0" });
        const answer = await sendBytes(service.url, head);
        if (method === "HEAD") assert.equal(answer.status, 405);
        else assertProblem(answer, 405, "method_not_allowed");
        assert.equal(answer.headers.get("allow"), allowed.join(", "));
      });
    }
  }
  await t.test("a method that HTTP does not have", async () =>
    assertProblem(await sendBytes(service.url, requestHead("BREW", "/orders")), 400, "request_invalid"),
  );
});

test("an Idempotency-Key makes one order of the same request, and is refused with another", async (t) => {
  const service = await startServiceThatMustServe(t);
  const submit = async (key: string, body: string, user = "user"): Promise<string> => {
    const answer = await submitOrder(service.url, body, { "idempotency-key": key, authorization: user });
    assert.equal(answer.status, 201, answer.text);
    return String(answer.json?.["order_id"]);
  };

  await t.test("the same user, key and body give the same order and the same answer", async () => {
    const [first, second] = [
      await submitOrder(service.url, { a: 1 }, { "idempotency-key": "same" }),
      await submitOrder(service.url, { a: 1 }, { "idempotency-key": "same" }),
    ];
    assert.equal(first.status, 201);
    assert.equal(second.status, 201);
    assert.deepEqual(second.json, first.json);
    assert.equal(second.headers.get("location"), first.headers.get("location"));
  });
  await t.test("20 requests that race make one order", async () => {
    const ids = await Promise.all(Array.from({ length: 20 }, () => submit("race", '{"race":true}')));
    assert.equal(new Set(ids).size, 1);
    assert.equal(countOrders(service, "idempotency_key = 'race'"), 1);
  });
  await t.test("of 20 requests that race with 20 bodies one makes an order", async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, index) => submitOrder(service.url, { index }, { "idempotency-key": "fight" })),
    );
    const refused = answers.filter((answer) => answer.status !== 201);
    assert.equal(refused.length, 19);
    for (const answer of refused) assertProblem(answer, 422, "idempotency_key_reused");
    assert.equal(countOrders(service, "idempotency_key = 'fight'"), 1);
  });
  await t.test("the same key with another body is refused, also when the order is final", async () => {
    const orderId = await submit("reused", '{"a":1}');
    assertProblem(
      await submitOrder(service.url, '{"a":2}', { "idempotency-key": "reused" }),
      422,
      "idempotency_key_reused",
    );
    await finalOrder(service.url, orderId);
    assertProblem(
      await submitOrder(service.url, '{"a":2}', { "idempotency-key": "reused" }),
      422,
      "idempotency_key_reused",
    );
  });
  await t.test("the same key of another user makes another order", async () => {
    assert.notEqual(await submit("shared", "{}", "other"), await submit("shared", "{}"));
  });
  await t.test("a body that says the same in other words is the same body", async () => {
    const orderId = await submit("words", '{"a":1,"b":{"c":[1,2],"d":"é"}}');
    assert.equal(await submit("words", ' {\n"b" : {"d":"\\u00e9", "c":[1, 2.0]}, "a":1e0 }'), orderId);
  });
  await t.test("a list in another order is another body", async () => {
    await submit("list", '{"a":[1,2]}');
    assertProblem(
      await submitOrder(service.url, '{"a":[2,1]}', { "idempotency-key": "list" }),
      422,
      "idempotency_key_reused",
    );
  });
  await t.test("255 characters are a key", async () => {
    assert.equal(await submit("k".repeat(255), "{}"), await submit("k".repeat(255), "{}"));
  });
  for (const [name, key] of [
    ["an empty key", ""],
    ["a key of 256 characters", "k".repeat(256)],
    ["a key of 5,000 characters", "k".repeat(5_000)],
  ] as const) {
    await t.test(`${name} is refused`, async () =>
      assertProblem(await submitOrder(service.url, {}, { "idempotency-key": key }), 400, "request_invalid"),
    );
  }
  await t.test("a byte order mark and a used key do no harm", async () => {
    for (const body of ['\uFEFF{"a":1}', '\uFEFF{"a":2}']) {
      assertProblem(await postOrder(service, body, { "idempotency-key": "mark" }), 400, "body_not_json");
    }
  });
});

test("a transfer of orders that can't be is refused", async (t) => {
  const service = await startServiceThatMustServe(t);
  const heartbeat = await send(`${service.url}/diagnostic/heartbeat`);
  const ownId = String(heartbeat.json?.["service_id"]);
  const cases: readonly [name: string, body: unknown, status: number, code: string][] = [
    ["of the node itself, which is alive", { service_id: ownId }, 409, "service_alive"],
    ["of a service that nobody knows", { service_id: UNKNOWN_UUID }, 404, "service_not_found"],
    ["of what is no service_id", { service_id: "../x" }, 404, "service_not_found"],
    ["of an empty service_id", { service_id: "" }, 404, "service_not_found"],
    ["without a service_id", {}, 400, "request_invalid"],
    ["with a number as service_id", { service_id: 42 }, 400, "request_invalid"],
    ["with null as service_id", { service_id: null }, 400, "request_invalid"],
    ["with a list as service_id", { service_id: [ownId] }, 400, "request_invalid"],
    ["with a list as body", [ownId], 400, "body_not_object"],
  ];
  for (const [name, body, status, code] of cases) {
    await t.test(name, async () => {
      const answer = await send(`${service.url}/service/transfer`, {
        method: "POST",
        body: JSON.stringify(body),
        headers: { authorization: "user", "content-type": "application/json" },
      });
      assertProblem(answer, status, code);
    });
  }
});

test("bytes that are no HTTP request are refused", async (t) => {
  const service = await startServiceThatMustServe(t);
  const order = (headers: Record<string, string>, body = "{}"): string =>
    `${requestHead("POST", "/orders", headers)}${body}`;
  const junk: readonly [name: string, bytes: string | Uint8Array][] = [
    ["the start of a TLS connection", Uint8Array.of(0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03)],
    ["the start of an HTTP/2 connection", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    ["NUL bytes", new Uint8Array(1_000)],
    ["letters", "x".repeat(1_000)],
    ["another version of HTTP", "GET /diagnostic/heartbeat HTTP/3.7\r\nHost: localhost\r\n\r\n"],
    ["lines that end in LF alone", "GET /diagnostic/heartbeat HTTP/1.1\nHost: localhost\n\n"],
    ["no Host", "GET /diagnostic/heartbeat HTTP/1.1\r\n\r\n"],
    ["NUL in a header", "GET /diagnostic/heartbeat HTTP/1.1\r\nHost: localhost\r\nX: a\0b\r\n\r\n"],
    ["a space before a header's colon", "GET /diagnostic/heartbeat HTTP/1.1\r\nHost: localhost\r\nX : a\r\n\r\n"],
    ["a header over two lines", "GET /diagnostic/heartbeat HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b: c\r\n\r\n"],
    [
      "a length and chunks",
      order({ "content-length": "2", "transfer-encoding": "chunked" }, "0\r\n\r\nGET /x HTTP/1.1"),
    ],
    ["two lengths", order({ "content-length": "2", "Content-Length": "3" })],
    ["a length below nothing", order({ "content-length": "-2" })],
    ["a length with a sign", order({ "content-length": "+2" })],
    ["a length that is no number", order({ "content-length": "0x2" })],
    ["a length beyond all bounds", order({ "content-length": "99999999999999999999999" })],
    ["a chunk of no size", order({ "transfer-encoding": "chunked" }, "zz\r\n{}\r\n0\r\n\r\n")],
    ["a chunk of another size than said", order({ "transfer-encoding": "chunked" }, "1\r\n{}\r\n0\r\n\r\n")],
    ["an unknown transfer encoding", order({ "transfer-encoding": "gzip" })],
    ["chunked, but not last", order({ "transfer-encoding": "chunked, identity" })],
  ];
  for (const [name, sent] of junk) {
    await t.test(name, async () => assertProblem(await sendBytes(service.url, sent), 400, "request_invalid"));
  }
  await t.test("headers beyond 16 KiB together", async () => {
    const head = requestHead("GET", "/diagnostic/heartbeat").replace("\r\n\r\n", `\r\n${"a: b\r\n".repeat(4_000)}\r\n`);
    assertProblem(await sendBytes(service.url, head), 431, "headers_too_large");
  });
  await t.test("more than 128 headers", async () => {
    const head = (count: number): string =>
      requestHead("GET", "/diagnostic/heartbeat").replace("\r\n\r\n", `\r\n${"a: b\r\n".repeat(count - 2)}\r\n`);
    assert.equal((await sendBytes(service.url, head(128))).status, 200);
    for (const count of [129, 130, 200, 2_000])
      assertProblem(await sendBytes(service.url, head(count)), 431, "headers_too_large");
  });
  await t.test("what is read of many or long headers is read all the same", async () => {
    const others = Object.fromEntries(Array.from({ length: 60 }, (_, index) => [`x-other-${index}`, "x".repeat(100)]));
    const headers = { ...others, "idempotency-key": "one", "content-type": "application/json", "content-length": "2" };
    const sent = `${requestHead("POST", "/orders", headers)}{}`;
    const [first, second] = [await sendBytes(service.url, sent), await sendBytes(service.url, sent)];
    assert.deepEqual([first.status, second.status, second.text], [201, 201, first.text]);
    assertProblem(await sendBytes(service.url, sent.replace("{}", "[]")), 400, "body_not_object");
    const twice = sent.replace("x-other-0: ", "authorization: other\r\nx-other-0: ");
    assertProblem(await sendBytes(service.url, twice), 400, "request_invalid");
    const text = sent.replace("application/json", "text/plain");
    assertProblem(await sendBytes(service.url, text), 415, "media_type_unsupported");
  });
  await t.test("an order whose sender leaves before its end is not taken in", async () => {
    const before = countOrders(service);
    const cut = order({ "content-length": "20" }, "{}");
    assertProblem(await sendBytes(service.url, cut, "leave"), 400, "request_invalid");
    assert.equal(countOrders(service), before);
  });
  await t.test("senders that vanish with their request half sent do no harm", async () => {
    const sockets = Array.from({ length: 100 }, () => openConnection(service.url));
    await Promise.all(sockets.map((socket) => once(socket, "connect")));
    for (const socket of sockets) socket.write(order({ "content-length": "20" }, "{"), () => socket.resetAndDestroy());
    await Promise.all(sockets.map((socket) => waitFor(() => socket.closed, { what: "the connection is gone" })));
  });
  await t.test("500 requests in one go on one connection get 500 answers", async () => {
    const socket = openConnection(service.url);
    const one = requestHead("GET", "/diagnostic/heartbeat");
    let received = "";
    socket.setEncoding("utf8").on("data", (text: string) => (received += text));
    socket.end(one.repeat(500));
    await once(socket, "end");
    assert.equal(received.split("HTTP/1.1 200 OK").length - 1, 500);
  });
});

test("a request that comes too slowly is ended with 408, and is not taken in", { concurrency: true }, async (t) => {
  const { url, submissions } = await startServerWithShortLimits(t, 300, 600);
  const slow: readonly [name: string, start: string, drop: string][] = [
    ["headers that never end", "POST /orders HTTP/1.1\r\nHost: localhost\r\n", ""],
    ["headers that come one by one", "POST /orders HTTP/1.1\r\nHost: localhost\r\n", "x: y\r\n"],
    ["a body that never comes", requestHead("POST", "/orders", { "content-length": "100000" }), ""],
    ["a body that comes byte by byte", requestHead("POST", "/orders", { "content-length": "100000" }), " "],
  ];
  await Promise.all([
    ...slow.map(([name, start, drop]) =>
      t.test(name, async (tt) => {
        const { socket, received, closed } = listenTo(tt, url);
        socket.write(start);
        const dripping = setInterval(() => {
          if (drop !== "" && socket.writable) socket.write(drop);
        }, 20);
        tt.after(() => clearInterval(dripping));
        await waitFor(closed, { deadlineMs: 20_000, what: "the server ends the connection" });
        const answer = parseAnswer(received());
        assert.ok(answer !== null, `it says why first; it said: ${received()}`);
        assertProblem(answer, 408, "request_timeout");
      }),
    ),
    t.test("a connection on which nothing comes is closed", async (tt) => {
      const { closed } = listenTo(tt, url);
      await waitFor(closed, { deadlineMs: 20_000, what: "the server ends the connection" });
    }),
  ]);
  assert.equal(submissions(), 0);
  assert.equal((await send(`${url}/diagnostic/heartbeat`)).status, 200);
});

test("a request that was answered before it came whole gets no second answer", { concurrency: true }, async (t) => {
  const { url } = await startServerWithShortLimits(t, 300, 600);
  const chunked = { "transfer-encoding": "chunked" };
  const noUser = requestHead("POST", "/orders", chunked).replace("authorization: user\r\n", "");
  const requests: readonly [name: string, head: string, after: string, status: number][] = [
    ["of nothing there, with a bad chunk", requestHead("POST", "/nope", chunked), "zz\r\n{}\r\n", 404],
    ["of nobody, with a bad chunk", noUser, "5\r\n{}\r\n", 401],
    ["of another method, with a bad chunk", requestHead("PUT", "/orders", chunked), "1\r\n{}\r\n", 405],
    ["that needs no body, with a bad chunk", requestHead("GET", "/diagnostic/heartbeat", chunked), "-1\r\n", 200],
    ["whose body never comes", requestHead("POST", "/nope", { "content-length": "100000" }), "{", 404],
    ["with a body that is too large", requestHead("POST", "/orders", { "content-length": "99000000" }), "{", 413],
  ];
  await Promise.all(
    requests.map(([name, head, after, status]) =>
      t.test(name, async (tt) => {
        const { socket, received, closed } = listenTo(tt, url);
        socket.write(head);
        await waitFor(() => parseAnswer(received()) !== null, { what: "it is answered" });
        if (socket.writable) socket.write(after);
        socket.once("end", () => socket.end());
        await waitFor(closed, { what: "the server ends the connection" });
        assert.deepEqual(received().match(/HTTP\/1\.1 \d{3}/g), [`HTTP/1.1 ${status}`]);
      }),
    ),
  );
});

test("10,000 connections on which nothing comes don't keep the service from its work", async (t) => {
  const connectionsMax = 10_000;
  const filesMax = openFilesMax();
  if (filesMax < connectionsMax + 1_000) {
    t.skip(`a process may have ${filesMax} files open here; needs ${connectionsMax + 1_000} (ulimit -n)`);
    return;
  }
  const service = await startServiceThatMustServe(t);
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  while (sockets.length < connectionsMax) {
    const chunk = Array.from({ length: 500 }, () => openConnection(service.url));
    sockets.push(...chunk);
    await Promise.all(chunk.map((socket) => once(socket, "connect")));
  }
  await assertServes(service.url);
  assert.equal(sockets.filter((socket) => socket.readyState === "open").length, connectionsMax);
});

/** A service that is asked after each subtest, and at the end, whether it still works. */
async function startServiceThatMustServe(t: TestContext): Promise<Service> {
  const service = await startService(t, { args: ["--step-time", "0s"] });
  t.afterEach(() => assertServes(service.url));
  return service;
}

/** Sends a body byte for byte, with no content type unless one is given. */
function postOrder(service: Service, body: string | Uint8Array, headers: Record<string, string> = {}): Promise<Answer> {
  return send(`${service.url}/orders`, {
    method: "POST",
    body: Buffer.from(body),
    headers: { authorization: "user", ...headers },
  });
}

function bytes(...parts: (string | number[])[]): Uint8Array {
  return Buffer.concat(parts.map((part) => (typeof part === "string" ? Buffer.from(part) : Buffer.from(part))));
}

/** Each character as JSON's escape. */
function escaped(text: string): string {
  return Array.from(text, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`).join("");
}

/** A JSON object of that many bytes. */
function bodyOf(sizeBytes: number): string {
  const frame = '{"a":""}';
  return `{"a":"${"x".repeat(sizeBytes - frame.length)}"}`;
}

function storedBody(service: Service, orderId: string): unknown {
  return query(service, "SELECT body AS value FROM order_bodies WHERE order_id = ?", orderId);
}

function countOrders(service: Service, condition = "true"): unknown {
  return query(service, `SELECT count(*) AS value FROM orders WHERE ${condition}`);
}

function query(service: Service, sql: string, ...values: string[]): unknown {
  const db = new DatabaseSync(join(service.data, "orders.sqlite"), { readOnly: true });
  try {
    return db.prepare(sql).get(...values)?.["value"];
  } finally {
    db.close();
  }
}

/** The HTTP server alone, in this process, with limits that a test can wait for. */
async function startServerWithShortLimits(
  t: TestContext,
  headersTimeoutMs: number,
  requestTimeoutMs: number,
): Promise<{ url: string; submissions: () => number }> {
  let submissions = 0;
  const { url } = await startBareServer(t, {
    limits: { ...DEFAULT_HTTP_LIMITS, headersTimeoutMs, requestTimeoutMs },
    submit: () => {
      submissions++;
      return Promise.resolve({ kind: "shutting_down" });
    },
  });
  return { url, submissions: () => submissions };
}

function listenTo(t: TestContext, url: string): { socket: Socket; received: () => string; closed: () => boolean } {
  const socket = openConnection(url);
  t.after(() => socket.destroy());
  let received = "";
  socket.setEncoding("utf8").on("data", (text: string) => (received += text));
  socket.on("error", () => undefined); // a reset is a way to be closed
  return { socket, received: () => received, closed: () => socket.closed };
}

/** How many files a process may have open (`ulimit -n`). */
function openFilesMax(): number {
  const report = process.report.getReport() as { userLimits?: { open_files?: { soft?: number | string } } };
  const soft = report.userLimits?.open_files?.soft;
  return typeof soft === "number" ? soft : Infinity;
}
