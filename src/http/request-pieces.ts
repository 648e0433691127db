/**
 * In what pieces Node's parser is given what has come on a connection: each holds the end of one request's head at most, so that the next
 * request begins when it may. Pure, but for the position that it keeps.
 */

/** Where in what a client sends the parser is. */
export interface ParserPosition {
  /** The last request that was begun, until it is answered and has come whole: its body may still come after the answer. */
  request: { readonly complete: boolean } | null;
  /** What is to come of its body; null: chunks, that say it themselves. */
  bodyBytesLeft: number | null;
  /** The last chunk of its body may have come. */
  isTrailing: boolean;
  /** The last bytes that were given, where they may be the beginning of HEAD_END. */
  tail: Buffer;
  /** Bytes of an unfinished head that the parser has, or of what may come behind the last chunk of a body. */
  headBytes: number;
}

/** The end of a request's head, of a chunked body, and here and there of something else: that makes a piece shorter, no more. */
const HEAD_END = Buffer.from("\r\n\r\n");

/** As most write it. Whatever else may be said of the body, or twice, is for the parser to understand, or to refuse. */
const CONTENT_LENGTHS = ["\r\nContent-Length: ", "\r\ncontent-length: "].map((name) => Buffer.from(name));

/** So many pieces of a connection are given to the parser in its turn: a head, a body, and the beginning of a next head. */
const PIECES_MAX = 3;

/**
 * A chunked body may be nothing but tiny chunks: others get their turn after so many ends of lines, of which a chunk has two. So much is given
 * all the same, and in so many pieces: a body may also be full of what looks like its end.
 */
const CHUNKS_LINES_MAX = 512;
const CHUNKS_BYTES_MIN = 2_048;
const CHUNKS_PIECES_MAX = 64;

const LINE_END = 0x0a;
const ZERO = 0x30;
const LAST_CHUNK = Buffer.from("\r\n0");

/** The parser takes no more. */
const TRAILERS_BYTES_MAX = 16 * 1024;

const NOTHING = Buffer.alloc(0);

/** Where the parser is when a connection begins. */
export const AT_START: Omit<ParserPosition, "request"> = {
  bodyBytesLeft: 0,
  isTrailing: false,
  tail: NOTHING,
  headBytes: 0,
};

/** Whether a connection has had its turn, by what it was given in it. */
export function isTurnOver(position: ParserPosition, pieces: number, bytes: number): boolean {
  if (!isInChunks(position)) return pieces >= PIECES_MAX;
  return pieces >= CHUNKS_PIECES_MAX || bytes >= CHUNKS_BYTES_MIN;
}

/** Whether the body of a request comes in chunks, and more of it is to come. */
function isInChunks({ request, bodyBytesLeft }: ParserPosition): boolean {
  return request?.complete === false && bodyBytesLeft === null;
}

/** How much of what waits is given at once: a body as far as it has come, or up to the end of the next head. */
export function nextPieceBytes(position: ParserPosition, waiting: Buffer): number {
  const { request, bodyBytesLeft, tail } = position;
  if (request?.complete === false && bodyBytesLeft !== null && bodyBytesLeft > 0) {
    return Math.min(bodyBytesLeft, waiting.length);
  }
  if (tail.length > 0) {
    const start = Buffer.concat([tail, waiting.subarray(0, HEAD_END.length - 1)]);
    const at = start.indexOf(HEAD_END);
    if (at >= 0) return at + HEAD_END.length - tail.length;
  }
  const at = waiting.indexOf(HEAD_END);
  const length = at < 0 ? waiting.length : at + HEAD_END.length;
  if (isInChunks(position)) return chunksBytes(waiting, length);
  return request?.complete === false ? length : length + wholeBodyBytes(waiting, length);
}

/** How much of a body in chunks is given at once, of so many bytes. */
function chunksBytes(waiting: Buffer, length: number): number {
  if (length <= CHUNKS_BYTES_MIN) return length;
  let end = 0;
  for (let lines = 0; lines < CHUNKS_LINES_MAX && end < length; lines++) {
    const at = waiting.indexOf(LINE_END, end);
    end = at < 0 ? length : at + 1;
  }
  return Math.min(Math.max(end, CHUNKS_BYTES_MIN), length);
}

/** How long the body behind a head is, where all of it has come: most requests are given at once, as to run the parser twice takes longer. */
function wholeBodyBytes(waiting: Buffer, headBytes: number): number {
  if (headBytes === waiting.length) return 0;
  const head = waiting.subarray(0, headBytes);
  for (const name of CONTENT_LENGTHS) {
    const at = head.indexOf(name);
    if (at < 0) continue;
    const length = /^\d{1,9}(?=\r)/.exec(head.toString("latin1", at + name.length, at + name.length + 10))?.[0];
    const bytes = Number(length ?? 0);
    return headBytes + bytes <= waiting.length ? bytes : 0;
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
  return byte === 0x0d || byte === LINE_END;
}

/** The head of a request has come. */
export function noteHead(position: ParserPosition, bodyBytesLeft: number | null): void {
  position.bodyBytesLeft = bodyBytesLeft;
  position.isTrailing = false;
  position.tail = NOTHING;
  position.headBytes = 0;
}

/** Keeps the account of where in the stream the parser will be after a piece. */
export function notePiece(position: ParserPosition, piece: Buffer): void {
  const { request, bodyBytesLeft } = position;
  if (request?.complete === false && bodyBytesLeft !== null && bodyBytesLeft > 0) {
    position.bodyBytesLeft = bodyBytesLeft - piece.length;
    return;
  }
  const isBody = request?.complete === false;
  const isHeadEnd = piece.length >= HEAD_END.length && piece.subarray(-HEAD_END.length).equals(HEAD_END);
  if (isBody) noteChunks(position, piece);
  else position.headBytes = isHeadEnd ? 0 : position.headBytes + piece.length;
  position.tail = isHeadEnd ? NOTHING : tailOf(position.tail, piece);
}

/** Counts what comes behind the last chunk: further headers. A body may hold what looks like a last chunk; then too much is counted, up to a limit. */
function noteChunks(position: ParserPosition, piece: Buffer): void {
  position.isTrailing ||= piece[0] === ZERO || Buffer.concat([position.tail, piece]).includes(LAST_CHUNK);
  if (position.isTrailing) position.headBytes = Math.min(position.headBytes + piece.length, TRAILERS_BYTES_MAX);
}

function tailOf(former: Buffer, piece: Buffer): Buffer {
  if (!isLineEnd(piece.at(-1))) return NOTHING;
  const all = piece.length < HEAD_END.length ? Buffer.concat([former, piece]) : piece;
  return Buffer.from(all.subarray(-(HEAD_END.length - 1)));
}
