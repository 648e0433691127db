/** Calls of receivers that can't be reached, or break off: what has certainly not been sent, and what nobody knows. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer as createHttpServer } from "node:http";
import { type AddressInfo, createServer, type Server, type Socket } from "node:net";
import { after, test, type TestContext } from "node:test";
import * as tls from "node:tls";
import { promisify } from "node:util";
import type { StepContext } from "../order/pipeline.ts";
import { StepError } from "../order/step-error.ts";
import { parseCall, runOutcome } from "./http-call.ts";

const certificate = (name: string): string =>
  readFileSync(new URL(`../../test/support/certificates/${name}.pem`, import.meta.url), "utf8");

const usual = tls.getCACertificates("default");
tls.setDefaultCACertificates([...usual, certificate("authority")]);
after(() => tls.setDefaultCACertificates(usual));

/** Secrets of a machine: neither may be in an order's error. */
const HOST = "localhost";

async function portOf(t: TestContext, server: Server): Promise<number> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
  });
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return (server.address() as AddressInfo).port;
}

/** What a receiver does with each connection. It may have the call given up. */
type Accept = (socket: Socket, giveUp: () => void) => unknown;

const plain = (accept: Accept) => (t: TestContext, giveUp: () => void) =>
  portOf(
    t,
    createServer((socket) => accept(socket, giveUp)),
  );

const secured =
  (name: string, accept: Accept = answer) =>
  (t: TestContext, giveUp: () => void) =>
    portOf(
      t,
      tls.createServer({ cert: certificate(name), key: certificate(name) }, (socket) => accept(socket, giveUp)),
    );

/** Says nothing until the call is given up, once something of it is there. */
const giveUpOnData: Accept = (socket, giveUp) => socket.once("data", giveUp);

function answer(socket: Socket): void {
  socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"));
}

