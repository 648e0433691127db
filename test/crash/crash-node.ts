/**
 * The service of the crash tests: the real node with the real store, under the service's own command line. Its steps call
 * the receiver, and by the environment it can be told to die at a write or to break a guarantee:
 *
 *     CRASH_RECEIVER  address of the receiver
 *     CRASH_PIPELINE  which of pipelines/; default: crash-test
 *     CRASH_KILL      before:3 or after:3, the write to die at; after:1:claimOrders, the write of a kind
 *     CRASH_BREAK     one of BROKEN_GUARANTEES
 *     CRASH_CLOCK_MS  how far the wall clock is off
 *     CRASH_CLOCK_SET_MS  by how much SIGUSR2 sets the wall clock, where no record is kept
 *     CRASH_CLAIM_MS  how long each claim is held back
 *     CRASH_LATE      death: who is to be marked dead is, when it has shown that it lives
 *     CRASH_RECORD    folder for the record of what the node asked of the store and what it heard (cluster/node-record.ts)
 *
 * With a record, SIGUSR2 has it note what memory it can't do without.
 */
import { fileURLToPath } from "node:url";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { readInvocation } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { startNode } from "../../src/main.ts";
import { systemClock } from "../../src/runtime/clock.ts";
import type { Store } from "../../src/store/store.ts";
import { programVersion } from "../../src/version.ts";
import { NodeRecord } from "../cluster/node-record.ts";
import {
  BROKEN_GUARANTEES,
  brokenStore,
  killingStore,
  type KillPoint,
  lateDeathStore,
  slowClaimsStore,
  WRITE_KINDS,
  witnessedStore,
} from "./fault-stores.ts";
import { witness } from "./witness.ts";

const pipelineFile = fileURLToPath(
  new URL(`pipelines/${process.env["CRASH_PIPELINE"] ?? "crash-test"}.ts`, import.meta.url),
);
// What kills these nodes is never an order, and what blocks them is to be seen from outside.
const options = [
  ...process.argv.slice(2),
  "--pipelines",
  pipelineFile,
  "--set-aside-after",
  "1000",
  "--blocked-limit",
  "0s",
];
const invocation = readInvocation(options, process.env, programVersion());
if (invocation.kind !== "run") throw new Error("crash-node.ts only runs");
const { config } = invocation;
const log = createLogger(config.logLevel, config.logFormat, (text) => void process.stdout.write(text));
const killPoint = readKillPoint(process.env["CRASH_KILL"]);
let clockMs = Number(process.env["CRASH_CLOCK_MS"] ?? 0);
const clockSetMs = Number(process.env["CRASH_CLOCK_SET_MS"] ?? 0);
const claimMs = Number(process.env["CRASH_CLAIM_MS"] ?? 0);
const recordFolder = process.env["CRASH_RECORD"];
const record = recordFolder === undefined ? null : new NodeRecord(recordFolder);
record?.watchStalls();
const now = (): number => Date.now() + clockMs;
if (clockSetMs !== 0) process.on("SIGUSR2", () => (clockMs += clockSetMs));
const broken = BROKEN_GUARANTEES.find((guarantee) => guarantee === process.env["CRASH_BREAK"]);

const starting = startNode(config, log, stopAtOnce, {
  clock: systemClock(now),
  // The record is kept above what is broken, so that it holds what the node was told, and below what only makes it late.
  wrapStore: (store) => {
    const witnessed = witnessedStore(store);
    witness.current = witnessed.witness;
    let wrapped: Store = witnessed.store;
    if (killPoint !== null) wrapped = killingStore(wrapped, killPoint);
    if (broken !== undefined) wrapped = brokenStore(wrapped, broken, now);
    if (record !== null) wrapped = record.wrap(wrapped);
    if (claimMs > 0) wrapped = slowClaimsStore(wrapped, claimMs);
    return process.env["CRASH_LATE"] === "death" ? lateDeathStore(wrapped) : wrapped;
  },
});
process.on("SIGTERM", () => void starting.then((node) => node.stop()).then(() => process.exit(0)));
if (record !== null) process.on("SIGUSR2", () => record.noteMemory(collectGarbage()));
await starting;

/** @returns the bytes that are in use after it */
function collectGarbage(): number {
  setFlagsFromString("--expose-gc");
  (runInNewContext("gc") as () => void)();
  return process.memoryUsage().heapUsed;
}

function readKillPoint(text: string | undefined): KillPoint | null {
  const [, moment, write, kindText] = /^(before|after):(\d+)(?::(\w+))?$/.exec(text ?? "") ?? [];
  if (moment !== "before" && moment !== "after") return null;
  const kind = WRITE_KINDS.find((each) => each === kindText);
  return { moment, write: Number(write), ...(kind === undefined ? {} : { kind }) };
}

function stopAtOnce(error: Error): never {
  process.stderr.write(`crash-node: ${error.message}: ${String(error.cause)}\n`);
  process.exit(1);
}
