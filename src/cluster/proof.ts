/**
 * How nodes prove to each other that they belong to the cluster: they sign what they ask and what they answer with the secret that
 * only those who can read the store know (cluster rule 9). Pure; who may ask, and what was asked before, request-gate.ts decides.
 *
 * 1. A request's signature covers the method, the path, the body, the sender, the target and a number that the sender never uses
 *    twice. It proves nothing to another node, to a later start of this one, or for another request.
 * 2. An answer's signature covers the request's one. It proves nothing as the answer to another request.
 */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { Incarnation } from "../order/events.ts";

/** The header that carries a request's proof. */
export const PROOF_HEADER = "order-process-proof";

/** The header that carries an answer's signature. */
export const ANSWER_PROOF_HEADER = "order-process-answer-proof";

/** What a request's signature covers. */
export interface ProvenRequest {
  readonly method: string;
  /** The path, from `/` on, with the query. */
  readonly path: string;
  /** The body, as it is sent. */
  readonly body: string;
  readonly sender: Incarnation;
  readonly target: Incarnation;
  /** From 1; the sender never uses it twice, and counts up. */
  readonly counter: number;
}

/** A proof as it stands in the header. */
export interface ParsedProof extends Pick<ProvenRequest, "sender" | "target" | "counter"> {
  readonly signature: string;
}

/** An answer, as its signature covers it. */
export interface ProvenAnswer {
  readonly status: number;
  /** The body, as it is sent. */
  readonly body: string;
}

/** The signature of a request. */
export function signRequest(secret: string, request: ProvenRequest): string {
  const { method, path, body, sender, target, counter } = request;
  return sign(secret, ["request", method, path, sender, target, counter, body]);
}

/** The signature of the answer to a request that has this signature. */
export function signAnswer(secret: string, requestSignature: string, { status, body }: ProvenAnswer): string {
  return sign(secret, ["answer", requestSignature, status, body]);
}

/** A request's proof, as the header carries it. */
export function proofFor(secret: string, request: ProvenRequest): string {
  return showProof({ ...request, signature: signRequest(secret, request) });
}

/** A proof as the header carries it. */
export function showProof({ sender, target, counter, signature }: ParsedProof): string {
  return `${sender} ${target} ${counter} ${signature}`;
}

/** 15 digits are always a safe integer; 43 characters are the 32 bytes of a SHA-256. */
const PROOF = /^([1-9]\d{0,14}) ([1-9]\d{0,14}) ([1-9]\d{0,14}) ([\w-]{43})$/;

/** Reads a header; null: it has not the form of a proof. */
export function parseProof(text: string): ParsedProof | null {
  const [, sender, target, counter, signature] = PROOF.exec(text) ?? [];
  if (signature === undefined) return null;
  return { sender: Number(sender), target: Number(target), counter: Number(counter), signature };
}

/** Whether two signatures are the same; takes as long wherever they differ. */
export function isSameSignature(due: string, given: string): boolean {
  const [one, other] = [Buffer.from(due), Buffer.from(given)];
  return one.length === other.length && timingSafeEqual(one, other);
}

/** As JSON, so that no two lists of parts are signed alike. */
function sign(secret: string, parts: readonly (string | number)[]): string {
  return createHmac("sha256", secret).update(JSON.stringify(parts)).digest("base64url");
}
