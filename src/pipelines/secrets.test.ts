/** What the environment holds stays out of orders: out of results, errors and messages, in whatever form a receiver sends it back. */
import assert from "node:assert/strict";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { inspect } from "node:util";
import type { RollbackContext } from "../order/pipeline.ts";
import { failureTraits, textOf } from "../order/step-error.ts";
import { type CallOptions, parseCall, rollbackOutcome, runOutcome, verifyOutcome } from "./http-call.ts";
import { secretsOf } from "./secrets.ts";
import { TemplateError } from "./template.ts";

const SECRET = 'pa55/w"örd +&';

const FORMS: readonly ((secret: string) => unknown)[] = [
  (secret) => secret,
  (secret) => `Bearer ${secret}`,
  (secret) => secret.toUpperCase(),
  (secret) => ({ [secret]: [{ deep: `<${secret}>` }] }),
  (secret) => JSON.stringify({ token: secret }),
  (secret) => JSON.stringify({ body: JSON.stringify({ token: secret }) }),
  (secret) => JSON.stringify(secret).replaceAll("ö", "\\u00f6"),
  (secret) => secret.replaceAll("/", "\\/"),
  (secret) => `/charges?token=${encodeURIComponent(secret)}`,
  (secret) => `/charges?token=${encodeURIComponent(secret).toLowerCase()}`,
  (secret) => new URLSearchParams({ token: secret }).toString(),
  (secret) => `<p>${secret.replaceAll("&", "&amp;").replaceAll('"', "&quot;")}</p>`,
  ...["", "u", "us", "user:"].flatMap((before) =>
    (["base64", "base64url", "hex"] as const).map(
      (encoding) => (secret: string) => Buffer.from(`${before}${secret} and more`).toString(encoding),
    ),
  ),
];

/** What is left of a secret in JSON, decoded in all ways. */
function isIn(json: unknown, secret: string): boolean {
  const text = JSON.stringify(json).toLowerCase();
  const words = text.match(/[a-z0-9+/_-]{6,}/gi) ?? [];
  const decoded = words.flatMap((word) => [
    Buffer.from(word, "hex").toString(),
    Buffer.from(word, "base64").toString(),
  ]);
  return [text, ...decoded].some((each) => each.toLowerCase().includes(secret.slice(0, 4).toLowerCase()));
}

for (const [index, form] of FORMS.entries()) {
  const { redactJson } = secretsOf({ TOKEN: SECRET, OTHER: "other-value" });
  const sent = form(SECRET);
  test(`a secret is taken out of ${JSON.stringify(sent)} (${index})`, () => {
    const redacted = redactJson({ id: 7, echo: sent });
    assert.ok(!isIn(redacted, SECRET), JSON.stringify(redacted));
    assert.match(JSON.stringify(redacted), /\[env\.TOKEN\]/);
  });
}

/** As other languages write it. */
const WRITERS: Readonly<Record<string, (secret: string) => string>> = {
  "a form": (secret) => new URLSearchParams({ token: secret }).toString().slice(6),
  "Java's URLEncoder": (secret) => strict(secret).replaceAll("%20", "+").replaceAll("~", "%7E").replaceAll("%2A", "*"),
  "Python's quote": (secret) => strict(secret).replaceAll("%2F", "/"),
  "Python's quote_plus": (secret) => strict(secret).replaceAll("%20", "+"),
  "Python's repr": (secret) => `'${secret.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`,
  "Go's html.EscapeString": (secret) =>
    ["&amp;", "&lt;", "&gt;", "&#34;", "&#39;"].reduce(
      (text, entity, at) => text.replaceAll("&<>\"'"[at] ?? "", entity),
      secret,
    ),
  "base64 in PHP's JSON": (secret) => Buffer.from(`user:${secret}`).toString("base64").replaceAll("/", "\\/"),
  "base64 in a url": (secret) => encodeURIComponent(Buffer.from(`user:${secret}`).toString("base64")),
  "base64 in lines": (secret) =>
    (
      Buffer.from(secret)
        .toString("base64")
        .match(/.{1,76}/g) ?? []
    ).join("\r\n"),
  "hexadecimal with colons": (secret) => (Buffer.from(secret).toString("hex").match(/../g) ?? []).join(":"),
};

