/**
 * The embedded store itself: one SQLite connection and its statements, all synchronous. It runs in the worker thread.
 *
 * 1. Every write happens in a transaction that is committed with synchronous=FULL: SQLite has had the log synced to the
 *    disk when `COMMIT` returns, and only then does a method return.
 * 2. A transaction that fails is rolled back whole before the error is thrown.
 */
import { closeSync, fsyncSync, openSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import type { Incarnation } from "../../order/order.ts";
import { encodeEvent } from "../codec.ts";
import type { OwnerSummary } from "../store.ts";
import {
  type BatchOutcomes,
  type ClaimedRow,
  type FlatBatch,
  type OrderRow,
  OUTCOME_APPLIED,
  OUTCOME_CONFLICT,
  OUTCOME_KEY_TAKEN,
  TAG_ADVANCE,
  TAG_CREATE,
  type TakenKey,
} from "./protocol.ts";
import { APPLICATION_ID, MIGRATIONS, PAGE_BYTES, SQLITE_VERSION_MIN } from "./schema.ts";
import { logHeaderIsSound } from "./log-header.ts";
import { reasonOf, SqliteStoreError } from "./reasons.ts";

/** How long a write waits for another process that holds the write lock. */
const BUSY_TIMEOUT_MS = 5_000;

/** The log is folded into the database after this many pages (32 MiB): rarely enough not to show, often enough to bound it. */
const CHECKPOINT_PAGES = 4_000;

/** Memory for pages, in KiB: the pages of 100,000 orders in flight fit. */
const CACHE_KIB = 64 * 1024;

/** Orders that are not final. Word for word the condition of the index open_orders_by_owner, or SQLite won't use it. */
const OPEN = "status <> 'completed' AND status <> 'failed'";

const SQL = {
  create: `INSERT INTO orders
    (order_id, user, idempotency_key, pipeline_name, pipeline_version, start_time, status, owner, revision, history)
    VALUES (?, ?, ?, ?, ?, ?, 'running', ?, 1, ?) ON CONFLICT DO NOTHING`,
  createBody: "INSERT INTO order_bodies (order_id, body) VALUES (?, ?)",
  advance: `UPDATE orders SET history = history || ?, revision = revision + 1
    WHERE order_id = ? AND owner = ? AND revision = ? AND ${OPEN}`,
  advanceStatus: `UPDATE orders SET status = ?, history = history || ?, revision = revision + 1
    WHERE order_id = ? AND owner = ? AND revision = ? AND ${OPEN}`,
  findKey: `SELECT o.order_id, o.start_time, b.body FROM orders o JOIN order_bodies b USING (order_id)
    WHERE o.user = ? AND o.idempotency_key = ?`,
  readOrder: `SELECT o.order_id, o.user, o.pipeline_name, o.pipeline_version, o.status, o.owner, i.service_id, o.revision,
    o.history FROM orders o JOIN incarnations i ON i.incarnation = o.owner WHERE o.order_id = ?`,
  listOwners: `SELECT DISTINCT o.owner, i.service_id
    FROM orders o INDEXED BY open_orders_by_owner JOIN incarnations i ON i.incarnation = o.owner
    WHERE ${OPEN}`,
  claim: `UPDATE orders SET owner = ?, history = history || ?, revision = revision + 1
    WHERE order_id IN (SELECT order_id FROM orders INDEXED BY open_orders_by_owner
      WHERE owner = ? AND ${OPEN} ORDER BY order_id LIMIT ?)
    RETURNING order_id, user, pipeline_name, pipeline_version, status, owner, revision, history,
      (SELECT body FROM order_bodies b WHERE b.order_id = orders.order_id) AS body`,
  register: "INSERT INTO incarnations (service_id, start_time) VALUES (?, ?)",
  hasService: "SELECT 1 FROM incarnations WHERE service_id = ? LIMIT 1",
  serviceOf: "SELECT service_id FROM incarnations WHERE incarnation = ?",
  probe: "INSERT INTO probe (id, time) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET time = excluded.time",
} as const;

type Statements = { readonly [K in keyof typeof SQL]: StatementSync };

export class SqliteDatabase {
  readonly #db: DatabaseSync;
  readonly #statements: Statements;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;

  /**
   * Opens the database, making it if it isn't there, checks it and brings its tables up to date.
   * @throws SqliteStoreError with one line for an operator
   */
  constructor(path: string) {
    requireVersion(process.versions.sqlite);
    let db: DatabaseSync | null = null;
    try {
      if (!logHeaderIsSound(path)) {
        throw new SqliteStoreError(`its log ${path}-wal is damaged; restore both from a backup`);
      }
      db = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS });
      prepareFile(db);
      migrate(db);
      syncFolder(dirname(path));
      this.#db = db;
      this.#begin = db.prepare("BEGIN IMMEDIATE");
      this.#commit = db.prepare("COMMIT");
      this.#statements = prepareAll(db);
    } catch (error) {
      if (db?.isOpen) db.close();
      throw new SqliteStoreError(`the store ${path} can't be opened: ${reasonOf(error)}`, { cause: error });
    }
  }

  close(): void {
    this.#db.close();
  }

  registerIncarnation(serviceId: string, atMs: number): Incarnation {
    return this.#transaction(() => Number(this.#statements.register.run(serviceId, atMs).lastInsertRowid));
  }

  hasService(serviceId: string): boolean {
    return this.#statements.hasService.get(serviceId) !== undefined;
  }

  /** Applies a flat batch in one transaction. Outcomes come in the order of the writes. */
  commit(batch: FlatBatch): BatchOutcomes {
    return this.#transaction(() => this.#apply(batch));
  }

  readOrder(orderId: string): OrderRow | null {
    return (this.#statements.readOrder.get(orderId) as unknown as OrderRow | undefined) ?? null;
  }

  listOwners(): OwnerSummary[] {
    const rows = this.#statements.listOwners.all() as unknown as { owner: number; service_id: string }[];
    return rows.map((row) => ({ incarnation: row.owner, serviceId: row.service_id }));
  }

  claimOrders(from: Incarnation, to: Incarnation, atMs: number, limit: number): ClaimedRow[] {
    const event = `,${encodeEvent({ kind: "owner_changed", atMs, owner: to })}`;
    const service = this.#statements.serviceOf.get(to) as unknown as { service_id: string } | undefined;
    if (service === undefined) throw new Error(`incarnation ${to} is not registered`);
    const rows = this.#transaction(() => this.#statements.claim.all(to, event, from, limit));
    return rows.map((row) => ({ ...(row as unknown as ClaimedRow), service_id: service.service_id }));
  }

  probe(atMs: number): void {
    this.#transaction(() => this.#statements.probe.run(atMs));
  }

  #apply(batch: FlatBatch): BatchOutcomes {
    const { create, createBody, advance, advanceStatus } = this.#statements;
    const outcomes: number[] = [];
    const takenKeys: TakenKey[] = [];
    let at = 0;
    const next = (): SQLInputValue => batch[at++] ?? null;
    while (at < batch.length) {
      const tag = batch[at++];
      let changes: number | bigint;
      if (tag === TAG_ADVANCE) {
        changes = advance.run(next(), next(), next(), next()).changes;
      } else if (tag === TAG_CREATE) {
        const orderId = next();
        const user = next();
        const key = next();
        changes = create.run(orderId, user, key, next(), next(), next(), next(), next()).changes;
        const body = next();
        if (changes === 1) {
          createBody.run(orderId, body);
        } else if (key !== null) {
          const taken = this.#findKey(user, key, outcomes.length);
          if (taken !== null) {
            takenKeys.push(taken);
            outcomes.push(OUTCOME_KEY_TAKEN);
            continue;
          }
        }
      } else {
        changes = advanceStatus.run(next(), next(), next(), next(), next()).changes;
      }
      outcomes.push(changes === 1 ? OUTCOME_APPLIED : OUTCOME_CONFLICT);
    }
    return { outcomes: Uint8Array.from(outcomes), takenKeys };
  }

  #findKey(user: SQLInputValue, key: SQLInputValue, index: number): TakenKey | null {
    const row = this.#statements.findKey.get(user, key) as unknown as
      { order_id: string; start_time: number; body: string } | undefined;
    return row === undefined ? null : { index, orderId: row.order_id, startTimeMs: row.start_time, body: row.body };
  }

  #transaction<T>(work: () => T): T {
    try {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK"); // left open where an earlier rollback failed, too
      this.#begin.run();
      const result = work();
      this.#commit.run();
      return result;
    } catch (error) {
      if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
      throw error;
    }
  }
}

