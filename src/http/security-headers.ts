/** Headers that keep browsers from making more of an answer than it is. */

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

/** The security headers of the answer to a request for this path. */
export function securityHeaders(path: string): Readonly<Record<string, string>> {
  return path.startsWith(PAGE_PATH) ? PAGE_HEADERS : SECURITY_HEADERS;
}