function strict(text: string): string {
  return encodeURIComponent(text).replaceAll(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}

for (const [what, write] of Object.entries(WRITERS)) {
  test(`a secret is taken out of what ${what} makes of it`, () => {
    for (const secret of [
      "Xy18Q~3kTqWlXvC5dYb.Zr0aNmPuEsHgJi1OoKt",
      "kx+/Ab?>~?o~?>q+//wEd==",
      "pa/ss!w(o)r*d1 'quoted' \"&<>\\",
      `sk_live_${"aB3~/+".repeat(30)}`,
    ]) {
      const written = write(secret);
      const redacted = secretsOf({ TOKEN: secret }).redact(written);
      assert.ok(redacted.includes("[env.TOKEN]"), `${written} became ${redacted}`);
      assert.ok(redacted.length < "[env.TOKEN]".length + 16, `${written} became ${redacted}`);
    }
  });
}

test("fields whose keys are secrets stay, each of them", () => {
  const { redactJson } = secretsOf({ KEYS: "ab12cd34ef,xy98zw76uv" });
  assert.deepEqual(redactJson({ ab12cd34ef: 1, xy98zw76uv: 2, ab: 3 }), {
    "[env.KEYS]": 1,
    "[env.KEYS] (2)": 2,
    ab: 3,
  });
});

test("however many keys become the same, it does not take long", () => {
  const secret = "sk_live_abcdefghij0123456789";
  const { redactJson } = secretsOf({ KEY: secret });
  const keys = Array.from({ length: 10_000 }, (_, at) =>
    Array.from(secret, (char, index) => ((at >> (index % 14)) & 1 ? char.toUpperCase() : char)).join(""),
  );
  const before = process.cpuUsage();
  const redacted = redactJson(Object.fromEntries(keys.map((key, at) => [key, at]))) as object;
  const { user } = process.cpuUsage(before);
  assert.equal(Object.keys(redacted).length, new Set(keys).size);
  assert.ok(user < 1_000_000, `it took ${user / 1_000} ms`);
});

test("what holds no secret is left as it is, short values too", () => {
  const { redactJson } = secretsOf({ COUNT: "1", REGION: "eu", PORT: "8080", TOKEN: SECRET });
  const json = { count: 1, region: "eu", text: "1 of 8080", list: [{ a: null, b: true }] };
  assert.equal(redactJson(json), json);
});

test("a secret that ends in a line break is taken out without it, too", () => {
  const { redact } = secretsOf({ TOKEN: `${SECRET}\n` });
  assert.equal(redact(`token ${SECRET}!`), "token [env.TOKEN]!");
});

test("a long secret, such as a key of several lines, is taken out", () => {
  const key = Array.from({ length: 2_000 }, (_, index) => `line ${index} +/=`).join("\n");
  const { redact } = secretsOf({ KEY: key });
  for (const form of [
    key,
    JSON.stringify(key).slice(1, -1),
    encodeURIComponent(key),
    Buffer.from(key).toString("base64"),
  ])
    assert.match(redact(`-${form}-`), /^-\[env\.KEY\]=*-$/);
});

test("a long secret is taken out in either case, and the longest of two that begin alike", () => {
  const long = "S3cretAb".repeat(80);
  const { redact } = secretsOf({ A: long, B: `${long}-and-more-of-it` });
  assert.equal(redact(`<${long.toLowerCase()}>`), "<[env.A]>");
  assert.equal(redact(`<${long}-and-more-of-it>`), "<[env.B]>");
});

for (const [value, sent] of [
  ["48213377\n", 48_213_377],
  ["048213377", 48_213_377],
  ["Bearer 48213377", 48_213_377],
  ["http://u:48213377@h.example/", 48_213_377],
  ["id=7;pin=48213377", 48_213_377],
  ["48213377.50", 48_213_377.5],
  ["4821337712345678901", Number("4821337712345678901")],
] as const) {
  test(`a number is taken out that ${JSON.stringify(value)} may come back as`, () => {
    assert.deepEqual(secretsOf({ PIN: value }).redactJson({ pin: sent }), { pin: "[env.PIN]" });
  });
}

const PEM = `-----BEGIN PRIVATE KEY-----\n${Array.from({ length: 26 }, (_, line) => Buffer.from(String(line).padStart(48, "x")).toString("base64")).join("\n")}\n-----END PRIVATE KEY-----\n`;

for (const [what, value, sent, secret] of [
  ["a key in one line, as lines", PEM.replaceAll("\n", String.raw`\n`), PEM, "eHh4"],
  [
    "the key of a service account",
    JSON.stringify({ type: "service_account", private_key: PEM }),
    { private_key: PEM },
    "eHh4",
  ],
  ["a password in JSON", JSON.stringify({ password: 'p"ss\\word' }), { why: 'p"ss\\word' }, "word"],
  [
    "a password of a connection string",
    "Server=db;User Id=ann;Password=open,sesame!;",
    "failed: open,sesame!",
    "sesame",
  ],
  ["a password of libpq", "host=db user=ann password=opensesame", "failed: opensesame", "opensesame"],
  ["a password in a query", "jdbc:postgresql://h/db?user=ann&password=opensesame", "failed: opensesame", "opensesame"],
  ["a password for several hosts", "mongodb://ann:opensesame@h1.example:1,h2.example:2/db", "opensesame", "opensesame"],
  ["a password of an address within", "url=https://ann:opensesame@h.example/", "opensesame", "opensesame"],
  ["a password under any such name", "PGPASSWORD=opensesame", "opensesame", "opensesame"],
  ["lines in JSON", JSON.stringify({ file: "password: opensesame\nuser: x" }), "opensesame", "opensesame"],
  ["a header in JSON", JSON.stringify({ header: "X-Api-Key: opensesame" }), "opensesame", "opensesame"],
  ["a pair in JSON", JSON.stringify({ auth: "anna:opensesame" }), "opensesame", "opensesame"],
  ["an address in PHP's JSON", '{"u":"https:\\/\\/ann:opensesame@h.example\\/"}', "opensesame", "opensesame"],
  ["a session", "session=opensesame; x=1", "no session opensesame", "opensesame"],
  ["a header's value", "X-Api-Key: opensesame", "bad opensesame", "opensesame"],
  ["the password of a pair in base64", Buffer.from("anna:opensesame").toString("base64"), "opensesame", "opensesame"],
  [
    "the password behind Basic",
    `Basic ${Buffer.from("anna:opensesame").toString("base64")}`,
    "opensesame",
    "opensesame",
  ],
  ["a value in quotes", '"opensesameword"', "opensesameword", "opensesame"],
  [
    "a part of a web token",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm5hLXNlY3JldCJ9.c2lnbmF0dXJlLXNlY3JldA",
    "eyJzdWIiOiJhbm5hLXNlY3JldCJ9",
    "eyJz",
  ],
  ["JSON as Go writes it", "Kd9&xv<Q2>zz", String.raw`{"t":"Kd9\u0026xv\u003cQ2\u003ezz"}`, "Kd9"],
  ["JSON as PHP writes it", "Kd9/ä2zz", String.raw`{"t":"Kd9\/\u00e42zz"}`, "Kd9"],
  ["a url that is encoded in part", "ab/cd+ef=1", "ab/cd%2Bef%3D1", "cd%2Bef"],
  ["entities by number", `a<b>c'd"e`, "a&#60;b&#62;c&#39;d&#34;e", "&#60;b"],
] as const) {
  test(`${what} is taken out`, () => {
    const redacted = JSON.stringify(secretsOf({ KEY: value }).redactJson({ sent }));
    assert.ok(!redacted.includes(secret) && redacted.includes("[env.KEY]"), redacted);
  });
}

test("of a pair the password is taken out where the variable's name says that it is one", () => {
  assert.equal(secretsOf({ SHOP_AUTH: "anna:opensesame" }).redact("opensesame"), "[env.SHOP_AUTH]");
  assert.equal(secretsOf({ dbPassword: "anna:opensesame" }).redact("opensesame"), "[env.dbPassword]");
});

for (const [value, answer] of [
  ["orders:created", { status: "created" }],
  ["nginx:latest", { text: "the latest price" }],
  ["hosts=db1;keyspace=orders;author=backend", { orders: ["backend"] }],
  [
    JSON.stringify({ country_code: "Germany", keyspace: "orders", url: "https://www.googleapis.com/x" }),
    { orders: 1, country: "Germany", at: "https://www.googleapis.com/y" },
  ],
  ["https://orders:pa55w0rd-x@shop.example/v1", { orders: [{ text: "all orders" }] }],
  ["1.0000", { quantity: 1 }],
  ["000042", { id: 42 }],
  [JSON.stringify({ code: "000001" }), { quantity: 1 }],
] as const) {
  test(`words and small numbers of ${value} are left in an answer`, () => {
    const { redactJson } = secretsOf({ CHANNEL: value });
    assert.equal(redactJson(answer), answer);
  });
}

/** How long something works, in milliseconds. */
function workOf(action: () => unknown): number {
  const before = process.threadCpuUsage();
  action();
  const { user, system } = process.threadCpuUsage(before);
  return (user + system) / 1_000;
}

test("neither a long value nor an answer of many texts takes long", () => {
  for (const value of ["0123456789abcdef".repeat(8_192), "aB3_".repeat(32_768), "a:".repeat(50_000), PEM.repeat(50)])
    assert.ok(workOf(() => secretsOf({ VALUE: value }).redact("text")) < 2_000, value.slice(0, 20));
  const { redactJson } = secretsOf({ KEY: JSON.stringify({ type: "service_account", private_key: PEM }) });
  const texts = Array.from({ length: 65_000 }, () => "");
  redactJson(texts); // compiled
  assert.ok(workOf(() => redactJson(texts)) < 200);
});

test("many words of one value are taken out, and it does not take long to look for them", () => {
  const { redact } = secretsOf({
    KEYS: Array.from({ length: 2_000 }, (_, at) => `tok${at}secret${at * 7919}`).join("\n"),
  });
  assert.equal(redact("bad tok1999secret15830081!"), "bad [env.KEYS]!");
});

test("a number that is a secret is taken out", () => {
  const { redactJson } = secretsOf({ PIN: "48213377" });
  assert.deepEqual(redactJson({ pin: 48_213_377, at: "48213377", other: 48_213_378 }), {
    pin: "[env.PIN]",
    at: "[env.PIN]",
    other: 48_213_378,
  });
});

test("of an address, host and credentials are taken out, and words of it left where they are words", () => {
  const { redact } = secretsOf({
    SHOP: "https://anna:s3cret%21@shop.internal:8443/orders",
    PAY: "http://payments:9000",
  });
  assert.equal(redact("Host: Shop.Internal:8443"), "Host: [env.SHOP]");
  assert.equal(redact("no route to shop.internal"), "no route to [env.SHOP]");
  assert.equal(redact("anna:s3cret! may not see orders"), "[env.SHOP] may not see orders");
  assert.doesNotMatch(redact(Buffer.from("anna:s3cret!").toString("base64")), /YW5u/);
  assert.equal(redact("payments are late; payments:9000 is not"), "payments are late; [env.PAY] is not");
});

test("what comes back of a value alone is taken out, where it is no word", () => {
  const { redact } = secretsOf({
    HOOK: "https://hooks.example/services/T0AAA/B0BBB/HOOKSECRET99?key=querysecret&page=2",
    AUTH: "Bearer sk_live_AUTHSECRET",
    BASIC: `Basic ${Buffer.from("anna:opensesame").toString("base64")}`,
    COOKIE: "lang=en; session=ab12cd34ef",
    SENDER: "Acme Payments",
    SHOP: "https://shop.example/orders?expand=customer",
    KEY: "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEFAASCBKcwggSjAgEA\n-----END KEY-----\n",
  });
  for (const [text, expected] of [
    ["Cannot POST /services/T0AAA/B0BBB/HOOKSECRET99", "Cannot POST /services/T0AAA/B0BBB/[env.HOOK]"],
    ["no route POST:/x?key=querysecret&page=2", "no route POST:/x[env.HOOK]"],
    ["the key querysecret is unknown", "the key [env.HOOK] is unknown"],
    ["invalid token sk_live_AUTHSECRET", "invalid token [env.AUTH]"],
    ["the bearer of services", "the bearer of services"],
    ["Payments of Acme, expanded: customer", "Payments of Acme, expanded: customer"],
    ["anna:opensesame is unknown", "[env.BASIC] is unknown"],
    ["session ab12cd34ef", "session [env.COOKIE]"],
    ["key MIIEvQIBADANBgkqhkiG9w0 BAQEFAASCBKcwggSjAgEA", "key [env.KEY] [env.KEY]"],
    [Array.from(Buffer.from("querysecret"), (byte) => `%${byte.toString(16)}`).join(""), "[env.HOOK]"],
    [Buffer.from(Buffer.from("querysecret").toString("base64")).toString("base64"), null],
  ] as const) {
    if (expected === null) assert.match(redact(text), /^\[env\.HOOK\]/);
    else assert.equal(redact(text), expected);
  }
});

async function serve(
  t: TestContext,
  handle: (request: IncomingMessage, body: string, response: ServerResponse) => void,
): Promise<string> {
  const server = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => (body += String(chunk)));
    request.on("end", () => handle(request, body, response));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function context(body = {}): RollbackContext {
  const noLog = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  return {
    order: { orderId: "o-1", user: "alice" },
    stepName: "Charge card",
    body,
    results: {},
    result: undefined,
    attempt: 1,
    idempotencyKey: "o-1:Charge card:run",
    fence: 1,
    signal: AbortSignal.timeout(30_000),
    log: noLog,
  };
}

const scope = { steps: [], hasResult: true, bodyNames: null };

/** Everything that an error tells, its causes too. */
const allOf = (error: unknown): string => `${textOf(error)} ${inspect(error, { depth: 9 })}`;

const CALL: CallOptions = {
  method: "POST",
  url: "${env.SHOP}/charges/${env.TOKEN}",
  headers: { "x-key": "${env.KEY}", "x-basic": '${"Basic " + bytes("user:" + env.KEY).base64()}' },
  body: { token: "${env.TOKEN}" },
};

for (const status of [200, 400, 500]) {
  test(`a receiver that answers ${status} and echoes what it was sent tells an order no secret`, async (t) => {
    const host = await serve(t, ({ headers, url }, body, response) => {
      const detail = `no: ${url} ${body} ${JSON.stringify(headers)}`;
      response.writeHead(status, { "content-type": "application/json", location: `http://${headers.host}/next` });
      response.end(JSON.stringify({ detail, echo: { headers, url, body, json: JSON.parse(body) as unknown } }));
    });
    const env = { SHOP: `http://anna:s3cret-word@${host}`, TOKEN: SECRET, KEY: "sk_live_1234567890" };
    const { make } = parseCall(CALL, scope);
    for (const outcomeOf of [runOutcome, rollbackOutcome, verifyOutcome]) {
      let told: string;
      try {
        told = JSON.stringify(outcomeOf(await make(context(), env))) ?? "";
      } catch (error) {
        told = allOf(error);
      }
      for (const secret of [SECRET, "pa55", "sk_live", "s3cret", host, "c2tfbGl2", "YW5uYTpz"])
        assert.ok(!told.includes(secret), `${secret} in ${told}`);
    }
  });
}

test("credentials in an address go to the receiver as it expects them, and not into its url", async (t) => {
  let got = "";
  const host = await serve(t, ({ headers, url }, _, response) => {
    got = `${headers.authorization} ${url} ${headers.host}`;
    response.end();
  });
  const { make } = parseCall({ url: "${env.SHOP}/x" }, scope);
  await make(context(), { SHOP: `http://anna:s%2Fcret@${host}` });
  assert.equal(got, `Basic ${Buffer.from("anna:s/cret").toString("base64")} /x ${host}`);
  const named = parseCall({ url: "${env.SHOP}/x", headers: { Authorization: "Bearer 1" } }, scope);
  await named.make(context(), { SHOP: `http://anna:s%2Fcret@${host}` });
  assert.match(got, /^Bearer 1 /);
});

test("a url with credentials in a file is refused, without showing it", () => {
  assert.throws(
    () => parseCall({ url: "http://anna:s3cret@host/x" }, scope),
    (error) =>
      error instanceof TemplateError &&
      /can't hold credentials/.test(error.message) &&
      !error.message.includes("s3cret"),
  );
});

for (const expression of [
  "env.TOKEN + 1",
  "env.TOKEN - 1",
  "bool(env.TOKEN)",
  "int(env.TOKEN)",
  "duration(env.TOKEN)",
  "timestamp(env.TOKEN)",
  "body[env.TOKEN]",
  "{'a': 1}[env.TOKEN]",
  "'a'.matches(env.TOKEN + '(')",
  "[env.TOKEN].map(x, bool(x))",
  "cel.bind(x, env.TOKEN, body[x])",
  "env.TOKEN.substring(0, 99)",
  "env.TOKEN.nothing",
]) {
  test(`the expression ${expression} fails without telling what the environment holds`, async (t) => {
    const host = await serve(t, (_request, _body, response) => response.end());
    const call: CallOptions = { url: `http://${host}/`, headers: { "x-a": `\${string(${expression})}` } };
    await assert.rejects(
      async () => parseCall(call, scope).make(context({ a: 1 }), { TOKEN: SECRET }),
      (error) => {
        const told = allOf(error);
        return (
          (error instanceof TemplateError || failureTraits(error).permanent) &&
          !told.includes("pa55") &&
          told.includes("env.TOKEN")
        );
      },
    );
  });
}

for (const value of [
  "no url",
  "ftp://shop.backstage/x",
  "shop.backstage",
  "http://shop.backstage:99999",
  "http://%zz@shop.backstage",
  "javascript:pa55",
]) {
  test(`an address of the environment that is none (${value}) is not told`, async () => {
    const { make } = parseCall({ url: "${env.SHOP}/x" }, scope);
    await assert.rejects(make(context(), { SHOP: value }), (error) => {
      const told = allOf(error);
      return failureTraits(error).permanent && !/backstage|ftp:|javascript|pa55|zz@/.test(told);
    });
  });
}

test("a header of the environment that can't be sent is named, and not shown", async (t) => {
  const host = await serve(t, (_request, _body, response) => response.end());
  const { make } = parseCall({ url: `http://${host}/`, headers: { "x-key": "${env.KEY}" } }, scope);
  await assert.rejects(make(context(), { KEY: "sk_live_\n1" }), (error) => {
    assert.match(textOf(error), /a header can't be sent/);
    return failureTraits(error).permanent && !allOf(error).includes("sk_live");
  });
});
