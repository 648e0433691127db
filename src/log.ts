/** The node's log: pino, written in one of three formats. Secrets and bodies never go in, and nothing that a terminal would obey comes out. */
import { pino, type Logger } from "pino";
import pretty from "pino-pretty";
import { printable, printableLines } from "./printable.ts";

export type { Logger } from "pino";

export const LOG_LEVELS = ["trace", "debug", "info", "warn", "error", "fatal", "silent"] as const;
export type LogLevel = (typeof LOG_LEVELS)[number];

export const LOG_FORMATS = ["logfmt", "json", "pretty"] as const;
export type LogFormat = (typeof LOG_FORMATS)[number];

/** A logger that writes whole lines to `write`. */
export function createLogger(level: LogLevel, format: LogFormat, write: (text: string) => void): Logger {
  return pino(
    {
      level,
      base: null,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: { level: (label) => ({ level: label }) },
    },
    destination(format, write),
  );
}

function destination(format: LogFormat, write: (text: string) => void): { write(text: string): void } {
  switch (format) {
    case "json":
      return { write: (line) => write(printableLines(line)) };
    case "logfmt":
      return { write: (line) => write(logfmt(line)) };
    case "pretty": {
      const toText = pretty.prettyFactory({ colorize: process.stdout.isTTY, ignore: "pid,hostname" });
      return { write: (line) => write(toText(printableValue(JSON.parse(line), ""))) };
    }
  }
}

/** A line of pino's JSON as logfmt, time, level and message first, as the earlier system wrote them. */
function logfmt(line: string): string {
  const { time, level, msg, ...rest } = JSON.parse(line) as Record<string, unknown>;
  const pairs = Object.entries({ time, level, msg, ...rest });
  return `${printable(pairs.map(([key, value]) => `${key}=${logfmtValue(value)}`).join(" "))}\n`;
}

function logfmtValue(value: unknown): string {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return /^[\w./:+-]+$/.test(text) && !/^\d{4}-/.test(text) ? text : JSON.stringify(text);
}

/** The same value with all texts printable. A stack has lines, which are indented when they are written. */
function printableValue(value: unknown, key: string): unknown {
  if (typeof value === "string") return key === "stack" ? printableLines(value) : printable(value);
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map((each) => printableValue(each, ""));
  return Object.fromEntries(Object.entries(value).map(([name, each]) => [printable(name), printableValue(each, name)]));
}
