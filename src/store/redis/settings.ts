/** What a Redis server's settings mean for the orders: how long a write lasts, and what an operator should change. */
import type { Durability, StoreReport } from "../store.ts";

/** A server's settings, by their names; a setting that it doesn't tell is not there. */
export type Settings = Readonly<Record<string, string>>;

/** The settings that are looked at. */
export const SETTINGS_READ: readonly string[] = [
  "appendonly",
  "appendfsync",
  "no-appendfsync-on-rewrite",
  "maxmemory",
  "maxmemory-policy",
];

/** From the best to the worst. */
const DURABILITIES: readonly Durability[] = ["fsync-always", "fsync-every-second", "unknown", "none"];

/** `key:value` lines, as INFO gives them. */
export function parseInfo(text: string): Settings {
  return Object.fromEntries(
    text.split(/\r?\n/).flatMap((line): [string, string][] => {
      const colon = line.indexOf(":");
      return line.startsWith("#") || colon < 0 ? [] : [[line.slice(0, colon), line.slice(colon + 1)]];
    }),
  );
}

/** name, value, name, value, ..., as CONFIG GET gives them; nothing where it gave none. */
export function parseConfig(reply: unknown): Settings {
  if (!Array.isArray(reply)) return {};
  const values = reply.map(String);
  return Object.fromEntries(values.flatMap((name, at) => (at % 2 === 0 ? [[name, values[at + 1] ?? ""]] : [])));
}

/** A cluster is as durable as the worst of its servers. */
export function worstReport(reports: readonly StoreReport[]): StoreReport {
  const rank = ({ durability }: StoreReport): number => DURABILITIES.indexOf(durability);
  const [worst] = reports.toSorted((one, other) => rank(other) - rank(one));
  return {
    durability: worst?.durability ?? "unknown",
    advice: Array.from(new Set(reports.flatMap(({ advice }) => advice))),
  };
}

/**
 * Remembers of each server, by its run_id, that its log was in force, that is, had all that the server confirmed. Redis says the same of a log that was just
 * switched on and has yet to be written for the first time, from which nothing would be read after a crash, as of one that is only
 * rewritten: the one is known by not having been in force before.
 */
export class LogsInForce {
  readonly #runIds = new Set<string>();

  /** Takes note of what the server says; false: it has no log, or perhaps one that is not in force yet. */
  note(info: Settings): boolean {
    const runId = info["run_id"] ?? "";
    const isWritten = info["aof_rewrite_in_progress"] === "1" || info["aof_rewrite_scheduled"] === "1";
    if (info["aof_enabled"] !== "1") this.#runIds.delete(runId);
    else if (!isWritten) this.#runIds.add(runId);
    return this.#runIds.has(runId);
  }
}

/**
 * One server's report.
 * @param info of its sections "server" and "persistence"
 * @param config empty where it may not be read
 * @param logs what was seen of the servers' logs before
 */
export function reportOf(info: Settings, config: Settings, logs: LogsInForce): StoreReport {
  const advice: string[] = [];
  const isInForce = logs.note(info);
  const durability = durabilityOf(info, config, isInForce);
  if (info["aof_enabled"] === "1" && !isInForce) {
    advice.push(
      "Redis is writing its log anew, and what it confirms may be lost until that has ended, if the log was not on before: wait for it",
    );
  }
  const evicts = config["maxmemory-policy"];
  if (config["appendonly"] === undefined && config["appendfsync"] === undefined && durability === "unknown") {
    advice.push("Redis does not let its settings be read: make sure of appendonly yes and appendfsync always");
  }
  if (info["aof_enabled"] === "0") {
    advice.push(
      "Redis keeps no log, and loses orders when it ends: CONFIG SET appendonly yes, and the same in redis.conf",
    );
  }
  if (config["appendfsync"] !== undefined && config["appendfsync"] !== "always") {
    advice.push(
      "Redis may lose what it has confirmed when the power fails: CONFIG SET appendfsync always, and the same in redis.conf",
    );
  }
  if (config["no-appendfsync-on-rewrite"] === "yes") {
    advice.push(
      "Redis does not sync its log while it rewrites it: CONFIG SET no-appendfsync-on-rewrite no, and the same in redis.conf",
    );
  }
  if (evicts !== undefined && evicts !== "noeviction") {
    advice.push(
      `Redis may throw orders away when its memory is full (${evicts}): CONFIG SET maxmemory-policy noeviction, and the same in redis.conf`,
    );
  }
  if (info["aof_last_write_status"] === "err")
    advice.push("Redis can't write its log: look at its log messages and at its disk");
  return { durability, advice };
}

function durabilityOf(info: Settings, config: Settings, isInForce: boolean): Durability {
  if (info["aof_enabled"] === "0" || config["appendonly"] === "no") return "none";
  // While the log is rewritten nothing is synced, whatever appendfsync says.
  if (config["no-appendfsync-on-rewrite"] === "yes") return "none";
  // Orders don't expire: of the policies only these throw them away.
  if (config["maxmemory-policy"]?.startsWith("allkeys-")) return "none";
  if (!isInForce) return "unknown";
  switch (config["appendfsync"]) {
    case "always":
      return "fsync-always";
    case "everysec":
      return "fsync-every-second";
    case "no":
      return "none";
    default:
      return "unknown";
  }
}
