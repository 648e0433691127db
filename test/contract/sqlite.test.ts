import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { SqliteDatabase } from "../../src/store/sqlite/database.ts";
import { type FlatBatch, flattenBatch } from "../../src/store/sqlite/protocol.ts";
import { APPLICATION_ID, MIGRATIONS } from "../../src/store/sqlite/schema.ts";
import { SQL } from "../../src/store/sqlite/statements.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import { newOrderId } from "../../src/store/order-id.ts";
import type { Store } from "../../src/store/store.ts";
import { atEnd } from "../support/at-end.ts";
import { temporaryFolder } from "../support/service.ts";
import { permitsContract } from "./permits-contract.ts";
import { steeringContract } from "./steering-contract.ts";
import { claimTimes } from "../support/claim-times.ts";
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
  atEnd(t, () => Promise.all(Array.from(open, (store) => store.close())));
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

/** Tables of one row, tables that are read from an end up to a limit, and what a statement is given or has found itself. */
const MAY_BE_SCANNED = /^SCAN (cluster|leader|changes|json_each VIRTUAL TABLE INDEX 1:|o|\(subquery-\d\))$/;

/** The open orders are counted, once a TTL. */
const COUNTED = "SCAN orders USING COVERING INDEX open_orders_by_owner";

test("no statement sorts what it finds, or goes through a table", (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  new SqliteDatabase(path).close();
  const db = new DatabaseSync(path);
  for (const [name, sql] of Object.entries(SQL)) {
    const plan = db.prepare(`EXPLAIN QUERY PLAN ${sql}`).all();
    for (const detail of plan.map((row) => String(row["detail"]))) {
      assert.doesNotMatch(detail, /TEMP B-TREE|AUTOMATIC/, name);
      const isScan = detail.startsWith("SCAN") && !MAY_BE_SCANNED.test(detail);
      assert.ok(!isScan || (name === "listOwners" && detail === COUNTED), `${name}: ${detail}`);
    }
  }
  db.close();
});

/** A batch that adds as many changes, each of an order of its own. */
function creations(owner: number, count: number): FlatBatch {
  const event = { kind: "created", atMs: AT_MS, owner, stepName: "A" } as const;
  return flattenBatch(
    Array.from({ length: count }, () => ({
      kind: "create",
      orderId: newOrderId("user", null),
      user: "user",
      idempotencyKey: null,
      pipelineName: "default",
      pipelineVersion: 1,
      event,
      body: "{}",
    })),
  );
}

const AT_MS = 1_700_000_000_000;

/** The rows of changes that a file has, oldest first. */
function changeRows(path: string): { first: number; count: number }[] {
  const db = new DatabaseSync(path, { readOnly: true });
  const rows = db.prepare("SELECT first, count FROM changes ORDER BY first").all();
  db.close();
  return rows as unknown as { first: number; count: number }[];
}

function changesIn(rows: readonly { count: number }[]): number {
  return rows.reduce((sum, { count }) => sum + count, 0);
}

test("as many changes are kept as were asked for, however they came", (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const db = new SqliteDatabase(path, 10);
  const owner = db.register("service", "{}", AT_MS);
  for (const count of [1, 1, 1, 4, 12, 1, 1, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]) {
    db.commit(creations(owner, count));
    const rows = changeRows(path);
    const kept = changesIn(rows);
    const [oldest] = rows;
    const all = (rows.at(-1)?.first ?? 0) + (rows.at(-1)?.count ?? 0) - 1;
    assert.ok(kept >= Math.min(10, all), `${kept} of ${all} are kept`);
    assert.ok(kept - (oldest?.count ?? 0) < 10, "the oldest row has one of the last ten");
  }
  db.close();
});

test("many small rows that are to be forgotten go faster than changes come, and a few at each commit", (t) => {
  const path = join(temporaryFolder(t), "orders.sqlite");
  const before = new SqliteDatabase(path, 1_000);
  const owner = before.register("service", "{}", AT_MS);
  for (let count = 0; count < 200; count++) before.commit(creations(owner, 1));
  before.close();
  // As after a restart with another number, and then under a load that makes large commits.
  const db = new SqliteDatabase(path, 50);
  let rows = changeRows(path).length;
  for (let commits = 0; changesIn(changeRows(path)) > 70; commits++) {
    assert.ok(commits < 20, "changes too many are forgotten within as many changes");
    db.commit(creations(owner, 20));
    const now = changeRows(path).length;
    assert.ok(rows + 1 - now <= 40, `${rows + 1 - now} rows went with 20 changes`);
    rows = now;
  }
  assert.deepEqual(db.readChanges(1, 10), { kind: "gone" });
  db.close();
});

test("a database of an earlier state is brought up to date, with the orders that are in it", (t) => {
  const folder = temporaryFolder(t);
  for (let version = 1; version < MIGRATIONS.length; version++) {
    const path = join(folder, `${version}.sqlite`);
    const old = new DatabaseSync(path);
    old.exec(`PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${version}`);
    for (const migration of MIGRATIONS.slice(0, version)) old.exec(migration);
    old.exec(`
      INSERT INTO incarnations (service_id, start_time) VALUES ('service', 0);
      INSERT INTO orders VALUES ('one', 'user', NULL, 'default', 1, 0, 'running', 1, 1, '["created",0,1,"A"]');
      INSERT INTO orders VALUES ('two', 'user', NULL, 'default', 1, 0, 'completed', 1, 1, '["created",0,1,"A"]');
      INSERT INTO order_bodies VALUES ('one', '{}'), ('two', '{}');
    `);
    old.close();
    const db = new SqliteDatabase(path);
    assert.deepEqual(db.listOwners(), [{ incarnation: 1, serviceId: "service", orders: 1 }]);
    assert.deepEqual(db.listOrderIds(1, "", 10), ["one"]);
    const next = db.register("service", "{}", AT_MS);
    const claimed = db.claimOrders(1, next, claimTimes(AT_MS), 10);
    assert.deepEqual(claimed.kind === "claimed" && claimed.rows.map(({ order_id }) => order_id), ["one"]);
    assert.deepEqual(db.listOwners(), [{ incarnation: next, serviceId: "service", orders: 1 }]);
    assert.equal(db.readOrder("two")?.owner, 1);
    db.close();
  }
});
