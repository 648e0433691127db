import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { SqliteDatabase } from "../../src/store/sqlite/database.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import type { Store } from "../../src/store/store.ts";
import { temporaryFolder } from "../support/service.ts";
import { permitsContract } from "./permits-contract.ts";
import { steeringContract } from "./steering-contract.ts";
import { storeContract } from "./store-contract.ts";

const openAt = (path: string): Promise<Store> =>
  openSqliteStore({
    path,
    now: Date.now,
    onBroken: (error) => {
      throw error;
    },
  });

storeContract("sqlite", async (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const open = new Set<Store>();
  const openOne = async (): Promise<Store> => {
    const store = await openAt(path);
    const close = store.close.bind(store);
    store.close = async () => {
      if (open.delete(store)) await close();
    };
    open.add(store);
    return store;
  };
  t.after(() => Promise.all(Array.from(open, (store) => store.close())));
  return { store: await openOne(), again: openOne };
});

const steeringFolder = mkdtempSync(join(tmpdir(), "order-process-test-"));
after(() => rmSync(steeringFolder, { recursive: true }));
steeringContract("sqlite", () => openAt(join(steeringFolder, "orders.sqlite")));
permitsContract("sqlite", () => openAt(join(steeringFolder, "permits.sqlite")));

test("the database is in WAL mode", (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  new SqliteDatabase(path).close();
  const db = new DatabaseSync(path);
  assert.deepEqual({ ...db.prepare("PRAGMA journal_mode").get() }, { journal_mode: "wal" });
  db.close();
});

test("claims and open orders are found through the index, not by reading the table", (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  new SqliteDatabase(path).close();
  const db = new DatabaseSync(path);
  const plan = db
    .prepare(
      `EXPLAIN QUERY PLAN SELECT order_id FROM orders INDEXED BY open_orders_by_owner
       WHERE owner = 1 AND status <> 'completed' AND status <> 'failed' AND status <> 'canceled' ORDER BY order_id LIMIT 5`,
    )
    .all();
  assert.match(JSON.stringify(plan), /open_orders_by_owner \(owner=\?\)/);
  assert.doesNotMatch(JSON.stringify(plan), /TEMP B-TREE/);
  db.close();
});
