/**
 * One connection to one Redis server, made again whenever it is lost, until it is closed.
 *
 * 1. A command is written once. When the connection is lost, what was under way rejects, and is never sent again by itself:
 *    whether it was carried out is not known.
 * 2. Nothing waits for a connection: a command given while there is none rejects at once.
 * 3. Every command ends in bounded time: a connection that leaves one unanswered for COMMAND_TICKS_MAX is given up whole, as
 *    answers come in order and the next would be mistaken for it.
 * 4. No attempt to connect takes longer than CONNECT_MS_MAX, also where the server accepts and then says nothing.
 *
 * Errors: Redis's own (`ErrorReply`) as they are; everything else as RedisConnectionError.
 */
import { setTimeout as delay } from "node:timers/promises";
import { createClient, ErrorReply } from "@redis/client";
import type { RedisLocation } from "./location.ts";
import { isFinalRefusal, reasonOf, RedisConnectionError } from "./reasons.ts";

export interface ConnectionOptions {
  readonly location: RedisLocation;
  readonly username?: string;
  readonly password?: string;
  /** Told when a connection that worked is lost, and when it is back. */
  readonly onNotice?: (line: string) => void;
  /** Told of each connection before anything is sent over it: the server may be another than before, or have other settings. */
  readonly onConnected?: () => void;
}

/** One attempt to connect, with the handshake. */
const CONNECT_MS_MAX = 3_000;
/** A shorter one would say more about this machine than about the other. */
const ATTEMPT_MS_MIN = 1_000;

/** Between attempts: a restarted server is found at once, and one that is down is not bothered. */
const RECONNECT_MS_MIN = 50;
const RECONNECT_MS_MAX = 1_000;

/**
 * Unanswered commands are looked at in ticks, not by the clock: after a pause of this process (a stop, a debugger, a suspended
 * machine) the answers that have come in meanwhile are read before a second tick is counted.
 */
const TICK_MS = 250;
const COMMAND_TICKS_MAX = 20;

type Client = ReturnType<typeof newClient>;

/** A connection that has been made. */
interface Session {
  readonly client: Client;
  /** The tick in which each command under way was given, oldest first. */
  readonly underWay: Set<{ readonly tick: number }>;
  /** Why it was given up; null: it wasn't. */
  ending: Error | null;
}

export class RedisConnection {
  readonly location: RedisLocation;
  readonly #options: ConnectionOptions;
  readonly #abandoned = new AbortController();
  readonly #ticker: NodeJS.Timeout;
  #session: Session | null = null;
  #tick = 0;
  /** Why there is no session. */
  #absence: Error = new RedisConnectionError("not connected yet");
  #firstTry: Promise<void> | null = null;

  constructor(options: ConnectionOptions) {
    this.location = options.location;
    this.#options = options;
    this.#ticker = setInterval(() => this.#countTick(), TICK_MS);
    this.#ticker.unref();
  }

  get isConnected(): boolean {
    return this.#session !== null;
  }

  /**
   * Connects for the first time, with attempts one after another.
   * @param patienceMs how long they go on; one that the server has refused for good is the last
   * @throws the last attempt's error
   */
  async connect(patienceMs: number): Promise<void> {
    this.#firstTry = Promise.resolve();
    const endMs = performance.now() + patienceMs;
    for (let pauseMs = RECONNECT_MS_MIN; ; pauseMs = Math.min(2 * pauseMs, RECONNECT_MS_MAX)) {
      try {
        return await this.#attempt(Math.min(Math.max(endMs - performance.now(), ATTEMPT_MS_MIN), CONNECT_MS_MAX));
      } catch (error) {
        if (isFinalRefusal(error) || performance.now() + pauseMs >= endMs) throw error;
      }
      await this.#pause(pauseMs);
    }
  }

