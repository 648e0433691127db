/** What the rest of a node knows of its cluster. The rules that the code of this folder cites are in docs/cluster.md. */
import type { Incarnation } from "../order/events.ts";
import type { StoreReport } from "../store/store.ts";

export interface ClusterNode {
  readonly serviceId: string;
  readonly url: string;
  readonly version: string;
  readonly connected: boolean;
  readonly ordersInFlight: number;
  readonly lastActivityMs: number;
  /** The pipelines that it has, as pipelineLabel names them. */
  readonly pipelines: readonly string[];
}

/** Orders that changed hands because their node had died, as the node that took them or the leader saw it. */
export interface TransferRecord {
  readonly serviceId: string;
  readonly atMs: number;
  readonly orders: number;
  readonly durationMs: number;
}

export interface ClusterView {
  readonly clusterId: string;
  /** Null: there is none at the moment. */
  readonly leaderServiceId: string | null;
  /** Counts elections. */
  readonly term: number;
  readonly nodes: readonly ClusterNode[];
  readonly store: StoreReport;
  /** The last ones of this node, newest first. */
  readonly transfers: readonly TransferRecord[];
}

export interface TransferRequest {
  readonly serviceId: string;
  /** Only that incarnation's orders; null: all that are not alive. */
  readonly incarnation: Incarnation | null;
  readonly ordersMax: number;
}

/** How something that was asked of an order ended. */
export type ActOutcome =
  | { readonly kind: "done" }
  | { readonly kind: "refused"; readonly reason: string }
  /** No node can do it now, and nothing was done; or (`mayBeDone`) whether it was done is not known. */
  | { readonly kind: "not_now"; readonly reason: string; readonly mayBeDone: boolean; readonly pipelineMissing?: true };

export type TransferOutcome =
  | { readonly kind: "transferred"; readonly orders: number }
  | { readonly kind: "service_alive" }
  | { readonly kind: "service_not_found" }
  /** This node has no incarnation at the moment: it is starting, stopping, or joining again. */
  | { readonly kind: "not_ready" };
