/** `order_process check`: shows the pipelines of a path, or what is wrong with them. */
import ms from "ms";
import type { Pipeline, Step } from "../order/pipeline.ts";
import { pipelineLabel } from "../order/pipeline.ts";
import { loadPipelines, showProblem } from "./load.ts";

/** @returns whether all is well */
export async function checkPipelines(
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
  print: (line: string) => void,
): Promise<boolean> {
  // What is checked here runs elsewhere, where they are set.
  const unset = new Set<string>();
  const lenient = new Proxy(environment, {
    getOwnPropertyDescriptor: (target, name) =>
      Object.getOwnPropertyDescriptor(target, name) ?? {
        value: "",
        configurable: true,
        enumerable: true,
        writable: true,
      },
    get: (target, name) => {
      const value = Object.hasOwn(target, name) ? target[String(name)] : undefined;
      if (value === undefined) unset.add(String(name));
      return value ?? "";
    },
  });
  const { pipelines, problems } = await loadPipelines(path, lenient);
  for (const { file, pipeline } of pipelines) {
    print(`${pipelineLabel(pipeline)}  (${file})`);
    for (const line of showSteps(pipeline)) print(`  ${line}`);
  }
  for (const problem of problems) print(showProblem(problem));
  if (unset.size > 0) print(`Must be set where it runs, and is not set here: ${[...unset].join(", ")}`);
  print(
    problems.length === 0
      ? `${count(pipelines.length, "pipeline")}, nothing wrong.`
      : `${count(problems.length, "problem")}.`,
  );
  return problems.length === 0;
}

function showSteps({ steps }: Pipeline): string[] {
  const width = Math.max(...steps.map(({ name }) => name.length));
  return steps.map((step, index) => `${index + 1}. ${step.name.padEnd(width)}  ${traitsOf(step).join(", ")}`);
}

function traitsOf(step: Step): string[] {
  const { retry, rollbackRetry, timeoutMs, concurrency, wait } = step;
  return [
    `timeout ${ms(timeoutMs)}`,
    count(retry.attemptsMax, "attempt"),
    step.rollback === undefined
      ? "no rollback"
      : `rolled back${rollbackRetry.attemptsMax === retry.attemptsMax ? "" : ` (${count(rollbackRetry.attemptsMax, "attempt")})`}`,
    ...(concurrency === null
      ? []
      : [`${concurrency.callsMax} at once ${concurrency.scope === "node" ? "on each node" : "in the cluster"}`]),
    ...(step.verify === undefined ? [] : ["verified when unknown"]),
    ...(step.isCommit ? ["point of no return"] : []),
    ...(wait === null ? [] : [`waits for a signal${wait.deadlineMs === null ? "" : ` for ${ms(wait.deadlineMs)}`}`]),
  ];
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
