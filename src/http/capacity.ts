/** What the HTTP side of a node holds for its clients, and the most that it does: in one place, so that it can be looked at. */
import type { ServerResponse } from "node:http";
import { Budget } from "./budget.ts";
import type { Connections } from "./connections.ts";

export interface CapacityLimits {
  readonly incomingBytesMax: number;
  readonly outgoingBytesMax: number;
  readonly connectionsMax: number;
}

export interface Capacity {
  /** Connections. */
  readonly connections: Budget;
  /** Bytes that came in and belong to no request yet. */
  readonly received: Budget;
  /** Bytes of bodies that are received or being answered. */
  readonly incoming: Budget;
  /** The same, of what nodes say to each other: it gets through when clients have used up theirs. */
  readonly nodes: Budget;
  /** Bytes of answers and events that clients have not taken yet. */
  readonly outgoing: Budget;
  /** Requests that have the store read orders, until they are answered: as requests they take much, and they wait for each other. */
  readonly reads: Budget;
  /** Event streams, of one order or of all. */
  readonly streams: Budget;
  /** Those of all orders: each reads much. */
  readonly followers: Budget;
}

/** Connections that no event stream takes. */
const UNSTREAMED_SHARE = 1 / 6;

/** 64 of the largest that nodes send. */
const NODE_BYTES_MAX = 4 * 1024 * 1024;

const FOLLOWERS_MAX = 100;

/** Some 50 KB each, with what becomes of them. */
const READS_MAX = 1_000;

/** Nobody's body is taken back for another one of the same client while it arrives at all. */
const BODY_KEEP_MS = 1_000;

/** A read that has waited no longer gives way only to who has less than half of its user's. */
const READ_KEEP_MS = 1_000;

/** Who follows goes on behind the last event when it connects again, and does so no more often than that. */
const STREAM_KEEP_MS = 10_000;

export function createCapacity(
  { places: connections, received }: Pick<Connections, "places" | "received">,
  { incomingBytesMax, outgoingBytesMax, connectionsMax }: CapacityLimits,
): Capacity {
  const bodies = { keepMs: 0, keepOwnMs: BODY_KEEP_MS };
  const streams = { keepMs: STREAM_KEEP_MS, keepOwnMs: Number.POSITIVE_INFINITY };
  const reads = { keepMs: READ_KEEP_MS, keepOwnMs: Number.POSITIVE_INFINITY };
  return {
    connections,
    received,
    incoming: new Budget({ max: incomingBytesMax, ...bodies }),
    nodes: new Budget({ max: NODE_BYTES_MAX, ...bodies }),
    outgoing: new Budget({ max: outgoingBytesMax, keepMs: 0, keepOwnMs: 0 }),
    reads: new Budget({ max: READS_MAX, ...reads }),
    streams: new Budget({ max: Math.ceil(connectionsMax * (1 - UNSTREAMED_SHARE)), ...streams }),
    followers: new Budget({ max: FOLLOWERS_MAX, ...streams }),
  };
}

/** Calls back when an answer has been taken, or its client is gone, also when that was before. */
export function whenClosed(response: ServerResponse, action: () => void): void {
  if (response.closed || response.destroyed) action();
  else response.once("close", action);
}
