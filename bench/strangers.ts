/**
 * What strangers cost: clients that send much, send slowly, read nothing or hold on, against a node as `./order_process` starts it.
 * Each shape gets a node of its own, which has done its usual work for a moment before; then it is measured how much its resident memory
 * grows, and how long the heartbeat takes at the most, while the shape goes on, beside a node that is left alone.
 *
 *     npm run bench -- strangers            all shapes, some ten minutes
 *     npm run bench -- strangers SHAPE …    these
 *     npm run bench -- strangers --memory-limit 256MiB [SHAPE …]
 *         Against nodes with so little memory; then what counts is that they stay within 90 % of it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const LAUNCHER = fileURLToPath(new URL("../order_process", import.meta.url));
const SHAPE_MS = 10_000;
const GOAL_MIB = 200;
const GOAL_MS = 500;

interface Target {
  readonly port: number;
  readonly orderId: string;
}

interface Shape {
  readonly connections: number;
  /** What each connection sends at once. */
  readonly send: (target: Target, index: number) => string;
  /** What it sends then, again and again. */
  readonly drip?: string;
  /** It takes what comes. */
  readonly reads?: boolean;
  /** It says that it sends no more. */
  readonly halfClosed?: boolean;
  /** It closes the connection as soon as it has sent that. */
  readonly leaves?: boolean;
  /** A new connection takes the place of one that is closed. */
  readonly again?: boolean;
}

const head = (method: string, path: string, headers = "Authorization: user\r\n"): string =>
  `${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`;
const posting = (bytes: number, path = "/orders", user = "user"): string =>
  head("POST", path, `Authorization: ${user}\r\nContent-Type: application/json\r\nContent-Length: ${bytes}\r\n`);
const chunked = head("POST", "/orders", "Authorization: user\r\nTransfer-Encoding: chunked\r\n");
/** As many headers as a request may have, and almost as much. */
const MANY =
  "Authorization: user\r\n" + Array.from({ length: 120 }, (_, at) => `x-${at}: ${"v".repeat(108)}\r\n`).join("");
const BODY = `{"a":"${"x".repeat(200_000)}"}`;

