/**
 * The slots that one order's calls need: taken one after another before a call, and given back together after it, or when it is not made
 * after all.
 */
import type { ConcurrencyLimit } from "../order/pipeline.ts";
import type { Slots, SlotTaker } from "./slots.ts";

/** A limit with its name. */
export type NamedLimit = ConcurrencyLimit & { readonly key: string };

export class CallSlots implements SlotTaker {
  readonly #slots: Slots;
  readonly #onGranted: () => void;
  #held: string[] = [];
  #queuedFor: string | null = null;
  /** The call that was given up and still holds a slot. */
  #lingering: object | null = null;

  /** @param onGranted a slot that was waited for is held: `take` is to be called again */
  constructor(slots: Slots, onGranted: () => void) {
    this.#slots = slots;
    this.#onGranted = onGranted;
  }

  /** Whether one is waited for. */
  get isQueued(): boolean {
    return this.#queuedFor !== null;
  }

  /** @returns whether all are held; if not, one is waited for */
  take(limits: readonly NamedLimit[]): boolean {
    // Others come first that have waited meanwhile.
    if (this.#lingering !== null) this.giveBack();
    for (const limit of limits) {
      if (this.#held.includes(limit.key)) continue;
      if (!this.#slots.take(limit.key, limit, this)) {
        this.#queuedFor = limit.key;
        return false;
      }
      this.#held.push(limit.key);
    }
    return true;
  }

  granted(): void {
    if (this.#queuedFor !== null) this.#held.push(this.#queuedFor);
    this.#queuedFor = null;
    this.#onGranted();
  }

  /** Gives back all but one. That one stays held for a call that was given up, until its code has ended or another call is to be made. */
  keepFor(call: object, key: string): void {
    const others = this.#held.filter((each) => each !== key);
    this.#held = this.#held.filter((each) => each === key);
    for (const each of others) this.#slots.giveBack(each);
    this.#lingering = call;
  }

  /** The code of a call has ended. */
  ended(call: object): void {
    if (this.#lingering === call) this.giveBack();
  }

  /** Waits for none any more, and gives back those that are held. */
  giveBack(): void {
    this.#lingering = null;
    if (this.#queuedFor !== null) this.#slots.leave(this.#queuedFor, this);
    this.#queuedFor = null;
    const keys = this.#held;
    this.#held = [];
    for (const key of keys) this.#slots.giveBack(key);
  }
}
