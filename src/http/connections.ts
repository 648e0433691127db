/**
 * What connections may do before anything is known of who is behind them: how much of what they have sent is in memory, how many requests of
 * theirs are under way, when they get their turn (turns.ts).
 *
 * Node gives its parser all that has come (64 KiB, more than 2,000 requests), starts each request of it, and keeps the answers until the
 * client takes them. Here the parser is given the bytes in pieces, each with the end of one request's head at most, and the next one only
 * when the former request's answer has been taken. (docs/decisions/0009)
 *
 * 1. A connection has one request under way at most.
 * 2. While it has one, or nothing can be given to the parser, it is not read, but for what Node reads ahead. That counts, too.
 * 3. A client that does not take an answer is cut in the end, and so is one that stays after it was told that the connection ends.
 * 4. Clients are cut for what they keep open, and not for what the node has not come to yet: where that is much, turns are longer, and a body
 *    goes to its request, where it is counted, but for its end.
 */
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { Budget, type Holding } from "./budget.ts";
import { HEADERS_MAX, trimHead } from "./request-head.ts";
import {
  AT_START,
  noteHead,
  type ParserPosition,
  takeBodyWithoutEnd,
  takePiece,
  withoutEmptyLines,
} from "./request-pieces.ts";
import { type Kind, Turns } from "./turns.ts";

export interface ConnectionLimits {
  /** Connections at once. */
  readonly connectionsMax: number;
  /** Bytes that were received and are in no body: heads, while their requests live, and what was sent ahead. */
  readonly receivedBytesMax: number;
  /** How long a client may take for an answer. */
  readonly answerTimeoutMs: number;
  /** Told of all bytes that have come, whatever becomes of them. */
  readonly onReceived: (bytes: number) => void;
}

/** How requests begin that wait for no others where many wait: health checks, and what nodes say to each other. They are small, or bounded. */
const CHECKS = ["GET /diagnostic/", "HEAD /diagnostic/", "GET /health/", "HEAD /health/"].map((start) =>
  Buffer.from(start),
);
const NODES = ["POST /cluster/", "POST /service/"].map((start) => Buffer.from(start));

/** So many pieces of a connection are given to the parser in its turn: a head, a body, and the beginning of a next head. */
const PIECES_MAX = 3;

/** Less is not worth a copy: a connection costs more. */
const SLACK_BYTES_MAX = 1_024;

const SWEEP_MS = 1_000;

/** How long a client has to close a connection that the server has closed. */
const LINGER_MS = 5_000;

interface Connection extends ParserPosition {
  readonly socket: Socket;
  readonly place: Holding;
  readonly received: Holding;
  /** Node's own listeners: give bytes to the parser, and the end of what the client sends. */
  readonly parse: (bytes: Buffer) => void;
  readonly finish: () => void;
  /** Received, and not given to the parser yet. */
  waiting: Buffer | null;
  /** What the head of the last request keeps in memory, where that is much. */
  requestChars: number;
  /** The last request that was begun, until it is answered and has come whole: its body may still come after the answer. */
  request: IncomingMessage | null;
  /** While it is under way: from its head until its answer has been taken, or the connection is gone. */
  answer: ServerResponse | null;
  /** The client sends no more (FIN), though what it sent before may still wait. */
  left: boolean;
  /** All that it sent has been read, too: to be passed on. */
  ended: boolean;
  paused: boolean;
  /** It waits for its turn. */
  queuedAs: Kind | null;
  /** What it holds while it waits for the node alone: not for its own former request. */
  queuedBytes: number;
  /** What Node wanted to do while the connection waited for a turn. */
  readLater: (() => void) | null;
  /** When it was first seen that the client does not take what is sent, or does not close. */
  stuckSinceMs: number | null;
}

