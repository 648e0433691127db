/**
 * Whose turn it is: divides the time of the event loop between those that have sent something, new connections, and all else.
 *
 * 1. In a turn of the event loop those that wait are served for TURN_MS at the most, what that causes included; the rest waits for the next turn,
 *    behind timers and answers.
 * 2. Kinds take turns: who asks for little is not to wait for who asks for much.
 * 3. Node accepts one connection a turn, and a thousand may wait for that. So while they come, turns are short: the last of them is
 *    accepted soon, and those that are there go on.
 */
import { performance } from "node:perf_hooks"; // the global one is a getter
import process from "node:process";

/** Health checks, other nodes, who had nothing under way, who has sent requests ahead, who sends a body, who gets a large answer. */
export type Kind = "checks" | "nodes" | "fresh" | "ahead" | "bodies" | "large";

const TURN_MS = 5;

/**
 * So much longer may turns be together, where much waits; and then a part of all time. What counts is the processor's time: a machine that has
 * little of it takes longer, and nobody is to be cut for that. In 100 ms as many connect as may wait to be accepted (1,024), at 10,000 a second;
 * who comes then tries again only after a second.
 */
const LONGER_MS = 80;
const LONGER_SHARE = 1 / 4;

/** While connections come, each brings so much time. */
const ACCEPTING_MS = 0.1;

/** The same, of all time that went into something else: turns may be long for other reasons. */
const OTHERS_SHARE = 1 / 16;

const NOW = Promise.resolve();

/** Both in milliseconds. */
export interface TurnClock {
  /** Never jumps. */
  readonly now: () => number;
  /** How long this thread has worked. */
  readonly work: () => number;
}

const SYSTEM: TurnClock = {
  now: () => performance.now(),
  work: () => {
    const { user, system } = process.threadCpuUsage();
    return (user + system) / 1_000;
  },
};

export class Turns<Item> {
  readonly #serve: (item: Item) => void;
  readonly #isFull: () => boolean;
  readonly #clock: TurnClock;
  readonly #queues: Readonly<Record<Kind, Set<Item>>> = {
    checks: new Set(),
    nodes: new Set(),
    fresh: new Set(),
    ahead: new Set(),
    bodies: new Set(),
    large: new Set(),
  };
  /** Each kind once, the one that was served last at the end. */
  readonly #kinds = Object.values(this.#queues);
  /** Null: nobody has asked for anything since the last turn. */
  #startMs: number | null = null;
  /** Turns since a connection was accepted. */
  #turnsSinceAccepted = Number.POSITIVE_INFINITY;
  /** While connections come: what is left of the time for those that wait. */
  #acceptingMs = 0;
  /** How much longer a turn may be. */
  #longerMs = LONGER_MS;
  /** What the thread had worked when this turn became a longer one; null: it is none. */
  #longerFromMs: number | null = null;
  /** When those that wait were served last. */
  #servedMs = 0;
  /** Of the turn in which they are being served: when it began, and how long it may be. */
  #turnStartMs = 0;
  #turnMs = 0;
  /** Serves one of those that wait, and then the next, while there is time. */
  readonly #serveNext = (): void => {
    const usedMs = this.#clock.now() - this.#turnStartMs;
    const item = usedMs < this.#turnMs ? this.#next() : null;
    if (item === null) {
      // One that took long is not made up for by all others.
      this.#acceptingMs = Math.max(this.#acceptingMs - usedMs, -TURN_MS);
      this.#servedMs = this.#turnStartMs + usedMs;
      if (this.#kinds.some((queue) => queue.size > 0)) this.#begin();
      return;
    }
    this.#serve(item);
    // What it has caused is done before the clock is read again: promises that are settled, then ticks.
    void NOW.then(this.#serveNextLater);
  };
  readonly #serveNextLater = (): void => process.nextTick(this.#serveNext);

  /**
   * @param serve what is done with one of those that wait, when its turn has come
   * @param isFull whether there is so much that the node has not come to yet that turns may be longer
   */
  constructor(serve: (item: Item) => void, isFull: () => boolean, clock = SYSTEM) {
    this.#serve = serve;
    this.#isFull = isFull;
    this.#clock = clock;
  }

  /** A connection was accepted. */
  accepted(): void {
    this.#acceptingMs = Math.min(ACCEPTING_MS + (this.#isAccepting ? this.#acceptingMs : 0), TURN_MS);
    this.#turnsSinceAccepted = 0;
    this.#begin();
  }

  /** Whether something may be done at once; if not, it has to wait. */
  mayServe(): boolean {
    this.#begin();
    const usedMs = this.#clock.now() - (this.#startMs ?? 0);
    const { checks, nodes, fresh } = this.#queues;
    const isBehind = this.#isAccepting || checks.size + nodes.size + fresh.size > 0;
    const mostMs = isBehind ? 0 : TURN_MS;
    if (usedMs < mostMs) return true;
    if (!this.#isFull()) return false;
    this.#longerFromMs ??= this.#clock.work();
    return this.#clock.work() - this.#longerFromMs < this.#longerMs;
  }

  /** Has it wait for its turn. */
  add(item: Item, kind: Kind): void {
    this.#queues[kind].add(item);
    this.#begin();
  }

  delete(item: Item, kind: Kind): void {
    this.#queues[kind].delete(item);
  }

  /** Whether connections may be waiting to be accepted: one was, in this turn or the one before. */
  get #isAccepting(): boolean {
    return this.#turnsSinceAccepted < 2;
  }

  #begin(): void {
    if (this.#startMs !== null) return;
    this.#startMs = this.#clock.now();
    setImmediate(() => this.#end());
  }

  #end(): void {
    const nowMs = this.#clock.now();
    const othersMs = nowMs - this.#servedMs;
    this.#acceptingMs = Math.min(this.#acceptingMs + othersMs * OTHERS_SHARE, TURN_MS);
    const usedMs = this.#longerFromMs === null ? 0 : this.#clock.work() - this.#longerFromMs;
    this.#longerMs = Math.min(Math.max(0, this.#longerMs - usedMs) + othersMs * LONGER_SHARE, LONGER_MS);
    this.#longerFromMs = null;
    const allowedMs = this.#isAccepting ? this.#acceptingMs : TURN_MS;
    this.#startMs = null;
    this.#turnsSinceAccepted++;
    this.#turnStartMs = nowMs;
    this.#turnMs = allowedMs;
    this.#serveNext();
  }

  #next(): Item | null {
    const at = this.#kinds.findIndex((queue) => queue.size > 0);
    const [queue] = at < 0 ? [] : this.#kinds.splice(at, 1);
    if (queue === undefined) return null;
    this.#kinds.push(queue);
    const [item] = queue;
    if (item === undefined) return null;
    queue.delete(item);
    return item;
  }
}
