/**
 * The cluster's rows in Redis (cluster-store.ts). Each operation is one script, so it happens whole or not at all; all rows
 * have one hash tag and so are on one server of a Redis Cluster.
 *
 * Every script compares the cluster's id first: on a store that was emptied or replaced under the node nothing is written, and
 * each operation fails with StoreUnavailableError, after which the node stops.
 */
import type { Incarnation } from "../../order/events.ts";
import {
  type ClusterIdentity,
  type ClusterSnapshot,
  type ClusterStore,
  DEAD_ROWS_MAX,
  type LeaderRow,
  type NodeDescription,
  type NodeRow,
  type Permits,
} from "../cluster-store.ts";
import { CLUSTER_KEYS, FORMAT } from "./keys.ts";
import {
  BEAT,
  CHANGE_PERMITS,
  CLAIM_LEADERSHIP,
  CLAIM_STATE,
  KEEP_SHAPE,
  LEAVE,
  MARK_DEAD,
  READ_PERMITS,
  READ_ROWS,
  REGISTER,
  RENEW_LEADERSHIP,
  ROW_KEYS,
  type Script,
} from "./scripts.ts";

/** How the rows reach Redis: failures are StoreUnavailableError already. */
export interface RowAccess {
  readonly identity: ClusterIdentity;
  readonly script: (script: Script, keys: readonly string[], args: readonly string[]) => Promise<unknown>;
  readonly command: (key: string, args: readonly string[]) => Promise<unknown>;
  /** Makes the store's closing wait for work that asks several times. */
  readonly track: <T>(work: Promise<T>) => Promise<T>;
}

/** Services that are remembered: more starts than any cluster has in a long time, and some megabytes. */
const SERVICES_MAX = 10_000;

/** Whether a claim may be made, and how its owner ended. */
export interface ClaimState {
  readonly kind: "allowed" | "owner_alive" | "fenced";
  readonly hasDrained: boolean;
}

export class ClusterRows implements ClusterStore {
  readonly #access: RowAccess;
  /** Whose incarnation is whose never changes. */
  readonly #services = new Map<Incarnation, string>();
  #writesByUser = false;

  constructor(access: RowAccess) {
    this.#access = access;
  }

  async identity(): Promise<ClusterIdentity> {
    await this.#run(CLAIM_STATE, 0, 0); // of interest is only that the identity is still the one that was opened
    return this.#access.identity;
  }

