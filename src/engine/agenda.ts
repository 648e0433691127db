/**
 * What is to be done when, soonest first: a binary heap. To take something out marks it, so that it costs nothing; marks are cleared away
 * when they are half of all.
 */

interface Entry {
  readonly id: string;
  readonly atMs: number;
}

export class Agenda {
  #heap: Entry[] = [];
  /** The entry of each id that counts. */
  readonly #current = new Map<string, Entry>();

  /** When the first is due; infinity: there is none. */
  get firstMs(): number {
    this.#dropRemoved();
    return this.#heap[0]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  /** All that are to be done, in no order. */
  get ids(): string[] {
    return Array.from(this.#current.keys());
  }

  /** Adds one that is not there. */
  add(id: string, atMs: number): void {
    const entry = { id, atMs };
    this.#current.set(id, entry);
    this.#heap.push(entry);
    this.#rise(this.#heap.length - 1);
  }

  remove(id: string): void {
    if (!this.#current.delete(id)) return;
    if (this.#heap.length <= 2 * this.#current.size + 1) return;
    this.#heap = Array.from(this.#current.values()).toSorted((one, other) => one.atMs - other.atMs);
  }

  clear(): void {
    this.#heap = [];
    this.#current.clear();
  }

  /** Takes out what is due by then. */
  takeDue(nowMs: number): string[] {
    const due: string[] = [];
    while (this.firstMs <= nowMs) {
      const first = this.#pop();
      this.#current.delete(first.id);
      due.push(first.id);
    }
    return due;
  }

  #dropRemoved(): void {
    for (let first = this.#heap[0]; first !== undefined && this.#current.get(first.id) !== first; first = this.#heap[0])
      this.#pop();
  }

  #pop(): Entry {
    const [first] = this.#heap;
    const last = this.#heap.pop();
    if (first === undefined || last === undefined) throw new Error("the agenda is empty");
    if (this.#heap.length > 0) {
      this.#heap[0] = last;
      this.#sink(0);
    }
    return first;
  }

  #rise(from: number): void {
    for (let at = from; at > 0;) {
      const parent = (at - 1) >> 1;
      if (!this.#isBefore(at, parent)) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  #sink(from: number): void {
    for (let at = from; ;) {
      const [left, right] = [2 * at + 1, 2 * at + 2];
      const least = this.#isBefore(right, left) ? right : left;
      if (!this.#isBefore(least, at)) return;
      this.#swap(at, least);
      at = least;
    }
  }

  #isBefore(one: number, other: number): boolean {
    return (this.#heap[one]?.atMs ?? Number.POSITIVE_INFINITY) < (this.#heap[other]?.atMs ?? Number.POSITIVE_INFINITY);
  }

  #swap(one: number, other: number): void {
    const [first, second] = [this.#heap[one], this.#heap[other]];
    if (first === undefined || second === undefined) return;
    [this.#heap[one], this.#heap[other]] = [second, first];
  }
}