function prepareAll(db: DatabaseSync): Statements {
  const entries = Object.entries(SQL).map(([name, sql]) => [name, db.prepare(sql)]);
  return Object.fromEntries(entries) as Statements;
}

/** Sets the file up, or refuses one that is not ours or is damaged. */
function prepareFile(db: DatabaseSync): void {
  db.exec(`PRAGMA page_size = ${PAGE_BYTES}`);
  const applicationId = pragmaNumber(db, "application_id");
  const empty = pragmaNumber(db, "schema_version") === 0;
  if (!empty && applicationId !== APPLICATION_ID) {
    throw new SqliteStoreError("it is a database of another program; choose another file with --store");
  }
  db.exec("PRAGMA journal_mode = WAL");
  db.exec("PRAGMA synchronous = FULL");
  db.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
  db.exec(`PRAGMA journal_size_limit = ${CHECKPOINT_PAGES * PAGE_BYTES}`);
  db.exec(`PRAGMA cache_size = -${CACHE_KIB}`);
  db.exec("PRAGMA temp_store = MEMORY"); // a container may have no folder for temporary files
  if (empty) return;
  const [finding] = db.prepare("PRAGMA quick_check(1)").all();
  const text = Object.values(finding ?? {})[0];
  if (text !== "ok") throw new SqliteStoreError(`it is damaged (${String(text)}); restore it from a backup`);
}