  async register({ serviceId, ...description }: NodeDescription, atMs: number): Promise<Incarnation> {
    const text = JSON.stringify({ ...description, format: FORMAT });
    const [incarnation, format] = (await this.#run(REGISTER, serviceId, text, atMs)) as [number, string];
    this.#writesByUser = format !== String(FORMAT);
    this.#remember(incarnation, serviceId);
    return incarnation;
  }

  /** Whether the node that has registered puts orders into by_user, and not into their users' sets (FORMER_FORMAT in keys.ts). */
  get writesByUser(): boolean {
    return this.#writesByUser;
  }

  async pipelineShape(name: string, version: number, shape: string): Promise<string> {
    return String(await this.#run(KEEP_SHAPE, `${version} ${name}`, shape));
  }

  async recordedShape(name: string, version: number): Promise<string | null> {
    const key = CLUSTER_KEYS.pipelines;
    return (await this.#access.command(key, ["HGET", key, `${version} ${name}`])) as string | null;
  }

  async permits(key: string): Promise<Permits> {
    const [record, alive] = (await this.#run(READ_PERMITS, key)) as [string | null, string[]];
    return { record, alive: alive.map(Number) };
  }

  changePermits(key: string, seen: string | null, record: string): Promise<boolean> {
    return this.#changes(CHANGE_PERMITS, key, seen ?? "", record);
  }

  async hasService(serviceId: string): Promise<boolean> {
    const { command } = this.#access;
    return (await command(CLUSTER_KEYS.services, ["HEXISTS", CLUSTER_KEYS.services, serviceId])) === 1;
  }

  beat(incarnation: Incarnation, ordersInFlight: number, atMs: number): Promise<boolean> {
    return this.#changes(BEAT, incarnation, ordersInFlight, atMs);
  }

  read(): Promise<ClusterSnapshot> {
    return this.#access.track(this.#read());
  }

  markDead(incarnation: Incarnation, seenHeartbeat: number): Promise<boolean> {
    return this.#changes(MARK_DEAD, incarnation, seenHeartbeat, DEAD_ROWS_MAX);
  }

  async leave(incarnation: Incarnation): Promise<void> {
    await this.#run(LEAVE, incarnation);
  }

  claimLeadership(incarnation: Incarnation, { term, renewal }: LeaderRow): Promise<boolean> {
    return this.#changes(CLAIM_LEADERSHIP, incarnation, term, renewal);
  }

  renewLeadership(incarnation: Incarnation, term: number): Promise<boolean> {
    return this.#changes(RENEW_LEADERSHIP, incarnation, term);
  }

  /**
   * The service whose incarnation it is.
   * @throws Error when there never was such an incarnation
   */
  async serviceOf(incarnation: Incarnation): Promise<string> {
    const known = this.#services.get(incarnation);
    if (known !== undefined) return known;
    const key = CLUSTER_KEYS.incarnations;
    const serviceId = await this.#access.command(key, ["HGET", key, String(incarnation)]);
    if (typeof serviceId !== "string") throw new Error(`the store has no incarnation ${incarnation}`);
    this.#remember(incarnation, serviceId);
    return serviceId;
  }

  /** Whether an incarnation may claim another's orders. Death is for good, so that the answer can be acted on. */
  async claimState(from: Incarnation, to: Incarnation): Promise<ClaimState> {
    const reply = (await this.#run(CLAIM_STATE, from, to)) as [number, number, number, number];
    const [incarnations, fromAlive, toAlive, drained] = reply;
    const hasDrained = drained === 1;
    // One that never was will be given to a node that is alive.
    if (fromAlive === 1 || from > incarnations) return { kind: "owner_alive", hasDrained };
    return { kind: toAlive === 1 ? "allowed" : "fenced", hasDrained };
  }

  async #read(): Promise<ClusterSnapshot> {
    const [nodes, alive, leader] = (await this.#run(READ_ROWS)) as [string[], string[], (string | null)[]];
    const living = new Set(alive.map(Number));
    const rows: NodeRow[] = [];
    for (let at = 0; at + 1 < nodes.length; at += 2) {
      const incarnation = Number(nodes[at]);
      const serviceId = await this.serviceOf(incarnation);
      rows.push(nodeRow(incarnation, serviceId, living.has(incarnation), nodes[at + 1] ?? ""));
    }
    const [term, incarnation = null, renewal] = leader;
    return {
      nodes: rows.toSorted((one, other) => one.incarnation - other.incarnation),
      leader: {
        term: Number(term ?? 0),
        incarnation: incarnation === null ? null : Number(incarnation),
        renewal: Number(renewal ?? 0),
      },
    };
  }

  #remember(incarnation: Incarnation, serviceId: string): void {
    if (this.#services.size >= SERVICES_MAX) this.#services.clear();
    this.#services.set(incarnation, serviceId);
  }

  async #changes(script: Script, ...args: readonly (string | number)[]): Promise<boolean> {
    return (await this.#run(script, ...args)) === 1;
  }

  #run(script: Script, ...args: readonly (string | number)[]): Promise<unknown> {
    const { identity, script: run } = this.#access;
    return run(script, ROW_KEYS, [identity.clusterId, ...args.map(String)]);
  }
}

function nodeRow(incarnation: Incarnation, serviceId: string, alive: boolean, value: string): NodeRow {
  const [, heartbeat, ordersInFlight, timeMs, description] = /^(\d+) (\d+) (\d+) (.*)$/s.exec(value) ?? [];
  if (description === undefined) throw new Error(`the row of incarnation ${incarnation} is damaged: ${value}`);
  const { format: _format, ...said } = JSON.parse(description) as Omit<NodeDescription, "serviceId"> & {
    format?: number;
  };
  return {
    ...said,
    serviceId,
    incarnation,
    alive,
    heartbeat: Number(heartbeat),
    ordersInFlight: Number(ordersInFlight),
    lastHeartbeatMs: Number(timeMs),
  };
}
