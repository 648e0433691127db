/**
 * Where in a body in chunks the parser is (RFC 9112, 7.1). Node's parser says that only when it is too late: when it has begun the next
 * request. What is no body in chunks is for that parser to refuse.
 */

const LINE_END = 0x0a;

/** What ends a chunk, behind its bytes. */
const CHUNK_END_BYTES = 2;

export class ChunkedBody {
  /** Of the chunk that the parser is in, with its end. */
  #bytesLeft = 0;
  /** What an unfinished line says so far of the size of the next chunk; it may have any number of zeros. */
  #size = 0;
  /** That line has come to something else, which means nothing. */
  #isSizeOver = false;
  /** Bytes of an unfinished line behind the last chunk; null: the last chunk has not come. */
  #trailerBytes: number | null = null;
  #bytesBehind = 0;

  /** How many bytes have come behind the last chunk: of further headers, and of the end. */
  get bytesBehind(): number {
    return this.#bytesBehind;
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
      const end = bytes.indexOf(LINE_END, this.#takeSize(bytes, at));
      if (end >= 0 && this.#size === 0 && !withEnd) return at; // read again, it says the same
      at = end < 0 ? bytes.length : end + 1;
      if (end >= 0) this.#begin(this.#size);
    }
    return withEnd ? this.#takeTrailers(bytes, at) : at;
  }

  /** @returns where something else comes in the line */
  #takeSize(bytes: Buffer, from: number): number {
    for (let at = from; at < bytes.length && !this.#isSizeOver; at++) {
      const digit = hexDigit(bytes[at] ?? 0);
      if (digit === null) this.#isSizeOver = true;
      else this.#size = this.#size * 16 + digit;
      if (digit === null) return at;
    }
    return this.#isSizeOver ? from : bytes.length;
  }

  #begin(size: number): void {
    if (size === 0) this.#trailerBytes = 0;
    else this.#bytesLeft = size + CHUNK_END_BYTES;
    this.#size = 0;
    this.#isSizeOver = false;
  }

  /** Up to an empty line, which ends the body. */
  #takeTrailers(bytes: Buffer, from: number): number {
    let at = from;
    while (at < bytes.length && this.#trailerBytes !== null) {
      const end = bytes.indexOf(LINE_END, at);
      const next = end < 0 ? bytes.length : end + 1;
      const lineBytes = this.#trailerBytes + next - at;
      this.#bytesBehind += next - at;
      at = next;
      if (end >= 0 && lineBytes <= CHUNK_END_BYTES) return at;
      this.#trailerBytes = end < 0 ? lineBytes : 0;
    }
    return at;
  }
}

/** What a letter stands for in a number; null: nothing. */
function hexDigit(byte: number): number | null {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30; // 0 to 9
  const letter = byte | 0x20; // in lower case
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : null; // a to f
}
