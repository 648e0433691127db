/**
 * What a request without an answer means. Its words are ours: what Node and its libraries say names hosts, addresses and values of
 * headers, which may be the environment's.
 */
import { closeSync, openSync } from "node:fs";
import { isShortage, StepError } from "../order/step-error.ts";
import type { NoAnswerError } from "./http-request.ts";

/** By the error's code. Others are told by that alone. */
const REASONS: Readonly<Record<string, string>> = {
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection was reset",
  EPIPE: "the connection was closed",
  ENOTFOUND: "the host's name is not known",
  EAI_AGAIN: "the host's name can't be looked up now",
  EHOSTUNREACH: "the host can't be reached",
  ENETUNREACH: "the network can't be reached",
  ETIMEDOUT: "the connection timed out",
  EMFILE: "this process has too many open files",
  ENFILE: "this machine has too many open files",
  EADDRNOTAVAIL: "this machine has no port or address left for it",
  ENOBUFS: "this machine has no memory left for it",
  ENOMEM: "this machine has no memory left for it",
  UND_ERR_CONNECT_TIMEOUT: "no connection was made in time",
  UND_ERR_SOCKET: "the connection was closed",
  UND_ERR_INVALID_ARG: "its method or a header can't be sent",
  DEPTH_ZERO_SELF_SIGNED_CERT: "the certificate is signed by itself",
  SELF_SIGNED_CERT_IN_CHAIN: "the certificate is of an authority that is not known",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "the certificate is of an authority that is not known",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "the certificate is of an authority that is not known",
  CERT_HAS_EXPIRED: "the certificate has expired",
  CERT_NOT_YET_VALID: "the certificate is not valid yet",
  ERR_TLS_CERT_ALTNAME_INVALID: "the certificate is for another name",
  ERR_SSL_WRONG_VERSION_NUMBER: "what listens there does not speak TLS",
  ERR_SSL_PACKET_LENGTH_TOO_LONG: "what listens there does not speak TLS",
};

/** @param label names the call */
export function connectionFailure(label: string, { cause, begun }: NoAnswerError, signal: AbortSignal): StepError {
  if (signal.aborted) return new StepError(`${label} failed: ${reasonOf(signal.reason)}`, { unknown: begun });
  const code = codeOf(cause);
  return new StepError(`${label} failed: ${describe(code)}`, {
    // Another attempt would be refused by the same library.
    permanent: code === "UND_ERR_INVALID_ARG",
    unknown: begun,
    shortage: !begun && (isShortage(cause) || isHiddenShortage(code)),
  });
}

/** Why an answer broke off. */
export function breakReason(error: unknown, signal: AbortSignal): string {
  return signal.aborted ? reasonOf(signal.reason) : describe(codeOf(error));
}

/** What the engine says of a call that it gives up: that is ours. */
function reasonOf(reason: unknown): string {
  return reason instanceof Error ? reason.message || reason.name : String(reason);
}

function describe(code: string | null): string {
  if (code === null) return "the connection failed";
  const reason = REASONS[code];
  return reason === undefined ? code : `${reason} (${code})`;
}

function codeOf(error: unknown): string | null {
  if (!(error instanceof Error)) return null;
  const code: unknown = "code" in error ? error.code : null;
  if (typeof code === "string" && /^[A-Z][A-Z0-9_]*$/.test(code)) return code;
  // Of an address with several, connecting to all has failed.
  return error instanceof AggregateError ? codeOf(error.errors[0]) : codeOf(error.cause);
}

/** Looking up a name takes files and sockets, too: without them it says that there is no such name. */
function isHiddenShortage(code: string | null): boolean {
  if (code !== "ENOTFOUND" && code !== "EAI_AGAIN") return false;
  try {
    closeSync(openSync("/dev/null", "r"));
    return false;
  } catch (error) {
    return isShortage(error);
  }
}
