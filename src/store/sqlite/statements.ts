/**
 * The statements of the embedded store, all of them but those that open it and begin and end transactions.
 *
 * What a statement does grows with what it is asked for and at most with the orders that are open, never with what is stored:
 * test/scale/sqlite.test.ts times each of them on a small and on a large store.
 */
import { DEAD_ROWS_MAX } from "../cluster-store.ts";

/** Orders that are not final. Word for word the condition of the index open_orders_by_owner, or SQLite won't use it. */
const OPEN = "status <> 'completed' AND status <> 'failed' AND status <> 'canceled'";

/** Statuses that few orders have. Word for word the condition of the index orders_by_rare_status. */
const RARE = "o.status <> 'running' AND o.status <> 'completed'";

/** What is read of an order that may be listed. */
const LISTED = `o.order_id, o.user, o.pipeline_name, o.pipeline_version, o.start_time, o.status, o.owner, i.service_id, o.revision,
    o.history`;

/** Of one rare status; several are merged, newest first, as each comes in that order by itself. */
function listedWithStatus(status: string): string {
  return `SELECT ${LISTED} FROM orders o INDEXED BY orders_by_rare_status CROSS JOIN incarnations i ON i.incarnation = o.owner
    WHERE o.order_id < ?1 AND o.order_id >= ?2 AND o.status = ${status} AND ${RARE}`;
}

