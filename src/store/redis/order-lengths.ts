/**
 * How long the texts of orders are, in bytes, at their last known owner and revision: the script COMMIT compares lengths (scripts.ts).
 *
 * Only a memory of what this process wrote, claimed or read: what isn't known is read from Redis first. Whatever is wrong here is found out
 * by the comparison in Redis, and costs a refused write, never a wrong one: a text only grows, so a length stands for one state.
 */
import type { Incarnation } from "../../order/events.ts";
import { isFinal } from "../../order/status.ts";
import type { AdvanceWrite, Write } from "../store.ts";
import { encodeNextEvent, encodeOrder } from "./order-text.ts";

/** A state of an order, and the length of its text then. */
export interface KnownLength {
  readonly owner: Incarnation;
  readonly revision: number;
  readonly length: number;
}

/** A write, with what COMMIT needs of it. */
export interface PlannedWrite {
  /** In the batch. */
  readonly place: number;
  readonly orderId: string;
  readonly write: Write;
  /** The whole text for a creation, the event to append for an advance. */
  readonly text: string;
  /** Of the order's text before the write; 0 for a creation; null: the order is not in the state that the write names. */
  readonly length: number | null;
  /** The state after it; null: nothing of this owner follows. */
  readonly after: KnownLength | null;
}

/** More orders than a node has in flight; beyond that everything is forgotten, and read again as it is needed. */
const KNOWN_MAX = 400_000;

export class OrderLengths {
  readonly #known = new Map<string, KnownLength>();

  /** Whether the order's length is known at the state that a write follows. */
  has({ orderId, owner, expectedRevision }: AdvanceWrite): boolean {
    return this.lengthAt(orderId, owner, expectedRevision) !== null;
  }

  /** The length at an owner and revision, or null: not known. */
  lengthAt(orderId: string, owner: Incarnation, revision: number): number | null {
    const known = this.#known.get(orderId);
    return known !== undefined && known.owner === owner && known.revision === revision ? known.length : null;
  }

  /** Null: the order is final, or another's. */
  note(orderId: string, known: KnownLength | null): void {
    if (known === null) {
      this.#known.delete(orderId);
      return;
    }
    if (this.#known.size >= KNOWN_MAX) this.#known.clear();
    this.#known.set(orderId, known);
  }

  forget(orderId: string): void {
    this.#known.delete(orderId);
  }
}

/** The writes of a batch with their lengths, in their order. A write may follow another one of the same batch. */
export function planWrites(writes: readonly Write[], lengths: OrderLengths): PlannedWrite[] {
  const planned: PlannedWrite[] = [];
  const inBatch = new Map<string, KnownLength>();
  for (const [place, write] of writes.entries()) {
    const { orderId } = write;
    if (write.kind === "create") {
      const text = encodeOrder(write);
      const after = { owner: write.event.owner, revision: 1, length: Buffer.byteLength(text) };
      inBatch.set(orderId, after);
      planned.push({ place, orderId, write, text, length: 0, after });
      continue;
    }
    const { owner, expectedRevision, event, newStatus } = write;
    const before = inBatch.get(orderId);
    const length =
      before?.owner === owner && before.revision === expectedRevision
        ? before.length
        : lengths.lengthAt(orderId, owner, expectedRevision);
    if (length === null) {
      planned.push({ place, orderId, write, text: "", length, after: null });
      continue;
    }
    const text = encodeNextEvent(event);
    const isLast = event.kind === "owner_changed" || (newStatus !== null && isFinal(newStatus));
    const after = isLast ? null : { owner, revision: expectedRevision + 1, length: length + Buffer.byteLength(text) };
    if (after !== null) inBatch.set(orderId, after);
    planned.push({ place, orderId, write, text, length, after });
  }
  return planned;
}
