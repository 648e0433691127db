/** Who runs on the node's own host, and is told where its store is. */
import { isIPv4 } from "node:net";
import type { FastifyRequest } from "fastify";

/** What proxies add to a request that they pass on, and browsers to one of a web page. Any of it: somebody else has asked. */
const FOREIGN_HEADERS = new Set([
  "forwarded",
  "via",
  "x-real-ip",
  "x-client-ip",
  "x-cluster-client-ip",
  "true-client-ip",
  "cf-connecting-ip",
  "fastly-client-ip",
  "fly-client-ip",
  "origin",
  "referer",
]);
const FOREIGN_PREFIXES = ["x-forwarded", "x-original-", "x-envoy-", "sec-fetch-"];

/**
 * Whether a request was made on this host and for this host: its connection comes from a loopback address, it names one as its host, and
 * nothing in it says that it was passed on. What a header says of an address counts for nothing.
 *
 * Proxies that say nothing of themselves are found out by the host that they were asked for, or by HTTP/1.0. One that passes on bare TCP,
 * or asks for a loopback name in HTTP/1.1, is not: docs/operations.md tells what to do about it.
 */
export function isLoopbackCaller({ raw, headers }: Pick<FastifyRequest, "raw" | "headers">): boolean {
  if (!isLoopbackAddress(raw.socket.remoteAddress ?? "")) return false;
  if (raw.httpVersion !== "1.1" || !isLoopbackName(headers.host ?? "")) return false;
  return !Object.keys(headers).some(isForeignHeader);
}

/** Whether a header, by its name in lower case, says that somebody else has asked. */
export function isForeignHeader(name: string): boolean {
  return FOREIGN_HEADERS.has(name) || FOREIGN_PREFIXES.some((prefix) => name.startsWith(prefix));
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
