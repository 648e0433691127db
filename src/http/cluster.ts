/** `/cluster`: what a node asks of another one, to join it or as one of its cluster. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import { JoinAnswer, PROTOCOL } from "../cluster/join.ts";
import { PROOF_HEADER } from "../cluster/proof.ts";
import type { ActOutcome } from "../cluster/cluster.ts";
import type { ActionRequest } from "../order/actions.ts";
import { CatalogueError } from "../order/errors.ts";
import { RESULT_CHARS_MAX } from "../order/result.ts";
import { ForwardedAction, GivenOrders, JoinRequest, named, problemResponses } from "./schemas.ts";

export interface ProofCheck {
  /** Whether a node of this cluster has signed the request for this node as it is now. */
  readonly isProven: (path: string, body: string, proof: string) => boolean;
}

export interface ClusterResource extends ProofCheck {
  readonly serviceId: string;
  readonly version: string;
  readonly joinAnswer: () => JoinAnswer;
  /** Does what another node was asked of an order that is this one's. */
  readonly actHere: (orderId: string, request: ActionRequest) => Promise<ActOutcome>;
  /** How many more the node may be given; null: it takes none. */
  readonly adopt: (orderIds: readonly string[]) => number | null;
}

/** What nodes say to each other has a limit of its own, whatever that of orders is: 1,000 ids take 39 KB. */
export const NODE_BODY_BYTES_MAX = 64 * 1024;

/** An action may bring a result. */
export const ACTION_BODY_BYTES_MAX = NODE_BODY_BYTES_MAX + 3 * RESULT_CHARS_MAX;

/** @throws CatalogueError when the request does not carry a valid proof */
export function requireProof(request: FastifyRequest, isProven: ProofCheck["isProven"]): void {
  const proof = request.headers[PROOF_HEADER];
  if (typeof proof === "string" && isProven(request.url, request.bodyText, proof)) return;
  throw new CatalogueError(
    "membership_unproven",
    "Only nodes of this cluster may ask that, and they sign what they ask.",
  );
}

export function clusterRoutes(
  app: FastifyInstance,
  { serviceId, version, joinAnswer, actHere, adopt, isProven }: ClusterResource,
): void {
  app.route<{ Body: JoinRequest }>({
    method: "POST",
    url: "/cluster/join",
    bodyLimit: NODE_BODY_BYTES_MAX,
    config: { forNodes: true },
    schema: {
      operationId: "joinCluster",
      summary: "Where the cluster's store is, for a node that wants to join (`--join`)",
      security: [],
      body: JoinRequest,
      response: {
        200: JoinAnswer,
        ...problemResponses(
          "body_not_json",
          "body_not_object",
          "request_invalid",
          "version_incompatible",
          "body_too_large",
          "media_type_unsupported",
          "headers_too_large",
        ),
      },
    },
    handler: (request) => {
      if (request.body.protocol !== PROTOCOL) {
        throw new CatalogueError(
          "version_incompatible",
          `version ${request.body.version.slice(0, 40)} (protocol ${request.body.protocol}) and this node's, ${version} (protocol ${PROTOCOL}), can't work in one cluster; run the same version`,
        );
      }
      return joinAnswer();
    },
  });

  app.route<{ Body: { order_id: string; request: ActionRequest } }>({
    method: "POST",
    url: "/cluster/actions",
    bodyLimit: ACTION_BODY_BYTES_MAX,
    config: { forNodes: true },
    schema: {
      operationId: "forwardAction",
      summary: "What another node was asked of an order of this one's; only nodes ask that",
      security: [],
      body: ForwardedAction,
      response: {
        200: { description: "How it ended.", type: "object", additionalProperties: true },
        ...problemResponses(
          "body_not_json",
          "body_not_object",
          "request_invalid",
          "membership_unproven",
          "body_too_large",
          "media_type_unsupported",
          "headers_too_large",
          "store_unavailable",
        ),
      },
    },
    handler: (request) => {
      requireProof(request, isProven);
      return actHere(request.body.order_id, request.body.request);
    },
  });

  app.route<{ Body: GivenOrders }>({
    method: "POST",
    url: "/cluster/orders",
    bodyLimit: NODE_BODY_BYTES_MAX,
    config: { forNodes: true },
    schema: {
      operationId: "giveOrders",
      summary: "Orders that another node gave to this one; only nodes ask that",
      security: [],
      body: GivenOrders,
      response: {
        202: named("GivenOrdersAnswer", "The node goes on with them."),
        ...problemResponses(
          "body_not_json",
          "body_not_object",
          "request_invalid",
          "membership_unproven",
          "shutting_down",
          "body_too_large",
          "media_type_unsupported",
          "headers_too_large",
        ),
      },
    },
    handler: (request, reply) => {
      requireProof(request, isProven);
      const room = adopt(request.body.order_ids);
      if (room === null) {
        throw new CatalogueError(
          "shutting_down",
          "This node is leaving its cluster, or joining it; give them to another.",
        );
      }
      return reply.code(202).send({ service_id: serviceId, room });
    },
  });
}
