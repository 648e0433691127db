/**
 * Orders of this incarnation that nothing is to be done with now: they wait for a time, for a signal or for an operator, are of a
 * pipeline that this node lacks, or damaged. Only their ids and times are in memory; each is read again when its time comes or
 * somebody asks.
 *
 * 1. A length is waited for on the monotonic clock, a time of day on the wall clock. The wall clock may jump: it is looked at once a
 *    minute at least.
 * 2. One timer serves them all.
 * 3. An order whose time has come stays parked until it has been read again (`unpark`).
 */
import type { ListedStatus } from "../order/status.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import { Agenda } from "./agenda.ts";
import type { ClockReading } from "./clock-reading.ts";

/** When something is to be done with a parked order. */
export type Due =
  | { readonly clock: "wall"; readonly atMs: number }
  | { readonly clock: "monotonic"; readonly atMs: number }
  /** Somebody must ask. */
  | null;

/** An order whose pipeline this node lacks, as it was when it was read. */
export interface Stranded {
  readonly label: string;
  readonly revision: number;
  readonly status: ListedStatus;
  readonly user: string;
}

interface Parked {
  readonly user: string;
  readonly since: ClockReading | null;
  isDue: boolean;
}

export interface ParkedOrdersOptions {
  readonly clock: Clock;
  /** Their time has come: they are to be read again. */
  readonly onDue: (orderIds: readonly string[]) => void;
}

/** How often the wall clock is looked at, at least. */
const LOOK_MS = 60_000;

export class ParkedOrders {
  readonly #clock: Clock;
  readonly #onDue: ParkedOrdersOptions["onDue"];
  readonly #parked = new Map<string, Parked>();
  readonly #agendas = { wall: new Agenda(), monotonic: new Agenda() };
  readonly #stranded = new Map<string, Stranded>();
  /** How many each user has. */
  readonly #byUser = new Map<string, number>();
  #timer: Timer | null = null;
  /** When the timer fires, on the monotonic clock. */
  #timerMs = Number.POSITIVE_INFINITY;

  constructor({ clock, onDue }: ParkedOrdersOptions) {
    this.#clock = clock;
    this.#onDue = onDue;
  }

  get size(): number {
    return this.#parked.size;
  }

  /** How many users have any. */
  get users(): number {
    return this.#byUser.size;
  }

  /** Those whose pipeline this node lacks. */
  get stranded(): ReadonlyMap<string, Stranded> {
    return this.#stranded;
  }

  has(orderId: string): boolean {
    return this.#parked.has(orderId);
  }

  /** Whether its time has come, and it has not been read again. */
  isDue(orderId: string): boolean {
    return this.#parked.get(orderId)?.isDue === true;
  }

  /** How many a user has. */
  countOf(user: string): number {
    return this.#byUser.get(user) ?? 0;
  }

  /** When what the order waits for began, on both clocks; null: not known. */
  sinceOf(orderId: string): ClockReading | null {
    return this.#parked.get(orderId)?.since ?? null;
  }

  /** Those that wait for a length of time. */
  get counted(): string[] {
    return this.#agendas.monotonic.ids;
  }

  /** They are to be read again, as if their time had come. */
  makeDue(orderIds: readonly string[]): void {
    for (const orderId of orderIds) {
      const parked = this.#parked.get(orderId);
      if (parked !== undefined) parked.isDue = true;
    }
  }

  /**
   * Nothing is to be done with the order before it is due.
   * @param since when what it waits for began; null: nothing is counted from then
   */
  park(orderId: string, user: string, due: Due, since: ClockReading | null = null): void {
    this.unpark(orderId);
    this.#parked.set(orderId, { user, since, isDue: false });
    this.#byUser.set(user, this.countOf(user) + 1);
    if (due === null) return;
    this.#agendas[due.clock].add(orderId, due.atMs);
    this.#schedule();
  }

  /** Parks an order whose pipeline this node lacks. */
  strand(orderId: string, stranded: Stranded, since: ClockReading | null): void {
    this.park(orderId, stranded.user, null, since);
    this.#stranded.set(orderId, stranded);
  }

  unpark(orderId: string): void {
    const parked = this.#parked.get(orderId);
    if (parked === undefined) return;
    this.#parked.delete(orderId);
    this.#stranded.delete(orderId);
    for (const agenda of Object.values(this.#agendas)) agenda.remove(orderId);
    const left = this.countOf(parked.user) - 1;
    if (left === 0) this.#byUser.delete(parked.user);
    else this.#byUser.set(parked.user, left);
  }

  clear(): void {
    this.#timer?.[Symbol.dispose]();
    this.#timer = null;
    this.#timerMs = Number.POSITIVE_INFINITY;
    for (const agenda of Object.values(this.#agendas)) agenda.clear();
    this.#parked.clear();
    this.#stranded.clear();
    this.#byUser.clear();
  }

  /** Sets the timer for what comes first, unless it is set for something earlier. */
  #schedule(): void {
    const nowMs = this.#clock.monotonic();
    const inWallMs = this.#agendas.wall.firstMs - this.#clock.now();
    const inMonotonicMs = this.#agendas.monotonic.firstMs - nowMs;
    const inMs = Math.max(0, Math.min(inWallMs, inMonotonicMs));
    if (inMs === Number.POSITIVE_INFINITY) return;
    const waitMs = Math.min(inMs, LOOK_MS);
    if (nowMs + waitMs >= this.#timerMs) return;
    this.#timer?.[Symbol.dispose]();
    this.#timerMs = nowMs + waitMs;
    this.#timer = this.#clock.after(waitMs, () => this.#look());
  }

  #look(): void {
    this.#timer = null;
    this.#timerMs = Number.POSITIVE_INFINITY;
    const due = [
      ...this.#agendas.wall.takeDue(this.#clock.now()),
      ...this.#agendas.monotonic.takeDue(this.#clock.monotonic()),
    ];
    for (const orderId of due) {
      const parked = this.#parked.get(orderId);
      if (parked !== undefined) parked.isDue = true;
    }
    if (due.length > 0) this.#onDue(due);
    this.#schedule();
  }
}