const SHAPES: Readonly<Record<string, Shape>> = {
  "nobody at all": { connections: 0, send: () => "" },
  "pipelined documents, unread": { connections: 60, send: () => head("GET", "/openapi.json").repeat(1_500) },
  "more of them": { connections: 1_000, send: () => head("GET", "/openapi.json").repeat(1_500) },
  "pipelined files, unread": {
    connections: 100,
    send: () => head("GET", "/docs/static/swagger-ui-bundle.js").repeat(900),
  },
  "one file each, unread": { connections: 2_000, send: () => head("GET", "/docs/static/swagger-ui-bundle.js") },
  "pipelined pages of orders, unread": { connections: 500, send: () => head("GET", "/orders?limit=200").repeat(300) },
  "pipelined pages of orders, read": {
    connections: 50,
    reads: true,
    send: () => head("GET", "/orders?limit=200").repeat(300),
  },
  "pipelined order": { connections: 200, send: ({ orderId }) => head("GET", `/orders/${orderId}`).repeat(1_500) },
  "pipelined 404s": { connections: 1_000, send: () => head("GET", "/nothing", "").repeat(2_000) },
  "pipelined 404s, read": { connections: 200, reads: true, send: () => head("GET", "/nothing", "").repeat(5_000) },
  "pipelined 400s": { connections: 1_000, reads: true, send: () => "GET / HTTP/1.1\r\n\r\n".repeat(3_000) },
  "pipelined garbage": { connections: 2_000, again: true, reads: true, send: () => "\0garbage\r\n\r\n".repeat(5_000) },
  "pipelined heartbeats, read": {
    connections: 200,
    reads: true,
    send: () => head("GET", "/diagnostic/heartbeat", "").repeat(5_000),
  },
  "pipelined orders that are refused": { connections: 500, send: () => (posting(5) + "wrong").repeat(500) },
  "pipelined bodies to nowhere": { connections: 300, send: () => (posting(BODY.length, "/nothing") + BODY).repeat(3) },
  "half-sent bodies to nowhere": {
    connections: 3_000,
    send: () => head("POST", "/nothing", "Content-Length: 200000\r\n"),
  },
  "half-sent bodies": { connections: 3_000, send: () => `${posting(200_000)}{` },
  "bodies to nowhere without end": {
    connections: 500,
    send: () => posting(1e12, "/nothing"),
    drip: "x".repeat(65_536),
  },
  "empty lines without end": {
    connections: 200,
    send: () => head("GET", "/nothing") + "\r\n".repeat(500_000),
    drip: "\r\n".repeat(500_000),
  },
  "bodies that nobody asked for": {
    connections: 3_000,
    send: ({ orderId }) =>
      head("GET", `/orders/${orderId}/events`, "Authorization: user\r\nContent-Length: 200000\r\n") + BODY,
  },
  "bodies all but the last byte": { connections: 2_000, send: () => posting(BODY.length) + BODY.slice(0, -1) },
  "the same of many users": {
    connections: 2_000,
    send: (_t, at) => posting(BODY.length, "/orders", `user${at}`) + BODY.slice(0, -1),
  },
  "the same to nodes": { connections: 2_000, send: () => posting(60_000, "/cluster/join") + BODY.slice(0, 59_000) },
  "bodies byte by byte": { connections: 3_000, send: () => posting(200_000), drip: "x" },
  "tiny chunks": { connections: 200, send: () => chunked + "1\r\nx\r\n".repeat(200_000) },
  "chunks of ends": { connections: 200, send: () => chunked + "4\r\n\r\n\r\n\r\n".repeat(50_000) },
  "chunk extensions": { connections: 500, send: () => `${chunked}1;${"x".repeat(15_000)}`, drip: "y".repeat(100) },
  "half-sent heads": { connections: 8_000, send: () => `GET / HTTP/1.1\r\n${"a: b\r\n".repeat(2_600)}` },
  "heads line by line": { connections: 5_000, send: () => "GET / HTTP/1.1\r\n", drip: "a: b\r\n" },
  "heads too large": { connections: 1_000, again: true, send: () => `GET / HTTP/1.1\r\n${"a: b\r\n".repeat(8_000)}` },
  "large heads, half-sent bodies": {
    connections: 6_000,
    send: () => head("POST", "/orders", `${MANY}Content-Length: 200000\r\n`) + "{",
  },
  "large heads, a file each, unread": {
    connections: 3_000,
    send: () => head("GET", "/docs/static/swagger-ui-bundle.js", MANY),
  },
  "large heads, streams of one order": {
    connections: 6_000,
    send: ({ orderId }) => head("GET", `/orders/${orderId}/events`, MANY),
  },
  "half-sent trailers": { connections: 6_000, send: () => `${chunked}1\r\nx\r\n0\r\n${"a: b\r\n".repeat(2_600)}` },
  "pages of orders for who has left": {
    connections: 200,
    again: true,
    leaves: true,
    send: () => head("GET", "/orders?limit=200"),
  },
  nothing: { connections: 16_000, send: () => "" },
  "kept alive": { connections: 12_000, reads: true, send: () => head("GET", "/diagnostic/heartbeat", "") },
  "come and go": {
    connections: 500,
    again: true,
    reads: true,
    send: () => head("GET", "/nothing", "Connection: close\r\n"),
  },
  "half-closed": { connections: 3_000, halfClosed: true, send: () => head("GET", "/openapi.json").repeat(100) },
  "streams of one order": { connections: 12_000, send: ({ orderId }) => head("GET", `/orders/${orderId}/events`) },
  "streams of all orders, by many users": {
    connections: 5_000,
    send: (_t, at) => head("GET", "/events", `Authorization: u${at}\r\n`),
  },
  "streams from the beginning": {
    connections: 500,
    send: () => head("GET", "/events", "Authorization: user\r\nLast-Event-ID: 0\r\n"),
  },
  "expect 100-continue": {
    connections: 3_000,
    send: () => head("POST", "/orders", "Authorization: user\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n"),
  },
  "expectations, pipelined": {
    connections: 300,
    send: () => head("GET", "/openapi.json", "Expect: miracles\r\n").repeat(1_000),
  },
  upgrades: {
    connections: 500,
    send: () => head("GET", "/openapi.json", "Connection: Upgrade\r\nUpgrade: websocket\r\n").repeat(1_000),
  },
  connect: { connections: 1_000, again: true, send: () => head("CONNECT", "localhost:80", "") },
  "trace and others": {
    connections: 300,
    send: () => (head("TRACE", "/orders") + head("OPTIONS", "*") + head("HEAD", "/openapi.json")).repeat(500),
  },
  "absolute-form": { connections: 300, send: () => head("GET", "http://localhost/openapi.json").repeat(1_000) },
};

