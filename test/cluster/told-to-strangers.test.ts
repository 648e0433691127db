/** What a node tells of its store and its host: to callers of its own host, and to anybody else. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { request as httpRequest, type IncomingMessage } from "node:http";
import { networkInterfaces } from "node:os";
import { text } from "node:stream/consumers";
import { test } from "node:test";
import { PROTOCOL } from "../../src/cluster/join.ts";
import { bootIdentity } from "../../src/process-identity.ts";
import { assertRefused, assertServes } from "../support/checks.ts";
import { send } from "../support/client.ts";
import { openConnection, sendBytes } from "../support/raw.ts";
import { redisIsMissing, startRedis } from "../support/redis.ts";
import { runCommand, type Service, startService, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

const REDIS = { skip: redisIsMissing };
const QUICK = ["--node-ttl", "1s", "--step-time", "0s"];

/** An address of this host that isn't a loopback one: who comes from there could be anybody. */
const OUTSIDE = Object.values(networkInterfaces())
  .flatMap((addresses) => addresses ?? [])
  .find(({ family, internal }) => family === "IPv4" && !internal)?.address;
const HAS_OUTSIDE = { skip: OUTSIDE === undefined ? "this host has a loopback address only" : false };

/** As a proxy of this host passes a request on, or a browser. */
const MARKS: readonly Readonly<Record<string, string>>[] = [
  { "x-forwarded-for": "203.0.113.9" },
  { "X-Forwarded-Proto": "https" },
  { "x-forwarded": "for=127.0.0.1" },
  { forwarded: "for=127.0.0.1" },
  { via: "1.1 proxy" },
  { "x-real-ip": "127.0.0.1" },
  { "x-envoy-internal": "true" },
  { "x-original-host": "localhost" },
  { host: "10.0.0.1:8080" },
  { origin: "http://localhost:8080" },
  { "sec-fetch-site": "same-origin" },
];

/** The same in a large head, of which less is kept. */
const PASSED_ON = MARKS.flatMap((mark) => [mark, { ...mark, cookie: "x".repeat(2_000) }]);

test("callers of the node's own host are told where an embedded store is, and hear a proof of the host that only its boot can make", async (t) => {
  const { url, data } = await startService(t, { args: QUICK });
  const { store, host, embedded } = await askToJoin(url, {});
  assert.deepEqual([store, embedded], [`sqlite:${data}/orders.sqlite`, true]);
  const boot = bootIdentity();
  if (boot === null) return;
  assert.equal(host, createHmac("sha256", boot).update('["order-process host","a nonce"]').digest("base64url"));
  assert.notEqual(host, (await askToJoin(url, {}, "another")).host);
  assert.equal((await askToJoin(url, {}, null)).host, null);
  assert.ok(!JSON.stringify(await askToJoin(url, {})).includes(boot));
});

test("a request that was passed on, or comes from a web page, is told nothing of the store, whatever address it has", async (t) => {
  for (const args of [[], ["--share-store"]]) {
    const { url } = await startService(t, { args: [...QUICK, ...args] });
    for (const headers of PASSED_ON) {
      const { store, host, embedded } = await askToJoin(url, headers);
      assert.deepEqual([store, host, embedded], [null, null, true], JSON.stringify(headers));
    }
    for (const host of ["orders.example.com", "127.0.0.1.example.com", "localhost.example.com"]) {
      const { status, text: said } = await sendBytes(url, joinRequest("1.1", host));
      assert.ok(status >= 400 || said.includes('"store":null'), `${host}: ${said}`);
      assert.ok(!said.includes("sqlite:"), said);
    }
    const old = await askInHttp10(url);
    assert.match(old, /"store":null/);
    assert.match(old, /"host":null/);
  }
});

test(
  "with --share-store everybody is told where a Redis store is, and never its credentials nor the host",
  REDIS,
  async (t) => {
    const password = "open-sesame-4711";
    const { port } = await startRedis(t, ["--requirepass", password]);
    const args = [...QUICK, "--store", `redis://127.0.0.1:${port}`];
    const env = { ORDER_PROCESS_STORE_PASSWORD: password };
    const closed = await startService(t, { args, env });
    const shared = await startService(t, { args: [...args, "--share-store"], env });
    const byEnvironment = await startService(t, { args, env: { ...env, ORDER_PROCESS_SHARE_STORE: "true" } });
    for (const headers of PASSED_ON) {
      assert.equal((await askToJoin(closed.url, headers)).store, null);
      for (const { url } of [shared, byEnvironment]) {
        const answer = await askToJoin(url, headers);
        assert.deepEqual([answer.store, answer.host], [`redis://127.0.0.1:${port}`, null]);
        assert.ok(!JSON.stringify(answer).includes(password));
      }
    }
    assert.equal((await askToJoin(closed.url, {})).store, `redis://127.0.0.1:${port}`);
  },
);

