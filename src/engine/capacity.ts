/**
 * How much this node takes on: all arithmetic of places and of bodies' memory (guarantee G8).
 *
 * 1. What is in flight is bounded, in number and in the size of bodies and results: beyond it intake is refused, and orders of the dead
 *    wait in the store until there is room.
 * 2. Orders whose bodies nobody has seen yet count as if each were of the largest size.
 */

export interface EngineLimits {
  /** Orders in flight at once. */
  readonly ordersMax: number;
  /** Memory for the bodies and results of the orders in flight, together. */
  readonly bodyBytesMax: number;
  /** The largest body that is taken in, and the most results that an order may have. */
  readonly largestOrderBytes: number;
}

/** What takes places at the moment. */
export interface PlacesTaken {
  readonly inFlight: number;
  readonly parked: number;
}

/** Orders claimed in one commit: it is over in some milliseconds, and others' writes come between. */
const CLAIM_PAGE_ORDERS = 500;

/**
 * Bodies that come with one claim: a page is made as small as it must be, should all its bodies be of the largest size. While it is
 * read there are several copies of it, so that it is a small share of what there may be.
 */
const CLAIM_PAGE_BYTES = 64 * 1024 * 1024;
const CLAIM_PAGE_SHARE = 1 / 4;

/** So many parked orders take the memory of one in flight: an id, a due time, an entry in a map. */
const PARKED_PER_ORDER = 4;

export class Capacity {
  /** The most orders that are read at once. */
  readonly pageOrders: number;
  readonly #limits: EngineLimits;
  readonly #taken: () => PlacesTaken;
  #bytes = 0;
  /** Orders that others have given to this node, and that have not been read yet. */
  #given = 0;

  constructor(limits: EngineLimits, taken: () => PlacesTaken) {
    this.#limits = limits;
    this.#taken = taken;
    const pageBytes = Math.min(CLAIM_PAGE_BYTES, limits.bodyBytesMax * CLAIM_PAGE_SHARE);
    this.pageOrders = Math.max(1, Math.min(CLAIM_PAGE_ORDERS, Math.floor(pageBytes / limits.largestOrderBytes)));
  }

  /** Whether a new order with a body of that size may come in. */
  admits(bytes: number): boolean {
    return this.#room > 0 && this.#bytes + bytes <= this.#limits.bodyBytesMax;
  }

  /** How many orders may be read from the store now, whatever their size. */
  get roomForUnread(): number {
    const { bodyBytesMax, largestOrderBytes } = this.#limits;
    const bodies = Math.floor((bodyBytesMax - this.#bytes) / largestOrderBytes);
    return Math.min(this.#room, this.#bytes === 0 ? Math.max(1, bodies) : Math.max(0, bodies));
  }

  /** How many orders others may give to this node now. */
  get roomForGiven(): number {
    return Math.max(0, this.roomForUnread - this.#given);
  }

  /** Memory is taken for bodies or results. */
  take(bytes: number): void {
    this.#bytes += bytes;
  }

  release(bytes: number): void {
    this.#bytes -= bytes;
  }

  /** So many more (or, negative, fewer) orders that were given wait to be read. */
  givenChanged(by: number): void {
    this.#given += by;
  }

  /** How many more orders may come in flight. */
  get #room(): number {
    if (this.#bytes >= this.#limits.bodyBytesMax) return 0;
    const { inFlight, parked } = this.#taken();
    return Math.max(0, this.#limits.ordersMax - inFlight - Math.ceil(parked / PARKED_PER_ORDER));
  }
}

/** What a text takes: one byte a character, two when any is outside of Latin-1. */
export function bytesInMemory(text: string): number {
  return /[\u0100-\uffff]/.test(text) ? 2 * text.length : text.length;
}
