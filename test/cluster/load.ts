/** Clients of a cluster: each submits one order after the other, to whichever node, and keeps what it was promised. */
import { setTimeout as delay } from "node:timers/promises";
import type { Acknowledgement } from "../crash/checker.ts";
import { seededRandom } from "../crash/seeded-random.ts";
import { submitOrder } from "../support/client.ts";
import { DEADLINE_MS, monotonicMs } from "../support/wait.ts";

export interface LoadOptions {
  /** Addresses of the nodes that clients know at the moment. */
  readonly urls: () => readonly string[];
  readonly seed: number;
  readonly clients: number;
  /** Of the pipeline. */
  readonly stepNames: readonly string[];
}

/** Between an answer and the client's next order: the machine is to be busy, not overrun. */
const PACE_MS = 15;

/** After it a client gives a request up: the node may be frozen. */
const ANSWER_MS = 2_000;

export class ClusterLoad {
  readonly acknowledged: Acknowledgement[] = [];
  /** Requests that had no answer. */
  cutOff = 0;
  /** Requests that were answered with 503. */
  refused = 0;
  /** Why a client has ended by itself, or null. */
  failure: Error | null = null;
  readonly #urls: () => readonly string[];
  readonly #stepNames: readonly string[];
  readonly #clients: Promise<void>;
  #made = 0;
  #stopping = false;
  #abandoned = false;

  constructor({ urls, seed, clients, stepNames }: LoadOptions) {
    this.#urls = urls;
    this.#stepNames = stepNames;
    const all = Array.from({ length: clients }, (_, index) => this.#runClient(seededRandom(seed + index)));
    this.#clients = Promise.all(all).then(() => undefined);
    this.#clients.catch((error: unknown) => (this.failure = error instanceof Error ? error : new Error(String(error))));
  }

  /** Whether it goes on. */
  get isOn(): boolean {
    return !this.#stopping;
  }

  /** Begins nothing more, and resolves when what was begun with a key has its answer. */
  stop(): Promise<void> {
    this.#stopping = true;
    return this.#clients;
  }

  /** Ends at once, whatever has no answer. */
  abandon(): void {
    this.#stopping = true;
    this.#abandoned = true;
  }

  async #runClient(random: () => number): Promise<void> {
    while (!this.#stopping) {
      await this.#submitOne(random);
      await delay(PACE_MS);
    }
  }

  async #submitOne(random: () => number): Promise<void> {
    const number = ++this.#made;
    const idempotencyKey = random() < 0.7 ? `key-${number}` : null;
    const body = JSON.stringify({ number, ...fate(random, this.#stepNames) });
    const endMs = monotonicMs() + DEADLINE_MS;
    while (!this.#abandoned) {
      const urls = this.#urls();
      const url = urls[Math.floor(random() * urls.length)];
      const orderId = url === undefined ? null : await this.#ask(url, body, idempotencyKey);
      if (orderId !== null) {
        this.acknowledged.push({ orderId, idempotencyKey, body });
        return;
      }
      // Without a key, to send it again would be another order; whether there is one now, nobody knows.
      if (idempotencyKey === null) return;
      if (monotonicMs() > endMs) throw new Error(`a client got no order accepted for ${DEADLINE_MS} ms`);
      await delay(PACE_MS);
    }
  }

  /** Null: nobody knows whether there is an order now. */
  async #ask(url: string, body: string, key: string | null): Promise<string | null> {
    try {
      const headers = key === null ? {} : { "idempotency-key": key };
      const answer = await submitOrder(url, body, headers, AbortSignal.timeout(ANSWER_MS));
      if (answer.status === 201) return String(answer.json?.["order_id"]);
      if (answer.status !== 503) throw new Error(`a client was answered ${answer.status}: ${answer.text}`);
      this.refused++;
    } catch (error) {
      if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
      this.cutOff++;
    }
    return null;
  }
}

/** What a body asks for: two in ten orders fail, two in ten have a hiccup. */
function fate(random: () => number, stepNames: readonly string[]): object {
  const step = stepNames[Math.floor(random() * stepNames.length)];
  const die = random();
  if (die < 0.2) return { fail_at: step };
  return die < 0.4 ? { flaky_at: step } : {};
}
