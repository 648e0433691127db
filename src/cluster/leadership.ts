/**
 * Who leads the cluster, and what the leader does: it declares the silent dead and has the living take over their orders.
 *
 * 1. Two may believe at the same time that they lead: all that a leader does is compare-and-set on what it has seen, or a request
 *    that any node may make (cluster rule 4).
 * 2. A takeover is repeated until nothing is left to take, and looked for again and again whether anyone died or not (rule 5,
 *    guarantee G5).
 */
import type { Incarnation } from "../order/events.ts";
import type { Logger } from "../log.ts";
import type { Clock } from "../runtime/clock.ts";
import type { ClusterSnapshot, ClusterStore, LeaderRow, NodeRow } from "../store/cluster-store.ts";
import type { Membership } from "./membership.ts";
import type { Timing } from "./timing.ts";

export interface LeadershipOptions {
  readonly store: ClusterStore;
  readonly incarnation: Incarnation;
  readonly serviceId: string;
  readonly timing: Timing;
  readonly log: Logger;
  readonly clock: Clock;
  readonly membership: Membership;
  /** Has the orders of the dead taken over, until none is left or nobody takes any. Never rejects. */
  readonly sweep: () => Promise<void>;
}

export class Leadership {
  readonly #options: LeadershipOptions;
  /** As last seen; null: never. */
  #seen: LeaderRow | null = null;
  /** Addresses of the nodes that were alive, by their service; null: never seen. */
  #alive: ReadonlyMap<string, string> | null = null;
  #isLeading = false;
  #lastRenewalMs = 0;
  #lastSweepMs = Number.NEGATIVE_INFINITY;
  #sweep: Promise<void> | null = null;
  #sweepAgain = false;
  /** A node has left since the last sweep began. It gives away what runs, and not what waits for a time, a signal or a person. */
  #someoneLeft = false;

  constructor(options: LeadershipOptions) {
    this.#options = options;
  }

  /** Acts on what was read; rejects when the store fails. */
  async onSnapshot(snapshot: ClusterSnapshot): Promise<void> {
    const { incarnation, membership } = this.#options;
    this.#notice(snapshot);
    if (!membership.mayStart) return;
    if (snapshot.leader.incarnation === incarnation) await this.#lead(snapshot);
    else if (snapshot.leader.incarnation === null || membership.leaderIsSilent(snapshot)) await this.#stand(snapshot);
  }

  /** Says in the log what changed, in the words of the earlier system. */
  #notice({ leader, nodes }: ClusterSnapshot): void {
    const { log, serviceId, incarnation } = this.#options;
    const before = this.#seen;
    this.#seen = leader;
    const leads = leader.incarnation === incarnation;
    if (leads !== this.#isLeading) {
      log.info(`[${serviceId}] stateChange ${leads ? "follower -> leader" : "leader -> follower"}`);
    }
    this.#noticeNodes(nodes);
    const nameOf = (row: LeaderRow | null): string =>
      nodes.find((each) => each.incarnation === row?.incarnation)?.serviceId ?? "";
    const oldTerm = before?.term ?? 0;
    if (leader.term !== oldTerm) log.info(`[${serviceId}] termChange ${oldTerm} -> ${leader.term}`);
    if (leader.incarnation !== (before?.incarnation ?? null)) {
      log.info(`[${serviceId}] leaderChange ${nameOf(before)} -> ${nameOf(leader)}`);
    }
    if (leads && !this.#isLeading) {
      log.info("Start to perform leader tasks.");
      this.#lastSweepMs = Number.NEGATIVE_INFINITY;
    }
    this.#isLeading = leads;
  }

  /** Who has come, and who has gone in good order: of the dead the leader tells. */
  #noticeNodes(nodes: readonly NodeRow[]): void {
    const { log, serviceId } = this.#options;
    const before = this.#alive;
    this.#alive = new Map(nodes.flatMap((row) => (row.alive ? [[row.serviceId, row.url]] : [])));
    if (before === null) return;
    for (const [name, url] of this.#alive) {
      if (name !== serviceId && !before.has(name)) log.info(`Node ${name} (${url}) has joined`);
    }
    for (const [name, url] of before) {
      if (nodes.some((row) => row.serviceId === name)) continue;
      log.info(`Node ${name} (${url}) has left`);
      this.#someoneLeft = true;
    }
  }

  async #stand({ leader }: ClusterSnapshot): Promise<void> {
    const { store, incarnation, clock, membership } = this.#options;
    this.#lastRenewalMs = clock.monotonic();
    if (await store.claimLeadership(incarnation, leader)) await membership.refresh();
  }

  async #lead(snapshot: ClusterSnapshot): Promise<void> {
    const { store, incarnation, membership, timing, clock, log } = this.#options;
    if (clock.monotonic() - this.#lastRenewalMs >= timing.heartbeatMs) {
      this.#lastRenewalMs = clock.monotonic();
      if (!(await store.renewLeadership(incarnation, snapshot.leader.term))) return;
    }
    let someoneDied = false;
    for (const row of snapshot.nodes) {
      if (!row.alive || row.incarnation === incarnation || !membership.isDead(row)) continue;
      if (!(await store.markDead(row.incarnation, row.heartbeat))) continue;
      const { silentMs } = membership.silenceOf(row.incarnation);
      log.warn(
        `Node ${row.serviceId} (${row.url}) is dead: silent for ${Math.round(silentMs)} ms. Its orders are transferred.`,
      );
      someoneDied = true;
    }
    if (someoneDied || this.#someoneLeft || clock.monotonic() - this.#lastSweepMs >= timing.ttlMs) this.#startSweep();
  }

  /** One sweep at a time; a death that comes meanwhile has another follow. */
  #startSweep(): void {
    this.#lastSweepMs = this.#options.clock.monotonic();
    this.#someoneLeft = false;
    if (this.#sweep !== null) {
      this.#sweepAgain = true;
      return;
    }
    this.#sweep = this.#options.sweep().then(() => {
      this.#sweep = null;
      if (this.#sweepAgain && this.#isLeading) {
        this.#sweepAgain = false;
        this.#startSweep();
      }
    });
  }
}
