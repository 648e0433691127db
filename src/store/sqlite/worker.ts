/** The store's thread: takes requests one by one, in the order they came, and answers each. */
import { parentPort } from "node:worker_threads";
import { SqliteDatabase } from "./database.ts";
import type { ReplyMessage, RequestMessage } from "./protocol.ts";
import { isSqliteError, reasonOf } from "./reasons.ts";

const port = parentPort;
if (port === null) throw new Error("worker.ts runs as a worker thread");

let database: SqliteDatabase | null = null;

port.on("message", (request: RequestMessage) => {
  port.postMessage(answer(request));
});

function answer(request: RequestMessage): ReplyMessage {
  try {
    return { id: request.id, ok: true, result: perform(request) };
  } catch (error) {
    return { id: request.id, ok: false, reason: reasonOf(error), unexpected: !isSqliteError(error) };
  }
}

function perform(request: RequestMessage): unknown {
  if (request.kind === "open") {
    database = new SqliteDatabase(request.args.path);
    return null;
  }
  if (database === null) throw new Error("the store is not open");
  switch (request.kind) {
    case "commit":
      return database.commit(request.args.batch);
    case "readOrder":
      return database.readOrder(request.args.orderId);
    case "claimOrders": {
      const { from, to, atMs, limit } = request.args;
      return database.claimOrders(from, to, atMs, limit);
    }
    case "listOwners":
      return database.listOwners();
    case "registerIncarnation":
      return database.registerIncarnation(request.args.serviceId, request.args.atMs);
    case "hasService":
      return database.hasService(request.args.serviceId);
    case "probe":
      database.probe(request.args.atMs);
      return null;
    case "close":
      database.close();
      database = null;
      return null;
  }
}
