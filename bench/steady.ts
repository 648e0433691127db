/**
 * A cluster under steady load: does it take a live node for dead? Three nodes share a store; what they can take together is measured for a
 * while, and 80 % of it is offered for the time that is asked for.
 *
 *     node bench/steady.ts [minutes] [--store redis://…]
 *
 * Ends with 1 when any node was declared dead, or an acknowledged order did not end.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { PracticeNode, readCluster, waitUntil } from "../src/drill/practice-node.ts";

const [minutesText = "30", ...rest] = process.argv.slice(2);
const MINUTES = Number(minutesText);
const CALIBRATION_MS = 20_000;
const CLIENTS = 96;
const SHARE = 0.8;
const TICK_MS = 5;

const folder = mkdtempSync(join(tmpdir(), "order-process-steady-"));
const store = rest.includes("--store") ? [] : ["--store", `sqlite:${join(folder, "orders.sqlite")}`];
const nodes = ["A", "B", "C"].map(
  (name) => new PracticeNode({ name, data: join(folder, name), args: [...store, "--step-time", "0ms", ...rest] }),
);
process.on("exit", () => {
  for (const node of nodes) node.signal("SIGKILL");
  rmSync(folder, { recursive: true, force: true });
});
for (const node of nodes) await node.start();

const agent = new Agent({ keepAlive: true, maxSockets: 256 });
const counts = { accepted: 0, refused: 0, underWay: 0 };
const latenciesMs: number[] = [];
let next = 0;

const perSecond = await calibrate();
console.log(
  `Three nodes take ${Math.round(perSecond)} orders a second together; ${Math.round(perSecond * SHARE)} are offered.`,
);
await offer(perSecond * SHARE);
const inFlight = async (): Promise<number> => {
  const views = await Promise.all(nodes.map(({ url }) => readCluster(url)));
  const counted = views.map((view, index) => view?.nodes.find(({ name }) => name === nodes[index]?.serviceId));
  return counted.reduce((sum, node) => sum + (node?.orders_in_flight ?? 1), 0);
};
const allEnded = await waitUntil(async () => (await inFlight()) === 0, 60_000);
const deaths = nodes.flatMap(({ log }) => log.split("\n").filter((line) => / is dead: |taken for dead/.test(line)));
latenciesMs.sort((one, other) => one - other);
const p99Ms = latenciesMs[Math.floor(latenciesMs.length * 0.99)] ?? Number.NaN;
console.log(
  `${MINUTES} minutes: ${counts.accepted} orders accepted, ${counts.refused} refused; accept p99 ${Math.round(p99Ms)} ms; ` +
    `live nodes taken for dead: ${deaths.length}; ${allEnded ? "every order ended" : "NOT every order ended"}`,
);
for (const line of deaths) console.log(line);
process.exit(deaths.length === 0 && allEnded ? 0 : 1);

async function calibrate(): Promise<number> {
  const endMs = performance.now() + CALIBRATION_MS;
  const client = async (): Promise<void> => {
    while (performance.now() < endMs) await submit();
  };
  await Promise.all(Array.from({ length: CLIENTS }, client));
  const rate = (counts.accepted * 1_000) / CALIBRATION_MS;
  Object.assign(counts, { accepted: 0, refused: 0 });
  latenciesMs.length = 0;
  return rate;
}

/** As many a second, whether they are answered or not; what piles up beyond some thousands is left out. */
async function offer(rate: number): Promise<void> {
  const startMs = performance.now();
  const endMs = startMs + MINUTES * 60_000;
  let sent = 0;
  let shownMs = startMs;
  for (let nowMs = startMs; nowMs < endMs; nowMs = performance.now()) {
    const due = Math.floor(((nowMs - startMs) / 1_000) * rate);
    for (; sent < due; sent++) if (counts.underWay < 5_000) void submit();
    if (nowMs - shownMs > 60_000) {
      shownMs = nowMs;
      process.stderr.write(
        `${Math.round((nowMs - startMs) / 60_000)} min: ${counts.accepted} accepted, ${counts.refused} refused\n`,
      );
    }
    await delay(TICK_MS);
  }
  await waitUntil(() => counts.underWay === 0, 30_000);
}

function submit(): Promise<void> {
  const node = nodes[next++ % nodes.length];
  const sentMs = performance.now();
  counts.underWay++;
  return new Promise((resolve) => {
    const done = (accepted: boolean): void => {
      counts.underWay--;
      if (accepted) counts.accepted++;
      else counts.refused++;
      if (latenciesMs.length < 1_000_000) latenciesMs.push(performance.now() - sentMs);
      resolve();
    };
    const headers = { authorization: "user", "content-type": "application/json" };
    const sending = request(`${node?.url}/orders`, { method: "POST", agent, headers }, (response) => {
      response.resume();
      response.on("end", () => done(response.statusCode === 201));
    });
    sending.on("error", () => done(false));
    sending.end('{"item":"book","amount":3}');
  });
}
