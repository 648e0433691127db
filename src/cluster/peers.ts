/** What a node asks of other nodes, over HTTP. */
import { connect } from "node:net";
import type { ActionRequest } from "../order/actions.ts";
import type { Incarnation } from "../order/order.ts";
import type { Clock } from "../runtime/clock.ts";
import type { ActOutcome } from "./cluster.ts";
import { postJson } from "./post-json.ts";
import { PROOF_HEADER, proofFor } from "./proof.ts";

/** A node to ask. */
export interface Peer {
  readonly incarnation: Incarnation;
  readonly url: string;
}

export interface PeersOptions {
  readonly secret: string;
  /** How long an answer may take. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** A node that stops has its grace time only, and other nodes to ask. */
const GIVE_MS_MAX = 1_000;

export class Peers {
  readonly #secret: string;
  readonly #timeoutMs: number;
  readonly #clock: Clock;

  constructor({ secret, timeoutMs, clock }: PeersOptions) {
    this.#secret = secret;
    this.#timeoutMs = timeoutMs;
    this.#clock = clock;
  }

  /**
   * Has a node take over orders of a dead incarnation.
   * @returns how many it took
   * @throws Error when it did not answer, or refused
   */
  async transfer(
    peer: Peer,
    request: { readonly serviceId: string; readonly incarnation: Incarnation; readonly ordersMax: number },
  ): Promise<number> {
    const answer = await this.#post(peer, "/service/transfer", {
      service_id: request.serviceId,
      incarnation: request.incarnation,
      orders_max: request.ordersMax,
    });
    const { orders_transferred: orders } = answer as { orders_transferred?: unknown };
    if (typeof orders !== "number") throw new Error(`${peer.url} answered a transfer without a number of orders`);
    return orders;
  }

  /**
   * Tells a node that orders are its own now.
   * @returns how many more it may be given
   * @throws Error when it did not answer, or refused
   */
  async give(peer: Peer, orderIds: readonly string[]): Promise<number> {
    const timeoutMs = Math.min(this.#timeoutMs, GIVE_MS_MAX);
    const { room } = (await this.#post(peer, "/cluster/orders", { order_ids: orderIds }, timeoutMs)) as {
      room?: unknown;
    };
    if (typeof room !== "number") throw new Error(`${peer.url} did not say how many orders it takes`);
    return room;
  }

  /**
   * Has a node do what somebody asks of an order that it owns.
   * @throws Error when it did not answer: it may have done it
   */
  async act(peer: Peer, orderId: string, request: ActionRequest): Promise<ActOutcome> {
    return (await this.#post(peer, "/cluster/actions", { order_id: orderId, request })) as ActOutcome;
  }

  async #post(peer: Peer, path: string, content: object, timeoutMs = this.#timeoutMs): Promise<unknown> {
    const body = JSON.stringify(content);
    const proof = proofFor(this.#secret, { path, target: peer.incarnation, body });
    const headers = { authorization: "cluster", [PROOF_HEADER]: `${peer.incarnation} ${proof}` };
    const { status, answer } = await postJson(new URL(path, peer.url), body, {
      headers,
      timeoutMs,
      clock: this.#clock,
    });
    if (status < 200 || status > 299 || typeof answer !== "object" || answer === null) {
      throw new Error(`${peer.url}${path} answered ${status}: ${JSON.stringify(answer)}`);
    }
    return answer;
  }
}

/** Whether nothing listens at a node's address: its host answers, and refuses. Anything else, silence too, says nothing. */
export function refusesConnections(url: string, timeoutMs: number): Promise<boolean> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const socket = connect({ host: hostname.replace(/^\[|\]$/g, ""), port: Number(port || 80), timeout: timeoutMs });
    const answer = (refuses: boolean): void => {
      socket.destroy();
      resolve(refuses);
    };
    socket.on("connect", () => answer(false));
    socket.on("timeout", () => answer(false));
    socket.on("error", (error: Error & { code?: string }) => answer(error.code === "ECONNREFUSED"));
  });
}
