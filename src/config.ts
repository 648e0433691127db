/**
 * What can be configured, in one table: the command line, the environment, the file and `--help` all come from it.
 * An option beats its environment variable, which beats the file, which beats the default.
 */
import { closeSync, fstatSync, openSync, readFileSync, type Stats } from "node:fs";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import ms from "ms";
import { parse as parseYaml } from "yaml";
import { accessOf } from "./file-access.ts";
import { allowedHost } from "./http/host-check.ts";
import { parseStoreLocation, type StoreCredentials, type StoreLocation } from "./store/store-location.ts";
import { LOG_FORMATS, LOG_LEVELS, type LogFormat, type LogLevel } from "./log.ts";

export interface Config {
  readonly host: string;
  readonly port: number;
  /** The data folder. */
  readonly data: string;
  /** Null: not said; then it is the joined cluster's store, or the one of the node's last start, or one in the data folder. */
  readonly store: StoreLocation | null;
  readonly storeCredentials: StoreCredentials;
  /** Refuse to start where a loss of power could take what was acknowledged. */
  readonly requireDurable: boolean;
  /** Tell nodes of other hosts that want to join where the store is. */
  readonly shareStore: boolean;
  /** `host:port` of a node whose cluster to join, or null. */
  readonly join: string | null;
  /** `host:port` where the other nodes reach this one, or null: where it listens. */
  readonly advertise: string | null;
  /** More names by which the node may be asked, as allowedHost gives them. */
  readonly allowedHosts: ReadonlySet<string>;
  /** Silence after which a node counts as dead. */
  readonly nodeTtlMs: number;
  /** An order is set aside when so many nodes in a row have died while a call of it was under way. */
  readonly crashesMax: number;
  /** How long the event loop may be blocked; 0: as long as it likes; null: the TTL, or on a lone node BLOCKED_ALONE_MS (start). */
  readonly blockedLimitMs: number | null;
  /** Users who may see and steer the orders of all. */
  readonly operators: ReadonlySet<string>;
  /** The file or folder with pipelines, or null: the built-in one. */
  readonly pipelines: string | null;
  readonly stepTimeMs: number;
  /** 0 to 1. */
  readonly failureRate: number;
  /** How long running steps may go on when the node stops. */
  readonly graceMs: number;
  readonly inFlightMax: number;
  /** Memory that the process may use, or null: all that its container or machine has. */
  readonly memoryLimitBytes: number | null;
  readonly bodyBytesMax: number;
  readonly logLevel: LogLevel;
  readonly logFormat: LogFormat;
}

/** What the drill can be told. */
export interface DrillConfig extends Pick<Config, "storeCredentials" | "nodeTtlMs"> {
  /** Null: an embedded one of its own. */
  readonly store: Exclude<StoreLocation, { kind: "sqlite" }> | null;
}

/** The command line, the environment or the file is wrong: shown as one line, exit code 2. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What the command line asks for. */
export type Invocation =
  | {
      readonly kind: "run";
      readonly config: Config;
      /** Of the environment, that look like options and are none. */
      readonly unknownVariables: readonly string[];
      /** What an operator should hear of the configuration, as lines for the log. */
      readonly warnings: readonly string[];
    }
  /** Look whether pipelines are as they must be, without starting. */
  | { readonly kind: "check"; readonly path: string }
  /** Show that orders survive their nodes. */
  | { readonly kind: "drill"; readonly config: DrillConfig }
  /** Help or version: to be printed, and that is all. */
  | { readonly kind: "print"; readonly text: string };

interface OptionRow {
  readonly flags: string;
  readonly help: string;
  readonly fallback: string;
  /** What `--help` says of the fallback, where that isn't a text to write. */
  readonly fallbackHelp?: string;
  /** Throws InvalidArgumentError. */
  readonly parse: (text: string) => unknown;
}