/** By the names that database.ts has for them. */
export const SQL = {
  create: `INSERT INTO orders
    (order_id, user, idempotency_key, pipeline_name, pipeline_version, start_time, status, owner, revision, history)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1, ?) ON CONFLICT DO NOTHING`,
  createBody: "INSERT INTO order_bodies (order_id, body) VALUES (?, ?)",
  advance: `UPDATE orders SET history = history || ?, revision = revision + 1
    WHERE order_id = ? AND owner = ? AND revision = ? AND ${OPEN}`,
  advanceStatus: `UPDATE orders SET status = ?, history = history || ?, revision = revision + 1
    WHERE order_id = ? AND owner = ? AND revision = ? AND ${OPEN}`,
  findKey: `SELECT o.order_id, o.start_time, b.body FROM orders o JOIN order_bodies b USING (order_id)
    WHERE o.user = ? AND o.idempotency_key = ?`,
  readOrder: `SELECT o.order_id, o.user, o.pipeline_name, o.pipeline_version, o.status, o.owner, i.service_id, o.revision,
    o.history FROM orders o JOIN incarnations i ON i.incarnation = o.owner WHERE o.order_id = ?`,
  readOrders: `SELECT o.order_id, o.user, o.pipeline_name, o.pipeline_version, o.status, o.owner, i.service_id, o.revision,
    o.history FROM orders o JOIN incarnations i ON i.incarnation = o.owner
    WHERE o.order_id IN (SELECT value FROM json_each(?))`,
  listAll: `SELECT ${LISTED} FROM orders o CROSS JOIN incarnations i ON i.incarnation = o.owner
    WHERE o.order_id < ? AND o.order_id >= ? ORDER BY o.order_id DESC`,
  listByUser: `SELECT ${LISTED} FROM orders o INDEXED BY orders_by_user CROSS JOIN incarnations i ON i.incarnation = o.owner
    WHERE o.order_id < ? AND o.order_id >= ? AND o.user = ? ORDER BY o.order_id DESC`,
  listByStatus: `${["?3", "?4", "?5", "?6"].map(listedWithStatus).join(" UNION ALL ")} ORDER BY order_id DESC`,
  countOrders: "SELECT status, count FROM order_counts WHERE user = ? AND count > 0",
  addCount: `INSERT INTO order_counts (user, status, count) VALUES (?, ?, ?)
    ON CONFLICT (user, status) DO UPDATE SET count = count + excluded.count`,
  lastChange: "SELECT first + count - 1 AS last FROM changes ORDER BY first DESC LIMIT 1",
  firstChange: "SELECT first FROM changes ORDER BY first LIMIT 1",
  addChanges: "INSERT INTO changes (first, count, changes) VALUES (?, ?, ?)",
  // Rows follow each other without gaps: those before the row that has the first change to keep are the ones to go.
  forgetChanges: `DELETE FROM changes WHERE first IN (
    SELECT first FROM changes WHERE first < (SELECT max(first) FROM changes WHERE first <= ?) ORDER BY first LIMIT ?)`,
  readChanges: `SELECT first, count, changes FROM changes
    WHERE first >= (SELECT coalesce(max(first), 0) FROM changes WHERE first <= ?) ORDER BY first`,
  readBody: "SELECT body FROM order_bodies WHERE order_id = ?",
  readOwned: `SELECT o.order_id, o.user, o.pipeline_name, o.pipeline_version, o.status, o.owner, i.service_id, o.revision,
    o.history, b.body FROM orders o JOIN incarnations i ON i.incarnation = o.owner JOIN order_bodies b USING (order_id)
    WHERE o.order_id IN (SELECT value FROM json_each(?)) AND o.owner = ? AND ${OPEN}`,
  listOwners: `SELECT o.owner, i.service_id, o.orders
    FROM (SELECT owner, count(*) AS orders FROM orders INDEXED BY open_orders_by_owner WHERE ${OPEN} GROUP BY owner) o
    JOIN incarnations i ON i.incarnation = o.owner`,
  listOrderIds: `SELECT order_id FROM orders INDEXED BY open_orders_by_owner
    WHERE owner = ? AND ${OPEN} AND order_id > ? ORDER BY order_id LIMIT ?`,
  advanceOwner: `UPDATE orders SET owner = ?, history = history || ?, revision = revision + 1
    WHERE order_id = ? AND owner = ? AND revision = ? AND ${OPEN}`,
  claim: `UPDATE orders SET owner = ?, history = history || ?, revision = revision + 1
    WHERE order_id IN (SELECT order_id FROM orders INDEXED BY open_orders_by_owner
      WHERE owner = ? AND ${OPEN} ORDER BY order_id LIMIT ?)
    RETURNING order_id, user, pipeline_name, pipeline_version, status, owner, revision, history,
      (SELECT body FROM order_bodies b WHERE b.order_id = orders.order_id) AS body`,
  hasDrained: "SELECT drained FROM incarnations WHERE incarnation = ?",
  serviceOf: "SELECT service_id FROM incarnations WHERE incarnation = ?",
  probe: "INSERT INTO probe (id, time) VALUES (1, ?) ON CONFLICT (id) DO UPDATE SET time = excluded.time",

  makeIdentity: "INSERT INTO cluster (id, cluster_id, secret) VALUES (1, ?, ?) ON CONFLICT DO NOTHING",
  identity: "SELECT cluster_id, secret FROM cluster",
  supersede: `UPDATE incarnations INDEXED BY present_incarnations SET state = 'left'
    WHERE service_id = ? AND state <> 'left'`,
  vacate: `UPDATE leader SET incarnation = NULL, renewal = renewal + 1
    WHERE (SELECT service_id FROM incarnations i WHERE i.incarnation = leader.incarnation) = ?`,
  register: `INSERT INTO incarnations (service_id, start_time, state, heartbeat, heartbeat_time, description)
    VALUES (?, ?, 'alive', 1, ?, ?)`,
  keepShape: "INSERT INTO pipelines (name, version, shape) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
  readShape: "SELECT shape FROM pipelines WHERE name = ? AND version = ?",
  readPermits: "SELECT record FROM permits WHERE key = ?",
  listAlive: "SELECT incarnation FROM incarnations INDEXED BY listed_nodes WHERE state = 'alive' AND state <> 'left'",
  addPermits: "INSERT INTO permits (key, record) VALUES (?, ?) ON CONFLICT DO NOTHING",
  changePermits: "UPDATE permits SET record = ? WHERE key = ? AND record = ?",
  hasService: "SELECT 1 FROM incarnations WHERE service_id = ? LIMIT 1",
  isAlive: "SELECT 1 FROM incarnations WHERE incarnation = ? AND state = 'alive'",
  beat: `UPDATE incarnations SET heartbeat = heartbeat + 1, heartbeat_time = ?, orders_in_flight = ?
    WHERE incarnation = ? AND state = 'alive'`,
  listNodes: `SELECT incarnation, service_id, state, heartbeat, heartbeat_time, orders_in_flight, description
    FROM incarnations INDEXED BY listed_nodes WHERE state = 'alive' AND state <> 'left'
    UNION ALL SELECT * FROM (
      SELECT incarnation, service_id, state, heartbeat, heartbeat_time, orders_in_flight, description
      FROM incarnations INDEXED BY listed_nodes WHERE state = 'dead' AND state <> 'left' ORDER BY incarnation DESC LIMIT ${DEAD_ROWS_MAX})`,
  readLeader: "SELECT term, incarnation, renewal FROM leader",
  markDead: "UPDATE incarnations SET state = 'dead' WHERE incarnation = ? AND state = 'alive' AND heartbeat = ?",
  leave: "UPDATE incarnations SET state = 'left', drained = 1 WHERE incarnation = ? AND state <> 'left'",
  resign: "UPDATE leader SET incarnation = NULL, renewal = renewal + 1 WHERE incarnation = ?",
  claimLeadership: `UPDATE leader SET term = term + 1, incarnation = ?1, renewal = renewal + 1
    WHERE term = ?2 AND renewal = ?3 AND EXISTS (SELECT 1 FROM incarnations WHERE incarnation = ?1 AND state = 'alive')`,
  renewLeadership: "UPDATE leader SET renewal = renewal + 1 WHERE incarnation = ? AND term = ?",
} as const;
