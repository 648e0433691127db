/** What each statement of the embedded store costs, with little in it and with much. */
import { existsSync, mkdtempSync, rmSync, statfsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { newOrderId } from "../../src/store/order-id.ts";
import type { OrderStatus } from "../../src/order/status.ts";
import { SqliteDatabase } from "../../src/store/sqlite/database.ts";
import { flattenBatch } from "../../src/store/sqlite/protocol.ts";
import { SQL } from "../../src/store/sqlite/statements.ts";
import type { AdvanceWrite, CreateWrite } from "../../src/store/store.ts";
import { claimTimes } from "../support/claim-times.ts";
import { assertFlat, LARGE_ROWS, type RoundCosts, SMALL_ROWS } from "./compare.ts";
import { ALL_ORDERS } from "../support/all-orders.ts";

const EXCEPTIONS = {
  listOwners: {
    reason: "counts the open orders, which nodes bound (--in-flight); asked once a TTL, and by a start",
    ratioMax: LARGE_ROWS / SMALL_ROWS,
  },
};

const LEFT_OUT = { makeIdentity: "runs once in a store's life, on a table of one row" };

/** Of the fill: the owner of a fifth of the orders, open; that of another fifth, dead; and what has all of its starts. */
const ALIVE = 2;
const DEAD = 10;
const BUSY_SERVICE = "service-busy";
const BUSY_USER = "user-busy";

/** Calls of one kind in a round. */
const CALLS = 10;
const PAGE = 20;

const AT_MS = 1_700_000_000_000;

test("no statement of the embedded store takes longer the more is stored", async (t) => {
  const small = new TimedDatabase(t, SMALL_ROWS);
  const large = new TimedDatabase(t, LARGE_ROWS);
  await assertFlat({
    small: () => small.round(),
    large: () => large.round(),
    expected: small.statements,
    exceptions: EXCEPTIONS,
    leftOut: LEFT_OUT,
    slackUs: () => 2,
  });
});

/** Statements by their names in the code; those that begin and end transactions by their text. */
const NAMES: ReadonlyMap<string, string> = new Map(Object.entries(SQL).map(([name, sql]) => [sql, name]));

/** The embedded store with so many rows in each table, and a stop-watch on each of its statements. */
class TimedDatabase {
  /** All that it has prepared to be called later. */
  readonly statements: string[] = [];
  readonly #db: SqliteDatabase;
  readonly #spent = new Map<string, { calls: number; ms: number }>();
  #number = 0;

  constructor(t: TestContext, rows: number) {
    const folder = mkdtempSync(join(quickFolder(), "order-process-test-"));
    t.after(() => rmSync(folder, { recursive: true, force: true }));
    const path = join(folder, "orders.sqlite");
    new SqliteDatabase(path).close();
    fill(path, rows);
    this.#db = this.#open(path, rows);
    t.after(() => this.#db.close());
    this.#db.identity({ clusterId: "cluster", secret: "secret" });
  }

  /** Calls everything, and tells what each statement took. */
  round(): RoundCosts {
    this.#spent.clear();
    for (let call = 0; call < CALLS; call++) {
      this.#steerNodes();
      this.#read(this.#write());
    }
    this.#claim();
    this.#db.listOwners();
    return new Map(Array.from(this.#spent, ([name, { calls, ms }]) => [name, (1_000 * ms) / calls]));
  }

  #open(path: string, rows: number): SqliteDatabase {
    // What is prepared while the store is opened is all that it has.
    const prototype: { prepare: (this: DatabaseSync, sql: string) => StatementSync } = DatabaseSync.prototype;
    const { prepare } = prototype;
    const timed = (statement: StatementSync, sql: string): StatementSync =>
      this.#timed(statement, NAMES.get(sql) ?? sql);
    prototype.prepare = function (sql) {
      return timed(prepare.call(this, sql), sql);
    };
    try {
      return new SqliteDatabase(path, rows);
    } finally {
      prototype.prepare = prepare;
    }
  }

  #timed(statement: StatementSync, name: string): StatementSync {
    if (!OPENING.test(name)) this.statements.push(name);
    const clock = <A extends unknown[], R>(call: (...args: A) => R, calls = 1): ((...args: A) => R) => {
      return (...args) => {
        const startMs = performance.now();
        try {
          return call(...args);
        } finally {
          this.#spend(name, performance.now() - startMs, calls);
        }
      };
    };
    const iterate = clock(statement.iterate.bind(statement));
    return Object.assign(statement, {
      run: clock(statement.run.bind(statement)),
      get: clock(statement.get.bind(statement)),
      all: clock(statement.all.bind(statement)),
      iterate: (...args: Parameters<typeof iterate>) => {
        const found = iterate(...args);
        return Object.assign(found, { next: clock(found.next.bind(found), 0) });
      },
    });
  }

  #spend(name: string, ms: number, calls: number): void {
    const spent = this.#spent.get(name) ?? { calls: 0, ms: 0 };
    spent.calls += calls;
    spent.ms += ms;
    this.#spent.set(name, spent);
  }

  /** The life of an order, a commit an event, as a light load makes them. */
  #write(): CreateWrite[] {
    const orders = [this.#creation(), this.#creation()];
    const [first, second] = orders;
    if (first === undefined || second === undefined) throw new Error("no orders");
    for (const order of orders) this.#db.commit(flattenBatch([order]));
    this.#db.commit(flattenBatch([this.#creation(first.idempotencyKey)])); // taken
    this.#db.commit(flattenBatch([advance(first, 1, null)]));
    this.#db.commit(flattenBatch([advance(first, 2, "completed")]));
    this.#db.commit(
      flattenBatch([{ ...advance(second, 1, null), event: { kind: "owner_changed", atMs: AT_MS, owner: ALIVE + 2 } }]),
    );
    return orders;
  }

  #read(orders: readonly CreateWrite[]): void {
    const ids = orders.map(({ orderId }) => orderId);
    const newest = ids.at(-1) ?? "";
    this.#db.readOrder(newest);
    this.#db.readOrders(ids);
    this.#db.readBody(newest);
    this.#db.readOwned(ALIVE, ids);
    this.#db.listOrderIds(ALIVE, "", PAGE);
    for (const user of [null, BUSY_USER]) {
      this.#db.listOrders({ ...ALL_ORDERS, user }, null, PAGE);
      this.#db.listOrders({ ...ALL_ORDERS, user, status: "failed" }, null, PAGE);
      this.#db.listOrders({ ...ALL_ORDERS, user, needsPerson: true }, null, PAGE);
    }
    this.#db.countOrders(BUSY_USER);
    this.#db.readChanges(this.#lastChange() - PAGE, PAGE);
  }

  #lastChange(): number {
    const page = this.#db.readChanges(null, 1);
    return page.kind === "rows" ? page.last : 0;
  }

  /** One order: with more, the small store would soon have none left. */
  #claim(): void {
    const claimed = this.#db.claimOrders(DEAD, ALIVE, claimTimes(AT_MS), 1);
    if (claimed.kind !== "claimed" || claimed.rows.length !== 1) throw new Error("the dead owner has no orders left");
  }

  /** What nodes say to each other: lives of some nodes from their start to their end, and the limits that they divide. */
  #steerNodes(): void {
    const db = this.#db;
    const number = ++this.#number;
    const name = `made-${number}`;
    const incarnation = db.register(BUSY_SERVICE, "{}", AT_MS);
    db.beat(incarnation, 1, AT_MS);
    db.pipelineShape(name, 1, "[]");
    db.changePermits(name, null, "[1]");
    db.changePermits(name, "[1]", "[2]");
    db.permits(name);
    db.serviceOf(incarnation);
    db.hasService(BUSY_SERVICE);
    const { leader } = db.readCluster();
    db.claimLeadership(incarnation, leader);
    db.renewLeadership(incarnation, leader.term + 1);
    db.markDead(db.register(BUSY_SERVICE, "{}", AT_MS), 1);
    db.leave(db.register(BUSY_SERVICE, "{}", AT_MS));
    db.probe(AT_MS);
    db.identity({ clusterId: "other", secret: "other" });
    void db.dataVersion;
  }

  #creation(idempotencyKey: string | null = `made-${++this.#number}`): CreateWrite {
    return {
      kind: "create",
      orderId: newOrderId(BUSY_USER, idempotencyKey),
      user: BUSY_USER,
      idempotencyKey,
      pipelineName: "default",
      pipelineVersion: 1,
      event: { kind: "created", atMs: AT_MS, owner: ALIVE, stepName: "A" },
      body: "{}",
    };
  }
}

