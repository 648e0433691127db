/** Stores around a store: one that testifies, some that crash or are slow, and some that break a guarantee on purpose. */
import { setTimeout as delay } from "node:timers/promises";
import type { Incarnation } from "../../src/order/events.ts";
import { isFinal } from "../../src/order/status.ts";
import type { ClusterSnapshot, ClusterStore, NodeRow } from "../../src/store/cluster-store.ts";
import type { AdvanceWrite, OwnedOrder, Store, StoredOrder, Write, WriteOutcome } from "../../src/store/store.ts";

/** Guarantees that can be broken, to see that the checker notices. */
export const BROKEN_GUARANTEES = [
  "ack-before-commit",
  "no-owner-check",
  "claims-from-living",
  "no-heartbeat-compare",
  "wall-clock-leases",
  "no-heartbeats",
] as const;
export type BrokenGuarantee = (typeof BROKEN_GUARANTEES)[number];

/** What the store beneath has confirmed, and nothing else. */
export interface Witness {
  /** Of this process; 0 before it has one. */
  incarnation(): Incarnation;
  /** The order's last revision known to be durable; 0 for none. */
  durableRevision(orderId: string): number;
}

/** A store as it is, with a witness of what it confirms. */
export function witnessedStore(store: Store): { store: Store; witness: Witness } {
  let incarnation: Incarnation = 0;
  const revisions = new Map<string, number>();
  const note = (write: Write, outcome: WriteOutcome | undefined): void => {
    if (outcome?.kind !== "applied") return;
    if (write.kind === "create") revisions.set(write.orderId, 1);
    else if (write.newStatus !== null && isFinal(write.newStatus)) revisions.delete(write.orderId);
    else revisions.set(write.orderId, write.expectedRevision + 1);
  };
  const noteRead = ({ orderId, revision }: StoredOrder): void => {
    revisions.set(orderId, Math.max(revision, revisions.get(orderId) ?? 0));
  };
  const witness: Witness = {
    incarnation: () => incarnation,
    durableRevision: (orderId) => revisions.get(orderId) ?? 0,
  };
  const witnessed: Store = {
    ...passOn(store),
    cluster: {
      ...passOnCluster(store.cluster),
      register: async (node, atMs) => {
        incarnation = await store.cluster.register(node, atMs);
        return incarnation;
      },
    },
    commit: async (writes) => {
      const outcomes = await store.commit(writes);
      for (const [index, write] of writes.entries()) note(write, outcomes[index]);
      return outcomes;
    },
    // How a node learns what became of a write whose answer was lost ...
    readOrders: (orderIds) => store.readOrders(orderIds),
    listOrders: (filter, before, limit) => store.listOrders(filter, before, limit),
    countOrders: (user) => store.countOrders(user),
    readChanges: (cursor, limit) => store.readChanges(cursor, limit),
    readBody: (orderId) => store.readBody(orderId),
    readOrder: async (orderId) => {
      const stored = await store.readOrder(orderId);
      if (stored?.owner === incarnation && !isFinal(stored.status)) noteRead(stored);
      return stored;
    },
    // ... and of an order that another one gave to it.
    readOwned: async (owner, orderIds) => {
      const owned = await store.readOwned(owner, orderIds);
      for (const order of owned.orders) noteRead(order);
      return owned;
    },
    claimOrders: async (from, to, times, limit) => {
      const claimed = await store.claimOrders(from, to, times, limit);
      if (claimed.kind === "claimed") {
        for (const order of claimed.orders) revisions.set(order.orderId, order.revision);
      }
      return claimed;
    },
  };
  return { store: witnessed, witness };
}

/** Where a process is to die: at its nth write, from 1, before the store gets it or after it is durable. */
export interface KillPoint {
  readonly moment: "before" | "after";
  readonly write: number;
  /** Count these alone; default: every write. */
  readonly kind?: WriteKind;
}

export const WRITE_KINDS = ["register", "claimLeadership", "leave", "commit", "claimOrders"] as const;
export type WriteKind = (typeof WRITE_KINDS)[number];

