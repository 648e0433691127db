/** `/service`: what nodes ask of each other, and operators of a node. */
import type { FastifyInstance } from "fastify";
import type { TransferOutcome } from "../cluster/cluster.ts";
import { CatalogueError } from "../order/errors.ts";
import { requireUser, USER_SECURITY } from "./authorization.ts";
import { named, problemResponses, TransferRequest } from "./schemas.ts";

export interface ServiceResource {
  readonly serviceId: string;
  readonly transfer: (deadServiceId: string) => Promise<TransferOutcome>;
}

export function serviceRoutes(app: FastifyInstance, { serviceId, transfer }: ServiceResource): void {
  app.route<{ Body: TransferRequest }>({
    method: "POST",
    url: "/service/transfer",
    schema: {
      operationId: "transferOrders",
      summary: "Take over the orders of a dead node",
      security: USER_SECURITY,
      body: TransferRequest,
      response: {
        200: named("Transfer", "The orders are this node's now."),
        ...problemResponses(
          "body_not_json",
          "body_not_object",
          "request_invalid",
          "authorization_required",
          "service_not_found",
          "service_alive",
          "body_too_large",
          "media_type_unsupported",
          "headers_too_large",
          "store_unavailable",
        ),
      },
    },
    onRequest: requireUser,
    handler: async (request) => {
      const dead = request.body.service_id.toLowerCase();
      const outcome = await transfer(dead);
      switch (outcome.kind) {
        case "service_not_found":
          throw new CatalogueError("service_not_found", "No node of this cluster has or had this service_id.");
        case "service_alive":
          throw new CatalogueError("service_alive", "The node is alive; only a dead node's orders are taken over.");
        case "transferred":
          return {
            current_service_id: serviceId,
            transferred_service_id: dead,
            tranferred_service_id: dead,
            orders_transferred: outcome.orders,
          };
      }
    },
  });
}
