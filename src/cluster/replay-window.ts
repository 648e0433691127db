/**
 * Which of one sender's counters have been used, as in RFC 4303 (3.4.3) and RFC 6479: a window of bits below the highest one.
 *
 * 1. No counter is admitted twice.
 * 2. What lies below the window is refused, used or not: requests under way at once may overtake each other, but not that far.
 */

/**
 * In counters; a multiple of 32. A sender counts its requests to all nodes together, and one may be under way for as long as the TTL:
 * 1,600 a second at the default of 5 s, far more than people and takeovers ask for. It takes 1 KiB a sender.
 */
export const WINDOW_COUNTERS = 8_192;

const WORD_BITS = 32;

export class ReplayWindow {
  #highest = 0;
  /** A ring: the bit of a counter is that of its remainder. */
  readonly #used = new Uint32Array(WINDOW_COUNTERS / WORD_BITS);

  /**
   * Uses a counter up.
   * @returns false: it was used before, or may have been
   */
  admit(counter: number): boolean {
    if (!Number.isSafeInteger(counter) || counter < 1) return false;
    if (counter <= this.#highest - WINDOW_COUNTERS) return false;
    this.#advanceTo(counter);
    const [word, bit] = placeOf(counter);
    const used = this.#used[word] ?? 0;
    if ((used & bit) !== 0) return false;
    this.#used[word] = used | bit;
    return true;
  }

  /** Moves the window up: counters that come in were never used. */
  #advanceTo(counter: number): void {
    if (counter - this.#highest >= WINDOW_COUNTERS) this.#used.fill(0);
    else {
      for (let next = this.#highest + 1; next <= counter; next++) {
        const [word, bit] = placeOf(next);
        this.#used[word] = (this.#used[word] ?? 0) & ~bit;
      }
    }
    this.#highest = Math.max(this.#highest, counter);
  }
}

function placeOf(counter: number): [word: number, bit: number] {
  const place = counter % WINDOW_COUNTERS;
  return [Math.floor(place / WORD_BITS), 1 << (place % WORD_BITS)];
}
