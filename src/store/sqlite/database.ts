/**
 * The embedded store itself: one SQLite connection and its statements, all synchronous. It runs in the worker thread.
 *
 * 1. Every write happens in a transaction that is committed with synchronous=FULL: SQLite has had the log synced to the
 *    disk when `COMMIT` returns, and only then does a method return.
 * 2. A transaction that fails is rolled back whole before the error is thrown.
 * 3. Nothing waits for another process that has the write lock: a method throws (`isBusy`), and can be called again.
 */
import { closeSync, fsyncSync, openSync, statSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync, type SQLInputValue, type StatementSync } from "node:sqlite";
import type { Incarnation } from "../../order/events.ts";
import type { ListedStatus } from "../../order/status.ts";
import { RESERVED_STEP_NAMES } from "../../order/pipeline.ts";
import { decodeHistory, encodeEvent } from "../codec.ts";
import { claimEvent } from "../claim-event.ts";
import { ID_TIME_MS, matchesFilter, rareStatuses } from "../order-filter.ts";
import { lowestIdAt } from "../order-id.ts";
import type { ClusterIdentity, LeaderRow, Permits } from "../cluster-store.ts";
import { CHANGES_KEPT, type ClaimTimes, type OrderFilter, type OwnerSummary } from "../store.ts";
import {
  type BatchOutcomes,
  type ChangeRows,
  type OrderRows,
  type OwnedRow,
  type ClaimResult,
  type FlatBatch,
  type NodeRecord,
  type OrderRow,
  OUTCOME_APPLIED,
  OUTCOME_CONFLICT,
  OUTCOME_FENCED,
  OUTCOME_KEY_TAKEN,
  TAG_ADVANCE,
  TAG_ADVANCE_OWNER,
  TAG_ADVANCE_STATUS,
  TAG_CREATE,
  type TakenKey,
} from "./protocol.ts";
import { APPLICATION_ID, MIGRATIONS, PAGE_BYTES, SQLITE_VERSION_MIN } from "./schema.ts";
import { logHeaderIsSound } from "./log-header.ts";
import { isBusy, reasonOf, SqliteStoreError } from "./reasons.ts";
import { SQL } from "./statements.ts";

/** How long the opening waits for other processes that hold locks. */
const OPEN_BUSY_MS_MAX = 5_000;

/** One try of it. SQLite itself waits for most locks, but not where two would wait for each other, as when both make the file. */
const OPEN_TRY_MS = 500;
const OPEN_RETRY_MS = 10;

const LOG_HEADER_TRIES = 5;
const LOG_HEADER_RETRY_MS = 10;

/** The log is folded into the database after this many pages (32 MiB): rarely enough not to show, often enough to bound it. */
const CHECKPOINT_PAGES = 4_000;

/** Memory for pages: the pages of 100,000 orders in flight fit. */
const CACHE_BYTES = 64 * 1024 ** 2;

/**
 * So many rows of changes are forgotten at most for each change that is added. A row has one change at least, so that what is too much
 * becomes less with each commit, by as much as the commit adds, and no commit does much more for it than for its own writes.
 */
const FORGOTTEN_PER_ADDED = 2;

/** Statuses that one list can be of, and what stands for those that are not asked for. */
const STATUSES_MAX = 4;
const NO_STATUSES = Array.from({ length: STATUSES_MAX }, () => "");

/** So many orders are looked at for one page: a few milliseconds, in which nobody else is served. */
const LOOKED_AT_MAX = 2_000;

type Statements = { readonly [K in keyof typeof SQL]: StatementSync };

export class SqliteDatabase {
  readonly #changesKept: number;
  readonly #db: DatabaseSync;
  readonly #statements: Statements;
  readonly #begin: StatementSync;
  readonly #beginRead: StatementSync;
  readonly #dataVersion: StatementSync;
  readonly #commit: StatementSync;