/** Each migration in a transaction of its own; the version is read inside, for another process may be migrating, too. */
function migrate(db: DatabaseSync): void {
  for (let version = -1; version !== MIGRATIONS.length;) {
    db.exec("BEGIN IMMEDIATE");
    version = pragmaNumber(db, "user_version");
    if (version > MIGRATIONS.length) {
      throw new SqliteStoreError("it was written by a newer version of order_process; run that version");
    }
    const migration = MIGRATIONS[version];
    if (migration !== undefined) {
      db.exec(`${migration}; PRAGMA application_id = ${APPLICATION_ID}; PRAGMA user_version = ${++version}`);
    }
    db.exec("COMMIT");
  }
}

/** Makes a file that was just made outlive a loss of power: its name is in the folder, and the folder must be synced, too. */
function syncFolder(folder: string): void {
  const descriptor = openSync(folder, "r");
  try {
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

function pragmaNumber(db: DatabaseSync, name: string): number {
  const value = Object.values(db.prepare(`PRAGMA ${name}`).get() ?? {})[0];
  if (typeof value !== "number") throw new Error(`PRAGMA ${name} gave ${String(value)}`);
  return value;
}

function requireVersion(version: string | undefined): void {
  const parts = (text: string): number[] => text.split(".").map(Number);
  const [has, needs] = [parts(version ?? "0"), parts(SQLITE_VERSION_MIN)];
  for (const [index, need] of needs.entries()) {
    const part = has[index] ?? 0;
    if (part > need) return;
    if (part < need) {
      throw new SqliteStoreError(
        `this Node brings SQLite ${version}, and order_process needs ${SQLITE_VERSION_MIN} or later; run it with a newer Node`,
      );
    }
  }
}
