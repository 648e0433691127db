/**
 * The slots and the memory that one order's calls need: taken one after another before a call, and given back together after it, or when it
 * is not made after all.
 */
import type { ConcurrencyLimit } from "../order/pipeline.ts";
import type { CallMemory, MemoryTaker } from "./call-memory.ts";
import type { Slots, SlotTaker } from "./slots.ts";

/** A limit with its name. */
export type NamedLimit = ConcurrencyLimit & { readonly key: string };

export class CallSlots implements SlotTaker, MemoryTaker {
  readonly #slots: Slots;
  readonly #memory: CallMemory;
  /** Whose calls they are. */
  readonly user: string;
  readonly #onGranted: () => void;
  #held: string[] = [];
  #queuedFor: string | null = null;
  /** Bytes that are kept for the call until it has begun; null: it waits for none, and has none. */
  #reserved: number | null = null;
  #waitsForMemory = false;
  /** The call that was given up and still holds a slot. */
  #lingering: object | null = null;

  /** @param onGranted what was waited for is held: `take` is to be called again */
  constructor(slots: Slots, memory: CallMemory, user: string, onGranted: () => void) {
    this.user = user;
    this.#slots = slots;
    this.#memory = memory;
    this.#onGranted = onGranted;
  }

  /** Whether one is waited for. */
  get isQueued(): boolean {
    return this.#queuedFor !== null || this.#waitsForMemory;
  }

  /**
   * @param bytes what the call may keep in memory
   * @returns whether all is held; if not, something is waited for
   */
  take(limits: readonly NamedLimit[], bytes: () => number): boolean {
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
    if (this.#reserved !== null || this.#memory.isFree(this.user)) return true;
    this.#waitsForMemory = true;
    this.#memory.wait(this, bytes());
    return false;
  }

  memoryGranted(bytes: number): void {
    this.#waitsForMemory = false;
    this.#reserved = bytes;
    this.#onGranted();
  }

  /** The call has begun, and counts for itself. */
  begun(): void {
    if (this.#reserved === null) return;
    const bytes = this.#reserved;
    this.#reserved = null;
    this.#memory.changed(this.user, -bytes);
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

  /** Waits for nothing any more, and gives back what is held. */
  giveBack(): void {
    this.#lingering = null;
    if (this.#waitsForMemory) this.#memory.leave(this);
    this.#waitsForMemory = false;
    this.begun();
    if (this.#queuedFor !== null) this.#slots.leave(this.#queuedFor, this);
    this.#queuedFor = null;
    const keys = this.#held;
    this.#held = [];
    for (const key of keys) this.#slots.giveBack(key);
  }
}
