/** What strangers do to a node (strangers.ts): what each connection sends, how often, and what it makes of the answers. */

export interface Target {
  readonly port: number;
  /** One that is completed. */
  readonly orderId: string;
  /** One that waits for its time, and has a long history. */
  readonly waitingId: string;
}

export interface Shape {
  readonly connections: number;
  /** What each connection sends at once. */
  readonly send: (target: Target, index: number) => string;
  /** What it sends then, again and again. */
  readonly drip?: string;
  /** It takes what comes. */
  readonly reads?: boolean;
  /** It says that it sends no more. */
  readonly halfClosed?: boolean;
  /** It closes the connection as soon as it has sent that. */
  readonly leaves?: boolean;
  /** It closes the connection when it has got something. */
  readonly leavesAtAnswer?: boolean;
  /** It closes the connection after so many milliseconds. */
  readonly leavesAfterMs?: number;
  /** It sends the same again at each answer. */
  readonly repeats?: boolean;
  /** A new connection takes the place of one that is closed. */
  readonly again?: boolean;
}

const head = (method: string, path: string, headers = "Authorization: user\r\n"): string =>
  `${method} ${path} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`;
const posting = (bytes: number, path = "/orders", user = "user"): string =>
  head("POST", path, `Authorization: ${user}\r\nContent-Type: application/json\r\nContent-Length: ${bytes}\r\n`);
const chunked = head("POST", "/orders", "Authorization: user\r\nTransfer-Encoding: chunked\r\n");
/** As many headers as a request may have, and almost as much. */
const MANY =
  "Authorization: user\r\n" + Array.from({ length: 120 }, (_, at) => `x-${at}: ${"v".repeat(108)}\r\n`).join("");
const BODY = `{"a":"${"x".repeat(200_000)}"}`;

const TRANSFER = '{"service_id":"99dbdd70-f078-423c-8f2b-0c0d184a7716"}';