export class Connections {
  /** One each, held by the address. */
  readonly places: Budget;
  readonly received: Budget;
  readonly #answerTimeoutMs: number;
  readonly #onReceived: (bytes: number) => void;
  readonly #all = new Map<Socket, Connection>();
  readonly #turns = new Turns<Connection | (() => void)>(
    (next) => {
      if (typeof next === "function") return next();
      this.#leftQueue(next);
      this.#serve(next);
    },
    () => this.#queuedBytes > this.received.max / 2,
  );
  /** What those hold that wait for the node alone. */
  #queuedBytes = 0;

  /** Takes over from Node how the connections of a server are read. To be made before it listens. */
  constructor(server: Server, options: ConnectionLimits) {
    const { connectionsMax, receivedBytesMax, answerTimeoutMs, onReceived } = options;
    this.places = new Budget({ max: connectionsMax, keepMs: 0, keepOwnMs: 0 });
    this.received = new Budget({ max: receivedBytesMax, keepMs: 0, keepOwnMs: 0 });
    this.#answerTimeoutMs = answerTimeoutMs;
    this.#onReceived = onReceived;
    const [accept, ...others] = server.listeners("connection");
    if (accept === undefined || others.length > 0) throw new Error("the server does not take connections as expected");
    server.maxHeadersCount = HEADERS_MAX + 1; // one more tells that there are too many
    server.removeAllListeners("connection");
    server.on("connection", (socket: Socket) => {
      this.#add(socket, () => {
        Reflect.apply(accept, server, [socket]);
      });
    });
    server.prependListener("request", (request, response) => this.#begin(request, response));
    // An expectation that isn't known may be ignored (RFC 9110, 10.1.1). Node would answer it itself, without a request.
    // One listener in all: each makes a request of its own.
    server.on("checkExpectation", (request, response) => server.emit("request", request, response));
    const sweep = setInterval(() => this.#sweep(), SWEEP_MS);
    sweep.unref();
    server.once("close", () => clearInterval(sweep));
  }

  /**
   * Whether the request that the parser is at has been answered, or is being answered, before it has come whole: whatever comes of it, nobody
   * waits for another answer.
   */
  isAnswered(socket: Socket): boolean {
    const connection = this.#all.get(socket);
    if (connection?.request?.complete !== false) return false;
    return connection.answer === null || connection.answer.headersSent;
  }

  /** Resolves when it is the turn of something that takes a millisecond, like a large answer: a request of its own may be served before. */
  turnForLarge(): Promise<void> {
    return new Promise((resolve) => this.#turns.add(resolve, "large"));
  }

  #add(socket: Socket, accept: () => void): void {
    this.#turns.accepted();
    const place = this.places.open(addressOf(socket), () => this.#giveUp(socket));
    if (!place.set(1)) {
      socket.destroy();
      return;
    }
    const received = this.received.open(addressOf(socket), () => this.#giveUpReceived(socket));
    const had = new Set([...socket.listeners("data"), ...socket.listeners("end")]);
    accept();
    const connection: Connection = {
      socket,
      place,
      received,
      parse: takeListener(socket, "data", had),
      finish: takeListener(socket, "end", had),
      waiting: null,
      ...AT_START,
      requestChars: 0,
      request: null,
      answer: null,
      left: false,
      ended: false,
      paused: false,
      queuedAs: null,
      queuedBytes: 0,
      readLater: null,
      stuckSinceMs: null,
    };
    this.#all.set(socket, connection);
    this.#boundReadAhead(connection);
    socket.on("data", (bytes: Buffer) => this.#take(connection, bytes));
    socket.on("end", () => {
      connection.ended = true;
      this.#settle(connection);
    });
    // Node reads on when a request wants more of its body; what is sent ahead is to wait all the same.
    socket.on("resume", () => {
      if (connection.paused) socket.pause();
    });
    socket.once("close", () => {
      place.close();
      received.close();
      connection.waiting = null;
      if (connection.queuedAs !== null) this.#turns.delete(connection, connection.queuedAs);
      this.#leftQueue(connection);
      this.#all.delete(socket);
    });
  }

  /**
   * A stream that is paused is filled all the same, up to its limit (64 KiB) and one read more. So it is seen that a client is gone. While a
   * connection waits for a turn, that can wait, too: nothing more is read.
   */
  #boundReadAhead(connection: Connection): void {
    const { socket } = connection;
    const push = socket.push.bind(socket);
    const read = socket._read.bind(socket);
    socket.push = (bytes, encoding) => {
      if (bytes !== null && socket.readableFlowing === true && socket.readableLength === 0) {
        // The stream's buffer and events lead to the same place, and take longer.
        this.#take(connection, bytes as Buffer);
        if (connection.queuedAs !== null) connection.readLater ??= () => read(0); // as Node reads no more after this
        return connection.queuedAs === null;
      }
      const hasRoom = push(bytes, encoding);
      if (bytes === null) {
        connection.left = true;
        this.#endFollowing(connection);
      } else if (socket.isPaused()) this.#settle(connection);
      return hasRoom && connection.queuedAs === null;
    };
    socket._read = (size) => {
      if (connection.queuedAs === null) read(size);
      else connection.readLater = () => read(size);
    };
  }

  /** Only a connection on which the service owes nothing gives way: none whose request has come whole, and is being worked at. */
  #giveUp(socket: Socket): boolean {
    const connection = this.#all.get(socket);
    const owes =
      connection?.answer != null && connection.request?.complete === true && !connection.answer.writableEnded;
    return !owes && destroyed(socket);
  }

  /** What waits for the node alone does not give way: that would be its own fault. Nor does a head whose request is being worked at. */
  #giveUpReceived(socket: Socket): boolean {
    const connection = this.#all.get(socket);
    const queuedAs = connection?.queuedAs ?? "ahead";
    const isHeadAlone = connection !== undefined && connection.waiting === null && socket.readableLength === 0;
    return queuedAs === "ahead" && !(isHeadAlone && isOwed(connection)) && destroyed(socket);
  }

  #take(connection: Connection, bytes: Buffer): void {
    this.#onReceived(bytes.length);
    if (connection.left && isFollowing(connection)) return; // nobody waits for an answer to it
    if (connection.socket.writableEnded) return this.#enqueue(connection, "bodies"); // it is let go, and may have no end
    connection.waiting = connection.waiting === null ? bytes : Buffer.concat([connection.waiting, bytes]);
    if (connection.queuedAs === null && this.#turns.mayServe()) return this.#serve(connection);
    this.#giveBody(connection);
    const { waiting, answer, request } = connection;
    // A body that is taken in is read on, up to its limit (intake.ts: those of POST). One that is let go may have no end: each read waits.
    const isTakenIn = request?.method === "POST" && answer?.headersSent === false;
    if (waiting === null && isTakenIn) return this.#settle(connection);
    this.#enqueue(connection, waiting === null ? "fresh" : kindOf(waiting));
  }

  /** Gives a request what has come of its body, but for its end: with that the work begins, and it waits for a turn. */
  #giveBody(connection: Connection): void {
    const { waiting } = connection;
    const length = waiting === null ? 0 : takeBodyWithoutEnd(connection, waiting);
    if (waiting === null || length === 0) return;
    connection.waiting = length === waiting.length ? null : waiting.subarray(length);
    connection.parse(length === waiting.length ? waiting : waiting.subarray(0, length));
  }

  #enqueue(connection: Connection, kind: Kind): void {
    if (connection.queuedAs === null) {
      connection.queuedAs = connection.request?.complete === false ? "bodies" : kind;
      this.#turns.add(connection, connection.queuedAs);
    }
    this.#settle(connection);
  }

  #leftQueue(connection: Connection): void {
    connection.queuedAs = null;
    this.#queuedBytes -= connection.queuedBytes;
    connection.queuedBytes = 0;
  }

  /** Gives the parser what it may have. */
  #serve(connection: Connection): void {
    for (let pieces = 0; connection.waiting !== null && mayParse(connection); pieces++) {
      if (pieces === PIECES_MAX) return this.#enqueue(connection, "ahead");
      const waiting = withoutEmptyLines(connection, connection.waiting);
      connection.waiting = waiting;
      if (waiting === null) break;
      const length = takePiece(connection, waiting);
      const piece = length === waiting.length ? waiting : waiting.subarray(0, length);
      connection.waiting = length === waiting.length ? null : waiting.subarray(length);
      connection.parse(piece);
      if (connection.answer === null && connection.request?.complete === true) forgetRequest(connection);
    }
    this.#settle(connection);
  }

  /** After anything has changed: reads on or not, holds what is held, and passes on that the client has ended. */
  #settle(connection: Connection): void {
    const { socket, headBytes, requestChars, received, ended } = connection;
    if (socket.destroyed) return;
    if (socket.writableEnded) connection.waiting = null; // it was told that the connection ends
    if (connection.waiting !== null) connection.waiting = withoutSlack(connection.waiting);
    const { waiting } = connection;
    const bytes = headBytes + requestChars + (waiting?.length ?? 0) + socket.readableLength;
    if (!received.set(bytes)) {
      socket.destroy();
      return;
    }
    if (connection.queuedAs !== null && connection.queuedAs !== "ahead") {
      this.#queuedBytes += bytes - connection.queuedBytes;
      connection.queuedBytes = bytes;
    }
    // While it waits for its turn it is not read anyway; but what its stream holds would come.
    if (waiting !== null && !connection.paused && (connection.queuedAs === null || socket.readableLength > 0)) {
      connection.paused = true;
      socket.pause();
    } else if (waiting === null && connection.paused) {
      connection.paused = false;
      socket.resume();
    }
    if (connection.queuedAs === null) readNow(connection);
    if (!ended || waiting !== null || isOwed(connection)) return;
    connection.ended = false; // it is passed on once
    connection.finish();
  }

  /** Who follows events and leaves is answered nothing more: what was sent behind does not keep the stream open. */
  #endFollowing(connection: Connection): void {
    if (!connection.left || !isFollowing(connection)) return;
    connection.waiting = null;
    this.#settle(connection);
  }

  #begin(request: IncomingMessage, response: ServerResponse): void {
    const connection = this.#all.get(request.socket);
    if (connection === undefined) return;
    const length = request.headers["content-length"];
    const isChunked = request.headers["transfer-encoding"] !== undefined;
    connection.request = request;
    connection.answer = response;
    connection.requestChars = trimHead(request);
    noteHead(connection, isChunked ? "chunks" : { bytes: Number(length ?? 0) });
    // `once` would take longer than this look.
    response.on("close", () => {
      if (connection.answer !== response) return;
      connection.answer = null;
      connection.stuckSinceMs = null;
      const { requestChars, headBytes, waiting, ended } = connection;
      const isOver = request.complete && connection.request === request;
      if (isOver) forgetRequest(connection);
      if (waiting !== null) this.#enqueue(connection, "ahead");
      else if (ended || (isOver && requestChars + headBytes > 0)) this.#settle(connection);
    });
  }

  #sweep(): void {
    const nowMs = performance.now();
    for (const connection of this.#all.values()) {
      const { socket, answer } = connection;
      this.#endFollowing(connection); // it may have left before the stream had begun
      const isLeaving = answer === null && socket.writableEnded;
      if (!isLeaving && answer?.writableEnded !== true) continue;
      connection.stuckSinceMs ??= nowMs;
      const limitMs = isLeaving ? LINGER_MS : this.#answerTimeoutMs;
      if (nowMs - connection.stuckSinceMs > limitMs) socket.destroy();
    }
  }
}

