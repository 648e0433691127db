/**
 * Lets in what nodes of the cluster ask of this one: each request once, and only from a node that is alive. No wall clock takes part.
 *
 * Owns the counters that each sender has used up towards the present incarnation.
 *
 * 1. A request is let in once at most. A window of counters is given up only when its sender is never let in again.
 * 2. A sender is let in while its row is alive; or while it is newer than all rows seen so far, as one that has just joined.
 * 3. A later incarnation of this node begins with no counters used: what was signed for the former one is no proof for it.
 */
import type { Incarnation } from "../order/events.ts";
import type { NodeRow } from "../store/cluster-store.ts";
import { isSameSignature, parseProof, type ProvenAnswer, signAnswer, signRequest } from "./proof.ts";
import { ReplayWindow } from "./replay-window.ts";

/** A request as it came in. */
export interface NodeRequest {
  readonly method: string;
  readonly path: string;
  readonly body: string;
  /** As in the header. */
  readonly proof: string;
}

/** Signs the answer to a request that was let in. */
export type SignAnswer = (answer: ProvenAnswer) => string;

/** Senders that no row has shown yet: as many nodes don't join between two looks at the rows (a twentieth of the TTL). */
const NEW_SENDERS_MAX = 64;

export class RequestGate {
  readonly #secret: string;
  /** Whom the windows are for. */
  #target: Incarnation | null = null;
  #windows = new Map<Incarnation, ReplayWindow>();
  /** The newest incarnation that a row has shown. */
  #newestSeen: Incarnation = 0;

  /** @param secret the cluster's */
  constructor(secret: string) {
    this.#secret = secret;
  }

  /**
   * Checks a request, and uses its proof up.
   * @param target the present incarnation
   * @param rows the nodes, as of the last look at them
   * @returns what signs the answer; null: it is no node's of this cluster, or it was let in before
   */
  admit(request: NodeRequest, target: Incarnation, rows: readonly NodeRow[]): SignAnswer | null {
    const proof = parseProof(request.proof);
    if (proof === null || proof.target !== target || proof.sender === target) return null;
    const signature = signRequest(this.#secret, { ...proof, ...request });
    if (!isSameSignature(signature, proof.signature)) return null;
    this.#forgetOthers(target, rows);
    if (this.#windowOf(proof.sender, rows)?.admit(proof.counter) !== true) return null;
    return (answer) => signAnswer(this.#secret, signature, answer);
  }

  #windowOf(sender: Incarnation, rows: readonly NodeRow[]): ReplayWindow | null {
    const known = this.#windows.get(sender);
    if (known !== undefined) return known;
    if (sender <= this.#newestSeen && !isAlive(sender, rows)) return null;
    const newSenders = Array.from(this.#windows.keys()).filter((other) => other > this.#newestSeen);
    if (sender > this.#newestSeen && newSenders.length >= NEW_SENDERS_MAX) return null;
    const window = new ReplayWindow();
    this.#windows.set(sender, window);
    return window;
  }

  /** Gives up the windows of those that are alive no longer, and all that were for a former incarnation. */
  #forgetOthers(target: Incarnation, rows: readonly NodeRow[]): void {
    if (this.#target !== target) {
      this.#target = target;
      this.#windows = new Map();
    }
    for (const { incarnation } of rows) this.#newestSeen = Math.max(this.#newestSeen, incarnation);
    for (const sender of this.#windows.keys()) {
      if (sender <= this.#newestSeen && !isAlive(sender, rows)) this.#windows.delete(sender);
    }
  }
}

function isAlive(sender: Incarnation, rows: readonly NodeRow[]): boolean {
  return rows.some(({ incarnation, alive }) => alive && incarnation === sender);
}
