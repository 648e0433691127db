/**
 * Tells those who follow events that something has changed: it reads the store's changes, whoever made them, again and again while
 * anybody listens.
 *
 * 1. Nobody relies on being told of each change: what is told is that there are some, and who wants to know which reads them. So
 *    nothing is lost when a listener is slow, or when this falls behind.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../log.ts";
import { type ChangePage, type Store, StoreUnavailableError } from "../store/store.ts";

/** Hears of changes. */
export interface ChangeListener {
  /** These orders have changed; null: which ones is not known, perhaps all. */
  changed(orderIds: ReadonlySet<string> | null): void;
}

/** An event is told of within about this time. */
const POLL_MS = 100;

/** Changes read at once. */
const PAGE_CHANGES = 2_000;

export class ChangeFeed {
  readonly #store: Pick<Store, "readChanges">;
  readonly #log: Logger;
  readonly #listeners = new Set<ChangeListener>();
  #reading = false;

  constructor(store: Pick<Store, "readChanges">, log: Logger) {
    this.#store = store;
    this.#log = log;
  }

  /** @returns ends it */
  listen(listener: ChangeListener): () => void {
    this.#listeners.add(listener);
    if (!this.#reading) void this.#read();
    return () => this.#listeners.delete(listener);
  }

  async #read(): Promise<void> {
    this.#reading = true;
    let cursor: string | null = null;
    while (this.#listeners.size > 0) {
      const page: ChangePage | null = await this.#readPage(cursor);
      if (page === null || page.kind === "gone") {
        cursor = null;
        if (page !== null) this.#tell(null);
      } else {
        // What happened before the first answer, a listener may have missed.
        if (cursor === null) this.#tell(null);
        else if (page.changes.length > 0) this.#tell(new Set(page.changes.map(({ orderId }) => orderId)));
        cursor = page.next;
        if (page.changes.length === PAGE_CHANGES) continue;
      }
      await delay(POLL_MS);
    }
    this.#reading = false;
  }

  async #readPage(cursor: string | null): Promise<ChangePage | null> {
    try {
      return await this.#store.readChanges(cursor, PAGE_CHANGES);
    } catch (error) {
      if (error instanceof StoreUnavailableError) return null;
      this.#log.error({ err: error }, "The changes of orders can't be read");
      return null;
    }
  }

  #tell(orderIds: ReadonlySet<string> | null): void {
    for (const listener of this.#listeners) listener.changed(orderIds);
  }
}