async function closedPort(t: TestContext): Promise<number> {
  const server = createServer();
  const port = await portOf(t, server);
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function contextOf(signal = AbortSignal.timeout(30_000)): StepContext {
  const noLog = { debug: () => undefined, info: () => undefined, warn: () => undefined, error: () => undefined };
  return {
    order: { orderId: "o-1", user: "alice" },
    stepName: "Charge card",
    body: {},
    results: {},
    attempt: 1,
    idempotencyKey: "o-1:Charge card:run",
    fence: 1,
    signal,
    log: noLog,
  };
}

async function failureOf(url: string, signal?: AbortSignal): Promise<StepError> {
  const call = parseCall(
    { method: "POST", url: "${env.SHOP}/charges", body: { a: 1 } },
    { steps: [], hasResult: false, bodyNames: null },
  );
  try {
    runOutcome(await call.make(contextOf(signal), { SHOP: url }));
  } catch (error) {
    assert.ok(error instanceof StepError, String(error));
    return error;
  }
  return assert.fail("the call did not fail");
}

for (const [what, scheme, listen, isUnknown, message] of [
  ["refuses connections", "http", closedPort, false, /the connection was refused \(ECONNREFUSED\)$/],
  ["signs its certificate itself", "https", secured("self-signed"), false, /\(DEPTH_ZERO_SELF_SIGNED_CERT\)$/],
  ["has an expired certificate", "https", secured("expired"), false, /\(CERT_HAS_EXPIRED\)$/],
  ["has another's certificate", "https", secured("other-name"), false, /\(ERR_TLS_CERT_ALTNAME_INVALID\)$/],
  [
    "has a certificate of an unknown authority",
    "https",
    secured("unknown-authority"),
    false,
    /\(UNABLE_TO_VERIFY_LEAF_SIGNATURE\)$/,
  ],
  [
    "does not speak TLS",
    "https",
    plain((socket) => socket.end("HTTP/1.1 400 Bad Request\r\n\r\n")),
    false,
    /does not speak TLS/,
  ],
  [
    "breaks off while TLS is set up",
    "https",
    plain((socket) => socket.once("data", () => socket.resetAndDestroy())),
    false,
    /\(ECONNRESET\)$/,
  ],
  ["never sets TLS up", "https", plain(giveUpOnData), false, /failed: given up$/],
  ["speaks TLS only", "http", secured("localhost"), true, /failed: /],
  [
    "resets the connection when it has the request",
    "http",
    plain((socket) => socket.once("data", () => socket.resetAndDestroy())),
    true,
    /\(ECONNRESET\)$/,
  ],
  [
    "closes the connection when it has the request",
    "http",
    plain((socket) => socket.once("data", () => socket.end())),
    true,
    /\(UND_ERR_SOCKET\)$/,
  ],
  ["answers nothing", "http", plain(giveUpOnData), true, /failed: given up$/],
  ["answers nothing, over TLS", "https", secured("localhost", giveUpOnData), true, /failed: given up$/],
  [
    "answers what is no HTTP",
    "http",
    plain((socket) => socket.once("data", () => socket.end("what?\r\n\r\n"))),
    true,
    /failed: /,
  ],
  [
    "answers half a head",
    "http",
    plain((socket) => socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\ncont"))),
    true,
    /failed: /,
  ],
  [
    "answers half a body",
    "http",
    plain((socket) => socket.once("data", () => socket.end("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"))),
    true,
    /answered 200, and its answer broke off/,
  ],
  [
    "answers with hints and then nothing",
    "http",
    plain((socket, giveUp) =>
      socket.once("data", () => socket.write("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n", giveUp)),
    ),
    true,
    /failed: given up$/,
  ],
  [
    "changes the protocol",
    "http",
    plain((socket) =>
      socket.once("data", () =>
        socket.end("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
      ),
    ),
    true,
    /failed: /,
  ],
] as const satisfies readonly (readonly [
  string,
  string,
  (t: TestContext, giveUp: () => void) => Promise<number>,
  boolean,
  RegExp,
])[]) {
  test(`a receiver that ${what} has ${isUnknown ? "perhaps" : "certainly not"} done it`, async (t) => {
    const controller = new AbortController();
    const port = await listen(t, () => controller.abort(new Error("given up")));
    const error = await failureOf(`${scheme}://${HOST}:${port}`, controller.signal);
    const { permanent, unknown, shortage } = error;
    assert.deepEqual({ permanent, unknown, shortage }, { permanent: false, unknown: isUnknown, shortage: false });
    assert.match(error.message, message);
    assert.ok(error.message.startsWith("POST ${env.SHOP}/charges "), error.message);
    assert.doesNotMatch(
      `${error.message} ${String(error.cause)}`,
      new RegExp(`${HOST}|127\\.0\\.0\\.1|::1|${port}|altnames`),
    );
  });
}

test("a connection that was used before and is closed meanwhile has perhaps done it only if the request was on it", async (t) => {
  let calls = 0;
  const port = await plain((socket) => {
    socket.on("data", () => {
      if (++calls === 1) socket.write("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
      else socket.resetAndDestroy();
    });
  })(t, () => undefined);
  const call = parseCall({ url: `http://${HOST}:${port}/` }, { steps: [], hasResult: false, bodyNames: null });
  await call.make(contextOf(), {});
  await assert.rejects(call.make(contextOf(), {}), (error: StepError) => error.unknown);
});

test("a host whose name is not known has certainly not done it, and is not named", async () => {
  const error = await failureOf("http://shop.internal.invalid:80");
  assert.deepEqual([error.unknown, error.shortage, error.permanent], [false, false, false]);
  assert.doesNotMatch(`${error.message} ${String(error.cause)}`, /internal/);
});

test("hints before an answer are not the answer", async (t) => {
  const server = createHttpServer((_, response) => {
    response.writeEarlyHints({ link: "</a>; rel=preload" });
    response.writeHead(200, { "content-type": "application/json" }).end('{"id":1}');
  });
  const port = await portOf(t, server);
  const call = parseCall({ url: `http://${HOST}:${port}/` }, { steps: [], hasResult: false, bodyNames: null });
  assert.deepEqual(runOutcome(await call.make(contextOf(), {})), { id: 1 });
});

/** A process that has no descriptor left calls the url. */
const WITHOUT_DESCRIPTORS = `
  import { openSync } from "node:fs";
  import { lookup } from "node:dns/promises";
  import { parseCall } from ${JSON.stringify(new URL("http-call.ts", import.meta.url).href)};
  const context = { order: { orderId: "o", user: "u" }, stepName: "A", body: {}, results: {}, attempt: 1, idempotencyKey: "k",
    fence: 1, signal: AbortSignal.timeout(30_000) };
  const call = parseCall({ url: process.argv[1] }, { steps: [], hasResult: false, bodyNames: null });
  await lookup("127.0.0.1");
  await call.make(context, {}).catch(() => undefined);
  try { for (;;) openSync("/dev/null", "r"); } catch {}
  await call.make(context, {}).catch(({ message, permanent, unknown, shortage }) =>
    console.log(JSON.stringify({ message, permanent, unknown, shortage })));
`;

for (const host of ["127.0.0.1", "localhost"]) {
  test(`a node without descriptors has certainly not called ${host}, and knows that the shortage is its own`, async (t) => {
    const port = await closedPort(t);
    const { stdout } = await promisify(execFile)("bash", [
      "-c",
      'ulimit -n 60 && exec "$0" --input-type=module -e "$1" "$2"',
      process.execPath,
      WITHOUT_DESCRIPTORS,
      `http://${host}:${port}/`,
    ]);
    const { message, ...traits } = JSON.parse(stdout) as { message: string };
    assert.deepEqual(traits, { permanent: false, unknown: false, shortage: true }, message);
  });
}
