/**
 * A node in its cluster, over all its incarnations: registers, runs an engine for as long as the incarnation lives, and joins again
 * when the others took it for dead.
 *
 * Owns the present incarnation and what belongs to it (Life). Does not own how orders run (the engine), who is dead
 * (membership.ts) or who leads (leadership.ts).
 *
 * 1. There is one Life at most. Between two there is none, and whatever is asked then is told to come again.
 * 2. An incarnation that was found dead is left at once, with all its orders (cluster rule 3).
 */
import { isDeepStrictEqual } from "node:util";
import type { Drained, SubmitOutcome, Submission } from "../engine/engine.ts";
import type { Receivers, Successors } from "../engine/hand-off.ts";
import type { TakenOver } from "../engine/order-loader.ts";
import { StartError } from "../order/errors.ts";
import type { Incarnation } from "../order/events.ts";
import type { Logger } from "../log.ts";
import { type Clock, pause } from "../runtime/clock.ts";
import type { ClusterIdentity, NodeDescription, NodeRow } from "../store/cluster-store.ts";
import { type Store, type StoreReport, StoreUnavailableError } from "../store/store.ts";
import type { ActionRequest } from "../order/actions.ts";
import type { ActionOutcome } from "../engine/order-run.ts";
import type { ActOutcome, ClusterView, TransferOutcome, TransferRecord, TransferRequest } from "./cluster.ts";
import { Leadership } from "./leadership.ts";
import { Membership } from "./membership.ts";
import { PeerError, Peers, refusesConnections } from "./peers.ts";
import { type NodeRequest, RequestGate, type SignAnswer } from "./request-gate.ts";
import { sweepOrders } from "./takeover.ts";
import { suspicionMs, type Timing } from "./timing.ts";

/** What a cluster's node needs of the engine that runs its orders. */
export interface RunningEngine {
  readonly ordersInFlight: number;
  readonly storeFailure: string | null;
  readonly lateWritesRefused: number;
  submit(submission: Submission): Promise<SubmitOutcome>;
  resume(serviceId: string): Promise<number>;
  takeOver(from: Incarnation, ordersMax: number): Promise<TakenOver>;
  readonly room: number;
  adopt(orderIds: readonly string[]): Promise<void>;
  act(orderId: string, request: ActionRequest): Promise<ActionOutcome | { readonly kind: "pipeline_missing" } | null>;
  goOn(): void;
  passOn(receivers: Receivers): Promise<void>;
  audit(): Promise<number>;
  drain(graceMs: number, successors: Successors): Promise<Drained>;
  abandon(): void;
}

/** What an engine needs of the incarnation that it runs for. */
export interface EngineHooks {
  readonly mayStart: () => boolean;
  /** What the clock of another incarnation shows now; null: nothing is known. */
  readonly nowOf: (incarnation: Incarnation) => number | null;
  readonly onFenced: () => void;
}

export interface ClusterNodeOptions {
  readonly store: Store;
  readonly storeReport: () => StoreReport;
  readonly identity: ClusterIdentity;
  readonly node: NodeDescription;
  readonly timing: Timing;
  readonly log: Logger;
  readonly clock: Clock;
  readonly createEngine: (incarnation: Incarnation, hooks: EngineHooks) => RunningEngine;
  /** The node can't go on: the process must end. */
  readonly onBroken: (error: Error) => void;
}

/** What lives as long as one incarnation. */
interface Life {
  readonly incarnation: Incarnation;
  readonly engine: RunningEngine;
  readonly membership: Membership;
}

/** How often the engine looks for orders that got lost: rarely, as whatever is known to have gone wrong has it look at once. */
const AUDIT_MS = 30_000;

/** How often a store that is away is asked to register again. */
const REGISTER_AGAIN_MS = 250;

/** How often a node that stops asks one again that had no room for its orders. */
const ASK_FOR_ROOM_AGAIN_MS = 250;

const TRANSFERS_KEPT = 10;

/** How long an action waits for an order that changes hands. A dead owner's takes longer: then the caller comes again. */
const ACT_MS_MAX = 2_000;
const ACT_AGAIN_MS = 100;

const NOT_READY: ActOutcome = {
  kind: "not_now",
  reason: "this node is joining its cluster or leaving it",
  mayBeDone: false,
};

