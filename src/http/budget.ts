/**
 * What clients share: bytes, places, connections. Anybody may have all of it while nobody else asks. When it is used up, who has most
 * gives way: what of his has stood still for longest is taken back, and not what is small beside the rest. So nobody can keep others out
 * by asking first, or for much; not even where all seem to be one, behind a proxy.
 *
 * 1. `used` is the sum of what the holdings hold, and never more than `max`.
 * 2. A holding is closed once, however it ends; from then on it holds nothing.
 */

export interface BudgetOptions {
  readonly max: number;
  /**
   * How long a holding must have stood still before it is taken back for somebody who would have about as much as its holder has. From
   * a holder of more than twice as much it is taken at once.
   */
  readonly keepMs: number;
  /** The same, when it is taken back for another holding of the same holder. */
  readonly keepOwnMs: number;
  /** Milliseconds on a clock that never jumps. */
  readonly clock?: () => number;
}

/** What one request, answer, stream or connection holds. */
export interface Holding {
  /**
   * Holds that much from now on.
   * @returns false: there is no room for it, nor any that another must give back; it holds what it held
   */
  set(amount: number): boolean;
  close(): void;
}

/** Gives back what is held, by ending what it is for. False: not now, as it is about to end by itself. */
type GiveUp = () => boolean;

/** So much is made free at once, so that the search for it is seldom. */
const FREED_SHARE = 1 / 64;

/** So many holdings are asked in one search: each may say no. */
const ASKED_MAX = 256;

interface Holder {
  amount: number;
  /** Who has stood still for longest comes first. */
  readonly holdings: Set<BudgetHolding>;
}

export class Budget {
  readonly #options: Required<BudgetOptions>;
  readonly #holders = new Map<string, Holder>();
  #used = 0;

  constructor(options: BudgetOptions) {
    this.#options = { clock: () => performance.now(), ...options };
  }

  get used(): number {
    return this.#used;
  }

  get max(): number {
    return this.#options.max;
  }

  /**
   * A holding of nothing yet.
   * @param holder whose it is: a user, or an address
   */
  open(holder: string, giveUp: GiveUp): Holding {
    return new BudgetHolding(this, holder, giveUp);
  }

  /** For holdings alone. */
  change(holding: BudgetHolding, amount: number): boolean {
    const { holder: name, amount: before } = holding;
    if (amount === before) return true;
    const more = amount - before;
    if (more > 0 && this.#used + more > this.max && !this.#makeRoom(holding, more)) return false;
    const holder = this.#holders.get(name) ?? { amount: 0, holdings: new Set() };
    holder.holdings.delete(holding);
    holder.amount += more;
    this.#used += more;
    holding.amount = amount;
    if (amount > 0) {
      holding.movedMs = this.#options.clock();
      holder.holdings.add(holding);
    }
    if (holder.holdings.size > 0) this.#holders.set(name, holder);
    else this.#holders.delete(name);
    return true;
  }

  /** @returns whether there is room for so much more now */
  #makeRoom(asking: BudgetHolding, more: number): boolean {
    const { max, keepMs, keepOwnMs, clock } = this.#options;
    const due = (this.#holders.get(asking.holder)?.amount ?? 0) + more;
    const [name, holder] = this.#largest() ?? [];
    if (asking.amount + more > max) return false;
    if (holder === undefined) return true;
    const giving = holder.amount < due ? this.#holders.get(asking.holder) : holder;
    const isOwn = giving !== holder || name === asking.holder;
    const keep = isOwn ? keepOwnMs : holder.amount > 2 * due ? 0 : keepMs;
    const movedBeforeMs = clock() - keep;
    const target = max - Math.max(more, max * FREED_SHARE);
    if (giving === undefined) return this.#used + more <= max;
    let left = ASKED_MAX;
    for (const least of [Math.min(more, giving.amount / giving.holdings.size), 0]) {
      for (const holding of giving.holdings) {
        if (this.#used <= target || left === 0 || holding.movedMs > movedBeforeMs) break;
        if (holding === asking || holding.amount < least) continue;
        left--;
        if (holding.giveUp()) holding.close();
        else this.#moveBack(giving, holding);
      }
      if (this.#used + more <= max) return true;
    }
    return false;
  }

  #largest(): [string, Holder] | null {
    let largest: [string, Holder] | null = null;
    for (const each of this.#holders) if (largest === null || each[1].amount > largest[1].amount) largest = each;
    return largest;
  }

  /** Who can't give back now is asked last the next time. */
  #moveBack(holder: Holder, holding: BudgetHolding): void {
    holder.holdings.delete(holding);
    holder.holdings.add(holding);
  }
}

class BudgetHolding implements Holding {
  readonly #budget: Budget;
  readonly holder: string;
  readonly giveUp: GiveUp;
  amount = 0;
  movedMs = 0;
  #closed = false;

  constructor(budget: Budget, holder: string, giveUp: GiveUp) {
    this.#budget = budget;
    this.holder = holder;
    this.giveUp = giveUp;
  }

  set(amount: number): boolean {
    return !this.#closed && this.#budget.change(this, amount);
  }

  close(): void {
    if (this.#closed) return;
    this.#budget.change(this, 0);
    this.#closed = true;
  }
}