/** It is answered, and has come whole. */
function forgetRequest(connection: Connection): void {
  connection.request = null;
  connection.requestChars = 0;
  connection.headBytes = 0; // what came behind its last chunk
}

/** Does what Node wanted to do while the connection was not to be read. */
function readNow(connection: Connection): void {
  const { readLater } = connection;
  connection.readLater = null;
  readLater?.();
}

/** Whether the parser may have more: while a request is under way, only its body. */
function mayParse({ socket, request, answer }: Connection): boolean {
  if (socket.destroyed || socket.writableEnded) return false;
  return answer === null || request?.complete === false;
}

function kindOf(waiting: Buffer): Kind {
  if (startsWithAny(waiting, CHECKS)) return "checks";
  return startsWithAny(waiting, NODES) ? "nodes" : "fresh";
}

function startsWithAny(bytes: Buffer, starts: readonly Buffer[]): boolean {
  return starts.some((start) => bytes.length >= start.length && bytes.subarray(0, start.length).equals(start));
}

/** Whether the client is owed an answer that it has all sent for, and that has not begun to go out. A client that follows events and leaves is owed none. */
function isOwed(connection: Connection): boolean {
  return connection.answer !== null && connection.request?.complete === true && !isFollowing(connection);
}

/** Whether the answer has begun and its end is still to come: only streams of events are sent so. */
function isFollowing({ request, answer }: Connection): boolean {
  return answer !== null && request?.complete === true && answer.headersSent && !answer.writableEnded;
}

/** Takes away the listener for an event that is not among those that were there before. */
function takeListener(socket: Socket, event: "data" | "end", had: ReadonlySet<unknown>): (...bytes: Buffer[]) => void {
  const [listener, ...others] = socket.listeners(event).filter((each) => !had.has(each));
  if (listener === undefined || others.length > 0) throw new Error("the server does not read connections as expected");
  socket.removeListener(event, listener);
  return (...bytes) => {
    Reflect.apply(listener, socket, bytes);
  };
}

/** What of a read is left keeps all of it in memory; where that is more than twice as much, it is copied. */
function withoutSlack(bytes: Buffer): Buffer {
  if (bytes.buffer.byteLength <= 2 * bytes.length + SLACK_BYTES_MAX) return bytes;
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  copy.set(bytes);
  return copy;
}

function destroyed(socket: Socket): true {
  socket.destroy();
  return true;
}

/** Where a connection comes from. An address of IPv6 stands for its network: who has one has them all. */
export function addressOf({ remoteAddress = "" }: Socket): string {
  if (!remoteAddress.includes(":") || remoteAddress.includes(".")) return remoteAddress;
  return remoteAddress.split("::")[0]?.split(":").slice(0, 4).join(":") ?? remoteAddress;
}
