/** What the rest of a node knows of its cluster. */

export interface ClusterNode {
  readonly serviceId: string;
  readonly url: string;
  readonly connected: boolean;
  readonly lastActivityMs: number;
}

export interface ClusterView {
  readonly leaderServiceId: string;
  /** Counts elections. */
  readonly term: number;
  readonly nodes: readonly ClusterNode[];
}

export type TransferOutcome =
  | { readonly kind: "transferred"; readonly orders: number }
  | { readonly kind: "service_alive" }
  | { readonly kind: "service_not_found" };

export interface Cluster {
  /** The cluster as this node sees it now. */
  view(): ClusterView;
  /** Has this node take over the orders of a dead one. */
  transfer(serviceId: string): Promise<TransferOutcome>;
}