  /** Begins to connect, unless that has begun. Resolves when the first attempt is over, however it ended; others follow. */
  connectOnce(): Promise<void> {
    this.#firstTry ??= this.#attempt(CONNECT_MS_MAX).catch((error: unknown) => {
      this.#absence = connectionError(error);
      void this.#reconnect();
    });
    return this.#firstTry;
  }

  /** Sends commands one directly after another, and resolves with the last one's answer. */
  async send(...commands: readonly (readonly string[])[]): Promise<unknown> {
    const session = this.#session;
    if (session === null) throw this.#absence;
    const entry = { tick: this.#tick };
    session.underWay.add(entry);
    try {
      // In one turn of the event loop, so that nothing comes between.
      const answers = await Promise.all(commands.map((command) => session.client.sendCommand(command)));
      return answers.at(-1);
    } catch (error) {
      throw error instanceof ErrorReply ? error : (session.ending ?? connectionError(error));
    } finally {
      session.underWay.delete(entry);
    }
  }

  /** Lets go of the connection. What is under way rejects. */
  close(): void {
    clearInterval(this.#ticker);
    this.#absence = new RedisConnectionError("the connection to Redis was closed");
    this.#abandoned.abort();
    if (this.#session !== null) this.#end(this.#session, this.#absence);
  }

  /** Makes one connection, or none. */
  async #attempt(timeoutMs: number): Promise<void> {
    const client = newClient(this.#options, timeoutMs);
    const session: Session = { client, underWay: new Set(), ending: null };
    const given = (): boolean => session.ending !== null || this.#abandoned.signal.aborted;
    let cause: unknown = null;
    client.on("error", (error: unknown) => {
      if (session === this.#session) return this.#lose(session, error);
      // The attempt has failed; where the answer was no Redis's, the client would go on waiting for one.
      cause ??= error;
      client.destroy();
    });
    // A client that was let go of while its socket was being made would keep that socket.
    let isAccepted = false;
    client.on("connect", () => {
      isAccepted = true;
      if (given()) client.destroy();
    });
    const timer = setTimeout(() => {
      session.ending = new RedisConnectionError(
        isAccepted
          ? "it accepts connections, but does not answer; correct the address, and look whether it wants TLS (rediss:) or none"
          : `its host does not answer${this.location.tls ? ", or not in TLS (rediss:)" : ""}; correct the address, or look at the network`,
      );
      client.destroy();
    }, timeoutMs);
    try {
      await client.connect();
    } catch (error) {
      client.destroy();
      throw session.ending ?? cause ?? error;
    } finally {
      clearTimeout(timer);
    }
    if (given()) {
      client.destroy();
      throw session.ending ?? this.#absence;
    }
    this.#session = session;
    this.#options.onConnected?.();
  }

  async #reconnect(): Promise<void> {
    for (let pauseMs = RECONNECT_MS_MIN; ; pauseMs = Math.min(2 * pauseMs, RECONNECT_MS_MAX)) {
      await this.#pause(pauseMs);
      if (this.#abandoned.signal.aborted) return;
      try {
        await this.#attempt(CONNECT_MS_MAX);
        this.#options.onNotice?.("The connection to Redis is back");
        return;
      } catch (error) {
        if (this.#abandoned.signal.aborted) return;
        this.#absence = connectionError(error);
      }
    }
  }

  /** The session has failed: another takes its place. */
  #lose(session: Session, error: unknown): void {
    const reason = error instanceof RedisConnectionError ? error : lossError(error);
    this.#absence = reason;
    this.#end(session, reason);
    this.#options.onNotice?.(`${reason.message.charAt(0).toUpperCase()}${reason.message.slice(1)}`);
    void this.#reconnect();
  }

  #end(session: Session, reason: Error): void {
    this.#session = null;
    session.ending = reason;
    session.client.destroy();
  }

  #countTick(): void {
    this.#tick++;
    const session = this.#session;
    const [oldest] = session?.underWay ?? [];
    if (session === null || oldest === undefined || this.#tick - oldest.tick <= COMMAND_TICKS_MAX) return;
    const seconds = (COMMAND_TICKS_MAX * TICK_MS) / 1_000;
    this.#lose(
      session,
      new RedisConnectionError(`Redis has not answered for ${seconds} s; look at it and at the network`),
    );
  }

  async #pause(ms: number): Promise<void> {
    // Ends early when the connection is closed: the caller looks at that.
    await delay(ms, undefined, { signal: this.#abandoned.signal }).catch(() => undefined);
  }
}

function newClient({ location, username, password }: ConnectionOptions, connectTimeoutMs: number) {
  const { host, port, tls, db } = location;
  const connecting = { host, port, connectTimeout: connectTimeoutMs, reconnectStrategy: false } as const;
  return createClient({
    socket: tls ? { ...connecting, tls } : connecting,
    ...(username === undefined ? {} : { username }),
    ...(password === undefined ? {} : { password }),
    database: db,
    RESP: 2, // its answers are lists and texts, the same for every command
    disableOfflineQueue: true,
    maintNotifications: "disabled",
    clientInfoTag: "order_process",
    commandOptions: { timeout: 0 }, // none: it would only be for commands that are not written yet, with a timer each
  });
}

function connectionError(error: unknown): Error {
  if (error instanceof RedisConnectionError) return error;
  return new RedisConnectionError(`Redis can't be reached: ${reasonOf(error)}`, { cause: error });
}

function lossError(error: unknown): RedisConnectionError {
  return new RedisConnectionError(`the connection to Redis was lost: ${reasonOf(error)}`, { cause: error });
}