const OWNER_GONE: ActOutcome = {
  kind: "not_now",
  reason: "the node that owned the order is gone, and another takes it over",
  mayBeDone: false,
};

export class ClusterNode {
  readonly #options: ClusterNodeOptions;
  readonly #peers: Peers;
  readonly #gate: RequestGate;
  #life: Life | null = null;
  #transfers: readonly TransferRecord[] = [];
  #stopping = false;
  /** Orders of former incarnations on their way to this one. */
  #resumed: Promise<void> = Promise.resolve();
  /** Joining again, if that is under way. */
  #rejoined: Promise<void> = Promise.resolve();

  constructor(options: ClusterNodeOptions) {
    this.#options = options;
    const { clock } = options;
    const { secret } = options.identity;
    const timeoutMs = Math.max(1_000, options.timing.ttlMs);
    this.#peers = new Peers({ secret, sender: () => this.incarnation, timeoutMs, clock });
    this.#gate = new RequestGate(secret);
  }

  /** The present incarnation, or null: the node is joining again. */
  get incarnation(): Incarnation | null {
    return this.#life?.incarnation ?? null;
  }

  get ordersInFlight(): number {
    return this.#life?.engine.ordersInFlight ?? 0;
  }

  /** Whether no other node is alive, as far as this one knows. */
  get isAlone(): boolean {
    const nodes = this.#life?.membership.snapshot?.nodes ?? [];
    return !nodes.some(({ alive, incarnation }) => alive && incarnation !== this.incarnation);
  }

  /** Why no order can be taken or gone on with at the moment, or null. */
  get failure(): string | null {
    const life = this.#life;
    if (life === null) return JOINING;
    return life.engine.storeFailure ?? (life.membership.mayStart ? null : SILENT);
  }

  /**
   * Registers and begins.
   * @throws StoreUnavailableError
   */
  async start(): Promise<void> {
    await this.#begin();
  }