/** A store whose process dies at one of its writes, as by kill -9. After: durable, and nobody has heard of it. */
export function killingStore(store: Store, { moment, write, kind: killAt }: KillPoint): Store {
  let writes = 0;
  const counted = async <T>(kind: WriteKind, make: () => Promise<T>): Promise<T> => {
    if (killAt !== undefined && killAt !== kind) return make();
    const isLast = ++writes === write;
    if (isLast && moment === "before") killThisProcess();
    const result = await make();
    if (isLast && moment === "after") killThisProcess();
    return result;
  };
  return {
    ...passOn(store),
    cluster: {
      ...passOnCluster(store.cluster),
      register: (node, atMs) => counted("register", () => store.cluster.register(node, atMs)),
      claimLeadership: (incarnation, seen) =>
        counted("claimLeadership", () => store.cluster.claimLeadership(incarnation, seen)),
      leave: (incarnation) => counted("leave", () => store.cluster.leave(incarnation)),
    },
    commit: (writesOfBatch) => counted("commit", () => store.commit(writesOfBatch)),
    claimOrders: (from, to, times, limit) => counted("claimOrders", () => store.claimOrders(from, to, times, limit)),
  };
}

/** Makes each claim wait, so that two of them, or a claim and a start, come together. */
export function slowClaimsStore(store: Store, claimMs: number): Store {
  return {
    ...passOn(store),
    claimOrders: async (from, to, times, limit) => {
      await delay(claimMs);
      return store.claimOrders(from, to, times, limit);
    },
  };
}

/** How often it is looked whether a node that is to be marked dead has moved. */
const LOOK_MS = 20;

/**
 * Holds back the word that a node is dead until that node has shown that it lives: the worst moment, made certain. Twice, so that it has
 * certainly heard that it was seen the first time.
 */
export function lateDeathStore(store: Store): Store {
  return {
    ...passOn(store),
    cluster: {
      ...passOnCluster(store.cluster),
      markDead: async (incarnation, seenHeartbeat) => {
        process.stdout.write(`incarnation ${incarnation} is to be marked dead\n`);
        const isSeen = async (): Promise<boolean> =>
          ((await heartbeatOf(store, incarnation)) ?? Number.POSITIVE_INFINITY) >= seenHeartbeat + 2;
        while (!(await isSeen())) await delay(LOOK_MS);
        return store.cluster.markDead(incarnation, seenHeartbeat);
      },
    },
  };
}

/** The store with one guarantee broken; `now` is the wall clock of the node that uses it. */
export function brokenStore(store: Store, guarantee: BrokenGuarantee, now: () => number): Store {
  switch (guarantee) {
    case "ack-before-commit":
      return ackBeforeCommitStore(store);
    case "no-owner-check":
      return noOwnerCheckStore(store);
    case "claims-from-living":
      return claimsFromLivingStore(store);
    case "no-heartbeat-compare":
      return noHeartbeatCompareStore(store);
    case "wall-clock-leases":
      return wallClockLeasesStore(store, now);
    case "no-heartbeats":
      return {
        ...passOn(store),
        cluster: { ...passOnCluster(store.cluster), beat: () => new Promise(() => undefined) },
      };
  }
}

/** Says that a batch is applied, and makes it durable when the process gets the signal SIGUSR2 (breaks the store's invariant 1). */
function ackBeforeCommitStore(store: Store): Store {
  const released = new Promise((resolve) => process.once("SIGUSR2", resolve));
  let last: Promise<unknown> = released;
  return {
    ...passOn(store),
    commit: (writes) => {
      last = last.then(() => store.commit(writes));
      return Promise.resolve(writes.map((): WriteOutcome => ({ kind: "applied" })));
    },
  };
}

/** Applies an advance whoever owns the order and whatever its revision (breaks the store's invariant 3). */
function noOwnerCheckStore(store: Store): Store {
  const matching = async (write: Write): Promise<Write> => {
    const stored = write.kind === "advance" ? await store.readOrder(write.orderId) : null;
    if (write.kind !== "advance" || stored === null) return write;
    return { ...write, owner: stored.owner, expectedRevision: stored.revision };
  };
  return {
    ...passOn(store),
    // Or else the node would leave its orders of itself when it wakes up.
    cluster: { ...passOnCluster(store.cluster), beat: () => Promise.resolve(true) },
    commit: async (writes) => store.commit(await Promise.all(writes.map(matching))),
  };
}

/** Gives away a living owner's orders, as if it were dead (breaks the store's invariant 6). */
function claimsFromLivingStore(store: Store): Store {
  return {
    ...passOn(store),
    claimOrders: async (from, to, times, limit) => {
      const claim = await store.claimOrders(from, to, times, limit);
      if (claim.kind !== "owner_alive") return claim;
      const { orderIds } = await store.listOrderIds(from, null, limit);
      const orders: OwnedOrder[] = [];
      for (const stored of (await store.readOwned(from, orderIds)).orders) {
        const { orderId } = stored;
        const event = { kind: "owner_changed", atMs: times.atMs, owner: to, callBegun: true } as const;
        const expectedRevision = stored.revision;
        const write: AdvanceWrite = {
          kind: "advance",
          orderId,
          owner: from,
          expectedRevision,
          event,
          newStatus: null,
          formerStatus: "running",
          user: "user",
        };
        const [outcome] = await store.commit([write]);
        if (outcome?.kind !== "applied") continue;
        orders.push({
          ...stored,
          owner: to,
          revision: expectedRevision + 1,
          history: [...stored.history, event],
        });
      }
      return { kind: "claimed", orders, damaged: [] };
    },
  };
}

