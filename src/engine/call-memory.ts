/**
 * The memory that calls under way keep until they end: bodies and results once they are parsed, which may take twenty times their text, and
 * requests that were made of them. Beyond the bound no call begins before another has ended.
 *
 * 1. While no call keeps anything, one may begin, whatever it will keep.
 * 2. Who waits longest comes first.
 * 3. What a call will keep is known only once it has begun. So one that has waited keeps what it may need from its turn until then.
 */

/** Who waits for memory. */
export interface MemoryTaker {
  /** It is its turn, and so much is kept for it. */
  memoryGranted(bytes: number): void;
}

export class CallMemory {
  readonly #bytesMax: number;
  readonly #waiting = new Map<MemoryTaker, number>();
  #bytes = 0;
  #isGranting = false;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** What calls keep now. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether a call may begin without waiting. */
  get isFree(): boolean {
    return this.#bytes < this.#bytesMax && this.#waiting.size === 0;
  }

  /** Waits for the call's turn; then so many bytes are kept for it, until it gives them back (`changed`). */
  wait(taker: MemoryTaker, bytes: number): void {
    this.#waiting.set(taker, bytes);
  }

  /** Waits no longer. */
  leave(taker: MemoryTaker): void {
    this.#waiting.delete(taker);
    this.#grant();
  }

  /** A call keeps so much more, or less. */
  changed(bytes: number): void {
    this.#bytes += bytes;
    if (bytes < 0 && this.#waiting.size > 0) this.#grant();
  }

  #grant(): void {
    if (this.#isGranting) return; // the loop that is under way sees it
    this.#isGranting = true;
    try {
      for (const [taker, bytes] of this.#waiting) {
        if (this.#bytes >= this.#bytesMax) break;
        this.#waiting.delete(taker);
        this.#bytes += bytes;
        taker.memoryGranted(bytes);
      }
    } finally {
      this.#isGranting = false;
    }
  }
}