  submit(submission: Submission): Promise<SubmitOutcome> {
    if (this.#stopping) return Promise.resolve({ kind: "shutting_down" });
    return this.#life?.engine.submit(submission) ?? Promise.resolve({ kind: "store_unavailable", reason: JOINING });
  }

  /** The cluster as this node last saw it. */
  view(): ClusterView {
    const { identity, node, storeReport, clock } = this.#options;
    const life = this.#life;
    const snapshot = life?.membership.snapshot ?? null;
    const nodes = (snapshot?.nodes ?? []).map((row) => {
      const isSelf = row.incarnation === life?.incarnation;
      const silentMs = isSelf ? 0 : (life?.membership.silenceOf(row.incarnation).silentMs ?? 0);
      return {
        serviceId: row.serviceId,
        url: row.url,
        version: row.version,
        connected: row.alive && !(life?.membership.isDead(row) ?? false),
        ordersInFlight: isSelf ? this.ordersInFlight : row.alive ? row.ordersInFlight : 0,
        lastActivityMs: row.alive ? clock.now() - Math.round(silentMs) : row.lastHeartbeatMs,
        pipelines: row.pipelines ?? [],
      };
    });
    const self = {
      serviceId: node.serviceId,
      url: node.url,
      version: node.version,
      connected: false,
      ordersInFlight: 0,
      lastActivityMs: clock.now(),
      pipelines: node.pipelines ?? [],
    };
    const leader = snapshot?.nodes.find(({ incarnation }) => incarnation === snapshot.leader.incarnation);
    return {
      clusterId: identity.clusterId,
      leaderServiceId: leader?.serviceId ?? null,
      term: snapshot?.leader.term ?? 0,
      nodes: nodes.some(({ serviceId }) => serviceId === node.serviceId) ? nodes : [...nodes, self],
      store: storeReport(),
      transfers: this.#transfers,
    };
  }

  /**
   * Has this node take over a dead one's orders.
   * @throws StoreUnavailableError
   */
  async transfer(request: TransferRequest): Promise<TransferOutcome> {
    const { clock } = this.#options;
    const life = this.#life;
    if (life === null || this.#stopping) return { kind: "not_ready" };
    const { serviceId, incarnation, ordersMax } = request;
    const [atMs, startMs] = [clock.now(), clock.monotonic()];
    const owners = incarnation === null ? await this.#deadOwners(serviceId) : [incarnation];
    if (!Array.isArray(owners)) return owners;
    let orders = 0;
    for (const owner of owners) orders += (await life.engine.takeOver(owner, ordersMax - orders)).orders;
    if (incarnation === null && orders > 0) {
      this.#record({ serviceId, atMs, orders, durationMs: clock.monotonic() - startMs });
    }
    return { kind: "transferred", orders };
  }

  /**
   * Goes on with orders that another node has given to an incarnation of this one.
   * @returns how many more it may be given now; null: this node takes none
   */
  adopt(orderIds: readonly string[]): number | null {
    if (this.#life === null || this.#stopping) return null;
    if (orderIds.length > 0) this.#options.log.info(`Orders given by another node: ${orderIds.length}`);
    this.#life.engine.adopt(orderIds).catch((error: unknown) => this.#break(error));
    return this.#life.engine.room;
  }

  /**
   * Does what somebody asks of an order that is not final: here where the order is this node's, or else by asking the node that owns it.
   * The order may change hands meanwhile: then it is asked again for a moment.
   * @param owner reads the owner of the order; null: it is final, or gone
   * @throws StoreUnavailableError
   */
  async act(orderId: string, request: ActionRequest, owner: () => Promise<Incarnation | null>): Promise<ActOutcome> {
    const { clock } = this.#options;
    const endMs = clock.monotonic() + ACT_MS_MAX;
    for (;;) {
      const incarnation = await owner();
      if (incarnation === null) return { kind: "refused", reason: "the order is final" };
      const outcome = await this.#actAt(incarnation, orderId, request);
      const isLasting = outcome.kind !== "not_now" || outcome.mayBeDone;
      if (isLasting || this.#stopping || clock.monotonic() >= endMs) return outcome;
      await pause(clock, ACT_AGAIN_MS);
    }
  }

  /** Does what another node asks of an order that is this one's. */
  async actHere(orderId: string, request: ActionRequest): Promise<ActOutcome> {
    const life = this.#life;
    if (life === null || this.#stopping) return NOT_READY;
    const outcome = await life.engine.act(orderId, request);
    switch (outcome?.kind) {
      case "done":
      case "refused":
        return outcome;
      case "unknown":
        return { kind: "not_now", reason: "the order changed hands, or the store failed, meanwhile", mayBeDone: true };
      case "pipeline_missing":
        return {
          kind: "not_now",
          reason: "no live node has the order's pipeline in its version",
          mayBeDone: false,
          pipelineMissing: true,
        };
      case undefined:
        return { kind: "not_now", reason: "the order is on its way to another node", mayBeDone: false };
    }
  }

  async #actAt(owner: Incarnation, orderId: string, request: ActionRequest): Promise<ActOutcome> {
    const life = this.#life;
    if (life === null) return NOT_READY;
    if (owner === life.incarnation) return this.actHere(orderId, request);
    const row = life.membership.snapshot?.nodes.find(({ incarnation, alive }) => alive && incarnation === owner);
    if (row === undefined) return OWNER_GONE;
    try {
      return await this.#peers.act(row, orderId, request);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      // It has stopped, or died: its orders will be another's in a moment.
      if (error.isUnsent) return OWNER_GONE;
      this.#options.log.warn(
        `[${orderId}]${row.serviceId} (${row.url}) can't be asked for ${request.action}: ${error.message}`,
      );
      return { kind: "not_now", reason: "the node that owns the order did not answer as it should", mayBeDone: true };
    }
  }

  /**
   * Checks what another node asks, and uses its proof up.
   * @returns what signs the answer; null: no node of this cluster asks that of this incarnation, or it has asked it before
   */
  admit(request: NodeRequest): SignAnswer | null {
    const life = this.#life;
    return life === null ? null : this.#gate.admit(request, life.incarnation, life.membership.snapshot?.nodes ?? []);
  }

  /**
   * Stops: running steps end within the grace time or are cut, and what is not finished goes to live nodes (cluster rule 8).
   * @returns what became of its orders
   */
  async stop(graceMs: number): Promise<Drained> {
    this.#stopping = true;
    await this.#rejoined; // it may just be registering, and what is registered must leave
    const life = this.#life;
    if (life === null) return { cut: 0, givenAway: 0, left: 0 };
    const drained = await life.engine.drain(graceMs, this.#successors(life));
    await this.#resumed;
    life.membership.stop();
    try {
      await this.#options.store.cluster.leave(life.incarnation);
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error; // away: the others will find out by the silence
    }
    return drained;
  }

  async #begin(): Promise<void> {
    const { store, node, timing, log, clock, createEngine, onBroken } = this.#options;
    const registeredMs = clock.monotonic();
    const incarnation = await store.cluster.register(node, clock.now());
    const die = (): void => this.#rejoin(incarnation);
    const engine = createEngine(incarnation, {
      mayStart: () => membership.mayStart,
      nowOf: (other) => membership.nowOf(other),
      onFenced: die,
    });
    let lastAuditMs = clock.monotonic();
    const membership: Membership = new Membership(
      {
        store: store.cluster,
        incarnation,
        timing,
        clock,
        ordersInFlight: () => engine.ordersInFlight,
        refusesConnections: (url) => refusesConnections(url, timing.heartbeatMs),
        onHeartbeat: () => {
          engine.goOn();
          this.#passOn(engine, membership);
          if (clock.monotonic() - lastAuditMs < AUDIT_MS) return;
          lastAuditMs = clock.monotonic();
          engine.audit().catch((error: unknown) => this.#break(error));
        },
        onSnapshot: (snapshot) => leadership.onSnapshot(snapshot),
        onDead: die,
        onBroken,
      },
      registeredMs,
    );
    const leadership = new Leadership({
      store: store.cluster,
      incarnation,
      serviceId: node.serviceId,
      timing,
      log,
      clock,
      membership,
      sweep: () =>
        sweepOrders({
          store,
          incarnation,
          peers: this.#peers,
          log,
          clock,
          transfer: (request) => this.transfer(request),
          record: (record) => this.#record(record),
        }),
    });
    this.#life = { incarnation, engine, membership };
    try {
      await membership.start();
    } catch (error) {
      this.#end(this.#life);
      throw error;
    }
    this.#resumed = engine.resume(node.serviceId).then(
      (orders) => {
        if (orders > 0) log.info(`Orders of a former start taken over: ${orders}`);
      },
      (error: unknown) => this.#break(error),
    );
  }

  /** Leaves an incarnation that the others took for dead, and begins another. */
  #rejoin(incarnation: Incarnation): void {
    const life = this.#life;
    if (life === null || life.incarnation !== incarnation) return;
    const { log } = this.#options;
    log.warn(
      `[${this.#options.node.serviceId}] This node was taken for dead: it leaves its orders to the others and joins again`,
    );
    this.#end(life);
    if (this.#stopping) return;
    this.#rejoined = this.#beginAgain(life.engine).catch((error: unknown) => this.#break(error));
  }

  /** Ends an incarnation at once; its orders are whoever's takes them over. */
  #end(life: Life): void {
    this.#life = null;
    life.membership.stop();
    life.engine.abandon();
  }

  async #beginAgain(former: RunningEngine): Promise<void> {
    const { store, identity, log, node, clock } = this.#options;
    while (!this.#stopping) {
      try {
        const { clusterId } = await store.cluster.identity();
        await this.#requireNoDouble();
        if (clusterId !== identity.clusterId) {
          throw new Error(
            `the store was emptied or replaced: it holds cluster ${clusterId}, not ${identity.clusterId}`,
          );
        }
        await this.#begin();
        log.info(`[${node.serviceId}] Joined again; late writes that were refused: ${former.lateWritesRefused}`);
        return;
      } catch (error) {
        if (!(error instanceof StoreUnavailableError)) throw error;
        await pause(clock, REGISTER_AGAIN_MS);
      }
    }
  }

  /**
   * Two processes with one service_id would take each other's place for ever.
   * @throws StartError when another process lives as this node's service
   */
  async #requireNoDouble(): Promise<void> {
    const { store, node } = this.#options;
    const { nodes } = await store.cluster.read();
    const double = nodes.find(({ alive, serviceId }) => alive && serviceId === node.serviceId);
    // This process's own: a registration whose answer was lost.
    if (double === undefined || (double.url === node.url && isDeepStrictEqual(double.process, node.process))) return;
    throw new StartError(
      `another process has started with this node's service_id, at ${double.url}: its data folder is a copy of this one's; ` +
        "remove node.json from one of the two folders",
    );
  }

