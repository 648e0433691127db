/** What can go wrong with Redis, in an operator's words. */
import { ErrorReply } from "@redis/client";
import { STORE_GONE } from "./scripts.ts";

/** The connection was lost, was not there, or gave no answer: what was sent may have been carried out or not. */
export class RedisConnectionError extends Error {
  override readonly name = "RedisConnectionError";
}

/** Redis's errors by their first word, with what to do. They may pass. */
const PASSING: Readonly<Record<string, string>> = {
  OOM: "Redis's memory is full and nothing was written; raise maxmemory, or free some memory",
  READONLY:
    "Redis is a replica here, which can't be written; give the address of the primary, or wait for the failover",
  LOADING: "Redis is still loading its data; wait for it",
  MASTERDOWN: "Redis is a replica here whose primary is down; give the address of the primary",
  CLUSTERDOWN: "a part of the Redis Cluster is down; look at its servers",
  TRYAGAIN: "the Redis Cluster is moving these data to another server; wait until it is done",
  MOVED: "the Redis Cluster is moving these data to another server; wait until it is done",
  ASK: "the Redis Cluster is moving these data to another server; wait until it is done",
  CROSSSLOT: "Redis is a Redis Cluster now; restart this node",
  MISCONF: "Redis can't write to its disk; look at its log, and free some space",
  BUSY: "a script of another program keeps Redis busy; end it with SCRIPT KILL",
  NOREPLICAS: "Redis has fewer replicas than min-replicas-to-write demands; look at them",
  NOAUTH: "Redis wants a password; set ORDER_PROCESS_STORE_PASSWORD",
  WRONGPASS: "Redis refuses the user name or the password; correct them",
  NOPERM: "Redis's user may not do that; allow it with ACL SETUSER",
  DENIED: "Redis is in protected mode and accepts its own host only; set a password, or bind it to an address",
};

/** Those that don't pass: the process must stop. */
const FINAL: Readonly<Record<string, string>> = {
  [STORE_GONE]:
    "the store was emptied or replaced, or a part of it was lost; stop all nodes, see that maxmemory-policy is noeviction, and restore it from a backup",
  WRONGTYPE: "keys of the store are used by another program; choose another database",
};

/** The same, by how the message begins, for those that all begin with ERR. */
const PASSING_ERR: readonly (readonly [RegExp, string])[] = [
  [/^ERR max number of clients/, "Redis has as many connections as it allows; raise maxclients, or close some"],
  [
    /^ERR (DB index is out of range|invalid DB index)/,
    "Redis has no database of that number; choose another, or raise databases",
  ],
  [/^ERR SELECT is not allowed in cluster mode/, "a Redis Cluster has only database 0; leave the number away"],
  [
    /^ERR (AUTH <password> called without|Client sent AUTH, but no password)/,
    "Redis has no password set, and one was given; leave it away, or set it with requirepass",
  ],
  [/script killed by user/i, "somebody has ended a script with SCRIPT KILL; nothing of it was done"],
  [/ACL failure in script/i, "Redis's user may not do that; allow it with ACL SETUSER"],
  [/^ERR unknown command/, "Redis does not know a command that the store needs; use Redis 7 or later, or Valkey"],
];

/** Codes of Node's errors of connections. */
const SYSTEM: Readonly<Record<string, string>> = {
  ECONNREFUSED: "nothing listens there; start Redis, or correct the address",
  ENOTFOUND: "its host is not known; correct the address",
  EAI_AGAIN: "its host's name can't be looked up at the moment; look at the name service",
  EHOSTUNREACH: "its host can't be reached; look at the network",
  ENETUNREACH: "its host can't be reached; look at the network",
  ETIMEDOUT: "its host does not answer; look at the network",
  ECONNRESET: "it ended the connection; look at its log, and whether it wants TLS (rediss:)",
  EPIPE: "it ended the connection; look at its log, and whether it wants TLS (rediss:)",
};

/** One line that says why, with Redis's own words behind it. */
export function reasonOf(error: unknown): string {
  const message = firstLine(error instanceof Error ? error.message : String(error));
  if (error instanceof RedisConnectionError) return message;
  if (error instanceof ErrorReply) {
    const reason = passingReason(message) ?? FINAL[firstWord(message)] ?? null;
    return reason === null ? `Redis: ${message}` : `${reason} (Redis: ${message})`;
  }
  if (isStrangeAnswer(error)) return `another program than Redis listens there; correct the address (${message})`;
  const code = systemCode(error);
  const reason = code === null ? undefined : (SYSTEM[code] ?? (isCertificateCode(code) ? CERTIFICATE : undefined));
  return reason === undefined ? message : `${reason} (${message === "" ? code : message})`;
}

const CERTIFICATE = "its certificate is not trusted; name its authority with NODE_EXTRA_CA_CERTS";

/** Whether the error is one that may pass, however bad. Any other is a mistake of ours, or the end of the store. */
export function mayPass(error: unknown): boolean {
  if (error instanceof RedisConnectionError) return true;
  return error instanceof ErrorReply && passingReason(error.message) !== null;
}

/** Whether trying again soon can't help: somebody must change the address, the credentials or the server. */
export function isFinalRefusal(error: unknown): boolean {
  if (!(error instanceof ErrorReply)) return isStrangeAnswer(error) || isCertificateCode(systemCode(error) ?? "");
  return (
    !["LOADING", "BUSY", "MASTERDOWN", "CLUSTERDOWN"].includes(firstWord(error.message)) &&
    !/max number of clients/.test(error.message)
  );
}

function passingReason(message: string): string | null {
  const byWord = PASSING[firstWord(message)];
  if (byWord !== undefined) return byWord;
  return PASSING_ERR.find(([pattern]) => pattern.test(message))?.[1] ?? null;
}

/** What node-redis says of an answer that is not in Redis's protocol. */
function isStrangeAnswer(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith("Unknown RESP type");
}

/** OpenSSL's: CERT_HAS_EXPIRED, SELF_SIGNED_CERT_IN_CHAIN, UNABLE_TO_VERIFY_LEAF_SIGNATURE, and so on. */
function isCertificateCode(code: string): boolean {
  return /CERT|VERIFY/.test(code);
}

function firstWord(message: string): string {
  return message.split(" ", 1)[0] ?? "";
}

/** Several addresses of one name give one error with the several inside. */
function systemCode(error: unknown): string | null {
  if (error instanceof Error && "code" in error && typeof error.code === "string") return error.code;
  return error instanceof AggregateError ? systemCode(error.errors[0]) : null;
}

function firstLine(text: string): string {
  return text.split(/[\r\n]/, 1)[0] ?? "";
}
