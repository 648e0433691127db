import assert from "node:assert/strict";
import type { IncomingMessage } from "node:http";
import { test } from "node:test";
import { isLoopbackCaller } from "./loopback.ts";
import { HEADERS_MAX, hasTooManyHeaders, trimHead } from "./request-head.ts";

function requestWith(headers: readonly (readonly [string, string])[], url = "/"): IncomingMessage {
  return {
    url,
    httpVersion: "1.1",
    socket: { remoteAddress: "127.0.0.1" },
    rawHeaders: headers.flat(),
    headers: Object.fromEntries(headers.map(([name, value]) => [name.toLowerCase(), value])),
  } as unknown as IncomingMessage;
}

function isFromHere(raw: IncomingMessage): boolean {
  const request = { raw, headers: raw.headers } as unknown as Parameters<typeof isLoopbackCaller>[0];
  return isLoopbackCaller(request);
}

const HOST = ["Host", "localhost:8080"] as const;
const PADDING = ["X-Padding", "x".repeat(2_000)] as const;
const LONG_NAME = ["User-Agent", "x".repeat(2_000)] as const;

test("a small head stays as it is, and counts nothing", () => {
  const request = requestWith([HOST, ["X-Other", "1"]]);
  assert.equal(trimHead(request), 0);
  assert.deepEqual(request.rawHeaders, [...HOST, "X-Other", "1"]);
});

test("of a large head stays what is read, and what is long of that counts", () => {
  const request = requestWith([HOST, PADDING, ["Authorization", "ann"], ["Idempotency-Key", "k".repeat(2_000)]]);
  assert.equal(
    trimHead(request),
    "/".length + 2_000 + "HostAuthorizationIdempotency-Keylocalhost:8080ann".length - 1_024,
  );
  assert.deepEqual(Object.keys(request.headers), ["host", "authorization", "idempotency-key", "x-padding"]);
  assert.equal(request.headers["x-padding"], "");
  assert.ok(!request.rawHeaders.includes("X-Padding"));
});

test("that somebody else has asked is seen of a large head, too", () => {
  for (const name of [
    "Origin",
    "Via",
    "X-Forwarded-For",
    "Sec-Fetch-Site",
    "CF-Connecting-IP",
    "Referer",
    "Forwarded",
    "CDN-Loop",
    "Cookie",
    "X-Amzn-Trace-Id",
    "Client-IP",
  ]) {
    assert.equal(isFromHere(requestWith([HOST, [name, "y"]])), false, name);
    const request = requestWith([HOST, LONG_NAME, [name, "y".repeat(3_000)]]);
    assert.equal(trimHead(request), 0);
    assert.equal(isFromHere(request), false, name);
  }
  assert.equal(isFromHere(requestWith([HOST], "http://8.8.8.8/cluster/join")), false);
  const own = requestWith([HOST, LONG_NAME]);
  trimHead(own);
  assert.equal(isFromHere(own), true);
});

test("a header that is there twice is there twice afterwards, and one that is there often no more", () => {
  const often = Array.from({ length: 50 }, () => ["Authorization", "ann"] as const);
  const request = requestWith([HOST, ...often]);
  trimHead(request);
  assert.deepEqual(request.rawHeaders, [...HOST, "Authorization", "ann", "Authorization", "ann"]);
});

test("too many headers are noticed", () => {
  const many = (count: number): IncomingMessage => {
    const request = requestWith(Array.from({ length: count }, (_, at) => [`x-${at}`, "1"] as const));
    trimHead(request);
    return request;
  };
  assert.equal(hasTooManyHeaders(many(HEADERS_MAX)), false);
  assert.equal(hasTooManyHeaders(many(HEADERS_MAX + 1)), true);
});
