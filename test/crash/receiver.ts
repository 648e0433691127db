/**
 * What the steps of the crash tests act upon: it runs in the test's process, so that it outlives every crash, and
 * remembers each call. It honours idempotency keys as guarantee G4 asks a receiver to: a key has its effect once. And it honours the
 * fence: a call that comes after a later one of its order has no effect.
 */
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";
import { atEnd } from "../support/at-end.ts";
import { monotonicMs } from "../support/wait.ts";

export type Direction = "run" | "rollback";

/** What a call says of itself. */
export interface StepCall {
  readonly orderId: string;
  readonly step: string;
  readonly direction: Direction;
  readonly attempt: number;
  /** Grows with every call of the order. */
  readonly fence: number;
  /** The incarnation that calls. */
  readonly incarnation: number;
  /** The order's last revision that the caller's store had confirmed before the call was made. */
  readonly durableRevision: number;
}

export interface ReceivedCall extends StepCall {
  /** When it came, by monotonicMs (test/support/wait.ts). */
  readonly atMs: number;
  /** Place among all calls, from 1. */
  readonly sequence: number;
  readonly key: string;
  /** The first call with its key, and not a late one: this one had the effect. */
  readonly hadEffect: boolean;
}

/** A call that has been recorded, and whose caller still waits for the answer. */
export interface HeldCall extends ReceivedCall {
  readonly answer: () => void;
}

export class Receiver {
  readonly calls: ReceivedCall[] = [];
  /** How often each key came. */
  readonly callsByKey = new Map<string, number>();
  readonly #effects = new Set<string>();
  /** The highest fence of each order. */
  readonly #fences = new Map<string, number>();
  /** In the order they came. */
  readonly held: HeldCall[] = [];
  // It never closes an idle connection: a caller about to use it would see a failure that is not part of the test.
  readonly #server = createServer(
    { keepAliveTimeout: 0 },
    (request, response) => void this.#receive(request, response),
  );
  /** How long a call takes: while it is under way, its order is in flight. */
  answerMs = 0;
  #holds: (call: ReceivedCall) => boolean = () => false;

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Calls beyond the first of their key. */
  get repeatedCalls(): number {
    return this.calls.length - this.callsByKey.size;
  }

  /** From now on, no such call gets an answer until it is given with `HeldCall.answer`. */
  hold(which: (call: ReceivedCall) => boolean = () => true): void {
    this.#holds = which;
  }

  /** Answers all that is held, and holds nothing more. */
  letGo(): void {
    this.#holds = () => false;
    for (const call of this.held) call.answer();
  }

  async open(): Promise<void> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
  }

  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  async #receive(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let said: StepCall;
    try {
      said = JSON.parse(await text(request)) as StepCall;
    } catch {
      response.destroy(); // the caller was killed in the middle of its request: it has not called
      return;
    }
    const call = this.#record(said, String(request.headers["idempotency-key"]));
    const answer = (): void => {
      if (!response.writableEnded) response.end("{}");
    };
    if (this.#holds(call)) this.held.push({ ...call, answer });
    else if (this.answerMs > 0) setTimeout(answer, this.answerMs);
    else answer();
  }

  #record(said: StepCall, key: string): ReceivedCall {
    const times = (this.callsByKey.get(key) ?? 0) + 1;
    this.callsByKey.set(key, times);
    const fence = Math.max(said.fence, this.#fences.get(said.orderId) ?? 0);
    this.#fences.set(said.orderId, fence);
    const hadEffect = said.fence === fence && !this.#effects.has(key);
    if (hadEffect) this.#effects.add(key);
    const call = { ...said, key, atMs: monotonicMs(), sequence: this.calls.length + 1, hadEffect };
    this.calls.push(call);
    return call;
  }
}

/** A receiver that listens until the test ends. */
export async function startReceiver(t: TestContext): Promise<Receiver> {
  const receiver = new Receiver();
  await receiver.open();
  atEnd(t, () => receiver.close());
  return receiver;
}
