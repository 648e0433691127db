/** Who a request comes from. There are no passwords yet: the header names the user. */
import type { FastifyReply, FastifyRequest } from "fastify";
import { CatalogueError } from "../order/errors.ts";

/** Longer ones are a mistake: a user's name or token is meant, not a document. */
const USER_CHARS_MAX = 1_024;

/**
 * What stands before credentials in this header (IANA's registry of authentication schemes, and what clouds and APIs use beside it), and
 * hardly before a name. A name may begin with one: "basic-user", "Token.Ring".
 */
const CREDENTIALS =
  /^(?:Bearer|Basic(?:Auth)?|Digest|Negotiate|NTLM|Kerberos|OAuth2?|DPoP|GNAP|HOBA|Hawk|PrivateToken|SCRAM-SHA-\d+|(?:Access)?Token|JWT|(?:x[-_])?Api[-_ ]?Key|AWS|AWS4-[\w-]+|Shared(?:Access(?:Signature|Key)|Key(?:Lite)?)|vapid|SSWS|GoogleLogin|Zoho-oauthtoken|GenieKey|HMAC(?:-SHA-?\d+)?)(?![\p{L}\p{N}_.@+-])/iu;

/** As some put the header's name in once more, or a proxy two headers into one. */
const NAMED_OR_SECOND = /^(?:Proxy-)?Authorization\s*[:=]|[,;]\s*(?:Bearer\s|Basic\s+[\w+/-]{8,}={0,2}$)/i;

/** Any scheme with a parameter, or with what is long and no word (RFC 9110, 11.4). */
const SCHEME_AND_PARAMETER = /^[\w-]+\s+[\w-]+=["\w]/;
const SCHEME_AND_TOKEN = /^[\w-]+\s+(?=\S*\d)(?=\S*[a-z])(?=\S*[A-Z])[\w.~+/-]{20,}=*$/;

/** Quotes and brackets are put around it by mistake, and what nobody sees comes along when it is copied. */
const AROUND = /^[\s\p{C}"'`([{<,;:]+/u;

/** A JSON Web Token by itself: its header begins with `{"`. */
const WEB_TOKEN = /^eyJ[\w-]*\.[\w-]+\.[\w.-]*$/;

/** For the OpenAPI document: routes with this need a user. */
export const USER_SECURITY = [{ user: [] }];

/**
 * An onRequest hook that puts the user on the request, before its body is read.
 * @throws CatalogueError authorization_required, headers_too_large
 */
export function requireUser(request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void): void {
  const user = request.headers.authorization ?? "";
  if (user === "") {
    done(new CatalogueError("authorization_required", "Send the header Authorization: <user>."));
  } else if (isCredentials(user)) {
    done(
      new CatalogueError(
        "authorization_required",
        "The Authorization header holds credentials, and this service takes a user's name there, checks no credentials, and keeps what it is given with the order. Send Authorization: <user>; whatever checks credentials belongs before the service.",
      ),
    );
  } else if (user.length > USER_CHARS_MAX) {
    done(
      new CatalogueError("headers_too_large", `The Authorization header is longer than ${USER_CHARS_MAX} characters.`),
    );
  } else {
    request.user = user;
    done();
  }
}

/** What most are: a name or an id in one word. Nothing has to be taken off it. */
const PLAIN = /^\w[\w.@+-]*$/;

function isCredentials(user: string): boolean {
  if (PLAIN.test(user)) return CREDENTIALS.test(user) || WEB_TOKEN.test(user);
  // Node reads headers byte by byte.
  const text = Buffer.from(user, "latin1").toString().normalize("NFKC").replace(AROUND, "");
  return [CREDENTIALS, WEB_TOKEN, NAMED_OR_SECOND, SCHEME_AND_PARAMETER, SCHEME_AND_TOKEN].some((form) =>
    form.test(text),
  );
}
