/**
 * What the main thread shows its watchdog, in memory that both threads see: that it turns, how long it may be blocked, and which call
 * began last.
 */

const TICKS = 0;
const LIMIT_MS = 1;
const HINT_BYTES = 2;
const NUMBERS = 3;

/** An order's id and a step's name; a longer name is cut. */
const HINT_BYTES_MAX = 256;

export class Board {
  readonly memory: SharedArrayBuffer;
  readonly #numbers: Int32Array;
  readonly #hint: Buffer;

  constructor(memory = new SharedArrayBuffer(NUMBERS * Int32Array.BYTES_PER_ELEMENT + HINT_BYTES_MAX)) {
    this.memory = memory;
    this.#numbers = new Int32Array(memory, 0, NUMBERS);
    this.#hint = Buffer.from(memory, NUMBERS * Int32Array.BYTES_PER_ELEMENT);
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
    const idBytes = this.#hint.write(orderId, 0, "latin1");
    const nameBytes = this.#hint.write(stepName, idBytes + 1);
    this.#hint[idBytes] = SPACE;
    this.#numbers[HINT_BYTES] = idBytes + 1 + nameBytes;
  }

  /** Of the call that began last; null: none has. */
  get lastCall(): { readonly orderId: string; readonly stepName: string } | null {
    const text = this.#hint.toString("utf8", 0, this.#numbers[HINT_BYTES] ?? 0);
    const [orderId = "", ...stepName] = text.split(" ");
    return orderId === "" ? null : { orderId, stepName: stepName.join(" ") };
  }
}

const SPACE = 0x20;
