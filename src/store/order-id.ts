/**
 * Order ids. They begin with the time (UUIDv7), so that new orders are neighbours in the store; and two orders that one user
 * makes with one idempotency key end alike, so that a store which is split by the ids' ends finds both in one part, and can
 * tell them apart in one atomic write.
 */
import { createHash, randomUUIDv7 } from "node:crypto";

/** Hexadecimal digits at the end of an id that say in which part of a store the order lives. */
const PART_DIGITS = 4;

/** A new order's id, for a creation by that user with that idempotency key. */
export function newOrderId(user: string, idempotencyKey: string | null): string {
  const id = randomUUIDv7();
  if (idempotencyKey === null) return id;
  return id.slice(0, -PART_DIGITS) + keyDigest(user, idempotencyKey).slice(-PART_DIGITS);
}

/** The lowest id that an order of that time, or later, can have. */
export function lowestIdAt(timeMs: number): string {
  const digits = Math.min(Math.max(0, timeMs), 0xffff_ffff_ffff).toString(16).padStart(12, "0");
  return `${digits.slice(0, 8)}-${digits.slice(8)}-0000-0000-000000000000`;
}

/** Stands for a user's idempotency key: a fixed length, whatever the two hold. */
export function keyDigest(user: string, idempotencyKey: string): string {
  return createHash("sha256")
    .update(JSON.stringify([user, idempotencyKey]))
    .digest("hex");
}

/** The part that an order lives in, from 0; always the same for an id. */
export function partOf(orderId: string, parts: number): number {
  return Number.parseInt(orderId.slice(-PART_DIGITS), 16) % parts;
}
