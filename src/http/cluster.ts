/** `/cluster`: what a node asks of another one, to join it or as one of its cluster. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import type { ActOutcome } from "../cluster/cluster.ts";
import { JoinAnswer, type JoinCaller, PROTOCOL } from "../cluster/join.ts";
import { bringsJson, ForwardedAction, ForwardedActionAnswer, GivenOrders } from "../cluster/messages.ts";
import { ANSWER_PROOF_HEADER, PROOF_HEADER } from "../cluster/proof.ts";
import type { NodeRequest, SignAnswer } from "../cluster/request-gate.ts";
import type { ActionRequest } from "../order/actions.ts";
import { CatalogueError } from "../order/errors.ts";
import { RESULT_CHARS_MAX } from "../order/result.ts";
import { isLoopbackCaller } from "./loopback.ts";
import { JoinRequest, named, problemResponses } from "./schemas.ts";

/** Tells requests of nodes of this cluster from those of anybody else. */
export interface NodeGate {
  /** Checks a request's proof and uses it up; null: it proves nothing. What it returns signs the answer. */
  readonly admit: (request: NodeRequest) => SignAnswer | null;
}

export interface ClusterResource extends NodeGate {
  readonly serviceId: string;
  readonly version: string;
  readonly joinAnswer: (caller: JoinCaller) => JoinAnswer;
  /** Does what another node was asked of an order that is this one's. */
  readonly actHere: (orderId: string, request: ActionRequest) => Promise<ActOutcome>;
  /** How many more the node may be given; null: it takes none. */
  readonly adopt: (orderIds: readonly string[]) => number | null;
}

/** What nodes say to each other has a limit of its own, whatever that of orders is: 1,000 ids take 39 KB. */
export const NODE_BODY_BYTES_MAX = 64 * 1024;

/** An action may bring a result. */
export const ACTION_BODY_BYTES_MAX = NODE_BODY_BYTES_MAX + 3 * RESULT_CHARS_MAX;

/** What a route has that nodes ask. */
export interface NodeRoute {
  /** Check who asks once the body is there, before anything in it is looked at, and sign the answer. */
  readonly hooks: {
    readonly preValidation: (request: FastifyRequest) => Promise<void>;
    readonly onSend: (request: FastifyRequest, reply: FastifyReply, payload: unknown) => Promise<unknown>;
  };
  /** Whether a request is a node's. */
  readonly isNodes: (request: FastifyRequest) => boolean;
}

/**
 * Makes the hooks of such a route; the first one throws CatalogueError membership_unproven.
 * @param whoElse may ask it, without a proof
 */
export function nodeRoute({ admit }: NodeGate, whoElse: "nobody" | "people"): NodeRoute {
  const admitted = new WeakMap<FastifyRequest, SignAnswer>();
  const hooks: NodeRoute["hooks"] = {
    preValidation: async (request) => {
      const proof = request.headers[PROOF_HEADER];
      if (proof === undefined && whoElse === "people") return;
      const { method, url: path, bodyText: body } = request;
      const signAnswer = typeof proof === "string" ? admit({ method, path, body, proof }) : null;
      if (signAnswer === null) throw membershipUnproven();
      admitted.set(request, signAnswer);
    },
    onSend: async (request, reply, payload) => {
      const signAnswer = admitted.get(request);
      if (signAnswer !== undefined && typeof payload === "string") {
        reply.header(ANSWER_PROOF_HEADER, signAnswer({ status: reply.statusCode, body: payload }));
      }
      return payload;
    },
  };
  return { hooks, isNodes: (request) => admitted.has(request) };
}

/** What only nodes may ask, and the one who asks has not proven to be one. */
export function membershipUnproven(): CatalogueError {
  return new CatalogueError(
    "membership_unproven",
    "Only nodes of this cluster may ask that, and they sign what they ask, each time anew.",
  );
}

export function clusterRoutes(
  app: FastifyInstance,
  { serviceId, version, joinAnswer, actHere, adopt, admit }: ClusterResource,
): void {
  const { hooks } = nodeRoute({ admit }, "nobody");

  app.route<{ Body: JoinRequest }>({
    method: "POST",
    url: "/cluster/join",
    bodyLimit: NODE_BODY_BYTES_MAX,
    config: { forNodes: true },
    schema: {
      operationId: "joinCluster",
      summary: "What the cluster is, and on the same host where its store is, for a node that wants to join (`--join`)",
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
      return joinAnswer({ isLoopback: isLoopbackCaller(request), nonce: request.body.nonce ?? null });
    },
  });

  app.route<{ Body: ForwardedAction }>({
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
        200: { description: "How it ended.", ...ForwardedActionAnswer },
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
    ...hooks,
    handler: (request): Promise<ForwardedActionAnswer> => {
      const { order_id: orderId, request: action } = request.body;
      if (!bringsJson(action)) throw new CatalogueError("request_invalid", "The result is no JSON.");
      return actHere(orderId, action);
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
    ...hooks,
    handler: (request, reply) => {
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
