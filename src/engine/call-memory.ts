/**
 * The memory that calls under way keep until they end: bodies and results once they are parsed, which may take twenty times their text, and
 * requests that were made of them. Beyond the bound no call begins before another has ended.
 *
 * 1. While no call keeps anything, one may begin, whatever it will keep.
 * 2. Half of it is for whoever comes first. Beyond that a call begins only if its user keeps less than an equal share of the other half: so
 *    nobody's calls keep those of others waiting.
 * 3. Users take turns; of a user's calls the one that has waited longest comes first.
 * 4. What a call will keep is known only once it has begun. So one that has waited keeps what it may need from its turn until then.
 */

/** Who waits for memory. */
export interface MemoryTaker {
  readonly user: string;
  /** It is its turn, and so much is kept for it. */
  memoryGranted(bytes: number): void;
}

/** Up to this share, what calls keep is nobody's business. */
const COMMON_SHARE = 1 / 2;

export class CallMemory {
  readonly #bytesMax: number;
  /** By user, whose turn it is in front; with what each may need. */
  readonly #waiting = new Map<string, Map<MemoryTaker, number>>();
  /** Of each user who has some. */
  readonly #kept = new Map<string, number>();
  #bytes = 0;
  #isGranting = false;

  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** What calls keep now. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Whether a call of a user may begin without waiting. */
  isFree(user: string): boolean {
    return this.#allows(user) && (this.#waiting.size === 0 || !this.#waiting.has(user));
  }

  /** Waits for the call's turn; then so many bytes are kept for it, until it gives them back (`changed`). */
  wait(taker: MemoryTaker, bytes: number): void {
    const takers = this.#waiting.get(taker.user) ?? new Map<MemoryTaker, number>();
    takers.set(taker, bytes);
    this.#waiting.set(taker.user, takers);
  }

  /** Waits no longer. */
  leave(taker: MemoryTaker): void {
    const takers = this.#waiting.get(taker.user);
    takers?.delete(taker);
    if (takers?.size === 0) this.#waiting.delete(taker.user);
  }

  /** A call of a user keeps so much more, or less. */
  changed(user: string, bytes: number): void {
    this.#bytes += bytes;
    const kept = (this.#kept.get(user) ?? 0) + bytes;
    if (kept === 0) this.#kept.delete(user);
    else this.#kept.set(user, kept);
    if (bytes < 0 && this.#waiting.size > 0) this.#grant();
  }

  #allows(user: string): boolean {
    const commonBytes = this.#bytesMax * COMMON_SHARE;
    if (this.#bytes < commonBytes || this.#bytes === 0) return true;
    if (this.#bytes >= this.#bytesMax) return false;
    const kept = this.#kept.get(user);
    return kept === undefined || kept < (this.#bytesMax - commonBytes) / this.#kept.size;
  }

  #grant(): void {
    if (this.#isGranting) return; // the loop that is under way sees it
    this.#isGranting = true;
    try {
      for (const [user, takers] of this.#waiting) {
        if (this.#bytes > 0 && this.#bytes >= this.#bytesMax) break;
        const [first] = takers;
        if (first === undefined || !this.#allows(user)) continue;
        const [taker, bytes] = first;
        takers.delete(taker);
        this.#waiting.delete(user);
        if (takers.size > 0) this.#waiting.set(user, takers); // its next turn comes behind those of the others
        this.changed(user, bytes);
        taker.memoryGranted(bytes);
      }
    } finally {
      this.#isGranting = false;
    }
  }
}
