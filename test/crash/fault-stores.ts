/** Stores around a store: one that testifies, one that crashes, and two that break a guarantee on purpose. */
import type { Incarnation } from "../../src/order/order.ts";
import type { ClusterStore } from "../../src/store/cluster-store.ts";
import type { Store, Write, WriteOutcome } from "../../src/store/store.ts";

/** Guarantees that can be broken, to see that the checker notices. */
export const BROKEN_GUARANTEES = ["ack-before-commit", "no-owner-check"] as const;
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
    revisions.set(write.orderId, write.kind === "create" ? 1 : write.expectedRevision + 1);
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
    claimOrders: async (from, to, atMs, limit) => {
      const claimed = await store.claimOrders(from, to, atMs, limit);
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
}

/** A store whose process dies at one of its writes, as by kill -9. After: durable, and nobody has heard of it. */
export function killingStore(store: Store, { moment, write }: KillPoint): Store {
  let writes = 0;
  const counted = async <T>(make: () => Promise<T>): Promise<T> => {
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
      register: (node, atMs) => counted(() => store.cluster.register(node, atMs)),
      claimLeadership: (incarnation, seen) => counted(() => store.cluster.claimLeadership(incarnation, seen)),
      leave: (incarnation) => counted(() => store.cluster.leave(incarnation)),
    },
    commit: (writesOfBatch) => counted(() => store.commit(writesOfBatch)),
    claimOrders: (from, to, atMs, limit) => counted(() => store.claimOrders(from, to, atMs, limit)),
  };
}

/** The store with one guarantee broken. */
export function brokenStore(store: Store, guarantee: BrokenGuarantee): Store {
  return guarantee === "ack-before-commit" ? ackBeforeCommitStore(store) : noOwnerCheckStore(store);
}

/** Long enough that whoever hears of the acknowledgement can act before the write is made. */
const HELD_BACK_MS = 1_000;

/** Says that a batch is applied, and makes it durable a second later (breaks the store's invariant 1). */
function ackBeforeCommitStore(store: Store): Store {
  return {
    ...passOn(store),
    commit: (writes) => {
      setTimeout(() => void store.commit(writes), HELD_BACK_MS);
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

function passOn(store: Store): Store {
  return {
    cluster: passOnCluster(store.cluster),
    report: () => store.report(),
    commit: (writes) => store.commit(writes),
    readOrder: (orderId) => store.readOrder(orderId),
    readBody: (orderId) => store.readBody(orderId),
    listOwners: () => store.listOwners(),
    listOrderIds: (owner, cursor, limit) => store.listOrderIds(owner, cursor, limit),
    claimOrders: (from, to, atMs, limit) => store.claimOrders(from, to, atMs, limit),
    probe: () => store.probe(),
    close: () => store.close(),
  };
}

function passOnCluster(cluster: ClusterStore): ClusterStore {
  return {
    identity: () => cluster.identity(),
    register: (node, atMs) => cluster.register(node, atMs),
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
