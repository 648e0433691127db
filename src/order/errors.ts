/**
 * The catalogue of everything that a caller can get wrong or have to wait for. One table: the HTTP answers, the OpenAPI
 * document and docs/errors.md all come from it or are tested against it.
 */

interface CatalogueEntry {
  /** HTTP status of the answer. */
  readonly status: number;
  /** The same for every occurrence (RFC 9457 `title`). */
  readonly title: string;
  /** Present: the same request may succeed after that many seconds (`Retry-After`). */
  readonly retryAfterS?: number;
}

export const ERRORS = {
  body_not_json: { status: 400, title: "The body is not JSON" },
  body_not_object: { status: 400, title: "The body is not a JSON object" },
  body_too_deep: { status: 400, title: "The body is nested too deeply" },
  body_key_refused: { status: 400, title: "The body has a key that is refused" },
  request_invalid: { status: 400, title: "The request is not valid" },
  authorization_required: { status: 401, title: "Authorization is required" },
  membership_unproven: { status: 403, title: "The request does not prove that it comes from a node of the cluster" },
  pipeline_not_found: { status: 404, title: "No such pipeline" },
  order_not_found: { status: 404, title: "No such order" },
  service_not_found: { status: 404, title: "No such service" },
  route_not_found: { status: 404, title: "No such resource" },
  method_not_allowed: { status: 405, title: "The resource does not have this method" },
  request_timeout: { status: 408, title: "The request took too long to arrive" },
  action_not_allowed: { status: 409, title: "The order's state does not allow the action" },
  service_alive: { status: 409, title: "The service is alive" },
  version_incompatible: { status: 409, title: "The versions can't work in one cluster" },
  events_gone: { status: 410, title: "The events that followed are no longer kept" },
  body_too_large: { status: 413, title: "The body is too large" },
  media_type_unsupported: { status: 415, title: "The content type is not supported" },
  host_not_allowed: { status: 421, title: "The request is for another host" },
  body_refused: { status: 422, title: "The pipeline refuses the body" },
  idempotency_key_reused: { status: 422, title: "The Idempotency-Key was used with another body" },
  headers_too_large: { status: 431, title: "The request's headers are too large" },
  internal_error: { status: 500, title: "The service failed" },
  too_many_watchers: { status: 503, title: "Too many follow the events", retryAfterS: 5 },
  too_many_reads: { status: 503, title: "Too many orders are asked for", retryAfterS: 1 },
  too_many_in_flight: { status: 503, title: "Too many orders are in flight", retryAfterS: 1 },
  store_unavailable: { status: 503, title: "The store is not available", retryAfterS: 1 },
  pipeline_not_loaded: { status: 503, title: "The order's pipeline is not loaded", retryAfterS: 5 },
  shutting_down: { status: 503, title: "The service is shutting down", retryAfterS: 5 },
} as const satisfies Record<string, CatalogueEntry>;

export type ErrorCode = keyof typeof ERRORS;

/** What the catalogue says about a code. */
export function catalogueEntry(code: ErrorCode): CatalogueEntry {
  return ERRORS[code];
}

/** An error of the catalogue. `message` says what, where and what to do; it is shown to the caller. */
export class CatalogueError extends Error {
  override readonly name = "CatalogueError";
  readonly code: ErrorCode;
  /** Each thing that is wrong, where several are. */
  readonly errors: readonly ErrorDetail[];

  constructor(code: ErrorCode, message: string, errors: readonly ErrorDetail[] = []) {
    super(message);
    this.code = code;
    this.errors = errors;
  }
}

/** One thing that is wrong, in the form of RFC 9457's example. */
export interface ErrorDetail {
  readonly detail: string;
  /** Where in the body, as a JSON Pointer (RFC 6901) in a fragment. */
  readonly pointer: string;
}

/** The node can't start, or go on, and a person can mend that: shown as one line on stderr, exit code 1. */
export class StartError extends Error {
  override readonly name = "StartError";
}
