/**
 * The tables of the embedded store, as numbered migrations: a database's `user_version` is the number of those it has.
 * A migration that has been released is never changed; what comes next is appended.
 */

/** Marks a database file as ours (`PRAGMA application_id`): the letters "OrdP". */
export const APPLICATION_ID = 0x4f726450;

/** Before 3.51.3 SQLite could, in a rare race of two connections, damage a database in WAL mode (sqlite.org/wal.html). */
export const SQLITE_VERSION_MIN = "3.51.3";

/** Larger than SQLite's 4096: rows with a longer history or body still fit (measured in docs/decisions/0002). */
export const PAGE_BYTES = 8192;

export const MIGRATIONS: readonly string[] = [
  `
  -- One row a start of a node; the number orders them over all nodes.
  CREATE TABLE incarnations (
    incarnation INTEGER PRIMARY KEY AUTOINCREMENT,
    service_id  TEXT NOT NULL,
    start_time  INTEGER NOT NULL
  ) STRICT;

  -- Ids are time-ordered, so that new rows go to the end of the tree. Rows are small, because each transition rewrites
  -- one; that is why the body is elsewhere.
  CREATE TABLE orders (
    order_id         TEXT PRIMARY KEY,
    user             TEXT NOT NULL,
    idempotency_key  TEXT,
    pipeline_name    TEXT NOT NULL,
    pipeline_version INTEGER NOT NULL,
    start_time       INTEGER NOT NULL,
    status           TEXT NOT NULL,
    owner            INTEGER NOT NULL,
    revision         INTEGER NOT NULL,
    history          TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE TABLE order_bodies (
    order_id TEXT PRIMARY KEY,
    body     TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;

  CREATE UNIQUE INDEX orders_by_idempotency_key ON orders (user, idempotency_key) WHERE idempotency_key IS NOT NULL;

  -- Only orders that are not final, so that it stays small whatever the table holds.
  CREATE INDEX open_orders_by_owner ON orders (owner)
    WHERE status <> 'completed' AND status <> 'failed';

  CREATE TABLE probe (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    time INTEGER NOT NULL
  ) STRICT;
  `,
  `
  -- A node's row in its cluster (cluster-store.ts). state: alive; dead, and was its service's last; left, or has a successor.
  ALTER TABLE incarnations ADD COLUMN state TEXT NOT NULL DEFAULT 'left';
  ALTER TABLE incarnations ADD COLUMN heartbeat INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE incarnations ADD COLUMN heartbeat_time INTEGER NOT NULL DEFAULT 0;
  ALTER TABLE incarnations ADD COLUMN orders_in_flight INTEGER NOT NULL DEFAULT 0;
  -- What it says of itself, as JSON: read by nodes, never searched.
  ALTER TABLE incarnations ADD COLUMN description TEXT NOT NULL DEFAULT '{}';
  CREATE INDEX listed_nodes ON incarnations (state, incarnation) WHERE state <> 'left';
  CREATE INDEX incarnations_by_service ON incarnations (service_id);

  CREATE TABLE cluster (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    cluster_id TEXT NOT NULL,
    secret     TEXT NOT NULL
  ) STRICT;

  CREATE TABLE leader (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    term        INTEGER NOT NULL,
    incarnation INTEGER,
    renewal     INTEGER NOT NULL
  ) STRICT;
  INSERT INTO leader (id, term, incarnation, renewal) VALUES (1, 0, NULL, 0);
  `,
  `
  -- An order can end as canceled, too.
  DROP INDEX open_orders_by_owner;
  CREATE INDEX open_orders_by_owner ON orders (owner)
    WHERE status <> 'completed' AND status <> 'failed' AND status <> 'canceled';

  CREATE INDEX orders_by_user ON orders (user);
  -- Of the statuses that few orders have, so that most transitions leave it alone.
  CREATE INDEX orders_by_rare_status ON orders (status, order_id) WHERE status <> 'running' AND status <> 'completed';

  -- The user '' is all users together.
  CREATE TABLE order_counts (
    user   TEXT NOT NULL,
    status TEXT NOT NULL,
    count  INTEGER NOT NULL,
    PRIMARY KEY (user, status)
  ) STRICT, WITHOUT ROWID;
  INSERT INTO order_counts SELECT user, status, count(*) FROM orders GROUP BY user, status;
  INSERT INTO order_counts SELECT '', status, count(*) FROM orders GROUP BY status;

  -- Which orders have changed, one row a commit: JSON of order id, revision and user, one after another. Changes are numbered from 1 on.
  CREATE TABLE changes (
    first   INTEGER PRIMARY KEY,
    count   INTEGER NOT NULL,
    changes TEXT NOT NULL
  ) STRICT;

  CREATE TABLE pipelines (
    name    TEXT NOT NULL,
    version INTEGER NOT NULL,
    shape   TEXT NOT NULL,
    PRIMARY KEY (name, version)
  ) STRICT, WITHOUT ROWID;
  `,
  `
  -- How the nodes divide the calls that a step's limit allows them together (engine/permits.ts).
  CREATE TABLE permits (
    key    TEXT PRIMARY KEY,
    record TEXT NOT NULL
  ) STRICT, WITHOUT ROWID;
  `,
  `
  -- Whether the incarnation has stopped in good order.
  ALTER TABLE incarnations ADD COLUMN drained INTEGER NOT NULL DEFAULT 0;

  -- A service has one row a start, and of them all only the last may be alive or dead.
  CREATE INDEX present_incarnations ON incarnations (service_id) WHERE state <> 'left';

  -- With all that is asked of it: who counts or lists open orders reads no row of them.
  DROP INDEX open_orders_by_owner;
  CREATE INDEX open_orders_by_owner ON orders (owner, order_id, status)
    WHERE status <> 'completed' AND status <> 'failed' AND status <> 'canceled';
  `,
];
