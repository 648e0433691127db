/**
 * Gathers the writes of many orders into few commits, so that none waits for a disk sync of its own while others wait,
 * too, and rides out a store that fails.
 *
 * While a batch is being committed the next one fills; it leaves when there is room again. On an idle system a write
 * leaves at the end of the current turn of the event loop.
 *
 * 1. A listener hears of its write once: when it is durable or known to be refused, never before.
 * 2. A creation whose commit fails is dropped and its listener told: nobody was promised anything. Any other write is kept
 *    and made again until the store takes it: its order can't go on otherwise.
 * 3. Memory is bounded by the caller: one write per order in flight.
 */
import type { Logger } from "../log.ts";
import type { Clock, Timer } from "../runtime/clock.ts";
import type { AdvanceWrite, CreateWrite, Store, WriteOutcome } from "../store/store.ts";

/** Who waits for a write. */
export interface WriteListener {
  /** The store has answered. */
  settled(outcome: WriteOutcome): void;
}

/** Who waits for a creation. */
export interface CreationListener extends WriteListener {
  /** The store failed, or the node stops, and the creation was dropped. */
  dropped(error: Error): void;
}

type Entry =
  | { readonly kind: "create"; readonly write: CreateWrite; readonly listener: CreationListener }
  | { readonly kind: "advance"; readonly write: AdvanceWrite; readonly listener: WriteListener };

/** About 20 ms of work for the store: a larger batch would delay its first write more than it saves. */
const BATCH_WRITES_MAX = 2_000;

/** A batch is copied on its way to the store: large bodies fill one sooner. */
const BATCH_BODY_CHARS_MAX = 8 * 1024 * 1024;

/** One is being committed while the next is already on its way to the store's thread. */
const BATCHES_IN_FLIGHT_MAX = 2;

/** How often a store that failed is tried again. */
const RETRY_MS = 500;

export interface GroupCommitOptions {
  readonly store: Store;
  readonly log: Logger;
  readonly clock: Clock;
  /** Called after each batch, when its listeners have heard. */
  readonly onSettled: () => void;
  /** The store works again after a failure: of what was dropped then, some may have been applied. */
  readonly onRecovered: () => void;
}

export class GroupCommit {
  readonly #store: Store;
  readonly #log: Logger;
  readonly #clock: Clock;
  readonly #onSettled: () => void;
  readonly #onRecovered: () => void;
  #queue: Entry[] = [];
  #batchesInFlight = 0;
  #flushScheduled = false;
  #failure: string | null = null;
  #retryTimer: Timer | null = null;
  #closed = false;

  constructor(options: GroupCommitOptions) {
    this.#store = options.store;
    this.#log = options.log;
    this.#clock = options.clock;
    this.#onSettled = options.onSettled;
    this.#onRecovered = options.onRecovered;
  }

  /** Why the store can't be written at the moment, or null. */
  get failure(): string | null {
    return this.#failure;
  }

  /** Whether every write has been settled. */
  get idle(): boolean {
    return this.#queue.length === 0 && this.#batchesInFlight === 0;
  }

  create(write: CreateWrite, listener: CreationListener): void {
    this.#add({ kind: "create", write, listener });
  }

  advance(write: AdvanceWrite, listener: WriteListener): void {
    this.#add({ kind: "advance", write, listener });
  }

  /** Stops: creations that wait are dropped, other writes stay undone, for the orders' next owner to make again. */
  close(reason: string): void {
    this.#closed = true;
    this.#dropCreations(this.#queue, new Error(reason));
    this.#queue = [];
    this.#retryTimer?.[Symbol.dispose]();
    this.#retryTimer = null;
  }

  #add(entry: Entry): void {
    this.#queue.push(entry);
    this.#scheduleFlush();
  }

  #scheduleFlush(): void {
    if (this.#flushScheduled || this.#batchesInFlight >= BATCHES_IN_FLIGHT_MAX || this.#failure !== null) return;
    this.#flushScheduled = true;
    this.#clock.nextTurn(() => {
      this.#flushScheduled = false;
      this.#flush();
    });
  }

  #flush(): void {
    while (this.#queue.length > 0 && this.#batchesInFlight < BATCHES_IN_FLIGHT_MAX && !this.#closed) {
      const size = this.#nextBatchSize();
      const batch = size === this.#queue.length ? this.#queue : this.#queue.slice(0, size);
      this.#queue = size === this.#queue.length ? [] : this.#queue.slice(size);
      this.#batchesInFlight++;
      void this.#commit(batch);
    }
  }

  #nextBatchSize(): number {
    let size = 0;
    let chars = 0;
    for (const entry of this.#queue) {
      if (size === BATCH_WRITES_MAX || chars >= BATCH_BODY_CHARS_MAX) break;
      if (entry.kind === "create") chars += entry.write.body.length;
      size++;
    }
    return size;
  }

  async #commit(batch: readonly Entry[]): Promise<void> {
    let outcomes: readonly WriteOutcome[];
    try {
      outcomes = await this.#store.commit(batch.map((entry) => entry.write));
    } catch (error) {
      this.#batchesInFlight--;
      this.#fail(batch, error instanceof Error ? error : new Error(String(error)));
      return;
    }
    this.#batchesInFlight--;
    if (outcomes.length !== batch.length)
      throw new Error("the store answered another number of writes than it was given");
    let index = 0;
    for (const outcome of outcomes) batch[index++]?.listener.settled(outcome);
    this.#recover();
    this.#onSettled();
    this.#scheduleFlush();
  }

  #fail(batch: readonly Entry[], error: Error): void {
    if (this.#failure !== error.message) {
      this.#log.error(`The store failed: ${error.message}. New orders are refused until it works again.`);
    }
    this.#failure = error.message;
    this.#queue = this.#dropCreations([...batch, ...this.#queue], error);
    this.#onSettled();
    if (this.#retryTimer === null && !this.#closed) {
      this.#retryTimer = this.#clock.after(RETRY_MS, () => this.#retry());
    }
  }

  /** Tells the listeners of creations that they are dropped; returns the other writes. */
  #dropCreations(entries: readonly Entry[], error: Error): Entry[] {
    for (const entry of entries) if (entry.kind === "create") entry.listener.dropped(error);
    return entries.filter(({ kind }) => kind !== "create");
  }

  /** While writes wait, they are the trial; otherwise a write of no meaning is. */
  #retry(): void {
    this.#retryTimer = null;
    if (this.#queue.length > 0) return this.#flush();
    this.#store.probe().then(
      () => this.#recover(),
      (error: unknown) => this.#fail([], error instanceof Error ? error : new Error(String(error))),
    );
  }

  #recover(): void {
    if (this.#failure === null) return;
    this.#failure = null;
    this.#log.info("The store works again. New orders are accepted.");
    this.#onRecovered();
    this.#scheduleFlush();
  }
}
