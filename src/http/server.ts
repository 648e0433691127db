/** The HTTP server: Fastify with the node's routes, limits on everything that comes in, and one way to answer errors. */
import { createServer, type Socket } from "node:net";
import swagger from "@fastify/swagger";
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Logger } from "../log.ts";
import { CatalogueError, type ErrorCode, StartError } from "../order/errors.ts";
import { type ActionsResource, actionsRoutes } from "./actions.ts";
import { type EventsResource, eventsRoutes } from "./events.ts";
import { type OrderListResource, orderListRoute } from "./order-list.ts";
import { parseJsonBody } from "./body.ts";
import { requireUser } from "./authorization.ts";
import { type Capacity, createCapacity } from "./capacity.ts";
import { type ClusterResource, clusterRoutes } from "./cluster.ts";
import { Connections } from "./connections.ts";
import { type DiagnosticResource, diagnosticRoutes } from "./diagnostic.ts";
import { documentationRoutes } from "./documentation.ts";
import { takeInBodies } from "./intake.ts";
import { HEADERS_MAX } from "./request-head.ts";
import { type OrdersResource, ordersRoutes, visibleOrders } from "./orders.ts";
import { headRefusal, type HostRule, hostRule } from "./host-check.ts";
import { errorHandler, problemHeaders, problemOf, sendProblem } from "./problem.ts";
import { boundAnswers } from "./unread-answers.ts";
import { boundReads, takeReadPlace } from "./store-reads.ts";
import { NAMED_SCHEMAS, PROBLEM_MEDIA_TYPE } from "./schemas.ts";
import { type ShownOrdersResource, shownOrders } from "./shown-orders.ts";
import { securityHeaders } from "./security-headers.ts";
import { type ServiceResource, serviceRoutes } from "./service.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** No body is as good as an empty object. */
    emptyBody?: boolean;
  }
  interface FastifyRequest {
    /** The user that the Authorization header names, on routes that need one. */
    user: string;
    /** The body as it came, when it is a JSON object. */
    bodyText: string;
  }
  interface FastifyInstance {
    /** What is held for clients at the moment. */
    capacity: Capacity;
  }
}

export interface HttpLimits {
  readonly bodyBytesMax: number;
  /** Bytes of all bodies that are being received or answered at once. */
  readonly incomingBytesMax: number;
  /** Bytes that were received and are part of no request yet. */
  readonly receivedBytesMax: number;
  /** Bytes of all answers and events that clients have not taken yet. */
  readonly outgoingBytesMax: number;
  /** How long a request's headers may take to arrive. */
  readonly headersTimeoutMs: number;
  /** How long a whole request may take to arrive. */
  readonly requestTimeoutMs: number;
  /** How long a connection may idle between requests. */
  readonly keepAliveTimeoutMs: number;
  /** How long a client may take for an answer. */
  readonly answerTimeoutMs: number;
  /** For one more, one is closed on which nothing is under way. */
  readonly connectionsMax: number;
}

export const DEFAULT_HTTP_LIMITS: HttpLimits = {
  bodyBytesMax: 256 * 1024,
  incomingBytesMax: 32 * 1024 * 1024,
  receivedBytesMax: 8 * 1024 * 1024,
  outgoingBytesMax: 16 * 1024 * 1024,
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  keepAliveTimeoutMs: 72_000, // longer than the usual 60 s of a load balancer, so that it is the one that closes
  answerTimeoutMs: 60_000,
  connectionsMax: 12_288, // each takes 6 to 8 KiB
};

export type HttpServerOptions = {
  readonly log: Logger;
  readonly limits: HttpLimits;
  /** Left out: loopback names and IP addresses. */
  readonly isAllowedHost?: HostRule;
  /** Told of all bytes that clients have sent, whatever becomes of them. */
  readonly onReceived?: (bytes: number) => void;
} & ShownOrdersResource &
  OrdersResource &
  OrderListResource &
  ActionsResource &
  EventsResource &
  ServiceResource &
  ClusterResource &
  DiagnosticResource;

/** How long requests may still take when the server closes: all that wait for an order have been answered by then. */
const CLOSE_MS = 1_000;

/** Connections that wait to be taken. */
const LISTEN_BACKLOG = 1024;

const EMPTY_BODY = Buffer.from("{}");

/** How often Node looks for connections that are over their time. */
const TIMEOUT_CHECK_MS = 1_000;

/** A path that leads nowhere is shown to who asked for it, up to here. */
const SHOWN_PATH_CHARS_MAX = 200;

