/** What a node asks of other nodes, over HTTP. */
import { connect } from "node:net";
import type { ActionRequest } from "../order/actions.ts";
import { ERRORS } from "../order/errors.ts";
import type { Incarnation } from "../order/events.ts";
import type { Clock } from "../runtime/clock.ts";
import type { ActOutcome } from "./cluster.ts";
import { type ForwardedAction, parseActionAnswer, parseOrdersTransferred, parseRoom } from "./messages.ts";
import { parseAnswer, postText, type TextAnswer } from "./post-json.ts";
import { ANSWER_PROOF_HEADER, isSameSignature, PROOF_HEADER, showProof, signAnswer, signRequest } from "./proof.ts";
import { showSaid } from "./said.ts";

/** A node to ask. */
export interface Peer {
  readonly incarnation: Incarnation;
  readonly url: string;
}

export interface PeersOptions {
  /** The cluster's. */
  readonly secret: string;
  /** Who asks; null: this node has no incarnation at the moment, and asks nobody. */
  readonly sender: () => Incarnation | null;
  /** How long an answer may take. */
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** A node that stops has its grace time only, and other nodes to ask. */
const GIVE_MS_MAX = 1_000;

/**
 * A node did not do what it was asked, or did not prove that it did. The message is this node's own: nothing of what came as an answer is
 * in it, but for codes of the catalogue.
 */
export class PeerError extends Error {
  override readonly name = "PeerError";
  /** Nothing listened at the node's address: it has certainly not done what it was to be asked. */
  readonly isUnsent: boolean;

  constructor(message: string, isUnsent = false) {
    super(message);
    this.isUnsent = isUnsent;
  }
}

export class Peers {
  readonly #options: PeersOptions;
  /** Of requests to whichever node: only grows, for as long as the process lives. */
  #counter = 0;

  constructor(options: PeersOptions) {
    this.#options = options;
  }

  /**
   * Has a node take over orders of a dead incarnation.
   * @returns how many it took
   * @throws PeerError when it did not answer, or refused
   */
  async transfer(
    peer: Peer,
    request: { readonly serviceId: string; readonly incarnation: Incarnation; readonly ordersMax: number },
  ): Promise<number> {
    const content = {
      service_id: request.serviceId,
      incarnation: request.incarnation,
      orders_max: request.ordersMax,
    };
    const orders = await this.#ask(peer, "/service/transfer", content, parseOrdersTransferred);
    if (orders > request.ordersMax) {
      throw new PeerError(`it says that it took ${orders} orders, and was asked to take ${request.ordersMax} at most`);
    }
    return orders;
  }

  /**
   * Tells a node that orders are its own now.
   * @returns how many more it may be given
   * @throws PeerError when it did not answer, or refused
   */
  give(peer: Peer, orderIds: readonly string[]): Promise<number> {
    const timeoutMs = Math.min(this.#options.timeoutMs, GIVE_MS_MAX);
    return this.#ask(peer, "/cluster/orders", { order_ids: orderIds }, parseRoom, timeoutMs);
  }

  /**
   * Has a node do what somebody asks of an order that it owns.
   * @throws PeerError when it did not answer: it may have done it
   */
  async act(peer: Peer, orderId: string, request: ActionRequest): Promise<ActOutcome> {
    const content: ForwardedAction = { order_id: orderId, request };
    const outcome = await this.#ask(peer, "/cluster/actions", content, parseActionAnswer);
    return outcome.kind === "done" ? outcome : { ...outcome, reason: showSaid(outcome.reason) };
  }

  async #ask<T>(
    peer: Peer,
    path: string,
    content: object,
    parse: (answer: unknown) => T | null,
    timeoutMs = this.#options.timeoutMs,
  ): Promise<T> {
    const { status, text } = await this.#post(peer, path, JSON.stringify(content), timeoutMs);
    const answer = parseAnswer(text);
    if (status < 200 || status > 299) throw new PeerError(`it answered ${status}${codeIn(answer)}`);
    const parsed = parse(answer);
    if (parsed === null) throw new PeerError(`it answered ${status} with something else than was asked for`);
    return parsed;
  }

  /** @throws PeerError when there is no answer in time, or one that the node can't have given to this request */
  async #post({ incarnation: target, url }: Peer, path: string, body: string, timeoutMs: number): Promise<TextAnswer> {
    const { secret, sender: senderNow, clock } = this.#options;
    const sender = senderNow();
    if (sender === null) throw new PeerError("this node is joining its cluster or leaving it");
    const address = URL.parse(path, url);
    if (address === null) throw new PeerError("its address is none");
    const request = { method: "POST", path, body, sender, target, counter: ++this.#counter };
    const signature = signRequest(secret, request);
    const headers = { authorization: "cluster", [PROOF_HEADER]: showProof({ ...request, signature }) };
    const answer = await postText(address, body, { headers, timeoutMs, clock }).catch((error: unknown) => {
      const isRefused = error instanceof Error && "code" in error && error.code === "ECONNREFUSED";
      throw new PeerError(`it gave no answer (${error instanceof Error ? error.message : String(error)})`, isRefused);
    });
    const given = answer.headers[ANSWER_PROOF_HEADER];
    const due = signAnswer(secret, signature, { status: answer.status, body: answer.text });
    if (typeof given === "string" && isSameSignature(due, given)) return answer;
    throw new PeerError(`it answered ${answer.status} without a proof that the answer is its own`);
  }
}

/** The code of a problem that a node has answered, if the catalogue has it. */
function codeIn(answer: unknown): string {
  if (typeof answer !== "object" || answer === null || !("code" in answer)) return "";
  const { code } = answer;
  return typeof code === "string" && Object.hasOwn(ERRORS, code) ? ` (${code})` : "";
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
