/** Who runs on the node's own host, and is told where its store is. */
import { isIPv4 } from "node:net";
import type { FastifyRequest } from "fastify";

/** What a node sends that asks to join, and a person's tool. Proxies and browsers add other headers; there is no end of those. */
const OWN_HEADERS: ReadonlySet<string> = new Set([
  "accept",
  "accept-encoding",
  "authorization",
  "connection",
  "content-length",
  "content-type",
  "expect",
  "host",
  "transfer-encoding",
  "user-agent",
]);

/**
 * Whether a request was made on this host and for this host: its connection comes from a loopback address, it names one as its host, and
 * it has no header that whoever passes requests on may have added. What a header says of an address counts for nothing.
 *
 * Proxies that say nothing of themselves are found out by the host that they were asked for, or by HTTP/1.0. One that passes on bare TCP,
 * or asks for a loopback name in HTTP/1.1, is not: docs/operations.md tells what to do about it.
 */
export function isLoopbackCaller({ raw, headers }: Pick<FastifyRequest, "raw" | "headers">): boolean {
  if (!isLoopbackAddress(raw.socket.remoteAddress ?? "")) return false;
  // A whole address as the target is meant for a proxy.
  if (raw.httpVersion !== "1.1" || raw.url?.startsWith("/") !== true || !isLoopbackName(headers.host ?? ""))
    return false;
  return Object.keys(headers).every(isOwnHeader);
}

/** Whether a header, by its name in lower case, may be the caller's own. */
export function isOwnHeader(name: string): boolean {
  return OWN_HEADERS.has(name);
}

function isLoopbackAddress(address: string): boolean {
  const plain = address.replace(/^::ffff:/i, "");
  return plain === "::1" || (isIPv4(plain) && plain.startsWith("127."));
}

/** @param host as in the header, with a port or without */
function isLoopbackName(host: string): boolean {
  const name = URL.parse(`http://${host}`)?.hostname ?? "";
  return name === "localhost" || name.endsWith(".localhost") || isLoopbackAddress(name.replace(/^\[(.*)\]$/, "$1"));
}