  /**
   * Opens the database, making it if it isn't there, checks it and brings its tables up to date.
   * @param changesKept how many changes are remembered; 0: none
   * @param options.cacheBytes memory for pages
   * @param options.mustExist refuse a file in which no cluster was ever
   * @throws SqliteStoreError with one line for an operator
   */
  constructor(
    path: string,
    changesKept = CHANGES_KEPT,
    {
      cacheBytes = CACHE_BYTES,
      mustExist = false,
    }: { readonly cacheBytes?: number; readonly mustExist?: boolean } = {},
  ) {
    this.#changesKept = changesKept;
    requireVersion(process.versions.sqlite);
    let db: DatabaseSync | null = null;
    try {
      requireOneName(path);
      if (!isSoundAtSomeTime(path)) {
        throw new SqliteStoreError(`its log ${path}-wal is damaged; restore both from a backup`);
      }
      db = openPatiently(path, mustExist);
      syncFolder(dirname(path));
      db.exec("PRAGMA busy_timeout = 0");
      db.exec(`PRAGMA cache_size = -${Math.floor(cacheBytes / 1024)}`); // negative: in KiB, not in pages
      this.#db = db;
      this.#begin = db.prepare("BEGIN IMMEDIATE");
      this.#beginRead = db.prepare("BEGIN");
      this.#dataVersion = db.prepare("PRAGMA data_version");
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

  /** Applies a flat batch in one transaction. Outcomes come in the order of the writes. */
  commit(batch: FlatBatch): BatchOutcomes {
    return this.#transaction(() => this.#apply(batch));
  }

  readOrder(orderId: string): OrderRow | null {
    return (this.#statements.readOrder.get(orderId) as unknown as OrderRow | undefined) ?? null;
  }

  readOrders(orderIds: readonly string[]): OrderRow[] {
    return this.#statements.readOrders.all(JSON.stringify(orderIds)) as unknown as OrderRow[];
  }

  listOrders(filter: OrderFilter, before: string | null, limit: number): OrderRows {
    const { user, fromMs, toMs } = filter;
    // Ids are of the time at which they were made, a moment before or after that of the order.
    const lower = fromMs === null ? "" : lowestIdAt(fromMs - ID_TIME_MS);
    const byTime = toMs === null ? null : lowestIdAt(toMs + ID_TIME_MS);
    const upper = [before, byTime].reduce<string>((least, each) => (each !== null && each < least ? each : least), "g");
    const { listAll, listByUser, listByStatus } = this.#statements;
    const rare = rareStatuses(filter);
    const found =
      rare !== null
        ? listByStatus.iterate(upper, lower, ...[...rare, ...NO_STATUSES].slice(0, STATUSES_MAX))
        : user === null
          ? listAll.iterate(upper, lower)
          : listByUser.iterate(upper, lower, user);
    const rows: OrderRow[] = [];
    let lookedAt = 0;
    for (const each of found) {
      const row = each as unknown as ListedRow;
      if (matches(row, filter)) rows.push(row);
      if (rows.length === limit || ++lookedAt === LOOKED_AT_MAX) return { rows, next: row.order_id };
    }
    return { rows, next: null };
  }

  /** @param user '': all users together */
  countOrders(user: string): { status: string; count: number }[] {
    return this.#statements.countOrders.all(user) as unknown as { status: string; count: number }[];
  }

  /** @param after the number of the last change that is known; null: all that there are are known */
  readChanges(after: number | null, limit: number): ChangeRows {
    const last = this.#lastChange();
    if (after === null) return { kind: "rows", rows: [], last };
    const first = (this.#statements.firstChange.get() as unknown as { first: number } | undefined)?.first ?? 1;
    if (after > last || after + 1 < first) return { kind: "gone" };
    const rows: { first: number; changes: string }[] = [];
    let read = 0;
    for (const each of this.#statements.readChanges.iterate(after + 1)) {
      const row = each as unknown as { first: number; count: number; changes: string };
      rows.push({ first: row.first, changes: row.changes });
      read += row.first + row.count - 1 - Math.max(after, row.first - 1);
      if (read >= limit) break;
    }
    return { kind: "rows", rows, last };
  }

  #lastChange(): number {
    return (this.#statements.lastChange.get() as unknown as { last: number } | undefined)?.last ?? 0;
  }

  #note(changes: Changes): void {
    for (const [user, counts] of [["", sumOf(changes.counts.values())] as const, ...changes.counts]) {
      for (const [status, delta] of counts) if (delta !== 0) this.#statements.addCount.run(user, status, delta);
    }
    if (this.#changesKept === 0 || changes.texts.length === 0) return;
    const last = this.#lastChange();
    const added = changes.texts.length;
    this.#statements.addChanges.run(last + 1, added, changes.texts.join(","));
    this.#statements.forgetChanges.run(last + added - this.#changesKept + 1, FORGOTTEN_PER_ADDED * added);
  }

  readBody(orderId: string): string | null {
    return (this.#statements.readBody.get(orderId) as unknown as { body: string } | undefined)?.body ?? null;
  }

  readOwned(owner: Incarnation, orderIds: readonly string[]): OwnedRow[] {
    return this.#statements.readOwned.all(JSON.stringify(orderIds), owner) as unknown as OwnedRow[];
  }

  listOwners(): OwnerSummary[] {
    const rows = this.#statements.listOwners.all() as unknown as {
      owner: number;
      service_id: string;
      orders: number;
    }[];
    return rows.map((row) => ({ incarnation: row.owner, serviceId: row.service_id, orders: row.orders }));
  }

  listOrderIds(owner: Incarnation, after: string, limit: number): string[] {
    const rows = this.#statements.listOrderIds.all(owner, after, limit) as unknown as { order_id: string }[];
    return rows.map((row) => row.order_id);
  }

  claimOrders(from: Incarnation, to: Incarnation, times: ClaimTimes, limit: number): ClaimResult {
    return this.#transaction(() => {
      const former = this.#statements.hasDrained.get(from) as unknown as { drained: number } | undefined;
      if (former === undefined || this.#isAlive(from)) return { kind: "owner_alive" };
      const event = `,${encodeEvent(claimEvent(to, times, former.drained === 1))}`;
      if (!this.#isAlive(to)) return { kind: "fenced" };
      const { service_id } = this.#statements.serviceOf.get(to) as unknown as { service_id: string };
      const claimed = this.#statements.claim.all(to, event, from, limit) as unknown as OwnedRow[];
      const changes = new Changes();
      for (const { order_id: orderId, revision, user } of claimed) changes.add(orderId, revision, user);
      this.#note(changes);
      return { kind: "claimed", rows: claimed.map((row) => ({ ...row, service_id })) };
    });
  }

  probe(atMs: number): void {
    this.#transaction(() => this.#statements.probe.run(atMs));
  }

  /** The identity that is there, or the one that is offered. */
  identity(offered: ClusterIdentity): ClusterIdentity {
    const read = (): ClusterIdentity | null => {
      const row = this.#statements.identity.get() as unknown as { cluster_id: string; secret: string } | undefined;
      return row === undefined ? null : { clusterId: row.cluster_id, secret: row.secret };
    };
    const found = read();
    if (found !== null) return found;
    this.#transaction(() => this.#statements.makeIdentity.run(offered.clusterId, offered.secret));
    return read() ?? offered;
  }

  register(serviceId: string, description: string, atMs: number): Incarnation {
    return this.#transaction(() => {
      this.#statements.supersede.run(serviceId);
      this.#statements.vacate.run(serviceId);
      return Number(this.#statements.register.run(serviceId, atMs, atMs, description).lastInsertRowid);
    });
  }

  recordedShape(name: string, version: number): string | null {
    return (this.#statements.readShape.get(name, version) as unknown as { shape: string } | undefined)?.shape ?? null;
  }

  pipelineShape(name: string, version: number, shape: string): string {
    const found = this.recordedShape(name, version);
    if (found !== null) return found;
    this.#transaction(() => this.#statements.keepShape.run(name, version, shape));
    return this.recordedShape(name, version) ?? shape;
  }

  permits(key: string): Permits {
    // The record first: whoever has a share in it has been alive before.
    const row = this.#statements.readPermits.get(key) as unknown as { record: string } | undefined;
    const alive = this.#statements.listAlive.all() as unknown as { incarnation: number }[];
    return { record: row?.record ?? null, alive: alive.map(({ incarnation }) => incarnation) };
  }

  changePermits(key: string, seen: string | null, record: string): boolean {
    const { addPermits, changePermits } = this.#statements;
    return this.#changesOne(() => (seen === null ? addPermits.run(key, record) : changePermits.run(record, key, seen)));
  }

  serviceOf(incarnation: Incarnation): string | null {
    const row = this.#statements.serviceOf.get(incarnation) as unknown as { service_id: string } | undefined;
    return row?.service_id ?? null;
  }

  hasService(serviceId: string): boolean {
    return this.#statements.hasService.get(serviceId) !== undefined;
  }

  beat(incarnation: Incarnation, ordersInFlight: number, atMs: number): boolean {
    return this.#changesOne(() => this.#statements.beat.run(atMs, ordersInFlight, incarnation));
  }

  readCluster(): { nodes: NodeRecord[]; leader: LeaderRow } {
    this.#rollBackWhatIsLeft();
    this.#beginRead.run(); // both reads as of one moment
    try {
      const nodes = this.#statements.listNodes.all() as unknown as NodeRecord[];
      const leader = this.#statements.readLeader.get() as unknown as LeaderRow;
      return { nodes, leader: { ...leader } };
    } finally {
      this.#commit.run();
    }
  }

  markDead(incarnation: Incarnation, seenHeartbeat: number): boolean {
    return this.#changesOne(() => this.#statements.markDead.run(incarnation, seenHeartbeat));
  }

  leave(incarnation: Incarnation): void {
    this.#transaction(() => {
      this.#statements.leave.run(incarnation);
      this.#statements.resign.run(incarnation);
    });
  }

  claimLeadership(incarnation: Incarnation, { term, renewal }: LeaderRow): boolean {
    return this.#changesOne(() => this.#statements.claimLeadership.run(incarnation, term, renewal));
  }

  renewLeadership(incarnation: Incarnation, term: number): boolean {
    return this.#changesOne(() => this.#statements.renewLeadership.run(incarnation, term));
  }

  /** Changes whenever another connection has committed something. */
  get dataVersion(): unknown {
    return this.#dataVersion.get()?.["data_version"];
  }

  #changesOne(write: () => { changes: number | bigint }): boolean {
    return this.#transaction(() => write().changes === 1);
  }

  #isAlive(incarnation: SQLInputValue): boolean {
    return this.#statements.isAlive.get(incarnation) !== undefined;
  }

