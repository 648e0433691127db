/** Who a request comes from. There are no passwords yet: the header names the user. */
import type { FastifyReply, FastifyRequest } from "fastify";
import { CatalogueError } from "../order/errors.ts";

/** Longer ones are a mistake: a user's name or token is meant, not a document. */
const USER_CHARS_MAX = 1_024;

/** For the OpenAPI document: routes with this need a user. */
export const USER_SECURITY = [{ user: [] }];

/**
 * An onRequest hook that puts the user on the request, before its body is read.
 * @throws CatalogueError authorization_required, headers_too_large
 */
export function requireUser(request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void): void {
  const user = request.headers.authorization ?? "";
  request.user = user;
  if (user === "") {
    done(new CatalogueError("authorization_required", "Send the header Authorization: <user>."));
  } else if (user.length > USER_CHARS_MAX) {
    done(
      new CatalogueError("headers_too_large", `The Authorization header is longer than ${USER_CHARS_MAX} characters.`),
    );
  } else {
    done();
  }
}
