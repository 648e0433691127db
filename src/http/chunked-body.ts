/**
 * Where in a body in chunks the parser is (RFC 9112, 7.1). Node's parser says that only when it is too late: when it has begun the next
 * request. What is no body in chunks is for that parser to refuse.
 */

const LINE_END = 0x0a;

/** No size of a chunk has more; what follows it in its line means nothing. */
const SIZE_CHARS_MAX = 20;

/** What ends a chunk, behind its bytes. */
const CHUNK_END_BYTES = 2;

export class ChunkedBody {
  /** Of the chunk that the parser is in, with its end. */
  #bytesLeft = 0;
  /** The beginning of an unfinished line with a size. */
  #sizeLine = "";
  /** Bytes of an unfinished line behind the last chunk; null: the last chunk has not come. */
  #trailerBytes: number | null = null;

  /** Whether the last chunk has come: further headers may follow. */
  get isTrailing(): boolean {
    return this.#trailerBytes !== null;
  }

  /**
   * Goes on by what is given to the parser of the bytes that have come: so many chunks at the most, and nothing behind the end of the body.
   * @param withEnd whether the last chunk may be given; if not, the request is not complete by what is given
   * @returns how many bytes that are
   */
  take(bytes: Buffer, chunksMax: number, { withEnd }: { readonly withEnd: boolean }): number {
    let at = 0;
    for (let chunks = 0; at < bytes.length && this.#trailerBytes === null;) {
      if (this.#bytesLeft > 0) {
        const length = Math.min(this.#bytesLeft, bytes.length - at);
        this.#bytesLeft -= length;
        at += length;
        continue;
      }
      if (chunks++ === chunksMax) return at;
      const end = bytes.indexOf(LINE_END, at);
      const next = end < 0 ? bytes.length : end + 1;
      const line = this.#sizeLine + bytes.toString("latin1", at, Math.min(next, at + SIZE_CHARS_MAX));
      const size = end < 0 ? null : Number.parseInt(line, 16);
      if (size === 0 && !withEnd) return at;
      at = next;
      this.#sizeLine = size === null ? line.slice(0, SIZE_CHARS_MAX) : "";
      if (size === 0) this.#trailerBytes = 0;
      else if (size !== null) this.#bytesLeft = size + CHUNK_END_BYTES || Number.POSITIVE_INFINITY; // no size: it is refused
    }
    return withEnd ? this.#takeTrailers(bytes, at) : at;
  }

  /** Up to an empty line, which ends the body. */
  #takeTrailers(bytes: Buffer, from: number): number {
    let at = from;
    while (at < bytes.length && this.#trailerBytes !== null) {
      const end = bytes.indexOf(LINE_END, at);
      const next = end < 0 ? bytes.length : end + 1;
      const lineBytes = this.#trailerBytes + next - at;
      at = next;
      if (end >= 0 && lineBytes <= CHUNK_END_BYTES) return at;
      this.#trailerBytes = end < 0 ? lineBytes : 0;
    }
    return at;
  }
}
