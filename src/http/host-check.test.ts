import assert from "node:assert/strict";
import { test } from "node:test";
import { allowedHost, hostOf, hostRule, refusalOf } from "./host-check.ts";

const rule = hostRule(["127.0.0.1", "orders.Example.org"], ["shop.example.com", ".internal.example.net"]);

/** The code of the refusal, or "taken". */
function outcomeOf(host: string | null, url = "/orders", httpVersion = "1.1"): string {
  const rawHeaders = host === null ? [] : ["Host", host];
  return refusalOf({ url, httpVersion, rawHeaders }, rule)?.code ?? "taken";
}

test("loopback names, own names, allowed names and IP addresses may be named, with any port or none", () => {
  const taken = [
    "localhost",
    "LOCALHOST:8080",
    "localhost.",
    "localhost.:80",
    "localhost:", // an empty port is a port (RFC 3986, 3.2.3)
    "localhost:99999",
    "app.localhost",
    "127.0.0.1",
    "127.0.0.1:8080",
    "10.1.2.3",
    "0.0.0.0:8080",
    "[::1]",
    "[::1]:8080",
    "[2001:DB8::1]:80",
    "[::ffff:127.0.0.1]",
    "orders.example.org",
    "ORDERS.example.org.:8080",
    "shop.example.com",
    "internal.example.net",
    "a.b.internal.example.net:1",
  ];
  for (const host of taken) assert.equal(outcomeOf(host), "taken", host);
});

test("any other name is refused, also one that looks like an address or like an allowed name", () => {
  const refused = [
    "evil.example",
    "evil.example:8080",
    "localhost.evil.example",
    "notlocalhost",
    "127.0.0.1.evil.example",
    "127.0.0.1.nip.io",
    "10-1-2-3.example",
    "2130706433", // browsers make 127.0.0.1 of these before they send them, so that here they are names
    "0x7f000001",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "127.1",
    "127.0.0.01",
    "127.0.0.1..",
    "localhost..",
    ".",
    "",
    ":8080",
    "sub.shop.example.com",
    "shop.example.com.evil.example",
    "xinternal.example.net",
    "xn--lcalhost-54a", // lócalhost
    "_",
  ];
  for (const host of refused) assert.equal(outcomeOf(host), "host_not_allowed", host);
});

test("a Host that is of no valid form is refused as such", () => {
  const malformed = [
    "user@localhost",
    "localhost@evil.example",
    "user:password@localhost",
    "local host",
    " localhost",
    "localhost\t",
    "localhost/",
    "localhost/evil.example",
    "localhost?",
    "localhost#x",
    "localhost\\evil.example",
    "http://localhost",
    "localhost:8080:80",
    "localhost:http",
    "localhost:-1",
    "localhost:8080 ",
    "localhost, evil.example",
    "localhost%00",
    "%6cocalhost",
    "lócalhost",
    "::1",
    "[::1",
    "::1]",
    "[]",
    "[127.0.0.1]",
    "[::1]evil.example",
    "[::1]:80:80",
    "[::1%eth0]",
    "[::1%25eth0]:80",
    "[v1.x]",
    "*",
    "<script>",
  ];
  for (const host of malformed) assert.equal(outcomeOf(host), "request_invalid", host);
});

test("the host in a request's target counts, too", () => {
  const refused = [
    "http://evil.example/orders",
    "HTTP://evil.example/orders",
    "https://evil.example:8080/",
    "http://evil.example",
    "http://evil.example?localhost/",
    "http://evil.example#localhost/",
    "ws://evil.example/",
    "x+y.z-1://evil.example/",
    "http:///orders",
    "http://localhost.evil.example/health/live",
    "http://evil.example/health/live",
  ];
  for (const url of refused) {
    assert.equal(outcomeOf("localhost", url), "host_not_allowed", url);
    assert.equal(outcomeOf(null, url, "1.0"), "host_not_allowed", url);
  }
  assert.equal(outcomeOf("localhost", "http://user@localhost/orders"), "request_invalid");
  assert.equal(outcomeOf("localhost", "http://localhost:8080/orders"), "taken");
  assert.equal(outcomeOf("evil.example", "http://localhost:8080/orders"), "host_not_allowed");
});

test("HTTP/1.0 without Host, and the paths of probes under any name, are taken", () => {
  assert.equal(outcomeOf(null, "/orders", "1.0"), "taken");
  assert.equal(outcomeOf("evil.example", "/orders", "1.0"), "host_not_allowed");
  assert.equal(outcomeOf(null), "request_invalid");
  assert.equal(outcomeOf("evil.example", "/health/live"), "taken");
  assert.equal(outcomeOf("evil.example", "/healthy"), "host_not_allowed");
  assert.equal(outcomeOf("evil.example", "/HEALTH/live"), "host_not_allowed");
});

test("two headers Host or Authorization are refused, whatever is in them and however they are written", () => {
  for (const rawHeaders of [
    ["Host", "localhost", "Host", "localhost"],
    ["Host", "localhost", "hOST", "evil.example"],
    ["Host", "localhost", "Authorization", "ann", "X", "y", "authorization", "bob"],
    ["Host", "localhost", "Authorization", "", "AUTHORIZATION", ""],
  ]) {
    for (const url of ["/orders", "/health/live"]) {
      const refusal = refusalOf({ url, httpVersion: "1.1", rawHeaders }, rule);
      assert.equal(refusal?.code, "request_invalid", rawHeaders.join());
      assert.match(refusal.message, /is there twice/);
    }
  }
  const once = ["X", "1", "x", "2", "Host", "localhost", "Authorization", "ann", "Proxy-Authorization", "b"];
  assert.equal(refusalOf({ url: "/", httpVersion: "1.1", rawHeaders: once }, rule), null);
});

test("a refusal names the host, shortened, and the option that allows it", () => {
  const detail = refusalOf({ url: "/", httpVersion: "1.1", rawHeaders: ["Host", "Alias:80"] }, rule)?.message ?? "";
  assert.match(detail, /"alias".*--allowed-hosts alias\./);
  const long = refusalOf({ url: "/", httpVersion: "1.1", rawHeaders: ["Host", "a".repeat(9_000)] }, rule)?.message;
  assert.ok(long !== undefined && long.length < 500);
});

test("allowed hosts are names, written as browsers send them, and domains with a dot before them", () => {
  assert.equal(allowedHost("Shop.Example.com."), "shop.example.com");
  assert.equal(allowedHost(".Example.com"), ".example.com");
  assert.equal(allowedHost("bücher.example"), "xn--bcher-kva.example");
  assert.equal(allowedHost("my_service"), "my_service");
  for (const text of ["", ".", "*", "*.example.com", "http://a", "a/b", "a:", "user@a", "a b"]) {
    assert.equal(allowedHost(text), null, text);
  }
  assert.equal(hostOf("[::1]:80"), "::1");
});