  /** The incarnations of a service that are dead and own orders; or why there is nothing to take from it. */
  async #deadOwners(serviceId: string): Promise<Incarnation[] | TransferOutcome> {
    const { store } = this.#options;
    const owners = (await store.listOwners()).filter((owner) => owner.serviceId === serviceId);
    // The rows are read after the owners: an incarnation that is not alive then is dead, however new.
    const { nodes } = await store.cluster.read();
    if (nodes.some((row) => row.alive && row.serviceId === serviceId)) return { kind: "service_alive" };
    if (owners.length === 0 && !(await store.cluster.hasService(serviceId))) return { kind: "service_not_found" };
    return owners.map((owner) => owner.incarnation);
  }

  /** Gives orders of pipelines that this node lacks to nodes that have them: an older version, or a newer one, that runs side by side. */
  #passOn(engine: RunningEngine, membership: Membership): void {
    const rows = (membership.snapshot?.nodes ?? []).filter((row) => row.alive && !membership.isDead(row));
    const rowFor = (label: string): NodeRow | null =>
      rows
        .filter((row) => row.incarnation !== this.#life?.incarnation && row.pipelines?.includes(label))
        .toSorted((one, other) => one.ordersInFlight - other.ordersInFlight)[0] ?? null;
    engine
      .passOn({
        choose: (label) => rowFor(label)?.incarnation ?? null,
        tell: async (successor, orderIds) => {
          const row = rows.find(({ incarnation }) => incarnation === successor);
          if (row === undefined) return;
          // One that is not told finds them by its audit.
          await this.#peers.give(row, orderIds).catch(() => undefined);
        },
      })
      .catch((error: unknown) => this.#break(error));
  }

  /** Live nodes for the orders of one that stops: whoever has least is next, if it can be told and has room. */
  #successors({ incarnation: self, membership }: Life): Successors {
    const { clock, log } = this.#options;
    const given = new Map<Incarnation, number>();
    const unreachable = new Set<Incarnation>();
    const rooms = new Map<Incarnation, { readonly room: number; readonly atMs: number }>();
    const isCandidate = (row: NodeRow): boolean =>
      row.alive &&
      row.incarnation !== self &&
      !unreachable.has(row.incarnation) &&
      membership.silenceOf(row.incarnation).silentMs <= suspicionMs(row.ttlMs) &&
      !membership.isDead(row);
    const load = (row: NodeRow): number => row.ordersInFlight + (given.get(row.incarnation) ?? 0);
    const tell = async (row: NodeRow, orderIds: readonly string[]): Promise<boolean> => {
      try {
        const room = await this.#peers.give(row, orderIds);
        rooms.set(row.incarnation, { room, atMs: clock.monotonic() });
        return true;
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        log.warn(`${row.serviceId} (${row.url}) can't be told of orders that are its own now: ${reason}`);
        return false;
      }
    };
    // Told of none first: what it is given it must hear of, or else the orders would wait for its audit.
    const roomOf = async (row: NodeRow): Promise<number> => {
      const known = rooms.get(row.incarnation);
      const isOld =
        known === undefined || (known.room === 0 && clock.monotonic() - known.atMs >= ASK_FOR_ROOM_AGAIN_MS);
      if (isOld && !(await tell(row, []))) unreachable.add(row.incarnation);
      return unreachable.has(row.incarnation) ? 0 : (rooms.get(row.incarnation)?.room ?? 0);
    };
    return {
      choose: async () => {
        const candidates = (membership.snapshot?.nodes ?? []).filter(isCandidate);
        for (const row of candidates.toSorted((one, other) => load(one) - load(other))) {
          const room = await roomOf(row);
          if (room > 0) return { incarnation: row.incarnation, room };
        }
        return null;
      },
      tell: async (successor, orderIds) => {
        given.set(successor, (given.get(successor) ?? 0) + orderIds.length);
        const row = membership.snapshot?.nodes.find(({ incarnation }) => incarnation === successor);
        if (row !== undefined && !(await tell(row, orderIds)) && !(await tell(row, orderIds)))
          unreachable.add(successor);
      },
    };
  }

  #record(record: TransferRecord): void {
    this.#transfers = [record, ...this.#transfers].slice(0, TRANSFERS_KEPT);
  }

  #break(error: unknown): void {
    this.#options.onBroken(error instanceof Error ? error : new Error(String(error)));
  }
}

const JOINING = "this node is joining its cluster";
const SILENT = "the heartbeat lease has expired";