test("a node from another address must be told the store by its operator, and hears how", HAS_OUTSIDE, async (t) => {
  const first = await startService(t, { args: [...QUICK, "--host", "0.0.0.0"] });
  const port = new URL(first.url).port;
  const outside = `${OUTSIDE}:${port}`;
  const { store, host } = await askToJoin(`http://${outside}`, {});
  assert.deepEqual([store, host], [null, null]);
  const join = (address: string, ...more: string[]): string[] => ["--port", "0", ...QUICK, "--join", address, ...more];
  const refused = await runCommand([...join(outside), "--data", temporaryFolder(t)]);
  assertRefused(
    refused,
    1,
    /embedded store, which nodes of one host only can share; .*127\.0\.0\.1.*--store sqlite:PATH/,
  );
  const named = await startService(t, { args: join(outside, "--store", `sqlite:${first.data}/orders.sqlite`) });
  await assertServes(named.url);
  const near = await startService(t, { args: join(`localhost:${port}`) });
  await assertServes(near.url);
});

test(
  "a node from another address joins a cluster on Redis when the store is named here, or shared there",
  { skip: HAS_OUTSIDE.skip || REDIS.skip },
  async (t) => {
    const redis = await startRedis(t);
    const store = ["--store", `redis://127.0.0.1:${redis.port}`];
    const closed = await startService(t, { args: [...QUICK, "--host", "0.0.0.0", ...store] });
    const join = ({ url }: Service): string[] => [...QUICK, "--join", `${OUTSIDE}:${new URL(url).port}`];
    const refused = await runCommand(["--port", "0", "--data", temporaryFolder(t), ...join(closed)]);
    assertRefused(
      refused,
      1,
      /tells only nodes of its own host .*--store redis:\/\/HOST:PORT, or start that node with --share-store/,
    );
    const named = await startService(t, { args: [...join(closed), ...store] });
    const shared = await startService(t, { args: [...QUICK, "--host", "0.0.0.0", "--share-store", ...store] });
    const told = await startService(t, { args: join(shared) });
    for (const { url } of [named, told]) await assertServes(url);
  },
);

test("nothing that is told without authorization names the store, the data folder or the boot", REDIS, async (t) => {
  const redis = await startRedis(t);
  const services = [
    await startService(t, { args: QUICK }),
    await startService(t, { args: [...QUICK, "--store", `redis://127.0.0.1:${redis.port}`] }),
  ];
  const secrets = [
    "orders.sqlite",
    "redis://",
    `:${redis.port}`,
    bootIdentity() ?? "no boot",
    ...services.map(({ data }) => data),
  ];
  const tellsNothing = async (): Promise<void> => {
    for (const { url } of services) {
      for (const path of ["/diagnostic/cluster", "/diagnostic/heartbeat", "/openapi.json", "/nothing"]) {
        const { text: said } = await send(`${url}${path}`);
        for (const secret of secrets)
          assert.ok(!said.includes(secret), `${path} tells ${secret}: ${said.slice(0, 500)}`);
      }
      const joinAnswer = JSON.stringify(await askToJoin(url, { via: "1.1 proxy" }));
      for (const secret of secrets) assert.ok(!joinAnswer.includes(secret), joinAnswer);
      // Anybody can name a user.
      for (const [method, path] of [
        ["POST", "/orders"],
        ["GET", "/orders"],
        ["GET", `/orders/01a21355-c402-7d9f-af62-a82f1acd8f27`],
      ] as const) {
        const { text: said } = await send(`${url}${path}`, {
          method,
          headers: { authorization: "stranger", "content-type": "application/json" },
          ...(method === "POST" ? { body: "{}" } : {}),
        });
        for (const secret of secrets) assert.ok(!said.includes(secret), `${method} ${path} tells ${secret}: ${said}`);
      }
    }
  };
  await tellsNothing();
  await redis.kill();
  const [, onRedis] = services;
  const isAway = async (): Promise<boolean> =>
    (await send(`${onRedis?.url}/diagnostic/heartbeat`)).json?.["status"] === "STORE_UNAVAILABLE";
  await waitFor(isAway, { what: "the node has noticed that its store is away" });
  await tellsNothing();
});

interface Told {
  readonly store: unknown;
  readonly embedded: unknown;
  readonly host: unknown;
}

/** Asks as a node that wants to join; `headers` as they would come with it. */
async function askToJoin(
  url: string,
  headers: Readonly<Record<string, string>>,
  nonce: string | null = "a nonce",
): Promise<Told> {
  const sending = httpRequest(`${url}/cluster/join`, {
    method: "POST",
    agent: false,
    headers: { "content-type": "application/json", ...headers },
  });
  sending.end(
    JSON.stringify({ service_id: "x", version: "9.9.9", protocol: PROTOCOL, ...(nonce === null ? {} : { nonce }) }),
  );
  const [response] = (await once(sending, "response")) as [IncomingMessage];
  const said = await text(response);
  assert.equal(response.statusCode, 200, said);
  return JSON.parse(said) as Told;
}

/** As nginx asks if it is not told otherwise. */
async function askInHttp10(url: string): Promise<string> {
  const socket = openConnection(url);
  socket.write(joinRequest("1.0", "127.0.0.1"));
  return text(socket);
}

function joinRequest(httpVersion: string, host: string): string {
  const body = JSON.stringify({ service_id: "x", version: "9.9.9", protocol: PROTOCOL, nonce: "a nonce" });
  const headers = [`host: ${host}`, "content-type: application/json", `content-length: ${body.length}`];
  return `POST /cluster/join HTTP/${httpVersion}\r\n${headers.join("\r\n")}\r\n\r\n${body}`;
}