/** By name. */
export const SHAPES: Readonly<Record<string, Shape>> = {
  "nobody at all": { connections: 0, send: () => "" },
  "pipelined documents, unread": { connections: 60, send: () => head("GET", "/openapi.json").repeat(1_500) },
  "more of them": { connections: 1_000, send: () => head("GET", "/openapi.json").repeat(1_500) },
  "pipelined files, unread": {
    connections: 100,
    send: () => head("GET", "/docs/static/swagger-ui-bundle.js").repeat(900),
  },
  "one file each, unread": { connections: 2_000, send: () => head("GET", "/docs/static/swagger-ui-bundle.js") },
  "pipelined pages of orders, unread": { connections: 500, send: () => head("GET", "/orders?limit=200").repeat(300) },
  "pipelined pages of orders, read": {
    connections: 50,
    reads: true,
    send: () => head("GET", "/orders?limit=200").repeat(300),
  },
  "pipelined order": { connections: 200, send: ({ orderId }) => head("GET", `/orders/${orderId}`).repeat(1_500) },
  "pipelined 404s": { connections: 1_000, send: () => head("GET", "/nothing", "").repeat(2_000) },
  "pipelined 404s, read": { connections: 200, reads: true, send: () => head("GET", "/nothing", "").repeat(5_000) },
  "pipelined 400s": { connections: 1_000, reads: true, send: () => "GET / HTTP/1.1\r\n\r\n".repeat(3_000) },
  "pipelined garbage": { connections: 2_000, again: true, reads: true, send: () => "\0garbage\r\n\r\n".repeat(5_000) },
  "pipelined heartbeats, read": {
    connections: 200,
    reads: true,
    send: () => head("GET", "/diagnostic/heartbeat", "").repeat(5_000),
  },
  "pipelined orders that are refused": { connections: 500, send: () => (posting(5) + "wrong").repeat(500) },
  "pipelined bodies to nowhere": { connections: 300, send: () => (posting(BODY.length, "/nothing") + BODY).repeat(3) },
  "half-sent bodies to nowhere": {
    connections: 3_000,
    send: () => head("POST", "/nothing", "Content-Length: 200000\r\n"),
  },
  "half-sent bodies": { connections: 3_000, send: () => `${posting(200_000)}{` },
  "bodies to nowhere without end": {
    connections: 500,
    send: () => posting(1e12, "/nothing"),
    drip: "x".repeat(65_536),
  },
  "empty lines without end": {
    connections: 200,
    send: () => head("GET", "/nothing") + "\r\n".repeat(500_000),
    drip: "\r\n".repeat(500_000),
  },
  "bodies that nobody asked for": {
    connections: 3_000,
    send: ({ orderId }) =>
      head("GET", `/orders/${orderId}/events`, "Authorization: user\r\nContent-Length: 200000\r\n") + BODY,
  },
  "bodies all but the last byte": { connections: 2_000, send: () => posting(BODY.length) + BODY.slice(0, -1) },
  "the same of many users": {
    connections: 2_000,
    send: (_t, at) => posting(BODY.length, "/orders", `user${at}`) + BODY.slice(0, -1),
  },
  "the same to nodes": { connections: 2_000, send: () => posting(60_000, "/cluster/join") + BODY.slice(0, 59_000) },
  "bodies byte by byte": { connections: 3_000, send: () => posting(200_000), drip: "x" },
  "bodies in chunks, all but the last chunk": {
    connections: 2_000,
    send: () => `${chunked}${BODY.length.toString(16)}\r\n${BODY}\r\n`,
  },
  "bodies in chunks, one after another": {
    connections: 400,
    repeats: true,
    send: () => `${chunked}4000\r\n${" ".repeat(16_384)}\r\n0\r\n\r\n`,
  },
  "bodies, one after another": {
    connections: 400,
    repeats: true,
    send: () => posting(16_384) + " ".repeat(16_384),
  },
  "fewer bodies, one after another": {
    connections: 200,
    repeats: true,
    send: () => posting(16_384) + " ".repeat(16_384),
  },
  "large bodies, one after another": {
    connections: 200,
    repeats: true,
    send: () => posting(200_000) + " ".repeat(200_000),
  },
  "tiny chunks": { connections: 200, send: () => chunked + "1\r\nx\r\n".repeat(200_000) },
  "chunks of ends": { connections: 200, send: () => chunked + "4\r\n\r\n\r\n\r\n".repeat(50_000) },
  "chunk extensions": { connections: 500, send: () => `${chunked}1;${"x".repeat(15_000)}`, drip: "y".repeat(100) },
  "half-sent heads": { connections: 8_000, send: () => `GET / HTTP/1.1\r\n${"a: b\r\n".repeat(2_600)}` },
  "heads line by line": { connections: 5_000, send: () => "GET / HTTP/1.1\r\n", drip: "a: b\r\n" },
  "heads too large": { connections: 1_000, again: true, send: () => `GET / HTTP/1.1\r\n${"a: b\r\n".repeat(8_000)}` },
  "large heads, half-sent bodies": {
    connections: 6_000,
    send: () => head("POST", "/orders", `${MANY}Content-Length: 200000\r\n`) + "{",
  },
  "large heads, a file each, unread": {
    connections: 3_000,
    send: () => head("GET", "/docs/static/swagger-ui-bundle.js", MANY),
  },
  "large heads, streams of one order": {
    connections: 6_000,
    send: ({ orderId }) => head("GET", `/orders/${orderId}/events`, MANY),
  },
  "half-sent trailers": { connections: 6_000, send: () => `${chunked}1\r\nx\r\n0\r\n${"a: b\r\n".repeat(2_600)}` },
  "pages of orders for who has left": {
    connections: 200,
    again: true,
    leaves: true,
    send: () => head("GET", "/orders?limit=200"),
  },
  nothing: { connections: 16_000, send: () => "" },
  "kept alive": { connections: 12_000, reads: true, send: () => head("GET", "/diagnostic/heartbeat", "") },
  "come and go": {
    connections: 500,
    again: true,
    reads: true,
    send: () => head("GET", "/nothing", "Connection: close\r\n"),
  },
  "half-closed": { connections: 3_000, halfClosed: true, send: () => head("GET", "/openapi.json").repeat(100) },
  "streams of one order": { connections: 12_000, send: ({ orderId }) => head("GET", `/orders/${orderId}/events`) },
  "streams of a waiting order": {
    connections: 9_000,
    send: ({ waitingId }) => head("GET", `/orders/${waitingId}/events`),
  },
  "streams of a waiting order that come and go": {
    connections: 200,
    again: true,
    leavesAtAnswer: true,
    send: ({ waitingId }) => head("GET", `/orders/${waitingId}/events`),
  },
  "streams from the beginning, read": {
    connections: 100,
    reads: true,
    send: () => head("GET", "/events", "Authorization: user\r\nLast-Event-ID: 0\r\n"),
  },
  "streams from the beginning that come and go": {
    connections: 90,
    again: true,
    leavesAtAnswer: true,
    send: () => head("GET", "/events", "Authorization: user\r\nLast-Event-ID: 0\r\n"),
  },
  "heartbeats, one after another": {
    connections: 8_000,
    repeats: true,
    send: () => head("GET", "/diagnostic/heartbeat", ""),
  },
  "transfers, one after another": {
    connections: 8_000,
    repeats: true,
    send: () => posting(TRANSFER.length, "/service/transfer") + TRANSFER,
  },
  "orders that are asked for one after another": {
    connections: 8_000,
    repeats: true,
    send: ({ orderId }) => head("GET", `/orders/${orderId}`),
  },
  "files for who leaves before they come": {
    connections: 1_000,
    again: true,
    leavesAfterMs: 30,
    send: () => head("GET", "/docs/static/swagger-ui-bundle.js"),
  },
  "streams of all orders, by many users": {
    connections: 5_000,
    send: (_t, at) => head("GET", "/events", `Authorization: u${at}\r\n`),
  },
  "streams from the beginning": {
    connections: 500,
    send: () => head("GET", "/events", "Authorization: user\r\nLast-Event-ID: 0\r\n"),
  },
  "expect 100-continue": {
    connections: 3_000,
    send: () => head("POST", "/orders", "Authorization: user\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n"),
  },
  "expectations, pipelined": {
    connections: 300,
    send: () => head("GET", "/openapi.json", "Expect: miracles\r\n").repeat(1_000),
  },
  upgrades: {
    connections: 500,
    send: () => head("GET", "/openapi.json", "Connection: Upgrade\r\nUpgrade: websocket\r\n").repeat(1_000),
  },
  connect: { connections: 1_000, again: true, send: () => head("CONNECT", "localhost:80", "") },
  "trace and others": {
    connections: 300,
    send: () => (head("TRACE", "/orders") + head("OPTIONS", "*") + head("HEAD", "/openapi.json")).repeat(500),
  },
  "absolute-form": { connections: 300, send: () => head("GET", "http://localhost/openapi.json").repeat(1_000) },
};
