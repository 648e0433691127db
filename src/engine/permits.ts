/**
 * How the nodes of a cluster divide the calls that a step's limit allows them together: a decision, and the record in the store that
 * it is made on.
 *
 * 1. The shares on record are never more than the limit together, and no node has more calls under way than its share; those of a
 *    node that was taken for dead are not counted any more, though it may still be ending them.
 * 2. Whoever wants calls gets its part of them. Where there are fewer calls than nodes that want some, they take turns.
 */
import type { Incarnation } from "../order/events.ts";

/** What a node has of a limit. */
export interface Share {
  readonly incarnation: Incarnation;
  /** Calls that it may have under way. */
  readonly calls: number;
  /** Calls that it would make at once, if it could; never more than the limit. */
  readonly wanted: number;
  /** The version of the record in which it came to wait; of no meaning while it has calls. */
  readonly turn: number;
}

export interface PermitRecord {
  /** Grows at each change, so that no two records are the same. */
  readonly version: number;
  readonly shares: readonly Share[];
}

/** What a node needs. */
export interface Need {
  readonly underWay: number;
  readonly wanted: number;
}

export interface Division {
  /** With this node's new share. */
  readonly record: PermitRecord;
  /** Whether it has one. */
  readonly isListed: boolean;
  /** Whether the record differs from the former one. */
  readonly isNew: boolean;
  /** How many calls this node may have under way; fewer than its share where more are, that are to end. */
  readonly allowed: number;
}

const NO_RECORD: PermitRecord = { version: 0, shares: [] };

/** What this node takes of a limit, or gives back, given the shares of those who live. */
export function divide(former: PermitRecord, self: Incarnation, callsMax: number, need: Need): Division {
  const others = former.shares.filter(({ incarnation }) => incarnation !== self);
  const mine = former.shares.find(({ incarnation }) => incarnation === self) ?? null;
  const version = former.version + 1;
  const wanted = Math.min(callsMax, Math.max(need.wanted, need.underWay));
  // Who has calls comes after those who wait; who comes to wait, after those who do already.
  const since = mine !== null && mine.calls === 0 ? mine.turn : version;
  const allowed = Math.max(0, Math.min(wanted, callsMax - keptForOthers(others, since, callsMax)));
  const calls = Math.max(allowed, need.underWay);
  const share: Share = { incarnation: self, calls, wanted, turn: since };
  const isIdle = calls === 0 && wanted === 0;
  const isNew = isIdle ? mine !== null : mine?.calls !== calls || mine.wanted !== wanted;
  return { record: { version, shares: isIdle ? others : [...others, share] }, isListed: !isIdle, isNew, allowed };
}

/** What the others have, or are to get before this node gets more. */
function keptForOthers(others: readonly Share[], since: number, callsMax: number): number {
  const part = Math.floor(callsMax / (others.length + 1));
  return others.reduce((kept, other) => {
    const due = part > 0 ? part : other.calls === 0 && other.turn < since ? 1 : 0;
    return kept + Math.max(other.calls, Math.min(other.wanted, due));
  }, 0);
}

/** A record as the store keeps it. */
export function encodePermits({ version, shares }: PermitRecord): string {
  return JSON.stringify([
    version,
    shares.map(({ incarnation, calls, wanted, turn }) => [incarnation, calls, wanted, turn]),
  ]);
}

/**
 * A record from its text, without the shares of those who don't live.
 * @throws Error when it is none
 */
export function decodePermits(text: string | null, alive: readonly Incarnation[]): PermitRecord {
  if (text === null) return NO_RECORD;
  const value: unknown = JSON.parse(text);
  const [version, shares] = Array.isArray(value) ? (value as unknown[]) : [];
  if (typeof version !== "number" || !Array.isArray(shares)) throw new Error(`not a record of permits: ${text}`);
  const decoded = shares.map((share: unknown): Share => {
    const [incarnation, calls, wanted, turn] = share as [Incarnation, number, number, number];
    return { incarnation, calls, wanted, turn };
  });
  return { version, shares: decoded.filter(({ incarnation }) => alive.includes(incarnation)) };
}