  #apply(batch: FlatBatch): BatchOutcomes {
    const { create, createBody, advance, advanceStatus, advanceOwner } = this.#statements;
    const alive = new Map<SQLInputValue, boolean>();
    const isAlive = (incarnation: SQLInputValue): boolean => {
      const known = alive.get(incarnation) ?? this.#isAlive(incarnation);
      alive.set(incarnation, known);
      return known;
    };
    const outcomes: number[] = [];
    const takenKeys: TakenKey[] = [];
    const noted = new Changes();
    let at = 0;
    const next = (): SQLInputValue => batch[at++] ?? null;
    while (at < batch.length) {
      const tag = batch[at++];
      let changes: number | bigint = 0;
      if (tag === TAG_CREATE) {
        const [orderId, user, key] = [next(), next(), next()];
        const [pipelineName, pipelineVersion, startTime, status, owner] = [next(), next(), next(), next(), next()];
        const [event, body] = [next(), next()];
        if (!isAlive(owner)) {
          outcomes.push(OUTCOME_FENCED);
          continue;
        }
        changes = create.run(
          orderId,
          user,
          key,
          pipelineName,
          pipelineVersion,
          startTime,
          status,
          owner,
          event,
        ).changes;
        if (changes === 1) {
          createBody.run(orderId, body);
          noted.add(orderId, 1, user);
          noted.count(status, 1);
        } else if (key !== null) {
          const taken = this.#findKey(user, key, outcomes.length);
          if (taken !== null) {
            takenKeys.push(taken);
            outcomes.push(OUTCOME_KEY_TAKEN);
            continue;
          }
        }
      } else {
        const change = tag === TAG_ADVANCE ? null : next(); // the new status or owner
        const formerStatus = tag === TAG_ADVANCE_STATUS ? next() : null;
        const [event, orderId, owner, revision, user] = [next(), next(), next(), next(), next()];
        if (!isAlive(owner)) {
          outcomes.push(OUTCOME_FENCED);
          continue;
        }
        if (tag === TAG_ADVANCE) changes = advance.run(event, orderId, owner, revision).changes;
        else if (tag === TAG_ADVANCE_STATUS)
          changes = advanceStatus.run(change, event, orderId, owner, revision).changes;
        else if (tag === TAG_ADVANCE_OWNER && isAlive(change))
          changes = advanceOwner.run(change, event, orderId, owner, revision).changes;
        if (changes === 1) {
          noted.add(orderId, Number(revision) + 1, user);
          if (tag === TAG_ADVANCE_STATUS) {
            noted.count(formerStatus, -1);
            noted.count(change, 1);
          }
        }
      }
      outcomes.push(changes === 1 ? OUTCOME_APPLIED : OUTCOME_CONFLICT);
    }
    this.#note(noted);
    return { outcomes: Uint8Array.from(outcomes), takenKeys };
  }

  #findKey(user: SQLInputValue, key: SQLInputValue, index: number): TakenKey | null {
    const row = this.#statements.findKey.get(user, key) as unknown as
      { order_id: string; start_time: number; body: string } | undefined;
    return row === undefined ? null : { index, orderId: row.order_id, startTimeMs: row.start_time, body: row.body };
  }

  /** Left open where an earlier rollback failed. */
  #rollBackWhatIsLeft(): void {
    if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
  }

  #transaction<T>(work: () => T): T {
    try {
      this.#rollBackWhatIsLeft();
      this.#begin.run();
      const result = work();
      this.#commit.run();
      return result;
    } catch (error) {
      this.#rollBackWhatIsLeft();
      throw error;
    }
  }
}