const OPTIONS = {
  host: { flags: "--host <address>", fallback: "127.0.0.1", help: "address to listen at", parse: nonEmpty },
  port: { flags: "--port <number>", fallback: "8080", help: "port to listen at; 0 picks a free one", parse: port },
  data: {
    flags: "--data <folder>",
    fallback: "./data",
    help: "the node's identity and its embedded store",
    parse: nonEmpty,
  },
  store: {
    flags: "--store <url>",
    fallback: "",
    fallbackHelp: "the joined cluster's, or orders.sqlite in the data folder",
    help: "where orders live: sqlite:PATH, redis://HOST:PORT/DB, rediss://…",
    parse: store,
  },
  storeUsername: {
    flags: "--store-username <name>",
    fallback: "",
    fallbackHelp: "none",
    help: "for a Redis store",
    parse: (text: string) => text,
  },
  storePassword: {
    flags: "--store-password <password>",
    fallback: "",
    fallbackHelp: "none",
    help: "for a Redis store; better given as ORDER_PROCESS_STORE_PASSWORD, as others can see a command line",
    parse: (text: string) => text,
  },
  requireDurable: {
    flags: "--require-durable",
    fallback: "false",
    help: "refuse to start on a store that could lose what was acknowledged",
    parse: flag,
  },
  shareStore: {
    flags: "--share-store",
    fallback: "false",
    help: "tell nodes of other hosts that want to join where the Redis store is; never its credentials",
    parse: flag,
  },
  join: {
    flags: "--join <host:port>",
    fallback: "",
    fallbackHelp: "none",
    help: "join the cluster of the node at that address",
    parse: optionalAddress,
  },
  advertise: {
    flags: "--advertise <host:port>",
    fallback: "",
    fallbackHelp: "where it listens",
    help: "where the other nodes reach this one",
    parse: optionalAddress,
  },
  allowedHosts: {
    flags: "--allowed-hosts <names>",
    fallback: "",
    fallbackHelp: "none",
    help: "more names by which clients reach it, parted by commas; .example.org: all below it, too",
    parse: hosts,
  },
  nodeTtl: {
    flags: "--node-ttl <duration>",
    fallback: "5s",
    help: "silence after which a node counts as dead",
    parse: nodeTtl,
  },
  blockedLimit: {
    flags: "--blocked-limit <duration>",
    fallback: "",
    fallbackHelp: "the node TTL, 2s at least; 60s on a lone node",
    help: "how long a step may block the event loop before the node ends; 0s: for ever",
    parse: (text: string) => (text === "" ? null : duration(text)),
  },
  setAsideAfter: {
    flags: "--set-aside-after <deaths>",
    fallback: "3",
    help: "deaths of nodes in a row, during a call of one order, after which an operator must decide about it",
    parse: count,
  },
  pipelines: {
    flags: "--pipelines <path>",
    fallback: "",
    fallbackHelp: "the built-in one",
    help: "a file, or a folder of files, with pipelines in TypeScript or YAML",
    parse: (text: string) => (text === "" ? null : text),
  },
  operators: {
    flags: "--operators <users>",
    fallback: "",
    fallbackHelp: "none",
    help: "users, parted by commas, who may see and steer the orders of all",
    parse: (text: string) => new Set(listed(text)),
  },
  stepTime: {
    flags: "--step-time <duration>",
    fallback: "5s",
    help: "how long each built-in step takes",
    parse: duration,
  },
  failureRate: {
    flags: "--failure-rate <share>",
    fallback: "0",
    help: "share of built-in steps that fail, 0 to 1",
    parse: share,
  },
  grace: {
    flags: "--grace <duration>",
    fallback: "10s",
    help: "how long running steps may go on at a stop",
    parse: duration,
  },
  inFlight: {
    flags: "--in-flight <orders>",
    fallback: "200000",
    help: "orders in flight before new ones are refused; fewer where memory is short",
    parse: count,
  },
  memoryLimit: {
    flags: "--memory-limit <size>",
    fallback: "",
    fallbackHelp: "the container's, or the machine's",
    help: "memory that the node may use in all",
    parse: (text: string) => (text === "" ? null : size(text, MEMORY_BYTES_MAX)),
  },
  bodyLimit: {
    flags: "--body-limit <size>",
    fallback: "256KiB",
    help: "largest body of a request",
    parse: (text: string) => size(text, BODY_BYTES_MAX),
  },
  logLevel: { flags: "--log-level <level>", fallback: "info", help: LOG_LEVELS.join(", "), parse: oneOf(LOG_LEVELS) },
  logFormat: {
    flags: "--log-format <format>",
    fallback: "logfmt",
    help: LOG_FORMATS.join(", "),
    parse: oneOf(LOG_FORMATS),
  },
} satisfies Record<string, OptionRow>;

