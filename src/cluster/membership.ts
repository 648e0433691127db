/**
 * This node's place among the others: says that it lives, and watches who else does.
 *
 * Owns the two loops, heartbeat and reading, and what they have found out. Does not own what follows from it: the leader's tasks
 * (leadership.ts), or joining again (node.ts).
 *
 * 1. The lease is counted from the moment a heartbeat was sent, on this node's monotonic clock: the store can't have it earlier
 *    (cluster rule 3).
 * 2. At most one heartbeat and one read are under way.
 */
import type { Incarnation } from "../order/events.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { ClusterSnapshot, ClusterStore, NodeRow } from "../store/cluster-store.ts";
import { StoreUnavailableError } from "../store/store.ts";
import { FailureDetector, isDeadly, type Silence } from "./failure-detector.ts";
import { silenceWithEvidenceMs, suspicionMs, type Timing } from "./timing.ts";

export interface MembershipOptions {
  readonly store: ClusterStore;
  readonly incarnation: Incarnation;
  readonly timing: Timing;
  readonly clock: Clock;
  readonly ordersInFlight: () => number;
  /** Whether nothing listens at a node's address: its process is gone. */
  readonly refusesConnections: (url: string) => Promise<boolean>;
  /** A heartbeat is in the store. */
  readonly onHeartbeat: () => void;
  /** The rows were read. The next read waits for what this returns. */
  readonly onSnapshot: (snapshot: ClusterSnapshot) => Promise<void>;
  /** This node's row is dead; called once, and the loops have ended. */
  readonly onDead: () => void;
  /** A mistake of ours, not of the store. */
  readonly onBroken: (error: Error) => void;
}

interface SeenClock {
  readonly heartbeat: number;
  readonly wallMs: number;
  /** On this node's clock. */
  readonly monotonicMs: number;
}

/** Own heartbeats this late, in heartbeats' times, make the others' silence mean nothing. */
const HEARTBEATS_LATE_MAX = 1.5;

/** Far more nodes than a cluster has, with those that have gone lately. */
const CLOCKS_MAX = 1_000;

/** The leader's row is watched like a node's. */
const LEADER = "leader";

export class Membership {
  readonly #options: MembershipOptions;
  readonly #detector: FailureDetector;
  /** Heartbeats, as `id:beat`, after which the node's port refused connections. */
  #refused = new Set<string>();
  #snapshot: ClusterSnapshot | null = null;
  /**
   * What each node's clock showed at its last heartbeat, and when that was seen; the longest silent first. Those that have left are in it,
   * too: their orders are claimed after they have gone.
   */
  readonly #clocks = new Map<Incarnation, SeenClock>();
  #lastHeartbeatMs: number;
  #timers: { beat: Timer | null; read: Timer | null } = { beat: null, read: null };
  #stopped = false;

  /** @param registeredMs when the registration was sent, on the monotonic clock: it counts as a heartbeat */
  constructor(options: MembershipOptions, registeredMs: number) {
    this.#options = options;
    this.#detector = new FailureDetector(options.timing.heartbeatMs);
    this.#lastHeartbeatMs = registeredMs;
  }

  /** Whether this node has said lately that it lives: what it begins now, nobody takes from it before it could notice. */
  get mayStart(): boolean {
    return !this.#stopped && this.#options.clock.monotonic() - this.#lastHeartbeatMs < this.#options.timing.leaseMs;
  }

  /** As last read; null before the first read. */
  get snapshot(): ClusterSnapshot | null {
    return this.#snapshot;
  }

  /** Reads the rows once, then begins both loops. */
  async start(): Promise<void> {
    await this.#read();
    this.#schedule("beat", () => this.#beat());
    this.#schedule("read", () => this.#read());
  }

  /** Reads the rows at once, and acts on them. */
  refresh(): Promise<void> {
    return this.#read();
  }

