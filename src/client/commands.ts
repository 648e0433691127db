/** `order_process orders …`: the client at the command line. Tables for people, `--json` for programs. */
import { readFileSync } from "node:fs";
import { userInfo } from "node:os";
import { Command, CommanderError, Option } from "commander";
import { UsageError } from "../config.ts";
import { ORDER_STATUSES } from "../order/status.ts";
import { type Client, createClient, type ListOptions, type OrderView, ServiceError } from "./client.ts";
import { printable } from "../printable.ts";
import { showList, showOrder } from "./tables.ts";
import type { Terminal } from "./terminal.ts";
import { lineOf, watchOrder } from "./watch.ts";

interface Shared {
  readonly url: string;
  readonly user: string;
  readonly json?: boolean;
}

/**
 * Runs one of the commands.
 * @param args what follows `orders`
 * @returns the exit code
 * @throws UsageError with one line; ServiceError, or TypeError when there is no service
 */
export async function runOrdersCommand(
  args: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
  terminal: Terminal,
): Promise<number> {
  let exitCode = 0;
  const root = new Command("order_process orders")
    .description("Submits orders to a running service, shows them and steers them.")
    .exitOverride()
    .configureOutput({ writeOut: (text) => terminal.write(text), writeErr: () => undefined })
    .configureHelp({ helpWidth: 120 });

  const print = (value: unknown, text: string, { json = false }: Shared): void =>
    terminal.write(json ? `${JSON.stringify(value)}\n` : text);
  const show = (order: OrderView, shared: Shared): void => print(order, showOrder(order), shared);

  /** A command with the options that all have, which is given a client. */
  // eslint-disable-next-line typescript/no-unnecessary-type-parameters -- says what commander has made of the options
  const command = <Options extends Shared>(
    usage: string,
    description: string,
    run: (client: Client, options: Options, operands: readonly string[]) => Promise<void>,
  ): Command =>
    root
      .command(usage)
      .description(description)
      .addOption(
        new Option("--url <url>", "where the service is").default("http://127.0.0.1:8080").env("ORDER_PROCESS_URL"),
      )
      .addOption(
        new Option("--user <user>", "who asks").default(environment["ORDER_PROCESS_USER"] ?? userInfo().username),
      )
      .option("--json", "print JSON")
      .exitOverride()
      .action(async (...given: unknown[]) => {
        const options = given.at(-2) as Options;
        const operands = given.slice(0, -2).flat() as (string | undefined)[];
        const { url, user } = options;
        checkUrl(url);
        await run(
          createClient({ url, user }),
          options,
          operands.filter((operand) => operand !== undefined),
        );
      });

  command<Shared & { pipeline?: string; startAt?: string; key?: string; watch?: boolean }>(
    "submit [body]",
    "submit an order: a JSON object, @FILE, or - for what is piped in (default: {})",
    async (client, options, [body = "{}"]) => {
      const { pipeline, startAt, key } = options;
      const accepted = await client.submit(parseJson(body, terminal), {
        ...(pipeline === undefined ? {} : { pipeline }),
        ...(startAt === undefined ? {} : { startAt: parseTime("--start-at", startAt) }),
        ...(key === undefined ? {} : { idempotencyKey: key }),
      });
      if (options.watch !== true) return print(accepted, `${printable(accepted.order_id)}\n`, options);
      if (options.json !== true) terminal.write(`${printable(accepted.order_id)}\n`);
      exitCode = await watchOrder(client, accepted.order_id, terminal, options.json === true);
    },
  )
    .option("--pipeline <name>", "which pipeline, where there are several")
    .option("--start-at <time>", "when its first step starts (RFC 3339)")
    .option("--key <key>", "an Idempotency-Key: safe to submit again")
    .option("--watch", "then watch it");

  command("history <order_id>", "show what has happened to an order", async (client, options, [id = ""]) => {
    const entries = await client.history(id);
    print(entries, entries.map((entry) => `${lineOf(entry)}\n`).join(""), options);
  });

  command("get <order_id>", "show an order", async (client, options, [id = ""]) => show(await client.get(id), options));

  command<
    Shared & { from?: string; to?: string; limit: string; cursor?: string } & Pick<
        ListOptions,
        "status" | "needsPerson" | "step" | "pipeline" | "node"
      >
  >("list", "list orders, newest first", async (client, options) => {
    const { status, needsPerson, step, pipeline, node, from, to, cursor: start } = options;
    const wanted = parseCount(options.limit);
    const filter = {
      ...(status === undefined ? {} : { status }),
      ...(needsPerson === undefined ? {} : { needsPerson }),
      ...(step === undefined ? {} : { step }),
      ...(pipeline === undefined ? {} : { pipeline }),
      ...(node === undefined ? {} : { node }),
      ...(from === undefined ? {} : { from: parseTime("--from", from) }),
      ...(to === undefined ? {} : { to: parseTime("--to", to) }),
    };
    const first = await client.list({
      ...filter,
      ...(start === undefined ? {} : { cursor: start }),
      limit: Math.min(wanted, PAGE_ORDERS),
    });
    const orders = [...first.orders];
    let cursor = first.next_cursor;
    // A page may be short and yet not be the last.
    while (cursor !== undefined && orders.length < wanted) {
      const page = await client.list({ ...filter, cursor, limit: Math.min(wanted - orders.length, PAGE_ORDERS) });
      orders.push(...page.orders);
      cursor = page.next_cursor;
    }
    const more = cursor === undefined ? "" : `\nThere may be more: --cursor ${printable(cursor)}\n`;
    const next = cursor === undefined ? {} : { next_cursor: cursor };
    print({ orders, counts: first.counts, ...next }, `${showList(orders, first.counts, options.user)}${more}`, options);
  })
    .addOption(new Option("--status <status>", "of that status").choices(ORDER_STATUSES))
    .option("--needs-person", "that a person should look at")
    .option("--step <name>", "at that step; or Completed, Failed, Canceled")
    .option("--pipeline <name>", "of that pipeline")
    .option("--node <service_id>", "owned by that node")
    .option("--from <time>", "created then or later (RFC 3339)")
    .option("--to <time>", "created before then")
    .option("--limit <number>", "how many at the most", "20")
    .option("--cursor <cursor>", "go on where an earlier list has ended");

  command(
    "watch <order_id>",
    "watch an order until it is final; exits with 0 if it completes, 1 if it doesn't, 3 if it waits for an operator",
    async (client, options, [id = ""]) => {
      await client.get(id); // who follows tries for ever, also where nobody ever answered
      exitCode = await watchOrder(client, id, terminal, options.json === true);
    },
  );

  command<Shared & { reason?: string; dryRun?: boolean }>(
    "cancel <order_id>",
    "cancel an order: it is rolled back",
    async (client, options, [id = ""]) => {
      if (options.dryRun === true) {
        const names = await client.dryCancel(id);
        const text =
          names.length === 0
            ? "Nothing would be rolled back.\n"
            : `Would be rolled back, in this order: ${printable(names.join(", "))}\n`;
        return print(names, text, options);
      }
      return show(await client.cancel(id, options.reason === undefined ? {} : { reason: options.reason }), options);
    },
  )
    .option("--reason <text>", "why; is kept with the order")
    .option("--dry-run", "only say what would be rolled back");

  command("pause <order_id>", "pause an order", async (client, options, [id = ""]) =>
    show(await client.pause(id), options),
  );
  command("resume <order_id>", "go on with a paused order", async (client, options, [id = ""]) =>
    show(await client.resume(id), options),
  );
  command<Shared & { from?: "failed_step" | "start" }>(
    "retry <order_id>",
    "make a failed or canceled order again, as a new one; or try one again that waits for an operator",
    async (client, options, [id = ""]) =>
      show(await client.retry(id, options.from === undefined ? {} : { from: options.from }), options),
  ).addOption(new Option("--from <where>", "where the new order begins").choices(["start", "failed_step"]));
  command<Shared & { reason: string }>(
    "skip <order_id>",
    "leave out the rollback that has failed",
    async (client, options, [id = ""]) => show(await client.skip(id, { reason: options.reason }), options),
  ).requiredOption("--reason <text>", "why; is kept with the order");
  command<Shared & { step: string; result?: string }>(
    "complete <order_id>",
    "complete the step that waits for a signal",
    async (client, options, [id = ""]) => {
      const result = options.result === undefined ? {} : { result: parseJsonText(options.result) };
      show(await client.complete(id, { step: options.step, ...result }), options);
    },
  )
    .requiredOption("--step <name>", "the step that waits")
    .option("--result <json>", "what it gives to the steps after it");

  try {
    await root.parseAsync(args, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    if (error.code === "commander.help") throw new UsageError("name a command; see order_process orders --help");
    const known = root.commands.some((each) => each.name() === args[0]) ? ` ${args[0]}` : "";
    throw new UsageError(
      `${error.message.replace(/^error: /, "").replaceAll(/\s+/g, " ")}; see order_process orders${known} --help`,
    );
  }
  return exitCode;
}

/** What stands in the way, in one line. */
export function describeClientError(error: unknown): string | null {
  if (error instanceof ServiceError) {
    const { code } = error.problem;
    const detail = error.problem.detail.slice(0, DETAIL_CHARS_MAX); // another service may answer with anything
    if (code === "order_not_found") return `${detail.replace("the Authorization header", "--user")} (${code})`;
    return code === "" ? detail : `${detail} (${code})`;
  }
  if (error instanceof TypeError && error.message === "fetch failed") {
    const { cause } = error;
    return `the service does not answer: ${cause instanceof Error ? cause.message || String((cause as { code?: unknown }).code) : "no connection"}; is it running, and --url right?`;
  }
  return null;
}

const PAGE_ORDERS = 200;
const DETAIL_CHARS_MAX = 4_000;

/** @throws UsageError that quotes no password */
function checkUrl(url: string): void {
  if (url.includes("@"))
    throw new UsageError("--url can't hold a user or a password: write http://host:port, and --user");
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new UsageError(`--url can't be "${url}": write http://host:port`);
}

function parseJson(text: string, terminal: Terminal): object {
  const json = text === "-" ? terminal.readInput() : text.startsWith("@") ? readBody(text.slice(1)) : text;
  const value = parseJsonText(json);
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new UsageError("the body is no JSON object; write {…}");
}

function parseJsonText(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch (error) {
    throw new UsageError(
      `"${text.slice(0, 40)}" is no JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

function readBody(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError(`${path} can't be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function parseTime(option: string, text: string): Date {
  const time = new Date(text);
  if (Number.isNaN(time.getTime()))
    throw new UsageError(`${option} can't be "${text}": write a time as 2026-11-24T18:00:00Z`);
  return time;
}

function parseCount(text: string): number {
  if (/^\d{1,6}$/.test(text) && Number(text) > 0) return Number(text);
  throw new UsageError(`--limit can't be "${text}": write a whole number from 1`);
}
