/**
 * What strangers cost: clients that send much, send slowly, read nothing or hold on, against a node as `./order_process` starts it.
 * Each shape gets a node of its own, which has done its usual work for a moment before; then it is measured how much its resident memory
 * grows, and how long the heartbeat takes at the most, while the shape goes on, beside a node that is left alone.
 *
 *     npm run bench -- strangers            all shapes, some fifteen minutes
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
import { type Shape, SHAPES, type Target } from "./stranger-shapes.ts";

const LAUNCHER = fileURLToPath(new URL("../order_process", import.meta.url));
const SHAPE_MS = 10_000;
const GOAL_MIB = 200;
const GOAL_MS = 500;

/** Orders that wait for their time, and were paused and resumed as often as an order may be. */
const WAITING_ORDERS = 10;
const PAUSES = 49;

const EVERYTHING = "some of everything at once";

if (process.argv[2] === "--attack") {
  const [name = "", port, orderId = "", waitingId = ""] = process.argv.slice(3);
  await attack(name, { port: Number(port), orderId, waitingId });
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
    const { orderId, waitingId } = await usualWork(port);
    const beforeMiB = residentMiB(node, "VmRSS");
    const stranger = spawn(
      process.execPath,
      [import.meta.filename, "--attack", name, String(port), orderId, waitingId],
      {
        stdio: "inherit",
      },
    );
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
      if ((await ask(agent, port, "POST", "/orders", () => 0, { user: "customer" })) !== 201) refused++;
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

/** Orders of the strangers' user, and looks at them, so that the memory that every node takes after a while is taken. */
async function usualWork(port: number): Promise<Omit<Target, "port">> {
  const agent = new Agent({ keepAlive: true, maxSockets: 50 });
  let orderId = "";
  for (let round = 0; round < 40; round++) {
    await Promise.all(
      Array.from({ length: 50 }, () => ask(agent, port, "POST", "/orders", (text) => (orderId = idIn(text)))),
    );
    await Promise.all(Array.from({ length: 50 }, () => ask(agent, port, "GET", "/orders?limit=200")));
  }
  const later = encodeURIComponent(new Date(Date.now() + 3_600_000).toISOString());
  let waitingId = "";
  for (let count = 0; count < WAITING_ORDERS; count++) {
    await ask(agent, port, "POST", `/orders?start_at=${later}`, (text) => (waitingId = idIn(text)));
    for (let time = 0; time < PAUSES; time++)
      for (const action of ["pause", "resume"])
        await ask(agent, port, "POST", `/orders/${waitingId}/${action}`, () => 0, { body: "{}" });
  }
  agent.destroy();
  return { orderId, waitingId };
}

function idIn(text: string): string {
  return (JSON.parse(text) as { order_id: string }).order_id;
}

/** @returns the status; 0 when there was no answer */
function ask(
  agent: Agent,
  port: number,
  method: string,
  path: string,
  take: (text: string) => unknown = () => 0,
  { body = '{"item":"book"}', user = "user" } = {},
): Promise<number> {
  return new Promise((resolve) => {
    const headers = { authorization: user };
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
    asking.end(method === "POST" ? body : undefined);
  });
}

/** @param what VmRSS: now; VmHWM: at the most, ever */
function residentMiB({ pid }: ChildProcess, what: "VmRSS" | "VmHWM"): number {
  const kib = new RegExp(`^${what}:\\s+(\\d+)`, "m").exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
  return Math.round(Number(kib) / 1024);
}

/** In a process of its own: a shape, until it is killed. */
async function attack(name: string, target: Target): Promise<void> {
  const chosen = SHAPES[name];
  if (chosen === undefined && name !== EVERYTHING) {
    throw new Error(`there is no shape "${name}"; there are: ${Object.keys(SHAPES).join(", ")}`);
  }
  const shapes = chosen === undefined ? Object.values(SHAPES) : [chosen];
  const drips = new Map<Socket, string>();
  const open = (shape: Shape, index: number): void => {
    const socket = connect({ port: target.port, host: "127.0.0.1", allowHalfOpen: true });
    if (shape.drip !== undefined) drips.set(socket, shape.drip);
    socket.on("error", () => undefined);
    socket.once("close", () => {
      drips.delete(socket);
      if (shape.again === true) setImmediate(open, shape, index);
    });
    const sent = shape.send(target, index);
    if (shape.repeats === true) socket.on("data", () => socket.write(sent));
    else if (shape.leavesAtAnswer === true) socket.once("data", () => socket.destroy());
    else if (shape.reads === true) socket.resume();
    else socket.pause();
    if (shape.leavesAfterMs !== undefined) setTimeout(() => socket.destroy(), shape.leavesAfterMs);
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