/** In memory where there is room for it: what a disk takes says nothing of a statement. */
function quickFolder(): string {
  const memory = "/dev/shm";
  const { bavail, bsize } = existsSync(memory) ? statfsSync(memory) : { bavail: 0, bsize: 0 };
  return bavail * bsize >= MEMORY_BYTES_MIN ? memory : tmpdir();
}

/** Several times what the two stores take. */
const MEMORY_BYTES_MIN = 2 ** 30;

/** What is asked once, while the store is opened. */
const OPENING = /^PRAGMA (?!data_version)/;

function advance(
  { orderId, user }: CreateWrite,
  expectedRevision: number,
  newStatus: OrderStatus | null,
): AdvanceWrite {
  return {
    kind: "advance",
    orderId,
    owner: ALIVE,
    expectedRevision,
    event: { kind: "step_completed", atMs: AT_MS, nextStepName: newStatus === null ? "B" : null },
    newStatus,
    formerStatus: "running",
    user,
  };
}

/** So many rows in each table. Half of the orders are one user's, and half of the starts one service's. */
function fill(path: string, rows: number): void {
  const db = new DatabaseSync(path);
  db.exec(`
    PRAGMA synchronous = OFF;
    BEGIN;
    CREATE TEMP TABLE numbers (i INTEGER PRIMARY KEY);
    WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows}) INSERT INTO numbers SELECT i FROM n;
    INSERT INTO incarnations (service_id, start_time, state)
      SELECT iif(i % 2, '${BUSY_SERVICE}', 'service-' || i), 0,
        CASE WHEN i IN (${ALIVE}, ${ALIVE + 2}) THEN 'alive' WHEN i % 10 = 0 THEN 'dead' ELSE 'left' END FROM numbers;
    INSERT INTO orders
      SELECT printf('%08x-0000-7000-8000-%012x', i, i), iif(i % 2, '${BUSY_USER}', 'user-' || (i / 10)), 'key-' || i, 'default', 1, 0,
        CASE WHEN i % 10 < 5 THEN 'completed' WHEN i % 10 = 5 THEN 'failed' ELSE 'running' END, iif(i % 4 < 2, ${ALIVE}, ${DEAD}), 1,
        '["created",0,1,"A"]' FROM numbers;
    INSERT INTO order_bodies SELECT order_id, '{}' FROM orders;
    INSERT INTO order_counts SELECT user, status, count(*) FROM orders GROUP BY user, status;
    INSERT INTO order_counts SELECT '', status, count(*) FROM orders GROUP BY status;
    INSERT INTO changes SELECT i, 1, '"00000000-0000-7000-8000-000000000000",1,"${BUSY_USER}"' FROM numbers;
    INSERT INTO pipelines SELECT 'pipeline-' || i, 1, '[]' FROM numbers;
    INSERT INTO permits SELECT 'limit-' || i, '[1,[]]' FROM numbers;
    COMMIT;
    PRAGMA wal_checkpoint(TRUNCATE);
  `);
  db.close();
}
