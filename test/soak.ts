/**
 * What takes too long for `npm test`, on both stores: the long forms of its tests, and what only many runs can show.
 *
 *     npm run soak                            everything: about three hours, on a machine that does nothing else
 *     npm run soak -- joins drills            these parts only
 *     npm run soak -- steady --store redis    on one store only
 *
 * Starts the Redis that it needs. Ends with 1 when any part failed.
 */
import { spawn } from "node:child_process";
import { globSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { startRedis } from "./support/redis.ts";
import { LAUNCHER } from "./support/service.ts";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const NODE = process.execPath;
const STORES = ["sqlite", "redis"] as const;
const RUNS = 20;
const STEADY_MINUTES = 30;

type StoreKind = (typeof STORES)[number];

interface Part {
  readonly what: string;
  /** `storeArgs` name the Redis, if there is one. */
  readonly command: (storeArgs: readonly string[]) => readonly [file: string, ...args: string[]];
  readonly times?: number;
}

const PARTS: Readonly<Record<string, Part>> = {
  joins: {
    what: "1,000 joins and leaves",
    command: () => [NODE, "--test", "--test-reporter=spec", "test/cluster/churn.test.ts"],
  },
  faults: {
    what: "every fault of test/cluster, one after another",
    command: () => [NODE, "--test", "--test-reporter=spec", "--test-concurrency=1", ...faultTests()],
  },
  drills: {
    what: `${RUNS} drills`,
    command: (storeArgs) => [LAUNCHER, "drill", ...storeArgs],
    times: RUNS,
  },
  failover: {
    what: `${RUNS} failovers of each kind`,
    command: (storeArgs) => [NODE, "bench/failover.ts", String(RUNS), ...storeArgs],
  },
  steady: {
    what: `${STEADY_MINUTES} minutes at 80 % load`,
    command: (storeArgs) => [NODE, "bench/steady.ts", String(STEADY_MINUTES), ...storeArgs],
  },
};

const { values, positionals } = parseArgs({ allowPositionals: true, options: { store: { type: "string" } } });
const stores = STORES.filter((store) => values.store === undefined || values.store === store);
const chosen = Object.entries(PARTS).filter(([name]) => positionals.length === 0 || positionals.includes(name));
const unknown = positionals.find((name) => PARTS[name] === undefined);
if (unknown !== undefined || stores.length === 0) {
  console.error(
    `There is no ${unknown ?? `store ${values.store}`}. Parts: ${Object.keys(PARTS).join(", ")}; stores: ${STORES.join(", ")}.`,
  );
  process.exit(2);
}

const results: string[] = [];
let failed = 0;
for (const [name, part] of chosen) {
  for (const store of stores) {
    const startMs = performance.now();
    const times = part.times ?? 1;
    let passed = 0;
    for (let run = 1; run <= times; run++) {
      console.log(`\n=== ${name} on ${store}: ${part.what}${times === 1 ? "" : `, run ${run}`}`);
      if (await runPart(part, store)) passed++;
    }
    if (passed < times) failed++;
    const minutes = ((performance.now() - startMs) / 60_000).toFixed(1);
    results.push(
      `${passed === times ? "passed" : "FAILED"}  ${name} on ${store}: ${part.what}, ${passed} of ${times} passed, ${minutes} min`,
    );
  }
}
console.log(`\n${results.join("\n")}`);
process.exit(failed === 0 ? 0 : 1);

/** Runs it in a process of its own; each gets an empty Redis. */
async function runPart({ command }: Part, store: StoreKind): Promise<boolean> {
  const ends: (() => Promise<void>)[] = [];
  try {
    const redis = store === "redis" ? await startRedis({ after: (end) => ends.push(end) }) : null;
    const storeArgs = redis === null ? [] : ["--store", `redis://127.0.0.1:${redis.port}`];
    return await succeeds(command(storeArgs), { ORDER_PROCESS_SOAK: "1", ORDER_PROCESS_TEST_STORE: store });
  } finally {
    for (const end of ends) await end();
  }
}

function succeeds(
  [file, ...args]: readonly [string, ...string[]],
  env: Readonly<Record<string, string>>,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd: ROOT, stdio: "inherit", env: { ...process.env, ...env } });
    child.once("error", reject);
    child.once("close", (code) => resolve(code === 0));
  });
}

/** The churn of nodes is a part of its own. */
function faultTests(): string[] {
  return globSync("test/cluster/*.test.ts", { cwd: ROOT }).filter((path) => !path.endsWith("churn.test.ts"));
}
