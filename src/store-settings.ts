/**
 * What the store's settings make of an acknowledgement: read at the start, again now and then (somebody may change them), and
 * whenever the store may be another process than before, started with others. Until they have been read then, nobody knows.
 */
import type { Logger } from "./log.ts";
import { type Durability, type Store, type StoreReport, StoreUnavailableError } from "./store/store.ts";

/** While all is well, they are read again after this time; */
const LOOK_AGAIN_MS = 15_000;
/** while they are not known, or have orders refused, after this. */
const LOOK_SOON_MS = 500;

const UNKNOWN: StoreReport = { durability: "unknown", advice: [] };

export class StoreSettings {
  readonly #store: Store;
  readonly #log: Logger;
  readonly #isRequired: boolean;
  readonly #timer: NodeJS.Timeout;
  /** What was read last. */
  #last: StoreReport;
  /** The durability that the log has told last. */
  #said: Durability;
  /** How often it was said that what was read may hold no longer. */
  #doubts = 0;
  /** At which of them the settings were read last, and when, by this process's clock. */
  #readAt = 0;
  #readAtMs = performance.now();
  #isLooking = false;

  /**
   * @param first what the store has just reported
   * @param isRequired new orders are refused unless every write is synced (`--require-durable`)
   */
  constructor(store: Store, { first, isRequired, log }: { first: StoreReport; isRequired: boolean; log: Logger }) {
    this.#store = store;
    this.#last = first;
    this.#said = first.durability;
    this.#isRequired = isRequired;
    this.#log = log;
    this.#timer = setInterval(() => {
      const isWell = this.#isKnown && this.failure === null;
      if (!isWell || performance.now() - this.#readAtMs >= LOOK_AGAIN_MS) void this.#look();
    }, LOOK_SOON_MS);
    this.#timer.unref();
  }

  get report(): StoreReport {
    return this.#isKnown ? this.#last : UNKNOWN;
  }

  /** Why new orders can't be acknowledged; null: they can. */
  get failure(): string | null {
    const { durability } = this.report;
    if (!this.#isRequired || durability === "fsync-always") return null;
    return `the store's durability is ${durability} by now, and --require-durable is set; see the log for what to set`;
  }

  /** The store may be another process than before. */
  doubt(): void {
    this.#doubts++;
    void this.#look();
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  get #isKnown(): boolean {
    return this.#readAt === this.#doubts;
  }

  async #look(): Promise<void> {
    if (this.#isLooking) return;
    this.#isLooking = true;
    try {
      do await this.#read();
      while (!this.#isKnown);
    } catch (error) {
      if (!(error instanceof StoreUnavailableError)) throw error; // away: that is said elsewhere
    } finally {
      this.#isLooking = false;
    }
  }

  async #read(): Promise<void> {
    const doubts = this.#doubts;
    const report = await this.#store.report();
    this.#readAt = doubts;
    this.#readAtMs = performance.now();
    this.#last = report;
    if (this.#isKnown && report.durability !== this.#said) this.#say(report);
  }

  #say({ durability, advice }: StoreReport): void {
    const line = `Durability of what is acknowledged: ${durability}, which was ${this.#said}`;
    this.#said = durability;
    if (durability === "fsync-always") this.#log.info(line);
    else this.#log.warn(line);
    for (const each of advice) this.#log.warn(`The store: ${each}`);
    if (!this.#isRequired) return;
    if (durability === "fsync-always") this.#log.info("New orders are accepted again.");
    else this.#log.error("New orders are refused until it is fsync-always again, as --require-durable is set.");
  }
}
