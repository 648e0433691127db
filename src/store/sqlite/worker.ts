/**
 * The store's thread: answers each request. Reads are answered as they come, writes one by one, in the order they came; a write
 * that meets another process's lock waits in line, and the reads go on.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parentPort } from "node:worker_threads";
import type { ProcessIdentity } from "../cluster-store.ts";
import { SqliteDatabase } from "./database.ts";
import { endFrozenWriter } from "./frozen-writer.ts";
import type {
  NodeRecord,
  NoticeMessage,
  OpenArguments,
  ReplyMessage,
  RequestKind,
  RequestMessage,
} from "./protocol.ts";
import { isBusy, isSqliteError, reasonOf } from "./reasons.ts";

/** How long a request waits for another process's lock until it is refused: longer than any commit takes. */
const BUSY_MS_MAX = 5_000;

/** How often a lock is tried for, at least and at most: at random between, so that two don't keep missing it together. */
const BUSY_RETRY_MS_MIN = 0.5;
const BUSY_RETRY_MS_MAX = 3;

/** The lock is left free for so long after a write where other processes write, too: it has no queue. */
const COURTESY_MS = 1;

/** Requests that must not overtake each other. */
const IN_ORDER: ReadonlySet<RequestKind> = new Set<RequestKind>([
  "commit",
  "claimOrders",
  "probe",
  "identity",
  "register",
  "pipelineShape",
  "changePermits",
  "beat",
  "markDead",
  "leave",
  "claimLeadership",
  "renewLeadership",
  "close",
]);

if (parentPort === null) throw new Error("worker.ts runs as a worker thread");
const port = parentPort;
let database: SqliteDatabase | null = null;
let opened: OpenArguments | null = null;
const line: RequestMessage[] = [];
let lineMoves = false;
let lastDataVersion: unknown = null;
let courtesyEndMs = 0;

port.on("message", (request: RequestMessage) => {
  if (IN_ORDER.has(request.kind)) {
    line.push(request);
    if (!lineMoves) void moveLine();
  } else {
    void answerPatiently(request);
  }
});

async function moveLine(): Promise<void> {
  lineMoves = true;
  for (let request = line[0]; request !== undefined; request = line[0]) {
    const courtesyMs = courtesyEndMs - performance.now();
    if (courtesyMs > 0) await delay(courtesyMs);
    // Awaited only where there is something to wait for: a turn of the event loop per write would show.
    if (!answer(request, false)) await answerPatiently(request);
    line.shift();
    leaveTheLockToOthers();
  }
  lineMoves = false;
}

function leaveTheLockToOthers(): void {
  const version = database?.dataVersion ?? null;
  if (version !== lastDataVersion) courtesyEndMs = performance.now() + COURTESY_MS;
  lastDataVersion = version;
}

/** Tries again and again while another process has the lock. */
async function answerPatiently(request: RequestMessage): Promise<void> {
  const startMs = performance.now();
  for (;;) {
    const waitedMs = performance.now() - startMs;
    if (answer(request, waitedMs >= BUSY_MS_MAX)) return;
    if (opened !== null && waitedMs >= opened.frozenWriterMs) lookForFrozenWriter(opened.path);
    await delay(BUSY_RETRY_MS_MIN + Math.random() * (BUSY_RETRY_MS_MAX - BUSY_RETRY_MS_MIN));
  }
}

/** How often it is looked who has the lock. */
const LOOK_MS = 100;
let lastLookMs = 0;
let lastNotice: string | null = null;

function lookForFrozenWriter(path: string): void {
  if (database === null || performance.now() - lastLookMs < LOOK_MS) return;
  lastLookMs = performance.now();
  let notice: string | null;
  try {
    notice = endFrozenWriter(path, database.readCluster().nodes.flatMap(processOf));
  } catch (error) {
    if (!isSqliteError(error)) throw error;
    return; // it can't be read either, at the moment
  }
  if (notice !== null && notice !== lastNotice) port.postMessage({ notice } satisfies NoticeMessage);
  lastNotice = notice;
}

function processOf({ description }: NodeRecord): ProcessIdentity[] {
  const { process } = JSON.parse(description) as { process?: ProcessIdentity | null };
  return process === null || process === undefined ? [] : [process];
}

/** @returns false: another process has the lock, and the request may be tried again */
function answer(request: RequestMessage, isLastTry: boolean): boolean {
  let reply: ReplyMessage;
  try {
    reply = { id: request.id, ok: true, result: perform(request) };
  } catch (error) {
    if (isBusy(error) && !isLastTry) return false;
    reply = { id: request.id, ok: false, reason: reasonOf(error), unexpected: !isSqliteError(error) };
  }
  port.postMessage(reply);
  return true;
}

function perform(request: RequestMessage): unknown {
  if (request.kind === "open") {
    const { path, changesKept, ...options } = request.args;
    database = new SqliteDatabase(path, changesKept, options);
    opened = request.args;
    lastDataVersion = database.dataVersion;
    return null;
  }
  if (database === null) throw new Error("the store is not open");
  switch (request.kind) {
    case "commit":
      return database.commit(request.args.batch);
    case "readOrder":
      return database.readOrder(request.args.orderId);
    case "readOrders":
      return database.readOrders(request.args.orderIds);
    case "listOrders": {
      const { filter, before, limit } = request.args;
      return database.listOrders(filter, before, limit);
    }
    case "countOrders":
      return database.countOrders(request.args.user);
    case "readChanges":
      return database.readChanges(request.args.after, request.args.limit);
    case "readBody":
      return database.readBody(request.args.orderId);
    case "readOwned":
      return database.readOwned(request.args.owner, request.args.orderIds);
    case "claimOrders": {
      const { from, to, times, limit } = request.args;
      return database.claimOrders(from, to, times, limit);
    }
    case "listOwners":
      return database.listOwners();
    case "listOrderIds":
      return database.listOrderIds(request.args.owner, request.args.after, request.args.limit);
    case "probe":
      database.probe(request.args.atMs);
      return null;
    case "identity":
      return database.identity(request.args);
    case "register":
      return database.register(request.args.serviceId, request.args.description, request.args.atMs);
    case "pipelineShape":
      return database.pipelineShape(request.args.name, request.args.version, request.args.shape);
    case "recordedShape":
      return database.recordedShape(request.args.name, request.args.version);
    case "permits":
      return database.permits(request.args.key);
    case "changePermits":
      return database.changePermits(request.args.key, request.args.seen, request.args.record);
    case "serviceOf":
      return database.serviceOf(request.args.incarnation);
    case "hasService":
      return database.hasService(request.args.serviceId);
    case "beat":
      return database.beat(request.args.incarnation, request.args.ordersInFlight, request.args.atMs);
    case "readCluster":
      return database.readCluster();
    case "markDead":
      return database.markDead(request.args.incarnation, request.args.seenHeartbeat);
    case "leave":
      database.leave(request.args.incarnation);
      return null;
    case "claimLeadership":
      return database.claimLeadership(request.args.incarnation, request.args.seen);
    case "renewLeadership":
      return database.renewLeadership(request.args.incarnation, request.args.term);
    case "close":
      database.close();
      database = null;
      return null;
  }
}
