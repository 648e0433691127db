/**
 * In what pieces Node's parser is given what has come on a connection: each holds the end of one request's head at most, so that the next
 * request begins when it may. Pure, but for the position that it keeps.
 */
import { ChunkedBody } from "./chunked-body.ts";

/** Where in what a client sends the parser is. */
export interface ParserPosition {
  /** The last request that was begun, until it is answered and has come whole: its body may still come after the answer. */
  request: { readonly complete: boolean } | null;
  /** What is to come of its body, where that is known. */
  bodyBytesLeft: number;
  /** Its body, where that comes in chunks, which say it themselves. */
  chunks: ChunkedBody | null;
  /** The last bytes that were given, where they may be the beginning of HEAD_END. */
  tail: Buffer;
  /** Bytes of an unfinished head that the parser has, or of what may come behind the last chunk of a body. */
  headBytes: number;
}

/** The end of a request's head. */
const HEAD_END = Buffer.from("\r\n\r\n");

/** As most write it. Whatever else may be said of the body, or twice, is for the parser to understand, or to refuse. */
const CONTENT_LENGTHS = ["\r\nContent-Length: ", "\r\ncontent-length: "].map((name) => Buffer.from(name));

/** Of a length that is looked at. */
const DIGITS_MAX = 9;
const ZERO = 0x30;
const NINE = 0x39;

/** A chunked body may be nothing but tiny chunks: others get their turn after so many. */
const CHUNKS_MAX = 100;

/** So many are given without a turn. */
const CHUNKS_AHEAD_MAX = 16;

/** The parser takes no more. */
const TRAILERS_BYTES_MAX = 16 * 1024;

const NOTHING = Buffer.alloc(0);

/** Where the parser is when a connection begins. */
export const AT_START: Omit<ParserPosition, "request"> = {
  bodyBytesLeft: 0,
  chunks: null,
  tail: NOTHING,
  headBytes: 0,
};

/** The head of a request has come. */
export function noteHead(position: ParserPosition, body: "chunks" | { readonly bytes: number }): void {
  position.bodyBytesLeft = body === "chunks" ? 0 : body.bytes;
  position.chunks = body === "chunks" ? new ChunkedBody() : null;
  position.tail = NOTHING;
  position.headBytes = 0;
}

/** Goes on by the next piece: a body as far as it has come, or what there is up to the end of the next head. @returns how long it is */
export function takePiece(position: ParserPosition, waiting: Buffer): number {
  const { request, bodyBytesLeft, chunks } = position;
  if (request?.complete === false && chunks !== null) {
    const length = chunks.take(waiting, CHUNKS_MAX, { withEnd: true });
    position.headBytes = Math.min(chunks.bytesBehind, TRAILERS_BYTES_MAX);
    return length;
  }
  if (request?.complete === false && bodyBytesLeft > 0) {
    const length = Math.min(bodyBytesLeft, waiting.length);
    position.bodyBytesLeft -= length;
    return length;
  }
  const headBytes = endOfHead(position.tail, waiting);
  if (headBytes === null) {
    position.headBytes += waiting.length;
    position.tail = tailOf(position.tail, waiting);
    return waiting.length;
  }
  position.headBytes = 0;
  position.tail = NOTHING;
  return headBytes + wholeBodyBytes(waiting, headBytes);
}

/** Goes on by what of a request's body can be given without its end: with that the work would begin. @returns how long it is */
export function takeBodyWithoutEnd(position: ParserPosition, waiting: Buffer): number {
  const { request, bodyBytesLeft, chunks } = position;
  if (request?.complete !== false) return 0;
  if (chunks !== null) return chunks.take(waiting, CHUNKS_AHEAD_MAX, { withEnd: false });
  const length = Math.min(Math.max(0, bodyBytesLeft - 1), waiting.length);
  position.bodyBytesLeft -= length;
  return length;
}

/**
 * How many of these bytes belong to the head that the parser is in; null: all, and its end has not come.
 * @param tail the last bytes of it that were given, where the end may have begun in them
 */
function endOfHead(tail: Buffer, waiting: Buffer): number | null {
  if (tail.length > 0) {
    const start = Buffer.concat([tail, waiting.subarray(0, HEAD_END.length - 1)]);
    const at = start.indexOf(HEAD_END);
    if (at >= 0) return at + HEAD_END.length - tail.length;
  }
  const at = waiting.indexOf(HEAD_END);
  return at < 0 ? null : at + HEAD_END.length;
}

/** How long the body behind a head is, where all of it has come: most requests are given at once, as to run the parser twice takes longer. */
function wholeBodyBytes(waiting: Buffer, headBytes: number): number {
  if (headBytes === waiting.length) return 0;
  const head = waiting.subarray(0, headBytes);
  for (const name of CONTENT_LENGTHS) {
    const at = head.indexOf(name);
    if (at < 0) continue;
    const bytes = lengthAt(head, at + name.length);
    return headBytes + bytes <= waiting.length ? bytes : 0;
  }
  return 0;
}

/** The number that the rest of a line is; 0: it is none, or longer than that of any body that is taken. */
function lengthAt(head: Buffer, start: number): number {
  let length = 0;
  for (let at = start; at <= start + DIGITS_MAX; at++) {
    const byte = head[at] ?? 0;
    if (byte === 0x0d) return length;
    if (byte < ZERO || byte > NINE) return 0;
    length = 10 * length + byte - ZERO;
  }
  return 0;
}

/** What is left behind the empty lines that may come before a request, and mean nothing (RFC 9112, 2.2). */
export function withoutEmptyLines({ request, headBytes }: ParserPosition, waiting: Buffer): Buffer | null {
  if (request?.complete === false || headBytes > 0 || !isLineEnd(waiting[0])) return waiting;
  let at = 1;
  while (isLineEnd(waiting[at])) at++;
  return at === waiting.length ? null : waiting.subarray(at);
}

function isLineEnd(byte: number | undefined): boolean {
  return byte === 0x0d || byte === 0x0a;
}

function tailOf(former: Buffer, piece: Buffer): Buffer {
  if (!isLineEnd(piece.at(-1))) return NOTHING;
  const all = piece.length < HEAD_END.length ? Buffer.concat([former, piece]) : piece;
  return Buffer.from(all.subarray(-(HEAD_END.length - 1)));
}
