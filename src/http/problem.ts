/** Errors as RFC 9457 problem responses. */
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";
import { CatalogueError, catalogueEntry, type ErrorCode, type ErrorDetail } from "../order/errors.ts";
import type { Logger } from "../log.ts";
import { StoreUnavailableError } from "../store/store.ts";
import { type Problem, PROBLEM_MEDIA_TYPE } from "./schemas.ts";
import { SECURITY_HEADERS } from "./security-headers.ts";

/** The problem that a code and a sentence about this occurrence make. */
export function problemOf(code: ErrorCode, detail: string): Problem {
  const { status, title } = catalogueEntry(code);
  return { type: `urn:order-process:error:${code}`, title, status, detail, code };
}

/** Headers beside the media type: what every answer has, when to come back, and how to authorize. */
export function problemHeaders(code: ErrorCode): Record<string, string> {
  const { retryAfterS } = catalogueEntry(code);
  return {
    ...SECURITY_HEADERS,
    ...(retryAfterS === undefined ? {} : { "retry-after": String(retryAfterS) }),
    ...(code === "authorization_required" ? { "www-authenticate": 'User realm="order_process"' } : {}),
  };
}

export function sendProblem(
  reply: FastifyReply,
  code: ErrorCode,
  detail: string,
  errors: readonly ErrorDetail[] = [],
): FastifyReply {
  const problem: Problem = { ...problemOf(code, detail), ...(errors.length === 0 ? {} : { errors }) };
  return reply.code(problem.status).headers(problemHeaders(code)).type(PROBLEM_MEDIA_TYPE).send(problem);
}

/** Fastify's own errors that a caller can cause; any other of its errors below 500 is an invalid request. */
const FASTIFY_CODES: Readonly<Record<string, ErrorCode>> = {
  FST_ERR_CTP_INVALID_MEDIA_TYPE: "media_type_unsupported",
  FST_ERR_CTP_EMPTY_JSON_BODY: "body_not_json",
  FST_ERR_NOT_FOUND: "route_not_found",
};

/** Answers every error that a handler, a hook, a parser or a schema has thrown. */
export function errorHandler(
  log: Logger,
): (error: FastifyError, request: FastifyRequest, reply: FastifyReply) => FastifyReply {
  return (error, request, reply) => {
    if (error instanceof CatalogueError) {
      // Fastify would close the connection when a body is refused, and a client that is still sending would miss the answer; Node reads
      // on instead, until the time for the request is over.
      if (error.code === "body_too_large" || error.code === "too_many_in_flight") reply.removeHeader("connection");
      return sendProblem(reply, error.code, error.message, error.errors);
    }
    if (error instanceof StoreUnavailableError) {
      // Why is for operators: it may tell where the store is, and anybody can call himself a user.
      log.debug(`${request.method} ${request.routeOptions.url ?? "?"} failed: ${error.message}`);
      return sendProblem(
        reply,
        "store_unavailable",
        "The store can't be asked now, or this node is starting; ask again.",
      );
    }
    if (error.validation !== undefined) return sendProblem(reply, "request_invalid", invalidOf(error));
    const code = FASTIFY_CODES[error.code];
    if (code !== undefined) return sendProblem(reply, code, error.message);
    if (error.statusCode !== undefined && error.statusCode < 500)
      return sendProblem(reply, "request_invalid", error.message);
    log.error({ err: error }, `${request.method} ${request.routeOptions.url ?? "?"} failed`);
    return sendProblem(reply, "internal_error", "The request failed for a reason that is in the service's log.");
  };
}

/** What a schema has found wrong first, with the name of what is meant. */
function invalidOf({ validation, validationContext, message }: FastifyError): string {
  const [first] = validation ?? [];
  if (first === undefined) return `${message}.`;
  const kind = validationContext === "querystring" ? "query parameter" : "property";
  const path = first.instancePath.split("/").slice(1).join(".");
  const named = (name: unknown): string => `${kind} "${path === "" ? "" : `${path}.`}${String(name)}"`;
  switch (first.keyword) {
    case "additionalProperties":
      return `There is no ${named(first.params["additionalProperty"])} here.`;
    case "required":
      return `The ${named(first.params["missingProperty"])} is missing.`;
    case "enum":
      return `The ${kind} "${path}" must be one of ${(first.params["allowedValues"] as unknown[]).join(", ")}.`;
    default:
      return path === "" ? `${message}.` : `The ${kind} "${path}" ${first.message ?? "is not valid"}.`;
  }
}
