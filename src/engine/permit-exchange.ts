/**
 * Agrees with the other nodes on limits that hold for the whole cluster: reads what they have in the store, and takes or gives back
 * calls there, as `divide` (permits.ts) says.
 *
 * 1. A node has never more calls under way than its share on record: a share that grows is used when it is durable, one that shrinks is
 *    written when so many calls have ended.
 * 2. The record is changed by compare-and-set, and each has its version, so that a change which is carried out late does nothing. Where
 *    it isn't known whether a change was carried out, the smaller share counts until the record has been written again.
 */
import type { Incarnation } from "../order/events.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { ClusterStore } from "../store/cluster-store.ts";
import { StoreUnavailableError } from "../store/store.ts";
import { decodePermits, divide, encodePermits } from "./permits.ts";
import type { Demand, Slots } from "./slots.ts";

/** How often a node looks what the others want, while it has or wants calls; and while it may make none of those it wants. */
const LOOK_MS = 100;
const STARVING_LOOK_MS = 25;

/** The time between two exchanges is at least so long, whatever happens meanwhile. */
const PAUSE_MS = 10;

/** Another node was faster so many times: then it has its turn. */
const TRIES_MAX = 4;

export interface PermitExchangeOptions {
  readonly store: ClusterStore;
  readonly incarnation: Incarnation;
  readonly slots: Slots;
  readonly clock: Clock;
}

export class PermitExchange {
  readonly #store: ClusterStore;
  readonly #incarnation: Incarnation;
  readonly #slots: Slots;
  readonly #clock: Clock;
  /** Limits of which this node has a share on record, or may have. */
  readonly #listed = new Set<string>();
  /** Limits of which it is not known whether the last change was carried out, and what was allowed then. */
  readonly #unsure = new Map<string, number>();
  #timer: Timer | null = null;
  #isExchanging = false;
  #isWanted = false;
  #lastEndMs = Number.NEGATIVE_INFINITY;
  #stopped = false;

  constructor({ store, incarnation, slots, clock }: PermitExchangeOptions) {
    this.#store = store;
    this.#incarnation = incarnation;
    this.#slots = slots;
    this.#clock = clock;
  }

  /** Has an exchange made soon. */
  want(): void {
    if (this.#isWanted) return;
    this.#isWanted = true;
    if (!this.#isExchanging) this.#schedule(0);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.[Symbol.dispose]();
  }

  #schedule(waitMs: number): void {
    this.#timer?.[Symbol.dispose]();
    if (this.#stopped) return;
    const pauseMs = this.#lastEndMs + PAUSE_MS - this.#clock.monotonic();
    this.#timer = this.#clock.after(Math.max(waitMs, pauseMs), () => void this.#exchangeAll());
  }

  async #exchangeAll(): Promise<void> {
    this.#isWanted = false;
    this.#isExchanging = true;
    for (const demand of this.#slots.demands()) if (this.#isOpen(demand)) await this.#exchange(demand);
    this.#isExchanging = false;
    this.#lastEndMs = this.#clock.monotonic();
    if (this.#isWanted) return this.#schedule(0);
    const open = this.#slots.demands().filter((demand) => this.#isOpen(demand));
    if (open.length === 0) return;
    this.#schedule(open.some(({ allowed, wanted }) => allowed === 0 && wanted > 0) ? STARVING_LOOK_MS : LOOK_MS);
  }

  #isOpen({ key, wanted, allowed }: Demand): boolean {
    return wanted > 0 || allowed > 0 || this.#listed.has(key);
  }

  async #exchange(demand: Demand): Promise<void> {
    try {
      for (let tries = 1; tries <= TRIES_MAX && !this.#stopped; tries++) if (await this.#try(demand)) return;
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error; // away: what is allowed stays, and it is asked again
    }
  }

  /** @returns false: another node has changed the record meanwhile */
  async #try({ key, callsMax, wanted }: Demand): Promise<boolean> {
    const { record, alive } = await this.#store.permits(key);
    // One that was taken for dead makes no calls any more, and must not take the others' share.
    if (!alive.includes(this.#incarnation)) {
      this.#slots.allow(key, 0);
      return true;
    }
    const former = decodePermits(record, alive);
    const share = former.shares.find(({ incarnation }) => incarnation === this.#incarnation)?.calls ?? 0;
    const underWay = this.#slots.underWay(key);
    const division = divide(former, this.#incarnation, callsMax, { underWay, wanted });
    const doubtful = this.#unsure.get(key);
    if (division.isNew || doubtful !== undefined) {
      const least = Math.min(share, division.allowed, doubtful ?? share);
      this.#slots.allow(key, least);
      this.#unsure.set(key, least);
      this.#listed.add(key);
      const isWritten = await this.#store.changePermits(key, record, encodePermits(division.record));
      this.#unsure.delete(key); // a change that failed before is of an older version now, whatever became of it
      if (!isWritten) return false;
    }
    if (division.isListed) this.#listed.add(key);
    else this.#listed.delete(key);
    this.#slots.allow(key, division.allowed);
    return true;
  }
}