/** Marks a node dead whatever its heartbeat is by now (breaks invariant 1 of cluster-store.ts). */
function noHeartbeatCompareStore(store: Store): Store {
  return {
    ...passOn(store),
    cluster: {
      ...passOnCluster(store.cluster),
      markDead: async (incarnation) => {
        for (;;) {
          const heartbeat = await heartbeatOf(store, incarnation);
          if (heartbeat === undefined) return false;
          if (await store.cluster.markDead(incarnation, heartbeat)) return true;
        }
      },
    },
  };
}

/** Silence beyond which a wall-clock lease is over; short, so that only the clocks' difference counts. */
const WALL_CLOCK_LEASE_MS = 60_000;

/**
 * Judges by the times in the rows and its own wall clock: of a node whose last heartbeat lies too far back, it shows none of those that
 * come (breaks invariant 3 of cluster-store.ts).
 */
function wallClockLeasesStore(store: Store, now: () => number): Store {
  const isOver = (row: NodeRow): boolean => row.alive && now() - row.lastHeartbeatMs > WALL_CLOCK_LEASE_MS;
  return {
    ...passOn(store),
    cluster: {
      ...passOnCluster(store.cluster),
      read: async (): Promise<ClusterSnapshot> => {
        const { nodes, leader } = await store.cluster.read();
        return { leader, nodes: nodes.map((row) => (isOver(row) ? { ...row, heartbeat: 0 } : row)) };
      },
      markDead: async (incarnation, seenHeartbeat) =>
        store.cluster.markDead(
          incarnation,
          seenHeartbeat === 0 ? ((await heartbeatOf(store, incarnation)) ?? 0) : seenHeartbeat,
        ),
    },
  };
}

/** Undefined: the node is not listed any more. */
async function heartbeatOf(store: Store, incarnation: Incarnation): Promise<number | undefined> {
  const { nodes } = await store.cluster.read();
  return nodes.find((row) => row.incarnation === incarnation && row.alive)?.heartbeat;
}

/** A store that passes on all it is asked. */
export function passOn(store: Store): Store {
  return {
    cluster: passOnCluster(store.cluster),
    report: () => store.report(),
    commit: (writes) => store.commit(writes),
    readOrders: (orderIds) => store.readOrders(orderIds),
    listOrders: (filter, before, limit) => store.listOrders(filter, before, limit),
    countOrders: (user) => store.countOrders(user),
    readChanges: (cursor, limit) => store.readChanges(cursor, limit),
    readBody: (orderId) => store.readBody(orderId),
    readOrder: (orderId) => store.readOrder(orderId),
    readOwned: (owner, orderIds) => store.readOwned(owner, orderIds),
    listOwners: () => store.listOwners(),
    listOrderIds: (owner, cursor, limit) => store.listOrderIds(owner, cursor, limit),
    claimOrders: (from, to, times, limit) => store.claimOrders(from, to, times, limit),
    probe: () => store.probe(),
    close: () => store.close(),
  };
}

/** The cluster's part of such a store. */
export function passOnCluster(cluster: ClusterStore): ClusterStore {
  return {
    identity: () => cluster.identity(),
    register: (node, atMs) => cluster.register(node, atMs),
    recordedShape: (name, version) => cluster.recordedShape(name, version),
    pipelineShape: (name, version, shape) => cluster.pipelineShape(name, version, shape),
    permits: (key) => cluster.permits(key),
    changePermits: (key, seen, record) => cluster.changePermits(key, seen, record),
    serviceOf: (incarnation) => cluster.serviceOf(incarnation),
    hasService: (serviceId) => cluster.hasService(serviceId),
    beat: (incarnation, ordersInFlight, atMs) => cluster.beat(incarnation, ordersInFlight, atMs),
    read: () => cluster.read(),
    markDead: (incarnation, seenHeartbeat) => cluster.markDead(incarnation, seenHeartbeat),
    leave: (incarnation) => cluster.leave(incarnation),
    claimLeadership: (incarnation, seen) => cluster.claimLeadership(incarnation, seen),
    renewLeadership: (incarnation, term) => cluster.renewLeadership(incarnation, term),
  };
}

function killThisProcess(): void {
  process.kill(process.pid, "SIGKILL");
}
