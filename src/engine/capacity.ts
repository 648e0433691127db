/**
 * How much this node takes on: all arithmetic of places and of bodies' memory (guarantee G8).
 *
 * 1. What is in flight is bounded, in number and in the size of bodies and results: beyond it intake is refused, and orders of the dead
 *    wait in the store until there is room.
 * 2. Orders whose bodies nobody has seen yet count as if each were of the largest size.
 * 3. Orders that exist come before new ones. Parked ones take places of new orders, and of no others: so those whose time has come find
 *    these places free.
 */

export interface EngineLimits {
  /** Orders in flight at once. */
  readonly ordersMax: number;
  /** Memory for the bodies and results of the orders in flight, together. */
  readonly bodyBytesMax: number;
  /** Memory for what calls under way keep of them once they are parsed, and of what is made of them. */
  readonly callBytesMax: number;
  /** The largest body that is taken in, and the most results that an order may have. */
  readonly largestOrderBytes: number;
}

/** What takes places at the moment. */
export interface PlacesTaken {
  readonly inFlight: number;
  readonly parked: number;
  /** Users who have parked orders. */
  readonly parkingUsers: number;
  readonly parkedOf: (user: string) => number;
  /** Orders of this node that wait to be read: others have given them, or their time has come. */
  readonly unread: number;
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

/** Up to this share of the places, parked orders are nobody's business. Beyond it each user has an equal part of that share. */
const PARKED_SHARE = 1 / 2;

/** Orders that are submitted for later leave this share of the places to those that run at once, whoever submits them. */
const RUNNING_SHARE = 1 / 4;

/** An order that wants to come in. */
export interface Candidate {
  /** Of its body, in memory. */
  readonly bytes: number;
  readonly user: string;
  /** Whether it is to start at a later time. */
  readonly isForLater: boolean;
}

export class Capacity {
  /** The most orders that are read at once. */
  readonly pageOrders: number;
  readonly #limits: EngineLimits;
  readonly #taken: () => PlacesTaken;
  #bytes = 0;

  constructor(limits: EngineLimits, taken: () => PlacesTaken) {
    this.#limits = limits;
    this.#taken = taken;
    const pageBytes = Math.min(CLAIM_PAGE_BYTES, limits.bodyBytesMax * CLAIM_PAGE_SHARE);
    this.pageOrders = Math.max(1, Math.min(CLAIM_PAGE_ORDERS, Math.floor(pageBytes / limits.largestOrderBytes)));
  }

  /**
   * Whether a new order may come in. One that nothing is done with for long must not keep those away that run: so a user whose parked orders
   * take more than a fair part of the places submits no more, and orders for later leave some places alone. None takes the place that one
   * waits for which is to be read.
   */
  admits({ bytes, user, isForLater }: Candidate): boolean {
    const { ordersMax, bodyBytesMax, largestOrderBytes } = this.#limits;
    const { parked, parkingUsers, parkedOf, unread } = this.#taken();
    const bytesMax = unread === 0 ? bodyBytesMax : bodyBytesMax - largestOrderBytes;
    if (this.#room <= unread || this.#bytes + bytes > bytesMax) return false;
    const parkedMax = ordersMax * PARKED_PER_ORDER;
    if (isForLater && parked >= parkedMax * (1 - RUNNING_SHARE)) return false;
    const isCrowded = parked >= parkedMax * PARKED_SHARE;
    return !isCrowded || parkedOf(user) < (parkedMax * PARKED_SHARE) / Math.max(1, parkingUsers);
  }

  /** How many orders may be read from the store now, whatever their size. */
  get roomForUnread(): number {
    const { ordersMax, bodyBytesMax, largestOrderBytes } = this.#limits;
    const places = ordersMax - this.#taken().inFlight;
    const bodies = Math.floor((bodyBytesMax - this.#bytes) / largestOrderBytes);
    return Math.max(0, Math.min(places, this.#bytes === 0 ? Math.max(1, bodies) : bodies));
  }

  /** How many orders others may give to this node now. */
  get roomForGiven(): number {
    return Math.max(0, this.roomForUnread - this.#taken().unread);
  }

  /** Memory is taken for bodies or results. */
  take(bytes: number): void {
    this.#bytes += bytes;
  }

  release(bytes: number): void {
    this.#bytes -= bytes;
  }

  /** How many more new orders may come in flight. */
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
