/**
 * What the nodes of a cluster know of each other, kept in the store that they share: one row a node, one for the leader.
 *
 * 1. A row is changed by compare-and-set only: a heartbeat by its own incarnation while the row is alive, a death by whoever has seen
 *    the heartbeat that stands there, the leadership by whoever has seen the term and renewal that stand there.
 * 2. A row that is marked dead is never revived: the process must register again, as a new incarnation (cluster rule 1).
 * 3. Nothing here expires by itself, and no decision rests on a wall clock: times in rows are for people.
 */
import type { Incarnation } from "../order/events.ts";

/** What a node says of itself when it registers. */
export interface NodeDescription {
  readonly serviceId: string;
  /** Where the other nodes reach it, as `http://host:port`. */
  readonly url: string;
  /** The program's version. */
  readonly version: string;
  /** What it says to other nodes (cluster/join.ts). Absent: it is of a version that said nothing of it. */
  readonly protocol?: number;
  /** Silence after which it wants to be taken for dead. */
  readonly ttlMs: number;
  /** The pipelines that it has, as pipelineLabel names them. Not said: it has what the others have. */
  readonly pipelines?: readonly string[];
  /** The process, as its host knows it; null where that can't be told. */
  readonly process: ProcessIdentity | null;
}

/** Names one process for good: process ids are used again, start times aren't. */
export interface ProcessIdentity {
  /** One boot of one host (and one view of its processes). */
  readonly host: string;
  readonly pid: number;
  /** In clock ticks since the host's boot. */
  readonly startTicks: number;
}

export interface NodeRow extends NodeDescription {
  readonly incarnation: Incarnation;
  readonly alive: boolean;
  /** Grows by one at each heartbeat. */
  readonly heartbeat: number;
  /** Orders in flight, as of the last heartbeat. */
  readonly ordersInFlight: number;
  /** The node's own wall clock at its last heartbeat; for people. */
  readonly lastHeartbeatMs: number;
}

export interface LeaderRow {
  /** Counts elections; 0 before the first. */
  readonly term: number;
  /** Null: there is no leader. */
  readonly incarnation: Incarnation | null;
  /** Grows at each renewal. */
  readonly renewal: number;
}

export interface ClusterSnapshot {
  /** The last row of each service that has not left: those alive, and the dead that were alive last (DEAD_ROWS_MAX at most). */
  readonly nodes: readonly NodeRow[];
  readonly leader: LeaderRow;
}

export interface Permits {
  /** Null: there is none yet. */
  readonly record: string | null;
  readonly alive: readonly Incarnation[];
}

/** Rows of dead nodes in a snapshot: nobody looks at more. */
export const DEAD_ROWS_MAX = 50;

/** Who is a cluster: made with the store, the same as long as it lives. */
export interface ClusterIdentity {
  readonly clusterId: string;
  /** Proves membership from node to node. */
  readonly secret: string;
}

export interface ClusterStore {
  /** The cluster of this store; made at the first call on an empty store. */
  identity(): Promise<ClusterIdentity>;
  /**
   * Records a start of a service and returns its incarnation, higher than any before. Its former incarnations are dead from then
   * on, and lead nothing: the data folder's lock says that their process is gone (cluster rule 7).
   */
  register(node: NodeDescription, atMs: number): Promise<Incarnation>;
  /**
   * Records the shape of a version of a pipeline (order/pipeline.ts), unless there is one on record.
   * @returns the shape that is on record
   */
  pipelineShape(name: string, version: number, shape: string): Promise<string>;
  /** The shape of a version of a pipeline, or null: none is on record. */
  recordedShape(name: string, version: number): Promise<string | null>;
  /**
   * How the nodes divide what a limit allows them together (engine/permits.ts), and the incarnations that are alive.
   * @param key names the limit
   */
  permits(key: string): Promise<Permits>;
  /**
   * Changes that division, if it is still the one that was seen.
   * @returns false: it has changed
   */
  changePermits(key: string, seen: string | null, record: string): Promise<boolean>;
  /**
   * The service whose incarnation it is, or was.
   * @throws Error when there never was such an incarnation
   */
  serviceOf(incarnation: Incarnation): Promise<string>;
  /** Whether any incarnation of that service was ever recorded. */
  hasService(serviceId: string): Promise<boolean>;
  /**
   * Writes a heartbeat to a node's own row.
   * @returns false: the row is not alive, and never will be again
   */
  beat(incarnation: Incarnation, ordersInFlight: number, atMs: number): Promise<boolean>;
  /** All rows as of one moment. */
  read(): Promise<ClusterSnapshot>;
  /**
   * Marks a node dead, if its heartbeat is still the one that was seen.
   * @returns false: it has moved, or is dead already
   */
  markDead(incarnation: Incarnation, seenHeartbeat: number): Promise<boolean>;
  /**
   * Takes a node out that has stopped in good order: it is dead, is no longer listed, and leads nothing. Who claims its orders later
   * says that it has drained.
   */
  leave(incarnation: Incarnation): Promise<void>;
  /**
   * Makes a live node the leader, in the next term, if the leader's row is still the one that was seen.
   * @returns false: it has changed, or the node is not alive
   */
  claimLeadership(incarnation: Incarnation, seen: LeaderRow): Promise<boolean>;
  /**
   * The leader's heartbeat as a leader.
   * @returns false: it leads no longer
   */
  renewLeadership(incarnation: Incarnation, term: number): Promise<boolean>;
}
