/** The cluster of a node that is alone: it leads itself, and took over every order that was left when it started. */
import type { Store } from "../store/store.ts";
import type { Cluster } from "./cluster.ts";

export interface SingleNodeOptions {
  readonly serviceId: string;
  readonly url: () => string;
  readonly now: () => number;
  readonly store: Store;
}

export function singleNodeCluster({ serviceId, url, now, store }: SingleNodeOptions): Cluster {
  return {
    view: () => ({
      leaderServiceId: serviceId,
      term: 1,
      nodes: [{ serviceId, url: url(), connected: true, lastActivityMs: now() }],
    }),
    transfer: async (dead) => {
      if (dead === serviceId) return { kind: "service_alive" };
      // The store is this node's alone, so any other service of it is dead, and its orders were taken at the start.
      return (await store.hasService(dead)) ? { kind: "transferred", orders: 0 } : { kind: "service_not_found" };
    },
  };
}
