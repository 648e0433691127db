/** Headers that keep browsers from making more of an answer than it is. */
import type { FastifyInstance } from "fastify";

/** What every answer has; an event stream and what Node's parser refuses, too. */
export const SECURITY_HEADERS = Object.freeze({
  "x-content-type-options": "nosniff",
  // Nothing in an answer is to be shown, run or framed. The second doesn't follow from the first.
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "referrer-policy": "no-referrer",
  // An answer is a user's own, and true for a moment.
  "cache-control": "no-store",
});

/** The page under /docs runs scripts of its own from files, and changes styles from within them. It asks this node only. */
const PAGE_HEADERS = Object.freeze({
  ...SECURITY_HEADERS,
  "content-security-policy":
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; " +
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
});

const PAGE_PATH = "/docs";

/** Sets them on every answer of Fastify's. To be called before all that can refuse a request. */
export function addSecurityHeaders(app: FastifyInstance): void {
  app.addHook("onRequest", (request, reply, done) => {
    reply.headers(request.url.startsWith(PAGE_PATH) ? PAGE_HEADERS : SECURITY_HEADERS);
    done();
  });
}
