/** Clients of the drill: they submit orders at a steady rate to whichever node answers, and remember what was acknowledged. */
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { BUILT_IN_STEPS } from "../pipelines/built-in.ts";

export interface AcknowledgedOrder {
  readonly orderId: string;
  /** The step in which it was asked to fail, or null. */
  readonly failAt: string | null;
}

/** Between two orders. */
const EVERY_MS = 15;
const FAILING_SHARE = 0.1;
const ANSWER_MS = 1_000;
const AGAIN_MS = 50;

export class Workload {
  readonly acknowledged: AcknowledgedOrder[] = [];
  /** Requests that were sent again, with the same Idempotency-Key, because nobody had answered. */
  retried = 0;
  readonly #urls: () => readonly string[];
  readonly #final = new Set<string>();
  readonly #underWay = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | null = null;
  #isGivenUp = false;

  /** @param urls the nodes that may be asked */
  constructor(urls: () => readonly string[]) {
    this.#urls = urls;
  }

  start(): void {
    this.#timer = setInterval(() => {
      const request = this.#submit();
      this.#underWay.add(request);
      void request.finally(() => this.#underWay.delete(request));
    }, EVERY_MS);
  }

  /** Submits no more; resolves when what was sent has been answered, or nobody is there to answer. */
  async stop(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    const giveUp = setTimeout(() => (this.#isGivenUp = true), 10 * ANSWER_MS);
    await Promise.all(this.#underWay);
    clearTimeout(giveUp);
  }

  /** Whether every acknowledged order has ended. */
  async allFinal(): Promise<boolean> {
    const [url] = this.#urls();
    if (url === undefined) return false;
    for (const { orderId } of this.acknowledged) {
      if (this.#final.has(orderId)) continue;
      try {
        const response = await fetch(`${url}/orders/${orderId}`, {
          headers: { authorization: "drill" },
          signal: AbortSignal.timeout(ANSWER_MS),
        });
        const order = (await response.json()) as { complete_time?: string };
        if (response.status === 200 && order.complete_time === undefined) return false;
        this.#final.add(orderId); // or it is not there: the judge will see
      } catch {
        return false;
      }
    }
    return true;
  }

  async #submit(): Promise<void> {
    const step = BUILT_IN_STEPS[Math.floor(Math.random() * BUILT_IN_STEPS.length)] ?? "";
    const failAt = Math.random() < FAILING_SHARE ? step : null;
    const key = randomUUID();
    while (!this.#isGivenUp) {
      const orderId = await this.#send(key, failAt);
      if (orderId !== null) {
        this.acknowledged.push({ orderId, failAt });
        return;
      }
      this.retried++;
      await delay(AGAIN_MS);
    }
  }

  async #send(key: string, failAt: string | null): Promise<string | null> {
    const urls = this.#urls();
    const url = urls[Math.floor(Math.random() * urls.length)];
    if (url === undefined) return null;
    try {
      const response = await fetch(`${url}/orders`, {
        method: "POST",
        headers: { authorization: "drill", "content-type": "application/json", "idempotency-key": key },
        body: JSON.stringify(failAt === null ? {} : { fail_at: failAt }),
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      const answer = (await response.json()) as { order_id?: string };
      return response.status === 201 ? (answer.order_id ?? null) : null;
    } catch {
      return null;
    }
  }
}