const EVERYTHING = "some of everything at once";

if (process.argv[2] === "--attack") {
  await attack(process.argv[3] ?? "", Number(process.argv[4]), process.argv[5] ?? "");
} else {
  const words = process.argv.slice(2).filter((word) => word !== "strangers");
  const [limit = null] = words[0] === "--memory-limit" ? words.splice(0, 2).slice(1) : [];
  await measureAll(words, limit);
}

/** @param limit of a node's memory, in MiB: "256MiB" */
async function measureAll(chosen: readonly string[], limit: string | null): Promise<void> {
  const names = chosen.length > 0 ? chosen : [...Object.keys(SHAPES), EVERYTHING];
  console.log(
    `| shape | resident memory grows by | heartbeat takes at most | and in the median | not answered | orders refused beside it |${limit === null ? "" : " peak |"}\n|---|---|---|---|---|---|${limit === null ? "" : "---|"}`,
  );
  let failed = 0;
  let quietMs = 0;
  for (const name of names) {
    const { growthMiB, peakMiB, slowestMs, medianMs, unanswered, refused, asked } = await measure(name, limit);
    if (name === "nobody at all") quietMs = slowestMs;
    const isTooMuch = limit === null ? growthMiB > GOAL_MIB : peakMiB > 0.9 * Number.parseInt(limit);
    if (isTooMuch || slowestMs > quietMs + GOAL_MS || unanswered > 0) failed++;
    console.log(
      `| ${name} | ${growthMiB} MiB | ${Math.round(slowestMs)} ms | ${Math.round(medianMs)} ms | ${unanswered} | ${refused} of ${asked} |${limit === null ? "" : ` ${peakMiB} MiB |`}`,
    );
  }
  const goal = limit === null ? `${GOAL_MIB} MiB` : `90 % of ${limit}`;
  console.log(failed === 0 ? "All within the goals" : `Beyond the goals (${goal}, ${GOAL_MS} ms): ${failed}`);
  process.exitCode = failed === 0 ? 0 : 1;
}

interface Measured {
  readonly growthMiB: number;
  /** The most that it ever had. */
  readonly peakMiB: number;
  readonly slowestMs: number;
  readonly medianMs: number;
  /** Heartbeats. */
  readonly unanswered: number;
  readonly asked: number;
  readonly refused: number;
}

