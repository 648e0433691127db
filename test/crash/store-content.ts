/** What a store's file holds, read past the code that wrote it; only the codec of histories is shared. */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { OrderEvent } from "../../src/order/events.ts";
import { decodeHistory } from "../../src/store/codec.ts";

export interface StoreRow {
  readonly orderId: string;
  readonly idempotencyKey: string | null;
  readonly status: string;
  readonly owner: number;
  readonly revision: number;
  readonly history: readonly OrderEvent[];
  readonly body: string;
}

/** The store's file in a data folder. */
export function storePathIn(data: string): string {
  return join(data, "orders.sqlite");
}

/** Every order in the file. */
export function readStoreContent(path: string): StoreRow[] {
  return withDatabase(path, (db) =>
    db
      .prepare(
        "SELECT order_id, idempotency_key, status, owner, revision, history, body FROM orders LEFT JOIN order_bodies USING (order_id)",
      )
      .all()
      .map((row) => ({
        orderId: String(row["order_id"]),
        idempotencyKey: row["idempotency_key"] === null ? null : String(row["idempotency_key"]),
        status: String(row["status"]),
        owner: Number(row["owner"]),
        revision: Number(row["revision"]),
        history: decodeHistory(String(row["history"])),
        body: String(row["body"]),
      })),
  );
}

/** How many orders of each status the file's counts say that there are. */
export function readStoreCounts(path: string): ReadonlyMap<string, number> {
  return withDatabase(path, (db) => {
    const rows = db.prepare("SELECT status, count FROM order_counts WHERE user = ''").all();
    return new Map(rows.map((row) => [String(row["status"]), Number(row["count"])]));
  });
}

/** How many orders in the file are not final: all, or one owner's. */
export function countOpenOrders(path: string, owner: number | null = null): number {
  return withDatabase(path, (db) => {
    const row = db
      .prepare(
        "SELECT count(*) AS open FROM orders WHERE status NOT IN ('completed', 'failed', 'canceled') AND owner = coalesce(?, owner)",
      )
      .get(owner);
    return Number(row?.["open"]);
  });
}

function withDatabase<T>(path: string, read: (db: DatabaseSync) => T): T {
  const db = new DatabaseSync(path, { readOnly: true, timeout: 5_000 });
  try {
    return read(db);
  } finally {
    db.close();
  }
}
