/** `/diagnostic`: how a node and its cluster are. Needs no authorization. */
import type { FastifyInstance } from "fastify";
import type { ClusterView } from "../cluster/cluster.ts";
import type { Durability } from "../store/store.ts";
import { rfc3339 } from "./rfc3339.ts";
import { type HeartbeatStatus, named } from "./schemas.ts";

export interface DiagnosticResource {
  readonly serviceId: string;
  readonly version: string;
  readonly now: () => number;
  readonly status: () => HeartbeatStatus;
  readonly durability: () => Durability;
  readonly cluster: () => ClusterView;
}

export function diagnosticRoutes(
  app: FastifyInstance,
  { serviceId, version, now, status, durability, cluster }: DiagnosticResource,
): void {
  app.route({
    method: "GET",
    url: "/diagnostic/heartbeat",
    schema: {
      operationId: "getHeartbeat",
      summary: "How this node is",
      security: [],
      response: { 200: named("Heartbeat", "Answered with 200 whatever the status: look at `status`.") },
    },
    handler: () => ({
      service_id: serviceId,
      serive_id: serviceId,
      service_name: "order_process",
      version,
      status: status(),
      durability: durability(),
      generated_at: rfc3339(now()),
    }),
  });

  app.route({
    method: "GET",
    url: "/diagnostic/cluster",
    schema: {
      operationId: "getCluster",
      summary: "How the cluster is",
      security: [],
      response: { 200: named("Cluster", "The cluster as this node sees it.") },
    },
    handler: () => {
      const { clusterId, store, leaderServiceId, term, nodes, transfers } = cluster();
      return {
        leader_name: leaderServiceId ?? "",
        cluster_id: clusterId,
        durability: store.durability,
        term,
        nodes_count: nodes.length,
        generated_at: rfc3339(now()),
        nodes: nodes.map((node) => ({
          name: node.serviceId,
          connection_string: node.url,
          connected: node.connected,
          last_activity: rfc3339(node.lastActivityMs),
          version: node.version,
          orders_in_flight: node.ordersInFlight,
          pipelines: node.pipelines,
        })),
        transfers: transfers.map(({ serviceId: dead, orders, atMs, durationMs }) => ({
          service_id: dead,
          orders_transferred: orders,
          start_time: rfc3339(atMs),
          duration_ms: Math.round(durationMs),
        })),
      };
    },
  });
}