async function measure(name: string, limit: string | null): Promise<Measured> {
  const data = mkdtempSync(join(tmpdir(), "order-process-strangers-"));
  const node = spawn(
    LAUNCHER,
    ["--port", "0", "--data", data, "--step-time", "0ms", ...(limit === null ? [] : ["--memory-limit", limit])],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  try {
    const port = await listeningPort(node);
    const orderId = await usualWork(port);
    const beforeMiB = residentMiB(node, "VmRSS");
    const stranger = spawn(process.execPath, [import.meta.filename, "--attack", name, String(port), orderId], {
      stdio: "inherit",
    });
    const agent = new Agent({ keepAlive: false });
    const times: number[] = [];
    let mostMiB = beforeMiB;
    let [asked, refused, unanswered] = [0, 0, 0];
    const endMs = performance.now() + SHAPE_MS;
    while (performance.now() < endMs) {
      const startMs = performance.now();
      if ((await ask(agent, port, "GET", "/diagnostic/heartbeat")) !== 200) unanswered++;
      times.push(performance.now() - startMs);
      mostMiB = Math.max(mostMiB, residentMiB(node, "VmRSS"));
      asked++;
      if ((await ask(agent, port, "POST", "/orders")) !== 201) refused++;
      await delay(50);
    }
    stranger.kill("SIGKILL");
    const sorted = times.toSorted((one, other) => one - other);
    return {
      growthMiB: mostMiB - beforeMiB,
      peakMiB: residentMiB(node, "VmHWM"),
      slowestMs: sorted.at(-1) ?? Number.NaN,
      medianMs: sorted[Math.floor(sorted.length / 2)] ?? Number.NaN,
      unanswered,
      asked,
      refused,
    };
  } finally {
    node.kill("SIGKILL");
    rmSync(data, { recursive: true, force: true });
  }
}

function listeningPort(node: ChildProcess): Promise<number> {
  let output = "";
  return new Promise((resolve, reject) => {
    node.once("exit", () => reject(new Error(`the node ended: ${output}`)));
    node.stdout?.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      const port = /Listening at: http:\S+:(\d+)/.exec(output)?.[1];
      if (port !== undefined) resolve(Number(port));
    });
  });
}

/** Orders and looks at them, so that the memory that every node takes after a while is taken. */
async function usualWork(port: number): Promise<string> {
  const agent = new Agent({ keepAlive: true, maxSockets: 50 });
  let orderId = "";
  for (let round = 0; round < 40; round++) {
    await Promise.all(
      Array.from({ length: 50 }, () =>
        ask(agent, port, "POST", "/orders", (text) => (orderId = (JSON.parse(text) as { order_id: string }).order_id)),
      ),
    );
    await Promise.all(Array.from({ length: 50 }, () => ask(agent, port, "GET", "/orders?limit=200")));
  }
  agent.destroy();
  return orderId;
}

/** @returns the status; 0 when there was no answer */
function ask(
  agent: Agent,
  port: number,
  method: string,
  path: string,
  take: (text: string) => unknown = () => 0,
): Promise<number> {
  return new Promise((resolve) => {
    const headers = { authorization: "customer" };
    const asking = request({ agent, host: "127.0.0.1", port, method, path, headers }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (part: string) => (text += part));
      response.once("end", () => {
        take(text);
        resolve(response.statusCode ?? 0);
      });
      response.once("error", () => resolve(0));
    });
    asking.once("error", () => resolve(0));
    asking.end(method === "POST" ? '{"item":"book"}' : undefined);
  });
}

/** @param what VmRSS: now; VmHWM: at the most, ever */
function residentMiB({ pid }: ChildProcess, what: "VmRSS" | "VmHWM"): number {
  const kib = new RegExp(`^${what}:\\s+(\\d+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Math.round(Number(kib) / 1024);
}

/** In a process of its own: a shape, until it is killed. */
async function attack(name: string, port: number, orderId: string): Promise<void> {
  const chosen = SHAPES[name];
  if (chosen === undefined && name !== EVERYTHING) {
    throw new Error(`there is no shape "${name}"; there are: ${Object.keys(SHAPES).join(", ")}`);
  }
  const shapes = chosen === undefined ? Object.values(SHAPES) : [chosen];
  const drips = new Map<Socket, string>();
  const open = (shape: Shape, index: number): void => {
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    if (shape.drip !== undefined) drips.set(socket, shape.drip);
    socket.on("error", () => undefined);
    socket.once("close", () => {
      drips.delete(socket);
      if (shape.again === true) setImmediate(open, shape, index);
    });
    if (shape.reads === true) socket.resume();
    else socket.pause();
    const sent = shape.send({ port, orderId }, index);
    if (shape.leaves === true) socket.write(sent, () => socket.destroy());
    else if (shape.halfClosed === true) socket.end(sent);
    else if (sent !== "") socket.write(sent);
  };
  let opened = 0;
  for (const shape of shapes) {
    for (let index = 0; index < shape.connections / shapes.length; index++) {
      open(shape, index);
      if (++opened % 200 === 0) await delay(20);
    }
  }
  for (;;) {
    await delay(200);
    for (const [socket, drip] of drips) socket.write(drip);
  }
}
