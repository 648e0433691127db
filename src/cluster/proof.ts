/**
 * How a node proves to another that it belongs to the cluster: it signs the request with the secret that only those who can read
 * the store know (cluster rule 9). The signature names the incarnation that it is meant for, so that it proves nothing to
 * whoever else may listen at that address by now.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { Incarnation } from "../order/order.ts";

/** The header that carries the proof. */
export const PROOF_HEADER = "order-process-proof";

export interface ProvenRequest {
  /** The path, from `/` on. */
  readonly path: string;
  readonly target: Incarnation;
  /** The request's body, as it is sent. */
  readonly body: string;
}

/** The proof for a request. */
export function proofFor(secret: string, { path, target, body }: ProvenRequest): string {
  return createHmac("sha256", secret)
    .update(JSON.stringify([path, target, body]))
    .digest("base64url");
}

/** Whether the proof is the request's own. */
export function isProven(secret: string, request: ProvenRequest, proof: string): boolean {
  const due = Buffer.from(proofFor(secret, request));
  const given = Buffer.from(proof);
  return due.length === given.length && timingSafeEqual(due, given);
}
