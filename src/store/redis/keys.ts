/**
 * The names of the store's keys. Orders are split by the end of their ids into a fixed number of partitions; all keys of one
 * partition carry the same hash tag, `{op:7}`, so that a Redis Cluster keeps them on one node, and one script can change
 * them together. What the nodes know of each other has a tag of its own.
 *
 *     {op:7}:partition     hash    cluster -> cluster id; fenced:<incarnation> -> 1: nothing that it writes is applied here
 *     {op:7}:open          zset    orders that are not final; the score is the owner; and NO_ORDER with 0
 *     {op:7}:keys          hash    digest of user and idempotency key -> order id
 *     {op:7}:orders        zset    ids of all orders; all scores are 0, so that they are in the sequence of the ids, and so of time
 *     {op:7}:user:<digest> zset    ids of one user's orders, all scores 0
 *     {op:7}:by_user       zset    "<digest of user> <id>" of orders that are in no user's set (FORMER_FORMAT), all scores 0
 *     {op:7}:rare          zset    "<status> <id>" and "<status>/<digest of user> <id>" of orders that are neither running nor completed,
 *                                  all scores 0
 *     {op:7}:counts        hash    "<status>" and "<status> <digest of user>" -> how many orders
 *     {op:7}:changes       stream  one entry a commit: c -> JSON of order id, revision and user, one after another (on a single server
 *                                  in partition 0 only)
 *     {op:7}:order:<id>    string  one order (order-text.ts)
 *     {op:7}:probe         string  of no meaning
 *
 *     {op:cluster}:identity      hash    cluster_id, secret, format, partitions, ready; incarnations: how many there were; by_user: 1
 *                                        where orders may be in the set by_user
 *     {op:cluster}:incarnations  hash    incarnation -> service id, for good
 *     {op:cluster}:services      hash    service id -> its latest incarnation, for good
 *     {op:cluster}:nodes         hash    incarnation -> "heartbeat ordersInFlight timeMs description", for the nodes that are listed
 *     {op:cluster}:alive         set     incarnations that are alive
 *     {op:cluster}:dead          zset    incarnations that are dead and listed; the score is the incarnation
 *     {op:cluster}:drained       set     incarnations that have stopped in good order, for good
 *     {op:cluster}:leader        hash    term, incarnation, renewal
 *     {op:cluster}:pipelines     hash    "version name" -> shape, for good
 *     {op:cluster}:permits       hash    name of a limit -> how the nodes divide it (engine/permits.ts)
 *     {op:cluster}:probe         string  of no meaning
 *
 * Nothing of this ever expires.
 */
import { partOf } from "../order-id.ts";

/** Begins the hash tag of every key. */
const KEY_PREFIX = "op";

/** Grows when the form of what is stored changes; a store of another format is refused, but for the former one. */
export const FORMAT = 3;

/**
 * Has the orders of all users in one set, by_user, which is dear: a new order may be anywhere in it (bench/README.md). Nodes of the version
 * that had this format find a user's orders nowhere else. So it stays, and every node puts orders there, until a node starts
 * beside which no such node is alive (REGISTER in scripts.ts): then the format is the present one, and nodes that start put orders into users'
 * sets. A node that has started before puts them into by_user until its next start, so by_user is read for good.
 */
export const FORMER_FORMAT = 2;

/** How many; for good, as orders are found by it. Enough to spread over any cluster of Redis that one would run for this. */
export const PARTITIONS = 32;

/** Every partition's number. */
export const ALL_PARTITIONS: readonly number[] = Array.from({ length: PARTITIONS }, (_, partition) => partition);

/**
 * A member of every open key that is no order: it is longer than members of Redis's compact form may be, and so has the set in the form
 * that is quick to change from the beginning. Redis would keep it in the compact one up to 128 orders, where every look-up goes through
 * them all (bench/README.md).
 */
export const NO_ORDER = "this is no order: a member of more than 64 characters keeps this set in its quick form".padEnd(
  100,
  ".",
);

/** The partition that an order lives in; null: no order has such an id. */
export function partitionOf(orderId: string): number | null {
  const partition = partOf(orderId, PARTITIONS);
  return Number.isInteger(partition) ? partition : null;
}

const ORDER_KEY_STARTS = ALL_PARTITIONS.map((partition) => `${tag(partition)}:order:`);
const PARTITION_KEYS = ALL_PARTITIONS.map((partition) => `${tag(partition)}:partition`);
const OPEN_KEYS = ALL_PARTITIONS.map((partition) => `${tag(partition)}:open`);
const IDEMPOTENCY_KEYS = ALL_PARTITIONS.map((partition) => `${tag(partition)}:keys`);
const INDEX_KEYS = ALL_PARTITIONS.map((partition) =>
  ["counts", "orders", "rare"].map((name) => `${tag(partition)}:${name}`),
);
const USER_KEY_STARTS = ALL_PARTITIONS.map((partition) => `${tag(partition)}:user:`);

export function orderKey(partition: number, orderId: string): string {
  return `${ORDER_KEY_STARTS[partition]}${orderId}`;
}

export function partitionKey(partition: number): string {
  return PARTITION_KEYS[partition] ?? noPartition(partition);
}

export function openKey(partition: number): string {
  return OPEN_KEYS[partition] ?? noPartition(partition);
}

export function idempotencyKeysKey(partition: number): string {
  return IDEMPOTENCY_KEYS[partition] ?? noPartition(partition);
}

/** The keys by which orders of all users are found and counted: counts, orders, rare. */
export function indexKeys(partition: number): readonly string[] {
  return INDEX_KEYS[partition] ?? noPartition(partition);
}

/** The name of an index of orders of all users. */
export type OrderIndex = "orders" | "by_user" | "rare";

export function indexKey(partition: number, index: OrderIndex): string {
  return `${tag(partition)}:${index}`;
}

/** The key of a user's orders (userDigest in commit-calls.ts). */
export function userKey(partition: number, digest: string): string {
  return `${USER_KEY_STARTS[partition]}${digest}`;
}

export function countsKey(partition: number): string {
  return `${tag(partition)}:counts`;
}

export function changesKey(partition: number): string {
  return `${tag(partition)}:changes`;
}

export function probeKey(partition: number | "cluster"): string {
  return `${tag(partition)}:probe`;
}

/** The keys of what the nodes know of each other, by the names that scripts have for them. */
export const CLUSTER_KEYS = {
  identity: `${tag("cluster")}:identity`,
  incarnations: `${tag("cluster")}:incarnations`,
  services: `${tag("cluster")}:services`,
  nodes: `${tag("cluster")}:nodes`,
  alive: `${tag("cluster")}:alive`,
  dead: `${tag("cluster")}:dead`,
  leader: `${tag("cluster")}:leader`,
  pipelines: `${tag("cluster")}:pipelines`,
  permits: `${tag("cluster")}:permits`,
  drained: `${tag("cluster")}:drained`,
} as const;

function tag(partition: number | "cluster"): string {
  return `{${KEY_PREFIX}:${partition}}`;
}

function noPartition(partition: number): never {
  throw new Error(`there is no partition ${partition}`);
}
