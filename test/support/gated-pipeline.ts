/** A pipeline whose second step ends when the test says so: whatever is to happen meanwhile happens in time, on any machine. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { temporaryFolder } from "./service.ts";

export interface GatedPipeline {
  /** Options of the command line with which a service runs it. */
  readonly args: readonly string[];
  /** Lets the second step of every order end, from now on. */
  readonly open: () => void;
}

/** Its steps are Begin, Wait and End. */
export function gatedPipeline(t: TestContext): GatedPipeline {
  const folder = temporaryFolder(t);
  const [file, gate] = [join(folder, "gated.ts"), join(folder, "gate")];
  writeFileSync(
    file,
    `import { existsSync } from "node:fs";
import { setTimeout } from "node:timers/promises";
import { definePipeline } from "order-process";
export default definePipeline({ name: "gated", version: 1, steps: [
  { name: "Begin", run: () => undefined },
  { name: "Wait", run: async () => { while (!existsSync(${JSON.stringify(gate)})) await setTimeout(10); } },
  { name: "End", run: () => undefined },
] });
`,
  );
  return { args: ["--pipelines", file], open: () => writeFileSync(gate, "") };
}
