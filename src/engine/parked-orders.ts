/**
 * Orders of this incarnation that nothing is to be done with now: they wait for a time, for a signal or for an operator, are of a
 * pipeline that this node lacks, or damaged. Only their ids are in memory; each is read again when its time comes or somebody asks.
 */
import type { OrderStatus } from "../order/order.ts";
import type { Clock, Timer } from "../runtime/clock.ts";

/** An order whose pipeline this node lacks, as it was when it was read. */
export interface Stranded {
  readonly label: string;
  readonly revision: number;
  readonly status: OrderStatus;
  readonly user: string;
}

export interface ParkedOrdersOptions {
  readonly clock: Clock;
  /** Their time has come, as far as timers tell: they are to be read again. */
  readonly onDue: (orderIds: readonly string[]) => void;
}

export class ParkedOrders {
  readonly #clock: Clock;
  readonly #onDue: ParkedOrdersOptions["onDue"];
  /** The timer that ends the wait, if any. */
  readonly #parked = new Map<string, Timer | null>();
  readonly #stranded = new Map<string, Stranded>();
  /** Orders whose time has come, to be read again together. */
  #due: string[] = [];

  constructor({ clock, onDue }: ParkedOrdersOptions) {
    this.#clock = clock;
    this.#onDue = onDue;
  }

  get size(): number {
    return this.#parked.size;
  }

  /** Those whose pipeline this node lacks. */
  get stranded(): ReadonlyMap<string, Stranded> {
    return this.#stranded;
  }

  has(orderId: string): boolean {
    return this.#parked.has(orderId);
  }

  /** Nothing is to be done with the order before that time, or (null) before somebody asks for it. */
  park(orderId: string, dueMs: number | null): void {
    this.unpark(orderId);
    const timer = dueMs === null ? null : this.#clock.after(dueMs - this.#clock.now(), () => this.#wake(orderId));
    this.#parked.set(orderId, timer);
  }

  /** Parks an order whose pipeline this node lacks. */
  strand(orderId: string, stranded: Stranded): void {
    this.park(orderId, null);
    this.#stranded.set(orderId, stranded);
  }

  unpark(orderId: string): void {
    this.#parked.get(orderId)?.cancel();
    this.#stranded.delete(orderId);
    this.#parked.delete(orderId);
  }

  clear(): void {
    for (const timer of this.#parked.values()) timer?.cancel();
    this.#parked.clear();
    this.#stranded.clear();
  }

  /** It is read again with all others whose time has come in this turn. */
  #wake(orderId: string): void {
    this.unpark(orderId);
    this.#due.push(orderId);
    if (this.#due.length > 1) return;
    this.#clock.nextTurn(() => {
      const due = this.#due;
      this.#due = [];
      this.#onDue(due);
    });
  }
}
