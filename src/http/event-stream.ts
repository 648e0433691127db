/**
 * One answer of server-sent events (the WHATWG's HTML standard, 9.2), to a client that may be slow or gone.
 *
 * 1. What waits to be sent is bounded, as its owner sends no more before the client has taken it (`drained`). Who takes nothing for long is
 *    cut off, and can go on from the last event that it has got.
 */
import type { FastifyReply } from "fastify";
import type { Holding } from "./budget.ts";
import { SECURITY_HEADERS } from "./security-headers.ts";

/** A comment now and then keeps what is between the two from taking the connection for dead. */
const KEEP_ALIVE_MS = 15_000;

/** How long a client waits before it connects again. */
const RECONNECT_MS = 1_000;

/** A client that reads takes something within it. */
const STUCK_MS_MAX = 60_000;

export interface EventStreamOptions {
  /** What a client that connects again goes on behind, where it is not the last event that it was sent. */
  readonly position?: () => string;
  /** How long the client may take nothing while something waits for it. */
  readonly stuckMsMax?: number;
  /** What waits for the client counts here. */
  readonly unread: Holding;
}

export class EventStream {
  readonly #reply: FastifyReply;
  readonly #unread: Holding;
  readonly #stuckMsMax: number;
  readonly #keepAlive: NodeJS.Timeout;
  readonly #onEnd: (() => void)[] = [];
  #ended = false;

  /** Sends the answer's head. */
  constructor(reply: FastifyReply, { position, stuckMsMax = STUCK_MS_MAX, unread }: EventStreamOptions) {
    this.#reply = reply;
    this.#stuckMsMax = stuckMsMax;
    this.#unread = unread;
    reply.hijack();
    const { raw } = reply;
    raw.writeHead(200, {
      ...SECURITY_HEADERS,
      "content-type": "text/event-stream",
      "x-accel-buffering": "no",
    });
    raw.write(`retry: ${RECONNECT_MS}\n\n`);
    // An id without data is no event, and yet remembered.
    const sign = (): string => (position === undefined ? ":\n\n" : `id: ${position()}\n\n`);
    if (position !== undefined) raw.write(sign());
    raw.on("close", () => this.end());
    raw.on("error", () => this.end());
    this.#keepAlive = setInterval(() => {
      if (!this.isFull) this.send(sign());
    }, KEEP_ALIVE_MS);
    this.#keepAlive.unref();
    // A client that has gone, or has said that it goes, before this was made is not heard of any more.
    if (raw.destroyed || raw.socket?.readableEnded === true) this.end();
  }

  get hasEnded(): boolean {
    return this.#ended;
  }

  /** To be called once, when it has ended for whatever reason. */
  onEnd(action: () => void): void {
    if (this.#ended) action();
    else this.#onEnd.push(action);
  }

  /** Whether the client has not taken yet what was sent: then nothing more is to be sent. */
  get isFull(): boolean {
    return this.#reply.raw.writableNeedDrain;
  }

  /** Sends events, as eventText makes them. */
  send(events: string): void {
    if (this.#ended) return;
    this.#reply.raw.write(events);
    if (this.isFull && !this.#unread.set(this.#reply.raw.writableLength)) this.#cut();
  }

  /** Counts what its owner keeps until the client has taken what was sent. */
  keepFor(chars: number): void {
    if (!this.#ended && !this.#unread.set(this.#reply.raw.writableLength + chars)) this.#cut();
  }

  /** Resolves when the client has taken what was sent, or it has ended. */
  async drained(): Promise<void> {
    const { raw } = this.#reply;
    if (this.#ended || !this.isFull) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(() => this.#cut(), this.#stuckMsMax);
      const done = (): void => {
        clearTimeout(timer);
        this.#unread.set(0);
        raw.off("drain", done);
        raw.off("close", done);
        resolve();
      };
      raw.on("drain", done);
      raw.on("close", done);
    });
  }

  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#keepAlive);
    this.#reply.raw.end();
    for (const action of this.#onEnd) action();
  }

  #cut(): void {
    this.#reply.raw.destroy();
    this.end();
  }
}

/** An event as it is sent. */
export function eventText(id: string, data: object): string {
  return `id: ${id}\ndata: ${JSON.stringify(data)}\n\n`;
}