const EXAMPLES = `
Durations are written 60ms, 5s, 2m. Each option can also come from the environment (ORDER_PROCESS_STEP_TIME=5s) or
from the file that --config names (step-time: 5s); the command line beats the environment, which beats the file.

Examples:
  order_process                               listen at 127.0.0.1:8080, keep everything in ./data
  order_process --port 8082 --data ./data-2 --join localhost:8080
                                              a second node, which shares the work of the first
  order_process --pipelines ./pipelines       run pipelines of your own (docs/pipelines.md)
  order_process orders --help                 submit orders to a running service, show and steer them
  order_process check ./pipelines             see whether they are as they must be, without starting
  order_process drill                         see orders survive their nodes
  order_process --store redis://localhost:6379
                                              keep orders in Redis, for nodes on several machines
  order_process --step-time 60ms --log-level debug --log-format pretty
                                              watch orders go by

  curl -X POST --data "{}" -H "Authorization:user" http://localhost:8080/orders
  curl -H "Authorization:user" http://localhost:8080/orders/<order_id>

Documentation of the HTTP interface: http://localhost:8080/docs while the service runs.`;

/**
 * Reads the configuration from everywhere.
 * @throws UsageError with one line
 */
export function readInvocation(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  version: string,
): Invocation {
  if (args[0] === "check") return readCheck(args.slice(1));
  const isDrill = args[0] === "drill";
  let printed = "";
  const command = isDrill
    ? new Command("order_process drill").description(DRILL_DESCRIPTION)
    : new Command("order_process")
        .description("Takes orders over HTTP and carries each through a pipeline of steps, durably.")
        .version(version, "-v, --version", "print the version")
        .addHelpText("after", EXAMPLES)
        .addOption(new Option("--config <file>", "YAML or JSON file with options"));
  command
    .helpOption("-h, --help", "print this")
    .allowExcessArguments()
    .exitOverride()
    .configureOutput({ writeOut: (text) => (printed += text), writeErr: () => undefined })
    .configureHelp({ helpWidth: 120 });
  for (const [name, row] of Object.entries<OptionRow>(OPTIONS)) {
    const inDrill = DRILL_OPTIONS[name];
    if (isDrill && inDrill === undefined) continue;
    const help = `${row.help} (default: ${row.fallbackHelp ?? row.fallback})`;
    command.addOption(new Option(row.flags, isDrill ? (inDrill ?? help) : help));
  }

  try {
    command.parse(args.slice(isDrill ? 1 : 0), { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: "print", text: printed };
    throw new UsageError(`${withoutValue(error.message).replaceAll(/\s+/g, " ")}; see ${command.name()} --help`);
  }
  const [extra] = command.args;
  if (extra !== undefined) {
    const known = isDrill ? "drill takes options alone" : "the commands are orders, check and drill, and come first";
    throw new UsageError(`"${extra}" is no command: ${known}; see ${command.name()} --help`);
  }
  const options = command.opts<Options>();
  if (!isDrill) {
    const warnings: string[] = [];
    const config = toConfig(options, environment, (line) => warnings.push(line));
    return { kind: "run", config, unknownVariables: unknownVariables(environment), warnings };
  }
  // A drill must not meet a store by accident: only the command line names one.
  const credentials = Object.fromEntries(
    ["ORDER_PROCESS_STORE_USERNAME", "ORDER_PROCESS_STORE_PASSWORD"].map((name) => [name, environment[name]]),
  );
  const config = toConfig({ nodeTtl: DRILL_NODE_TTL, ...options }, credentials);
  if (config.store?.kind === "sqlite") {
    throw new UsageError(
      "the drill makes an embedded store of its own; leave out --store, or name an empty Redis database",
    );
  }
  return { kind: "drill", config: { ...config, store: config.store } };
}

/** What commander says, without its beginning, and without the value of an option that it does not know: that may be a password. */
function withoutValue(message: string): string {
  return message.replace(/^error: /, "").replace(/(unknown option '--[^'=]*)=.*'/s, "$1'");
}

function readCheck(args: readonly string[]): Invocation {
  let printed = "";
  const command = new Command("order_process check")
    .description(
      "Looks whether pipelines are as they must be, without starting the service. Exits with 0 if they are; or else says in which file, line and column what is wrong.",
    )
    .argument("<path>", "a file, or a folder of files, as for --pipelines")
    .helpOption("-h, --help", "print this")
    .exitOverride()
    .configureOutput({ writeOut: (text) => (printed += text), writeErr: () => undefined })
    .configureHelp({ helpWidth: 120 });
  try {
    command.parse(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return { kind: "print", text: printed };
    throw new UsageError(`${error.message.replace(/^error: /, "")}; see order_process check --help`);
  }
  return { kind: "check", path: command.args[0] ?? "" };
}

const DRILL_DESCRIPTION =
  "Shows that orders survive their nodes: starts three nodes, lets orders flow, kills one, kills the leader, freezes one and " +
  "wakes it, stops one, and looks at every order that was acknowledged. Exits with 0 if nothing was lost.";

/** Short, so that the drill is. */
const DRILL_NODE_TTL = "2s";

/** The options that the drill has, with what its help says of those that mean something else there. */
const DRILL_OPTIONS: Readonly<Record<string, string | null>> = {
  store: "an empty Redis database, which is emptied again afterwards (default: an embedded store of its own)",
  storeUsername: null,
  storePassword: null,
  nodeTtl: `silence after which a node counts as dead (default: ${DRILL_NODE_TTL})`,
};

/** As commander gives them: a flag without a value is `true`. */
type Options = Readonly<Record<string, string | true | undefined>>;

function toConfig(
  options: Options,
  environment: Readonly<Record<string, string | undefined>>,
  warn: (line: string) => void = () => undefined,
): Config {
  const file = options["config"]?.toString() ?? environment["ORDER_PROCESS_CONFIG"];
  const fromFile = file === undefined ? {} : readFile(file, warn);
  const value = <K extends keyof typeof OPTIONS>(name: K): ReturnType<(typeof OPTIONS)[K]["parse"]> => {
    const row: OptionRow = OPTIONS[name];
    const longName = kebab(name);
    const variable = variableOf(name);
    const [text, where] =
      options[name] !== undefined
        ? [String(options[name]), `--${longName}`]
        : environment[variable] !== undefined && environment[variable] !== "" // as Compose files set what isn't set
          ? [environment[variable], variable]
          : fromFile[longName] !== undefined
            ? [fromFile[longName], `${longName} in ${file}`]
            : [row.fallback, `--${longName}`];
    try {
      return row.parse(text) as ReturnType<(typeof OPTIONS)[K]["parse"]>;
    } catch (error) {
      if (!(error instanceof InvalidArgumentError)) throw error;
      // A store's text has a password in it anywhere, where it is not as it must be.
      const mayHoldSecret = name === "storePassword" || name === "store" || text.includes("@");
      const what = mayHoldSecret ? "is not valid, and not shown, as it may hold a password" : `can't be "${text}"`;
      throw new UsageError(`${where} ${what}: ${error.message}`);
    }
  };
  const location = value("store");
  return Object.freeze({
    host: value("host"),
    port: value("port"),
    data: value("data"),
    store: location?.location ?? null,
    storeCredentials: {
      username: value("storeUsername") || location?.credentials.username || null,
      password: value("storePassword") || location?.credentials.password || null,
    },
    requireDurable: value("requireDurable"),
    shareStore: value("shareStore"),
    join: value("join"),
    advertise: value("advertise"),
    allowedHosts: value("allowedHosts"),
    nodeTtlMs: value("nodeTtl"),
    crashesMax: value("setAsideAfter"),
    blockedLimitMs: value("blockedLimit"),
    operators: value("operators"),
    pipelines: value("pipelines"),
    stepTimeMs: value("stepTime"),
    failureRate: value("failureRate"),
    graceMs: value("grace"),
    inFlightMax: value("inFlight"),
    memoryLimitBytes: value("memoryLimit"),
    bodyBytesMax: value("bodyLimit"),
    logLevel: value("logLevel"),
    logFormat: value("logFormat"),
  });
}

/** A misspelt one is not refused: an orchestrator may set variables of such names for reasons of its own. */
function unknownVariables(environment: Readonly<Record<string, string | undefined>>): string[] {
  const known = new Set([
    "ORDER_PROCESS_CONFIG",
    "ORDER_PROCESS_URL",
    "ORDER_PROCESS_USER",
    ...Object.keys(OPTIONS).map(variableOf),
  ]);
  return Object.keys(environment).filter((name) => name.startsWith("ORDER_PROCESS_") && !known.has(name));
}

function variableOf(name: string): string {
  return `ORDER_PROCESS_${kebab(name).replaceAll("-", "_").toUpperCase()}`;
}

function readFile(path: string, warn: (line: string) => void): Record<string, string> {
  let content: unknown;
  let found: Stats;
  let text: string;
  try {
    const file = openSync(path, "r");
    try {
      found = fstatSync(file);
      text = readFileSync(file, "utf8");
    } finally {
      closeSync(file);
    }
  } catch (error) {
    const [line] = (error instanceof Error ? error.message : String(error)).split("\n");
    throw new UsageError(`the configuration file ${path} can't be read: ${line}`);
  }
  try {
    content = parseYaml(text, { logLevel: "error" });
  } catch (error) {
    // Its words may quote the file: `Unresolved alias …: PASSWORD`, `Unresolved tag: !PASSWORD at line 1`.
    const [line = ""] = (error instanceof Error ? error.message : String(error)).split("\n");
    throw new UsageError(
      `the configuration file ${path} can't be read: ${line.replace(/: .*?(?= at line \d+|$)/, "").replace(/:$/, "")}`,
    );
  }
  if (content === null || content === undefined) return {};
  if (typeof content !== "object" || Array.isArray(content)) {
    throw new UsageError(`the configuration file ${path} does not hold options; write lines such as "port: 8081"`);
  }
  const known = Object.keys(OPTIONS).map(kebab);
  const result: Record<string, string> = {};
  for (const [name, setting] of Object.entries(content)) {
    if (!known.includes(name)) {
      throw new UsageError(
        `the configuration file ${path} has an unknown option "${name}"; known are ${known.join(", ")}`,
      );
    }
    if (typeof setting !== "string" && typeof setting !== "number" && typeof setting !== "boolean") {
      throw new UsageError(`${name} in ${path} is neither a text nor a number nor true or false`);
    }
    result[name] = String(setting);
  }
  checkAccess(path, found, isSecret(result), warn);
  return result;
}

/** Whether a configuration has a password in it. */
function isSecret({
  "store-password": password = "",
  store: location = "",
}: Readonly<Record<string, string>>): boolean {
  return password !== "" || location.includes("@");
}

/**
 * Whoever can change the file has the node run what they like, as it names the pipelines.
 * @throws UsageError where that is anybody, and the file another user's
 */
function checkAccess(path: string, found: Stats, holdsSecret: boolean, warn: (line: string) => void): void {
  if (!found.isFile()) return; // a pipe has no other users
  const { owner, write, read, mode } = accessOf(found);
  const what = `the configuration file ${path}`;
  if (owner !== null && (found.mode & WORLD_WRITE) !== 0) {
    throw new UsageError(
      `${what} belongs to user ${owner} and can be changed by everybody (mode ${mode}), who could have this node run what they like; take it over (chown), and chmod 600 it`,
    );
  }
  if (owner !== null)
    warn(`${what} belongs to user ${owner}, who can change it and so have this node run what they like`);
  else if (write) warn(`${what} can be changed by others (mode ${mode}); chmod go-w it`);
  else if (read && holdsSecret) warn(`${what} holds a password and can be read by others (mode ${mode}); chmod 600 it`);
}

const WORLD_WRITE = 0o002;

function kebab(name: string): string {
  return name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`);
}

function nonEmpty(text: string): string {
  if (text.trim() === "") throw new InvalidArgumentError("it is empty.");
  return text;
}

function port(text: string): number {
  const number = wholeNumber(text);
  if (number === null || number > 65_535) throw new InvalidArgumentError("a port is a whole number from 0 to 65535.");
  return number;
}

function count(text: string): number {
  const number = wholeNumber(text);
  if (number === null || number < 1) throw new InvalidArgumentError("write a whole number from 1.");
  return number;
}

function share(text: string): number {
  const number = text.trim() === "" ? Number.NaN : Number(text);
  if (!(number >= 0 && number <= 1)) throw new InvalidArgumentError("write a number from 0 to 1.");
  return number;
}

/** What a timer of Node's can wait. */
const DURATION_MS_MAX = 2 ** 31 - 1;

/** In milliseconds. */
function duration(text: string): number {
  const value = /^\d+(\.\d+)?(ms|s|m|h)$/.test(text) ? ms(text as ms.StringValue) : undefined;
  if (value === undefined) throw new InvalidArgumentError("durations are written 60ms, 5s, 2m.");
  if (value > DURATION_MS_MAX) throw new InvalidArgumentError("the longest is 596h.");
  return Math.round(value);
}

const SIZE_UNITS: Readonly<Record<string, number>> = { "": 1, B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** The most that a body may be allowed to be: a body is text in memory, several times. */
const BODY_BYTES_MAX = 64 * 1024 ** 2;

/** More than any machine has. */
const MEMORY_BYTES_MAX = 1024 ** 5;

/** In bytes. */
function size(text: string, bytesMax: number): number {
  const [, number, unit] = /^(\d+)(B|KiB|MiB|GiB)?$/.exec(text) ?? [];
  const bytes = Number(number) * (SIZE_UNITS[unit ?? ""] ?? Number.NaN);
  if (!(bytes >= 2 && bytes <= bytesMax)) {
    throw new InvalidArgumentError(
      `sizes are written ${bytesMax === BODY_BYTES_MAX ? "4096, 256KiB, 1MiB, up to 64MiB" : "512MiB, 2GiB"}.`,
    );
  }
  return bytes;
}

/** A store's location, with the credentials that its URL may hold; null: not said. */
function store(text: string): ReturnType<typeof parseStoreLocation> | null {
  if (text === "") return null;
  try {
    return parseStoreLocation(text);
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? error.message : String(error));
  }
}

function flag(text: string): boolean {
  if (text !== "true" && text !== "false") throw new InvalidArgumentError("write true or false.");
  return text === "true";
}

/** `host:port`, as `[::1]:8080` where the host has colons itself; null: not said. */
function optionalAddress(text: string): string | null {
  if (text === "") return null;
  const address = text.replace(/^http:\/\//, "").replace(/\/$/, "");
  const [, portText = ""] = /^(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})$/.exec(address) ?? [];
  if (portText === "" || Number(portText) < 1 || Number(portText) > 65_535) {
    throw new InvalidArgumentError("write host:port, such as localhost:8080.");
  }
  return address;
}

/** What stands between commas. */
function listed(text: string): string[] {
  return text
    .split(",")
    .map((each) => each.trim())
    .filter((each) => each !== "");
}

/** Names of hosts. A port is no part of them: whatever reaches the node has found its port. */
function hosts(text: string): Set<string> {
  return new Set(
    listed(text).map((name) => {
      const host = allowedHost(name);
      if (host === null)
        throw new InvalidArgumentError("write names such as orders.example.org,.internal.example.org.");
      return host;
    }),
  );
}

/** Below, a busy machine's hiccups would be deaths; above, a dead node's orders would wait for hours. */
const NODE_TTL_MS_MIN = 500;
const NODE_TTL_MS_MAX = 3_600_000;

function nodeTtl(text: string): number {
  const ttlMs = duration(text);
  if (ttlMs < NODE_TTL_MS_MIN || ttlMs > NODE_TTL_MS_MAX) throw new InvalidArgumentError("write 500ms to 1h.");
  return ttlMs;
}

function oneOf<T extends string>(values: readonly T[]): (text: string) => T {
  return (text) => {
    const found = values.find((value) => value === text);
    if (found === undefined) throw new InvalidArgumentError(`choose from ${values.join(", ")}.`);
    return found;
  };
}

/** Digits only: Number() would take "0x50", "1e3" and "" as well. */
function wholeNumber(text: string): number | null {
  return /^\d{1,15}$/.test(text) ? Number(text) : null;
}
