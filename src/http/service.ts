/** `/service`: what nodes ask of each other, and operators of a node. */
import type { FastifyInstance } from "fastify";
import type { TransferOutcome, TransferRequest as Transfer } from "../cluster/cluster.ts";
import { CatalogueError } from "../order/errors.ts";
import { requireUser, USER_SECURITY } from "./authorization.ts";
import { membershipUnproven, NODE_BODY_BYTES_MAX, type NodeGate, nodeRoute } from "./cluster.ts";
import { named, problemResponses, TransferRequest } from "./schemas.ts";
import { turns } from "./store-reads.ts";

export interface ServiceResource {
  readonly serviceId: string;
  readonly transfer: (request: Transfer) => Promise<TransferOutcome>;
}

/** So many are under way at once that people have asked for: each reads the store. What nodes ask for waits for none of them. */
const PEOPLES_TRANSFERS_MAX = 1;
const PEOPLES_TRANSFERS_WAITING_MAX = 16;

export function serviceRoutes(app: FastifyInstance, { serviceId, transfer, admit }: ServiceResource & NodeGate): void {
  const inTurn = turns(PEOPLES_TRANSFERS_MAX);
  let waiting = 0;
  const takeForPeople = async (request: Transfer): Promise<TransferOutcome> => {
    if (waiting > PEOPLES_TRANSFERS_WAITING_MAX)
      throw new CatalogueError("store_unavailable", "Many transfers were asked for at once; ask again in a moment.");
    waiting++;
    try {
      return await inTurn(() => transfer(request));
    } finally {
      waiting--;
    }
  };
  const { hooks, isNodes } = nodeRoute({ admit }, "people");
  app.route<{ Body: TransferRequest }>({
    method: "POST",
    url: "/service/transfer",
    bodyLimit: NODE_BODY_BYTES_MAX,
    config: { forNodes: true },
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
          "membership_unproven",
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
    ...hooks,
    handler: async (request) => {
      const { incarnation = null, orders_max: ordersMax = Number.POSITIVE_INFINITY } = request.body;
      // An operator names a service. Which start of it, only nodes say, and they sign what they say.
      if (incarnation !== null && !isNodes(request)) throw membershipUnproven();
      const dead = request.body.service_id.toLowerCase();
      const wanted = { serviceId: dead, incarnation, ordersMax };
      const outcome = await (isNodes(request) ? transfer(wanted) : takeForPeople(wanted));
      switch (outcome.kind) {
        case "service_not_found":
          throw new CatalogueError("service_not_found", "No node of this cluster has or had this service_id.");
        case "service_alive":
          throw new CatalogueError(
            "service_alive",
            "The node is alive, or has not been silent for long enough to be taken for dead; only a dead node's orders are taken over.",
          );
        case "not_ready":
          throw new CatalogueError("store_unavailable", "This node is joining its cluster or leaving it; ask another.");
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