  /** What another node's wall clock shows now, as far as its heartbeats tell (exact to one TTL); null: it was never seen alive. */
  nowOf(incarnation: Incarnation): number | null {
    const seen = this.#clocks.get(incarnation);
    return seen === undefined ? null : Math.round(seen.wallMs + this.#options.clock.monotonic() - seen.monotonicMs);
  }

  /** Ends both loops; the row stays. */
  stop(): void {
    this.#stopped = true;
    for (const timer of Object.values(this.#timers)) timer?.[Symbol.dispose]();
  }

  /** Whether a node that is alive by its row is dead by its silence (cluster rule 2). */
  isDead({ incarnation, heartbeat, ttlMs }: NodeRow): boolean {
    return this.#isDeadly(String(incarnation), heartbeat, ttlMs);
  }

  /** Whether the leader has not renewed for long enough. */
  leaderIsSilent({ leader, nodes }: ClusterSnapshot): boolean {
    const row = nodes.find(({ incarnation }) => incarnation === leader.incarnation);
    if (row === undefined || !row.alive) return true;
    const silence = this.#detector.silenceOf(LEADER);
    return isDeadly(silence, row.ttlMs) || this.isDead(row);
  }

  /** How long a node has been silent. */
  silenceOf(incarnation: Incarnation): Silence {
    return this.#detector.silenceOf(String(incarnation));
  }

  #isDeadly(id: string, heartbeat: number, ttlMs: number): boolean {
    const silence = this.#detector.silenceOf(id);
    if (isDeadly(silence, ttlMs)) return true;
    return this.#refused.has(`${id}:${heartbeat}`) && isDeadly(silence, silenceWithEvidenceMs(ttlMs));
  }

  async #beat(): Promise<void> {
    const { store, incarnation, ordersInFlight, clock, onHeartbeat } = this.#options;
    const sentMs = clock.monotonic();
    const isAlive = await store.beat(incarnation, ordersInFlight(), clock.now());
    if (this.#stopped) return;
    if (isAlive) {
      this.#lastHeartbeatMs = sentMs;
      onHeartbeat();
    } else {
      this.stop();
      this.#options.onDead();
    }
  }

  async #read(): Promise<void> {
    const { store, clock, onSnapshot } = this.#options;
    const startMs = clock.monotonic();
    const snapshot = await store.read();
    if (this.#stopped) return;
    // Where this node's own heartbeats don't get through, the others' may not either: a store can be read and not written (rule 2).
    if (startMs - this.#lastHeartbeatMs > HEARTBEATS_LATE_MAX * this.#options.timing.heartbeatMs)
      this.#detector.reset();
    const { leader, nodes } = snapshot;
    const alive = nodes.filter((row) => row.alive);
    const heartbeats = alive.map((row) => ({ id: String(row.incarnation), beat: String(row.heartbeat) }));
    this.#detector.observe(
      [...heartbeats, { id: LEADER, beat: `${leader.term}:${leader.renewal}` }],
      startMs,
      clock.monotonic(),
    );
    this.#snapshot = snapshot;
    this.#noteClocks(alive);
    this.#lookForEvidence(alive);
    await onSnapshot(snapshot);
  }

  /** Of the living only: the last heartbeat of one that is dead when it is first seen may be of any time. */
  #noteClocks(alive: readonly NodeRow[]): void {
    const monotonicMs = this.#options.clock.monotonic();
    for (const { incarnation, heartbeat, lastHeartbeatMs } of alive) {
      if (this.#clocks.get(incarnation)?.heartbeat === heartbeat) continue;
      this.#clocks.delete(incarnation);
      this.#clocks.set(incarnation, { heartbeat, wallMs: lastHeartbeatMs, monotonicMs });
    }
    for (const incarnation of this.#clocks.keys()) {
      if (this.#clocks.size <= CLOCKS_MAX) return;
      this.#clocks.delete(incarnation);
    }
  }

  /** Asks the ports of those who are late. A port that refused once is not asked again before the next heartbeat. */
  #lookForEvidence(alive: readonly NodeRow[]): void {
    const current = new Set<string>();
    for (const row of alive) {
      const id = String(row.incarnation);
      const heartbeat = `${id}:${row.heartbeat}`;
      current.add(heartbeat);
      if (row.incarnation === this.#options.incarnation || this.#refused.has(heartbeat)) continue;
      if (this.#detector.silenceOf(id).silentMs < suspicionMs(row.ttlMs)) continue;
      void this.#options.refusesConnections(row.url).then((refuses) => {
        if (refuses) this.#refused.add(heartbeat);
      });
    }
    this.#refused = new Set([...this.#refused].filter((heartbeat) => current.has(heartbeat)));
  }

  #schedule(loop: "beat" | "read", work: () => Promise<void>): void {
    const { timing, clock } = this.#options;
    const everyMs = loop === "beat" ? timing.heartbeatMs : timing.readMs;
    let dueMs = clock.monotonic() + everyMs;
    const next = (): void => {
      if (this.#stopped) return;
      this.#timers[loop] = clock.after(dueMs - clock.monotonic(), () => void run());
    };
    const run = async (): Promise<void> => {
      try {
        await work();
      } catch (error) {
        // The engine says in the log that the store is away; here it means nothing more than another try.
        if (!(error instanceof StoreUnavailableError)) {
          this.#options.onBroken(error instanceof Error ? error : new Error(String(error)));
          return;
        }
      }
      dueMs = Math.max(dueMs + everyMs, clock.monotonic());
      next();
    };
    next();
  }
}