/** What a batch has changed, gathered to be written at its end. */
class Changes {
  /** JSON of order id, revision and user. */
  readonly texts: string[] = [];
  /** By user, and by status. */
  readonly counts = new Map<string, Map<string, number>>();
  /** Most writes that follow each other are of one user. */
  #user = "";
  #userText = '""';
  #userCounts: Map<string, number> | null = null;

  add(orderId: SQLInputValue, revision: number, user: SQLInputValue): void {
    if (user !== this.#user) this.#turnTo(user as string);
    this.texts.push(`"${orderId as string}",${revision},${this.#userText}`);
  }

  /** To be called after `add`, of the same order. */
  count(status: SQLInputValue, delta: number): void {
    if (this.#userCounts === null) {
      this.#userCounts = this.counts.get(this.#user) ?? new Map<string, number>();
      this.counts.set(this.#user, this.#userCounts);
    }
    this.#userCounts.set(status as string, (this.#userCounts.get(status as string) ?? 0) + delta);
  }

  #turnTo(user: string): void {
    this.#user = user;
    this.#userText = JSON.stringify(user);
    this.#userCounts = null;
  }
}

/** Of all users together. */
function sumOf(counts: Iterable<ReadonlyMap<string, number>>): Map<string, number> {
  const sum = new Map<string, number>();
  for (const each of counts) for (const [status, delta] of each) sum.set(status, (sum.get(status) ?? 0) + delta);
  return sum;
}

interface ListedRow extends OrderRow {
  readonly start_time: number;
}

/** Whether all holds that the filter says; most orders are told apart without reading their history. */
function matches(row: ListedRow, filter: OrderFilter): boolean {
  const { fromMs, toMs, stepName } = filter;
  if ((fromMs !== null && row.start_time < fromMs) || (toMs !== null && row.start_time >= toMs)) return false;
  const isNamed = stepName !== null && !RESERVED_STEP_NAMES.has(stepName);
  if (isNamed && !row.history.includes(JSON.stringify(stepName))) return false;
  const order = {
    orderId: row.order_id,
    user: row.user,
    status: row.status as ListedStatus,
    pipelineName: row.pipeline_name,
    ownerServiceId: row.service_id,
  };
  const byRow = { ...filter, fromMs: null, toMs: null, stepName: null };
  if (!matchesFilter({ ...order, history: [] }, byRow)) return false;
  if (stepName === null) return true;
  try {
    return matchesFilter({ ...order, history: decodeHistory(row.history) }, { ...byRow, stepName });
  } catch {
    return false; // damaged, and nowhere
  }
}

/** Each name of a file has a log of its own; what two processes write by two names destroys it. */
function requireOneName(path: string): void {
  const links = statSync(path, { throwIfNoEntry: false })?.nlink ?? 1;
  if (links > 1) throw new SqliteStoreError("it has another name, a hard link; remove one of them");
}

/** Opens the file and brings it up to date, again and again while other processes do the same. */
function openPatiently(path: string, mustExist: boolean): DatabaseSync {
  const endMs = performance.now() + OPEN_BUSY_MS_MAX;
  for (;;) {
    const db = new DatabaseSync(path, { timeout: OPEN_TRY_MS });
    try {
      prepareFile(db, mustExist);
      migrate(db);
      return db;
    } catch (error) {
      db.close();
      if (!isBusy(error) || performance.now() >= endMs) throw error;
      pause(OPEN_RETRY_MS);
    }
  }
}

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

/** Another process may be writing the header while it is read: damage stays, that passes. */
function isSoundAtSomeTime(path: string): boolean {
  for (let tries = 1; !logHeaderIsSound(path); tries++) {
    if (tries === LOG_HEADER_TRIES) return false;
    pause(LOG_HEADER_RETRY_MS);
  }
  return true;
}

function prepareAll(db: DatabaseSync): Statements {
  const entries = Object.entries(SQL).map(([name, sql]) => [name, db.prepare(sql)]);
  return Object.fromEntries(entries) as Statements;
}

/** Sets the file up, or refuses one that is not ours or is damaged. */
function prepareFile(db: DatabaseSync, mustExist: boolean): void {
  db.exec(`PRAGMA page_size = ${PAGE_BYTES}`);
  // In this order: another process that is making the file writes both at once, in between.
  const empty = pragmaNumber(db, "schema_version") === 0;
  const applicationId = pragmaNumber(db, "application_id");
  if (!empty && applicationId !== APPLICATION_ID) {
    throw new SqliteStoreError("it is a database of another program; choose another file with --store");
  }
  if (empty && mustExist) throw new SqliteStoreError("there is no cluster in it");
  db.exec("PRAGMA journal_mode = WAL");
  db.exec("PRAGMA synchronous = FULL");
  db.exec(`PRAGMA wal_autocheckpoint = ${CHECKPOINT_PAGES}`);
  db.exec(`PRAGMA journal_size_limit = ${CHECKPOINT_PAGES * PAGE_BYTES}`);
  db.exec("PRAGMA temp_store = MEMORY"); // a container may have no folder for temporary files
  if (empty) return;
  const [finding] = db.prepare("PRAGMA quick_check(1)").all();
  const text = Object.values(finding ?? {})[0];
  if (text !== "ok") throw new SqliteStoreError(`it is damaged (${String(text)}); restore it from a backup`);
}

/** Each migration in a transaction of its own; the version is read inside, for another process may be migrating, too. */
function migrate(db: DatabaseSync): void {
  // Usually there is nothing to do, and a process that holds the write lock is not waited for.
  for (let version = pragmaNumber(db, "user_version"); version !== MIGRATIONS.length;) {
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