/** Builds the server with its routes; `listen` starts it. */
export async function createHttpServer(options: HttpServerOptions): Promise<FastifyInstance> {
  const { log, limits, isAllowedHost = hostRule([], []), onReceived = () => undefined } = options;
  const app = Fastify({
    logger: false,
    bodyLimit: limits.bodyBytesMax,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.keepAliveTimeoutMs,
    forceCloseConnections: "idle",
    // What comes while the node stops is answered in our own words.
    return503OnClosing: false,
    // HTTP/1.1 without Host is refused below, in our own words.
    http: {
      headersTimeout: limits.headersTimeoutMs,
      connectionsCheckingInterval: TIMEOUT_CHECK_MS,
      requireHostHeader: false,
    },
    // No path is too long to be looked up, and not found; Node bounds it with the other headers.
    routerOptions: { maxParamLength: 16 * 1024 },
    // A request is taken as it is or refused; it isn't mended. That our schemas are schemas is not checked at each start: it takes long.
    ajv: { customOptions: { coerceTypes: false, removeAdditional: false, allErrors: false, validateSchema: false } },
    clientErrorHandler: (error, socket) => {
      if (connections.isAnswered(socket)) socket.end();
      else answerUnparsable(error, socket);
    },
    frameworkErrors: (_error, _request, reply) =>
      void sendProblem(reply, "request_invalid", "The path is not a valid one; check its percent signs."),
  });
  const connections = new Connections(app.server, { ...limits, onReceived });
  const capacity = createCapacity(connections, limits);
  app.decorate("capacity", capacity);

  app.decorateRequest("user", "");
  app.decorateRequest("bodyText", "");
  // Before a body is read. One hook for all: each takes its time of every request. The headers come first: refusals have them, too.
  app.addHook("onRequest", (request, reply, done) => {
    reply.headers(securityHeaders(request.url));
    const refusal = headRefusal(request.raw, isAllowedHost);
    if (refusal !== null) done(refusal);
    else if (request.is404) notFound(request, reply);
    else done();
  });
  takeInBodies(app, capacity);
  boundAnswers(app, capacity);
  app.addHook("preValidation", (request, _reply, done) => {
    if (request.method === "POST") takeJson(request);
    done();
  });
  app.setErrorHandler(errorHandler(log));
  const allowedMethods = collectMethods(app);
  const notFound = (request: FastifyRequest, reply: FastifyReply): FastifyReply => {
    const { method } = request;
    const [path = ""] = request.url.split("?");
    const allowed = allowedMethods(path);
    if (allowed.length === 0) {
      const shown = path.slice(0, SHOWN_PATH_CHARS_MAX);
      return sendProblem(reply, "route_not_found", `There is nothing at ${method} ${shown}; see /docs.`);
    }
    reply.header("allow", allowed.join(", "));
    return sendProblem(
      reply,
      "method_not_allowed",
      `${method} is not a method of this resource; it has ${allowed.join(", ")}.`,
    );
  };
  app.setNotFoundHandler(notFound);

  // Serializers made from the schemas would take a tenth of each start, drop what a schema forgot, and gain nothing with answers this small.
  app.setSerializerCompiler(() => (answer) => JSON.stringify(answer));
  for (const schema of NAMED_SCHEMAS) app.addSchema(schema);
  await app.register(swagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: "order_process",
        description: "Takes orders and carries each through a pipeline of steps, durably.",
        version: options.version,
        license: { name: "Apache-2.0", identifier: "Apache-2.0" },
      },
      servers: [{ url: "/" }],
      components: {
        securitySchemes: {
          user: { type: "apiKey", in: "header", name: "Authorization", description: "The user, as it is." },
        },
      },
    },
    refResolver: {
      buildLocalReference: (schema, _base, _fragment, index) =>
        typeof schema["$id"] === "string" ? schema["$id"] : `schema-${index}`,
    },
  });
  const resources = { ...options, ...boundReads(options) };
  const readVisible = visibleOrders(resources);
  const shown = shownOrders(resources);
  const findReader = [requireUser, takeReadPlace(capacity.reads)];
  ordersRoutes(app, { ...resources, findReader }, readVisible, shown);
  orderListRoute(app, { ...resources, findReader });
  actionsRoutes(app, { ...resources, findReader }, readVisible, shown);
  eventsRoutes(app, { ...resources, findReader }, readVisible, capacity);
  serviceRoutes(app, options);
  clusterRoutes(app, options);
  diagnosticRoutes(app, options);
  documentationRoutes(app, () => connections.turnForLarge());

  return app;
}

/** Stops listening, and cuts connections that are still open after a moment: one that sent half a request would hold it up. */
export async function closeServer(app: FastifyInstance): Promise<void> {
  const timer = setTimeout(() => app.server.closeAllConnections(), CLOSE_MS);
  await app.close();
  clearTimeout(timer);
}

/**
 * Starts listening.
 * @returns the address, as `http://host:port`
 * @throws StartError with one line
 */
