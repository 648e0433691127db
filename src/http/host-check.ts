/**
 * Which Host a request may name. A browser lets a web page talk to the host that the page came from; whoever owns that host's name can let it
 * lead to this node (DNS rebinding), and the page may then send any `Authorization`. The name gives it away: a request must name one of the
 * node's own hosts, or an IP address, which nobody can let lead elsewhere.
 */
import type { IncomingMessage } from "node:http";
import { isIPv4, isIPv6 } from "node:net";
import { domainToASCII } from "node:url";
import { HEADERS_MAX, hasTooManyHeaders } from "./request-head.ts";
import { CatalogueError } from "../order/errors.ts";

/** Whether a host, as `hostOf` gives it, may be named. */
export type HostRule = (host: string) => boolean;

/** What an orchestrator's probes ask for; nothing there tells anything, and they name whatever they know the node by. */
const EXEMPT_PATHS = "/health/";

/** A host in a refusal is shown up to here. */
const SHOWN_CHARS_MAX = 100;

/** Letters, digits and what else names have in practice (RFC 3986, reg-name, without escapes and delimiters). */
const NAME = /^[\w.~-]*$/;

/** A host and a port, which may be empty, as a Host header has them. */
const AUTHORITY = /^(\[[^\]]*\]|[^[\]:]*)(?::\d*)?$/;

/** The last Host header that was looked at: most requests have the same. */
let last: { readonly authority: string; readonly host: string | null } = { authority: "", host: "" };

/**
 * The host in a Host header: in lower case, without port and final dot; an IPv6 address without brackets.
 * @returns null: it isn't of that form
 */
export function hostOf(authority: string): string | null {
  if (authority !== last.authority) last = { authority, host: readHost(authority) };
  return last.host;
}

function readHost(authority: string): string | null {
  const host = AUTHORITY.exec(authority)?.[1];
  if (host === undefined) return null;
  if (host.startsWith("[")) {
    const address = host.slice(1, -1);
    // A zone is this host's own matter, and is not sent (RFC 6874, 4).
    return isIPv6(address) && !address.includes("%") ? address.toLowerCase() : null;
  }
  return NAME.test(host) ? host.toLowerCase().replace(/\.$/, "") : null;
}

/**
 * A name as `--allowed-hosts` takes it: `orders.example.org`, or `.example.org` for that and all below it.
 * @returns null: it is none
 */
export function allowedHost(text: string): string | null {
  // What is no part of a name would be cut off below.
  if (!/^[\p{L}\p{M}\p{N}._-]+$/u.test(text)) return null;
  const isDomain = text.startsWith(".");
  const name = domainToASCII(isDomain ? text.slice(1) : text);
  const host = name === "" ? null : hostOf(name);
  return host === null || host === "" ? null : `${isDomain ? "." : ""}${host}`;
}

/**
 * The rule of a node.
 * @param ownHosts where it listens, and what the others are told
 * @param allowed as `allowedHost` gives them
 */
export function hostRule(ownHosts: readonly string[], allowed: Iterable<string>): HostRule {
  const names = new Set(["localhost", ...ownHosts.map((host) => host.toLowerCase().replace(/\.$/, ""))]);
  const domains = [".localhost"];
  for (const name of allowed) {
    if (name.startsWith(".")) domains.push(name);
    names.add(name.replace(/^\./, ""));
  }
  return (host) =>
    host !== "" && (names.has(host) || isIPv4(host) || isIPv6(host) || domains.some((domain) => host.endsWith(domain)));
}

/**
 * Why a request is refused for the hosts and users that it names; null: it isn't.
 * @param rawHeaders as Node has them: names and values in turn. It drops what comes twice from the parsed ones
 */
export function refusalOf(
  { url, httpVersion, rawHeaders }: Pick<IncomingMessage, "httpVersion" | "rawHeaders"> & { readonly url: string },
  isAllowed: HostRule,
): CatalogueError | null {
  let host: string | undefined;
  let users = 0;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? "";
    if (name.length === HOST.length && name.toLowerCase() === HOST) {
      if (host !== undefined) return twice("Host");
      host = rawHeaders[at + 1] ?? "";
    } else if (name.length === AUTHORIZATION.length && name.toLowerCase() === AUTHORIZATION && ++users > 1) {
      return twice("Authorization");
    }
  }
  if (host === undefined && httpVersion === "1.1") {
    return new CatalogueError("request_invalid", "An HTTP/1.1 request needs a Host header.");
  }
  const target = url.startsWith("/") ? undefined : /^\w[\w+.-]*:\/\/([^/?#]*)/.exec(url)?.[1];
  for (const authority of [host, target]) {
    if (authority === undefined) continue;
    const named = hostOf(authority);
    if (named === null) return new CatalogueError("request_invalid", "The request's Host is not a valid one.");
    if (!isAllowed(named) && !url.startsWith(EXEMPT_PATHS)) return notAllowed(named);
  }
  return null;
}

const HOST = "host";
const AUTHORIZATION = "authorization";

function tooManyHeaders(): CatalogueError {
  return new CatalogueError("headers_too_large", `The request has more than ${HEADERS_MAX} headers.`);
}

function twice(name: string): CatalogueError {
  return new CatalogueError("request_invalid", `The header ${name} is there twice; send one.`);
}

function notAllowed(host: string): CatalogueError {
  const shown = host.slice(0, SHOWN_CHARS_MAX);
  return new CatalogueError(
    "host_not_allowed",
    `This node does not go by the name "${shown}". Use localhost, its IP address or the name that it tells other nodes; or start it with --allowed-hosts ${shown === "" ? "NAME" : shown}.`,
  );
}

/** Why a request is refused for its head: it names another host than the node's, a host or user twice, or has too much; null: it isn't. */
export function headRefusal(request: IncomingMessage, isAllowed: HostRule): CatalogueError | null {
  if (hasTooManyHeaders(request)) return tooManyHeaders();
  const { url = "", httpVersion, rawHeaders } = request;
  return refusalOf({ url, httpVersion, rawHeaders }, isAllowed);
}
