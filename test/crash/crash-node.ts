/**
 * The service of the crash tests: the real node with the real store, under the service's own command line. Its steps call
 * the receiver, and by the environment it can be told to die at a write or to break a guarantee:
 *
 *     CRASH_RECEIVER  address of the receiver
 *     CRASH_KILL      before:3 or after:3, the write to die at
 *     CRASH_BREAK     one of BROKEN_GUARANTEES
 */
import { readInvocation } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { programVersion, startNode } from "../../src/main.ts";
import {
  BROKEN_GUARANTEES,
  brokenStore,
  killingStore,
  type KillPoint,
  type Witness,
  witnessedStore,
} from "./fault-stores.ts";
import { receiverPipeline } from "./receiver-pipeline.ts";

const invocation = readInvocation(process.argv.slice(2), process.env, programVersion());
if (invocation.kind !== "run") throw new Error("crash-node.ts only runs");
const { config } = invocation;
const log = createLogger(config.logLevel, config.logFormat, (text) => void process.stdout.write(text));
const killPoint = readKillPoint(process.env["CRASH_KILL"]);
const broken = BROKEN_GUARANTEES.find((guarantee) => guarantee === process.env["CRASH_BREAK"]);

// The steps are there before the store is, and a step is called after it: until then there is nothing to testify.
let witness: Witness = { incarnation: () => 0, durableRevision: () => 0 };

const starting = startNode(config, log, stopAtOnce, {
  pipeline: receiverPipeline(process.env["CRASH_RECEIVER"] ?? "", {
    incarnation: () => witness.incarnation(),
    durableRevision: (orderId) => witness.durableRevision(orderId),
  }),
  wrapStore: (store) => {
    const witnessed = witnessedStore(store);
    witness = witnessed.witness;
    const killing = killPoint === null ? witnessed.store : killingStore(witnessed.store, killPoint);
    return broken === undefined ? killing : brokenStore(killing, broken);
  },
});
process.on("SIGTERM", () => void starting.then((node) => node.stop()).then(() => process.exit(0)));
await starting;

function readKillPoint(text: string | undefined): KillPoint | null {
  const [, moment, write] = /^(before|after):(\d+)$/.exec(text ?? "") ?? [];
  return moment === "before" || moment === "after" ? { moment, write: Number(write) } : null;
}

function stopAtOnce(error: Error): never {
  process.stderr.write(`crash-node: ${error.message}: ${String(error.cause)}\n`);
  process.exit(1);
}