export async function listen(app: FastifyInstance, host: string, port: number): Promise<string> {
  try {
    // Fastify would serve the second address of localhost by a server of its own, and past the bounds of this one.
    await app.listen({ host: host === "localhost" ? "127.0.0.1" : host, port, backlog: LISTEN_BACKLOG });
    if (host === "localhost") await listenAlsoAt("::1", app);
  } catch (error) {
    throw new StartError(`can't listen at ${host}:${port}: ${listenReason(error)}`, { cause: error });
  }
  const address = app.server.address();
  const boundPort = typeof address === "object" && address !== null ? address.port : port;
  return `http://${host.includes(":") ? `[${host}]` : host}:${boundPort}`;
}

/** Takes connections for the same server at another address of this host, where it has that. */
async function listenAlsoAt(host: string, { server }: FastifyInstance): Promise<void> {
  const address = server.address();
  if (typeof address !== "object" || address === null) return;
  const other = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => server.emit("connection", socket));
  const isListening = await new Promise<boolean>((resolve) => {
    other.once("listening", () => resolve(true)).once("error", () => resolve(false));
    other.listen({ host, port: address.port, backlog: LISTEN_BACKLOG });
  });
  if (isListening) server.once("close", () => other.close());
}

function listenReason(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  switch (code) {
    case "EADDRINUSE":
      return "the port is in use; stop what uses it or choose another with --port";
    case "EACCES":
      return "this user may not use that port; choose one from 1024 on with --port";
    case "EADDRNOTAVAIL":
    case "ENOTFOUND":
      return "this machine does not have that address; choose another with --host";
    default:
      return error instanceof Error ? error.message : String(error);
  }
}

/** JSON, or nothing said, or what curl says when nothing is said (the earlier system's documented calls): the body decides. */
const JSON_TYPE = /^(application\/([\w.+-]+\+)?json|application\/x-www-form-urlencoded)\s*(;|$)/i;

/** @throws CatalogueError as `parseJsonBody` does, and media_type_unsupported */
function takeJson(request: FastifyRequest): void {
  requireJsonType(request);
  const bytes = request.body instanceof Buffer ? request.body : Buffer.alloc(0);
  const isLeftOut = bytes.length === 0 && request.routeOptions.config.emptyBody === true;
  const { text, value } = parseJsonBody(isLeftOut ? EMPTY_BODY : bytes);
  request.bodyText = text;
  request.body = value;
}

function requireJsonType(request: FastifyRequest): void {
  const { "content-type": type, "content-encoding": encoding } = request.headers;
  if (encoding !== undefined && encoding !== "identity") {
    throw new CatalogueError("media_type_unsupported", "Send the body as it is, without Content-Encoding.");
  }
  if (type === undefined || type === "application/json" || JSON_TYPE.test(type)) return;
  throw new CatalogueError("media_type_unsupported", "Send the body as application/json.");
}

/** Remembers the methods of every route that is added from now on; the answer is by path, empty where there is nothing. */
function collectMethods(app: FastifyInstance): (path: string) => readonly string[] {
  const resources = new Map<string, { pattern: RegExp; methods: string[] }>();
  app.addHook("onRoute", ({ url, method, schema }) => {
    if (schema?.hide === true) return;
    const pattern = new RegExp(`^${url.replaceAll(/:\w+/g, "[^/]+")}$`);
    const resource = resources.get(url) ?? { pattern, methods: [] };
    resource.methods.push(...[method].flat());
    resources.set(url, resource);
  });
  return (path) => [...resources.values()].find(({ pattern }) => pattern.test(path))?.methods ?? [];
}

/** What Node's parser refuses before there is a request: answered on the bare socket. */
function answerUnparsable(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy();
    return;
  }
  const [code, detail] = unparsable(error);
  const problem = problemOf(code, detail);
  const body = JSON.stringify(problem);
  const headers = Object.entries({
    ...problemHeaders(code),
    "content-type": PROBLEM_MEDIA_TYPE,
    "content-length": String(Buffer.byteLength(body)),
    connection: "close",
  });
  const head = headers.map(([name, value]) => `${name}: ${value}`).join("\r\n");
  socket.end(`HTTP/1.1 ${problem.status} ${problem.title}\r\n${head}\r\n\r\n${body}`);
}

function unparsable(error: { code?: string }): [ErrorCode, string] {
  switch (error.code) {
    case "HPE_HEADER_OVERFLOW":
      return [
        "headers_too_large",
        `The request has more than ${HEADERS_MAX} headers, or they are larger than 16 KiB together.`,
      ];
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return ["request_timeout", "The request did not arrive whole in time."];
    default:
      return ["request_invalid", "The request is not valid HTTP/1.1."];
  }
}
