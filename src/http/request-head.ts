/** What the head of a request keeps in memory while the request lives: what the service reads of it, and no more. */
import type { IncomingMessage } from "node:http";
import { PROOF_HEADER } from "../cluster/proof.ts";
import { isOwnHeader } from "./loopback.ts";

/** The headers that are read, by the service, Fastify or Node, once a request has begun. Of the others it counts that there is one. */
const READ: ReadonlySet<string> = new Set([
  "authorization",
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "expect",
  "host",
  "idempotency-key",
  "if-none-match",
  "last-event-id",
  PROOF_HEADER,
  "transfer-encoding",
]);

/** More are refused. Browsers and proxies send some thirty. */
export const HEADERS_MAX = 128;

/** Those that have more. Node 26 refuses them by itself; before, it dropped what was beyond. */
const crowded = new WeakSet<IncomingMessage>();

/** Whether a request has more than HEADERS_MAX. */
export function hasTooManyHeaders(request: IncomingMessage): boolean {
  return crowded.has(request);
}

/** That one is there twice is seen of two. */
const EACH_MAX = 2;

/** A head of no more stays as it is, like most. */
const SMALL_HEADERS = 24;
const SMALL_CHARS = 1_024;

/**
 * Drops the headers of a request that nobody reads, where they are many or long: Node keeps them as long as the request.
 * @returns how many characters of the head are kept, beyond those that cost no more than a connection does
 */
export function trimHead(request: IncomingMessage): number {
  const { rawHeaders, url = "" } = request;
  let chars = url.length + charsOf(rawHeaders);
  if (rawHeaders.length <= 2 * SMALL_HEADERS && chars <= SMALL_CHARS) return 0;
  if (rawHeaders.length > 2 * HEADERS_MAX) crowded.add(request);
  const kept: string[] = [];
  const times = new Map<string, number>();
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const [name = "", value = ""] = rawHeaders.slice(at, at + 2);
    const key = name.toLowerCase();
    const time = (times.get(key) ?? 0) + 1;
    if (!READ.has(key) || time > EACH_MAX) continue;
    times.set(key, time);
    kept.push(name, value);
  }
  const headers: IncomingMessage["headers"] = {};
  const others = Object.entries(request.headers).filter(([name, value]) => {
    if (READ.has(name)) headers[name] = value;
    return !READ.has(name);
  });
  // That it is there says it all (loopback.ts).
  const foreign = others.find(([name]) => !isOwnHeader(name));
  if (foreign !== undefined) headers[foreign[0]] = "";
  request.headers = headers;
  request.rawHeaders = kept;
  chars = url.length + charsOf(kept);
  return Math.max(0, chars - SMALL_CHARS);
}

function charsOf(texts: readonly string[]): number {
  let chars = 0;
  for (const text of texts) chars += text.length;
  return chars;
}
