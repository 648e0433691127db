/**
 * What the main thread shows its watchdog, in memory that both threads see: that it turns, how long it may be blocked, and which call
 * began last.
 */

const TICKS = 0;
const LIMIT_MS = 1;
const NAME_BYTES = 2;
const NUMBERS = 3;

/** An order's id is a UUID. */
const ID_BYTES = 36;

/** A longer name of a step is cut. */
const NAME_BYTES_MAX = 220;

export class Board {
  readonly memory: SharedArrayBuffer;
  readonly #numbers: Int32Array;
  readonly #id: Buffer;
  readonly #name: Buffer;
  /** The name that is shown: calls in a row are often of the same step. */
  #shownName = "";

  constructor(memory = new SharedArrayBuffer(NUMBERS * Int32Array.BYTES_PER_ELEMENT + ID_BYTES + NAME_BYTES_MAX)) {
    this.memory = memory;
    const textAt = NUMBERS * Int32Array.BYTES_PER_ELEMENT;
    this.#numbers = new Int32Array(memory, 0, NUMBERS);
    this.#id = Buffer.from(memory, textAt, ID_BYTES);
    this.#name = Buffer.from(memory, textAt + ID_BYTES, NAME_BYTES_MAX);
  }

  /** The main thread turns. @param limitMs how long it may be blocked from now on; 0: as long as it likes */
  tick(limitMs: number): void {
    Atomics.store(this.#numbers, LIMIT_MS, limitMs);
    Atomics.add(this.#numbers, TICKS, 1);
  }

  get ticks(): number {
    return Atomics.load(this.#numbers, TICKS);
  }

  get limitMs(): number {
    return Atomics.load(this.#numbers, LIMIT_MS);
  }

  /** A call begins. */
  noteCall(orderId: string, stepName: string): void {
    // A call of native code takes longer.
    for (let at = 0; at < ID_BYTES; at++) this.#id[at] = orderId.charCodeAt(at);
    if (stepName === this.#shownName) return;
    this.#shownName = stepName;
    this.#numbers[NAME_BYTES] = this.#name.write(stepName);
  }

  /** Of the call that began last; null: none has. */
  get lastCall(): { readonly orderId: string; readonly stepName: string } | null {
    const nameBytes = this.#numbers[NAME_BYTES] ?? 0;
    if (nameBytes === 0) return null;
    return { orderId: this.#id.toString(), stepName: this.#name.toString("utf8", 0, nameBytes) };
  }
}
