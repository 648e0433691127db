/**
 * People who steer the orders of a load while nodes are harmed: each order gets one of some ways to be treated, by requests to whichever
 * node, and comes to its end. What was answered is kept.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { AcknowledgedAction, Acknowledgement, SteeringAction } from "../crash/checker.ts";
import { seededRandom } from "../crash/seeded-random.ts";
import { type Answer, send } from "../support/client.ts";
import { DEADLINE_MS, monotonicMs } from "../support/wait.ts";

export interface SteerersOptions {
  /** Addresses of the nodes that are known at the moment. */
  readonly urls: () => readonly string[];
  readonly seed: number;
  /** Grows while the load goes on. */
  readonly orders: readonly Acknowledgement[];
}

/** The step that waits for a signal. */
const STEP = "Approve";

/** Between two looks at the same order, and before the same thing is asked again. */
const AGAIN_MS = 100;

/** After it a request is given up: the node may be frozen. */
const ANSWER_MS = 2_000;

/** Something is asked of an order at a time at which it is anywhere in its life. */
const SOME_TIME_MS = 500;

export class Steerers {
  readonly acknowledged: AcknowledgedAction[] = [];
  /** Answers that said that the order does not allow it, at the moment. */
  refused = 0;
  /** Why somebody has given up, or null. */
  failure: Error | null = null;
  readonly #urls: () => readonly string[];
  readonly #random: () => number;
  readonly #orders: readonly Acknowledgement[];
  readonly #underWay = new Set<Promise<void>>();
  readonly #timer: NodeJS.Timeout;
  #begun = 0;
  #abandoned = false;

  constructor({ urls, seed, orders }: SteerersOptions) {
    this.#urls = urls;
    this.#random = seededRandom(seed);
    this.#orders = orders;
    this.#timer = setInterval(() => this.#beginNew(), 20);
  }

  /** Resolves when all orders are final that clients know of. */
  async finish(): Promise<void> {
    this.#beginNew();
    await Promise.all(this.#underWay);
    clearInterval(this.#timer);
    if (this.failure !== null) throw this.failure;
  }

  /** Goes on with orders that nobody knows of, as their submission had no answer. */
  async finishUnknown(): Promise<void> {
    for (const [status, action] of [
      ["paused", "resume"],
      ["waiting", "complete"],
    ] as const) {
      const answer = await this.#answered(`/orders?status=${status}`, {});
      const { orders = [] } = (answer?.json ?? {}) as { orders?: { order_id: string }[] };
      await Promise.all(orders.map(({ order_id: orderId }) => this.#ask(orderId, action)));
    }
  }

  abandon(): void {
    this.#abandoned = true;
    clearInterval(this.#timer);
  }

  facts(): readonly (readonly [string, number])[] {
    const counts = Map.groupBy(this.acknowledged, ({ action }) => action);
    return [...Array.from(counts, ([action, all]) => [action, all.length] as const), ["not allowed", this.refused]];
  }

  #beginNew(): void {
    for (; this.#begun < this.#orders.length; this.#begun++) {
      const orderId = this.#orders[this.#begun]?.orderId ?? "";
      const work = this.#treat(orderId).catch((error: unknown) => {
        this.failure ??= error instanceof Error ? error : new Error(String(error));
      });
      this.#underWay.add(work);
      void work.then(() => this.#underWay.delete(work));
    }
  }

  async #treat(orderId: string): Promise<void> {
    const sometime = (): Promise<void> => delay(this.#random() * SOME_TIME_MS);
    const die = this.#random();
    if (die < 0.15) {
      await sometime();
      await this.#ask(orderId, "cancel");
    } else if (die < 0.35) {
      await sometime();
      await this.#ask(orderId, "pause");
      await sometime();
      if (die < 0.2) await this.#ask(orderId, "cancel");
    } else if (die < 0.45) {
      await sometime();
      await Promise.all([this.#ask(orderId, "cancel"), this.#ask(orderId, "pause"), this.#ask(orderId, "complete")]);
    }
    const isTwice = die > 0.7;
    const endMs = monotonicMs() + DEADLINE_MS;
    while (!this.#abandoned) {
      const status = await this.#statusOf(orderId);
      if (status === "completed" || status === "failed" || status === "canceled") return;
      if (status === "paused") await this.#ask(orderId, "resume");
      if (status === "running" || status === "waiting") {
        await Promise.all(Array.from({ length: isTwice ? 2 : 1 }, () => this.#ask(orderId, "complete")));
      }
      await delay(AGAIN_MS);
      if (monotonicMs() > endMs) throw new Error(`order ${orderId} was still ${status} after ${DEADLINE_MS} ms`);
    }
  }

  /** Asks until there is an answer that is one. */
  async #ask(orderId: string, action: SteeringAction): Promise<void> {
    const body = JSON.stringify(action === "complete" ? { step: STEP, result: { signed: true } } : {});
    const answer = await this.#answered(`/orders/${orderId}/${action}`, { method: "POST", body });
    if (answer?.status === 200) this.acknowledged.push({ orderId, action });
    else if (answer?.status === 409) this.refused++;
    else if (answer !== null) throw new Error(`${action} was answered ${answer.status}: ${answer.text}`);
  }

  async #statusOf(orderId: string): Promise<string> {
    const answer = await this.#answered(`/orders/${orderId}`, {});
    if (answer !== null && answer.status !== 200) throw new Error(`order ${orderId}: ${answer.status} ${answer.text}`);
    return String(answer?.json?.["status"]);
  }

  /** Null: abandoned. */
  async #answered(path: string, init: RequestInit): Promise<Answer | null> {
    const headers = {
      authorization: "user",
      ...(init.method === "POST" ? { "content-type": "application/json" } : {}),
    };
    const endMs = monotonicMs() + DEADLINE_MS;
    while (!this.#abandoned) {
      const urls = this.#urls();
      const url = urls[Math.floor(this.#random() * urls.length)];
      try {
        if (url !== undefined) {
          const answer = await send(`${url}${path}`, { ...init, headers, signal: AbortSignal.timeout(ANSWER_MS) });
          if (answer.status !== 503) return answer;
        }
      } catch (error) {
        if (!(error instanceof TypeError || error instanceof DOMException)) throw error;
      }
      if (monotonicMs() > endMs) throw new Error(`${path} got no answer for ${DEADLINE_MS} ms`);
      await delay(AGAIN_MS);
    }
    return null;
  }
}
