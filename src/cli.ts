/** The command: reads the configuration, runs a node until it is told to stop, and turns failures into one clear line. */
import { readFileSync } from "node:fs";
import { constants } from "node:os";
import { fileURLToPath } from "node:url";
import { fitHeap, memoryPlanOf } from "./start/heap.ts";
import { readInvocation, UsageError } from "./config.ts";
import { createLogger, type Logger } from "./log.ts";
import type { Screen } from "./drill/drill.ts";
import type { Node } from "./main.ts";
import { StartError } from "./order/errors.ts";
import { oneLine, printable, printableLines } from "./printable.ts";
import { textOf } from "./order/step-error.ts";
import { isOfPipelines } from "./stray-error.ts";
import { StoreUnavailableError } from "./store/store.ts";
import { programVersion } from "./version.ts";

const EXIT_FAILURE = 1;
const EXIT_USAGE = 2;
const LOG_BACKLOG_CHARS_MAX = 8 * 1024 * 1024;
const SIGNALS = ["SIGTERM", "SIGINT"] as const;

// A log that can't be written (a full disk, a reader that has gone) must not stop the service.
for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);

if (process.argv[2] === "orders") process.exit(await runOrders());

try {
  const invocation = readInvocation(process.argv.slice(2), process.env, programVersion());
  if (invocation.kind === "print") {
    process.stdout.write(printableLines(invocation.text));
  } else if (invocation.kind === "check") {
    const { checkPipelines } = await import("./pipelines/check.ts");
    const isSound = await checkPipelines(invocation.path, process.env, (line) => terminal().line(line));
    process.exit(isSound ? 0 : EXIT_FAILURE);
  } else if (invocation.kind === "drill") {
    const stopped = abortOnSignals();
    const { startDrill } = await import("./drill/start-drill.ts");
    process.exit((await startDrill(invocation.config, terminal(), stopped)) ? 0 : EXIT_FAILURE);
  } else {
    const { config } = invocation;
    fitHeap(memoryPlanOf(config), fileURLToPath(import.meta.url));
    process.umask(0o077); // orders, and the cluster's secret, are nobody else's business
    const log = createLogger(config.logLevel, config.logFormat, writeLog);
    log.info(`Order Processing Service Start! (version ${programVersion()}, process ${process.pid})`);
    log.info(`Log configuration loaded: {${config.logLevel} ${config.logFormat}}`);
    for (const name of invocation.unknownVariables)
      log.warn(`The environment variable ${name} is no option and is ignored`);
    for (const line of invocation.warnings) log.warn(`${line.charAt(0).toUpperCase()}${line.slice(1)}`);
    const broken = (error: unknown): void => stopAtOnce(log, error);
    const uncaught = (error: unknown): void => {
      if (config.pipelines === null || !isOfPipelines(error)) return broken(error);
      log.error(
        `A step has left something behind that failed outside of its call, where nobody hears of it: ${textOf(error)}. ` +
          "What a step begins it must await",
      );
    };
    process.on("uncaughtException", uncaught);
    process.on("unhandledRejection", uncaught);
    // Loaded now: whoever asks for help, or has mistyped an option, is answered in half the time.
    const { startNode } = await import("./main.ts");
    const starting = startNode(config, log, broken);
    stopOnSignals(log, starting);
    endOnOwnSignals(log);
    await starting;
  }
} catch (error) {
  if (error instanceof UsageError) exitWith(EXIT_USAGE, error.message);
  else if (error instanceof StartError) exitWith(EXIT_FAILURE, error.message);
  else exitWith(EXIT_FAILURE, `failed to start, which is a defect, please report it: ${describe(error)}`);
}

/** The client's commands. @returns the exit code */
async function runOrders(): Promise<number> {
  const { describeClientError, runOrdersCommand } = await import("./client/commands.ts");
  try {
    return await runOrdersCommand(process.argv.slice(3), process.env, {
      write: (text) => void process.stdout.write(printableLines(text)),
      eraseLines: (count) => void process.stdout.write(`\u001b[${count}A\u001b[J`),
      warn: (line) => void process.stderr.write(`order_process: ${oneLine(line)}\n`),
      isWatched: process.stdout.isTTY,
      columns: process.stdout.columns ?? 80,
      readInput: () => readFileSync(0, "utf8"),
    });
  } catch (error) {
    const line = error instanceof UsageError ? error.message : (describeClientError(error) ?? describe(error));
    process.stderr.write(`order_process: ${oneLine(line)}\n`);
    return error instanceof UsageError ? EXIT_USAGE : EXIT_FAILURE;
  }
}

/** Lines, and on a terminal one below them that changes. */
function terminal(): Screen {
  const isWatched = process.stdout.isTTY;
  const erase = isWatched ? "\r\u001b[K" : "";
  return {
    line: (text) => void process.stdout.write(`${erase}${printable(text)}\n`),
    progress: (text) => void (isWatched && process.stdout.write(`${erase}${printable(text)}`)),
  };
}

/** A signal, or the end of the terminal, ends what is told of it, with its name as the reason. Another one changes nothing: to clean up takes seconds at the most. */
function abortOnSignals(): AbortSignal {
  const controller = new AbortController();
  for (const signal of [...SIGNALS, "SIGHUP"] as const) process.on(signal, () => controller.abort(signal));
  return controller.signal;
}

/** Nobody may read the log, or read it slowly: what would fill the memory is dropped. */
function writeLog(text: string): void {
  if (process.stdout.writableLength <= LOG_BACKLOG_CHARS_MAX) process.stdout.write(text);
}

/** The first signal stops the node in good order, the second at once. */
function stopOnSignals(log: Logger, starting: Promise<Node>): void {
  let signalled = false;
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      if (signalled) {
        log.warn(`${signal} again: stopping at once`);
        process.exit(EXIT_FAILURE);
      }
      signalled = true;
      starting
        .then((node) => node.stop())
        .then(() => process.exit(0))
        .catch((error: unknown) => stopAtOnce(log, error));
    });
  }
}

/**
 * A step that tells its own process to stop would have each node stop in good order that goes on with its order, which nobody would set aside.
 * So it ends the process like any other step that does.
 */
function endOnOwnSignals(log: Logger): void {
  const kill = process.kill.bind(process);
  const stopping: readonly (string | number)[] = [...SIGNALS, ...SIGNALS.map((name) => constants.signals[name])];
  process.kill = (pid, signal) => {
    const isOwn = Math.abs(pid) === process.pid || pid === 0;
    // Node takes whatever is nothing for SIGTERM.
    if (isOwn && stopping.includes((signal as typeof signal | null) ?? "SIGTERM"))
      stopAtOnce(log, new StartError("a step has sent the node's process a signal to stop"));
    return kill(pid, signal);
  };
}

/** Something that must not happen has happened: going on could do harm, stopping loses nothing. */
function stopAtOnce(log: Logger, error: unknown): never {
  if (error instanceof StoreUnavailableError || error instanceof StartError) {
    log.fatal(`The node can't go on and stops: ${error.message}`);
    exitWith(EXIT_FAILURE, `stopped: ${error.message}`);
  }
  log.fatal({ err: error }, "The node can't go on and stops");
  exitWith(EXIT_FAILURE, `stopped by a defect or a broken store: ${describe(error)}`);
}

function exitWith(code: number, line: string): never {
  process.stderr.write(`order_process: ${oneLine(line)}\n`);
  process.exit(code);
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? error.message : `${error.message}: ${describe(error.cause)}`;
}
