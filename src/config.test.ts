import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { type Config, readInvocation, UsageError } from "./config.ts";

function configOf(args: readonly string[], environment: Record<string, string> = {}): Config {
  const invocation = readInvocation(args, environment, "1.2.3");
  assert.ok(invocation.kind === "run");
  return invocation.config;
}

function withFile(text: string, body: (path: string) => void): void {
  const folder = mkdtempSync(join(tmpdir(), "order-process-test-"));
  try {
    const path = join(folder, "config.yaml");
    writeFileSync(path, text);
    body(path);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test("without any configuration the defaults hold", () => {
  assert.deepEqual(configOf([]), {
    host: "127.0.0.1",
    port: 8080,
    data: "./data",
    store: null,
    storeCredentials: { username: null, password: null },
    operators: new Set(),
    pipelines: null,
    requireDurable: false,
    shareStore: false,
    join: null,
    advertise: null,
    allowedHosts: new Set(),
    nodeTtlMs: 5_000,
    crashesMax: 3,
    blockedLimitMs: null,
    stepTimeMs: 5_000,
    failureRate: 0,
    graceMs: 10_000,
    inFlightMax: 200_000,
    memoryLimitBytes: null,
    bodyBytesMax: 262_144,
    logLevel: "info",
    logFormat: "logfmt",
  });
});

test("an option beats its environment variable, which beats the file, which beats the default", () => {
  withFile("port: 1001\nstep-time: 1m\nlog-level: debug\n", (path) => {
    const args = ["--config", path];
    const environment = { ORDER_PROCESS_PORT: "1002", ORDER_PROCESS_STEP_TIME: "60ms" };
    const config = configOf([...args, "--port", "1003"], environment);
    assert.deepEqual([config.port, config.stepTimeMs, config.logLevel, config.host], [1003, 60, "debug", "127.0.0.1"]);
    assert.equal(configOf(args, environment).port, 1002);
    assert.equal(configOf(args).port, 1001);
    assert.equal(configOf([], { ORDER_PROCESS_CONFIG: path }).port, 1001);
  });
});

test("a store's password may stand in its URL or apart from it, and apart beats the URL's", () => {
  const redis = { tls: false, host: "h", port: 6379, db: 2 };
  const inUrl = configOf(["--store", "redis://me:secret@h/2"]);
  assert.deepEqual(inUrl.store, { kind: "redis", redis });
  assert.deepEqual(inUrl.storeCredentials, { username: "me", password: "secret" });
  const apart = configOf(["--store", "redis://me@h/2"], { ORDER_PROCESS_STORE_PASSWORD: "other" });
  assert.deepEqual(apart.storeCredentials, { username: "me", password: "other" });
});

test("a drill has a short TTL, and meets no store that the environment names", () => {
  const invocation = readInvocation(
    ["drill"],
    { ORDER_PROCESS_STORE: "redis://prod", ORDER_PROCESS_PORT: "1" },
    "1.2.3",
  );
  assert.ok(invocation.kind === "drill");
  assert.deepEqual([invocation.config.store, invocation.config.nodeTtlMs], [null, 2_000]);
  assert.throws(() => readInvocation(["drill", "--port", "1"], {}, "1.2.3"), UsageError);
});

for (const [args, environment, message] of [
  [["--nonsense"], {}, /unknown option '--nonsense'/],
  [
    ["dril"],
    {},
    /"dril" is no command: the commands are orders, check and drill, and come first; see order_process --help/,
  ],
  [["--port", "1", "drill"], {}, /"drill" is no command: the commands are orders, check and drill, and come first/],
  [["drill", "--store", "sqlite:/x"], {}, /the drill makes an embedded store of its own; leave out --store/],
  [["drill", "twice"], {}, /"twice" is no command: drill takes options alone; see order_process drill --help/],
  [["--prot", "8080"], {}, /unknown option '--prot'/],
  [["-x"], {}, /unknown option '-x'/],
  [["extra"], {}, /"extra" is no command.*--help/],
  [["--port"], {}, /--port <number>' argument missing/],
  [["--port", ""], {}, /--port can't be ""/],
  [["--port=-1"], {}, /--port can't be "-1"/],
  [["--port", "80.5"], {}, /--port can't be "80.5"/],
  [["--host", " "], {}, /--host can't be " "/],
  [["--port", "http"], {}, /^--port can't be "http": a port is a whole number from 0 to 65535\.$/],
  [["--port", "70000"], {}, /a whole number from 0 to 65535/],
  [["--port", "0x50"], {}, /a whole number/],
  [["--join", "localhost"], {}, /write host:port, such as localhost:8080/],
  [["--join", "localhost:99999"], {}, /write host:port/],
  [["--advertise", "http://x:1/path"], {}, /write host:port/],
  [["--node-ttl", "10ms"], {}, /write 500ms to 1h/],
  [[], { ORDER_PROCESS_REQUIRE_DURABLE: "yes" }, /write true or false/],
  [["--step-time", "5"], {}, /durations are written 60ms, 5s, 2m/],
  [["--step-time", "-5s"], {}, /durations are written/],
  [["--step-time", "5 years"], {}, /durations are written/],
  [["--step-time", "1000h"], {}, /the longest is 596h/], // a timer of more would end at once
  [["--grace", "soon"], {}, /--grace can't be "soon"/],
  [["--grace", "1000h"], {}, /the longest is 596h/],
  [["--failure-rate", "NaN"], {}, /a number from 0 to 1/],
  [["--failure-rate", "1.5"], {}, /a number from 0 to 1/],
  [["--failure-rate", ""], {}, /a number from 0 to 1/],
  [["--in-flight", "0"], {}, /a whole number from 1/],
  [["--body-limit", "1GiB"], {}, /sizes are written/],
  [["--body-limit", "1"], {}, /sizes are written/],
  [["--body-limit", "0"], {}, /--body-limit can't be "0"/],
  [["--body-limit", "65MiB"], {}, /--body-limit can't be "65MiB"/],
  [["--log-level", "loud"], {}, /choose from trace, debug, info/],
  [["--log-format", "xml"], {}, /--log-format can't be "xml".*logfmt/],
  [["--data", " "], {}, /it is empty/],
  [["--data", ""], {}, /it is empty/],
  [["--store", "redis://localhost/shop"], {}, /its database must be a number/],
  [["--store", "redis://me:se cret@:1"], {}, /^--store is not valid, and not shown, as it may hold a password: /],
  [["--store", "orders.db"], {}, /write sqlite:PATH/],
  [["--store", "mysql://x"], {}, /--store is not valid.*: .*sqlite:PATH/],
  [["--store", "redis://me:pa55word%40h:1/x"], {}, /^--store is not valid[^\n]*: [^\n]*$/],
  [
    ["--join", "http://ann:pa55word@h:1"],
    {},
    /^--join is not valid, and not shown, as it may hold a password: write host:port/,
  ],
  [["--store-pasword=pa55word"], {}, /unknown option '--store-pasword'/],
  [["--config", "/nowhere.yaml"], {}, /\/nowhere\.yaml can't be read: ENOENT/],
  [["--config", "/"], {}, /can't be read/],
  [[], { ORDER_PROCESS_CONFIG: "/nowhere.yaml" }, /\/nowhere\.yaml can't be read: ENOENT/],
  [[], { ORDER_PROCESS_PORT: "x" }, /^ORDER_PROCESS_PORT can't be "x"/],
  [[], { ORDER_PROCESS_STEP_TIME: "5" }, /^ORDER_PROCESS_STEP_TIME can't be "5"/],
  [
    [],
    { ORDER_PROCESS_STORE: "mysql://x" },
    /^ORDER_PROCESS_STORE is not valid, and not shown, as it may hold a password: write sqlite/,
  ],
] as const) {
  test(`${JSON.stringify(args)} with ${JSON.stringify(environment)} is refused in one line`, () => {
    assert.throws(
      () => configOf(args, environment),
      (error) => error instanceof UsageError && message.test(error.message) && !/\n|pa55word/.test(error.message),
    );
  });
}

for (const [content, message] of [
  ["- 1", /does not hold options/],
  ["port", /does not hold options/],
  ["config: other.yaml", /unknown option "config"/],
  ["port: 1\nport: 2", /can't be read: .*unique/],
  ["port: true", /port in .*config.yaml/],
  ["port:", /port in .*config.yaml/],
  ["step-time: 5", /step-time in .*config.yaml can't be "5"/],
  ["port: 0\n---\nport: 1", /can't be read/],
  ["\u0000\u0001\u0002", /config.yaml/],
  ["colour: red", /unknown option "colour"; known are host, port/],
  ["port: [1]", /port in .* is neither a text nor a number/],
  ["port: http", /port in .* can't be "http"/],
  ['"port: 1', /can't be read/],
  ["store-password: *pa55word", /can't be read: Unresolved alias/],
] as const) {
  test(`the configuration file ${JSON.stringify(content)} is refused in one line`, () => {
    withFile(content, (path) => {
      assert.throws(
        () => configOf(["--config", path]),
        (error) => error instanceof UsageError && message.test(error.message) && !/\n|pa55word/.test(error.message),
      );
    });
  });
}

test("an empty variable counts as one that is not set", () => {
  assert.equal(configOf([], { ORDER_PROCESS_PORT: "" }).port, 8080);
});

test("an empty configuration file configures nothing", () => {
  withFile("", (path) => assert.equal(configOf(["--config", path]).port, 8080));
});

test("a JSON file is a configuration file, too", () => {
  withFile('{"port": 8081, "body-limit": "1MiB"}', (path) => {
    assert.deepEqual([configOf(["--config", path]).port, configOf(["--config", path]).bodyBytesMax], [8081, 1_048_576]);
  });
});

test("help names every option with its default, and the version is printed", () => {
  const help = readInvocation(["--help"], {}, "1.2.3");
  assert.ok(help.kind === "print");
  for (const text of ["--step-time", "(default: 5s)", "--config", "ORDER_PROCESS_", "curl -X POST"]) {
    assert.ok(help.text.includes(text), text);
  }
  assert.deepEqual(readInvocation(["--version"], {}, "1.2.3"), { kind: "print", text: "1.2.3\n" });
});
