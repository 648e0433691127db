/** A batch of writes as calls of the script COMMIT. */
import { type Incarnation, isFinal } from "../../order/order.ts";
import { keyDigest } from "../order-id.ts";
import { idempotencyKeysKey, openKey, orderKey, partitionKey, partitionOf } from "./keys.ts";
import type { PlannedWrite } from "./order-lengths.ts";

/** One call of the script. */
export interface CommitCall {
  readonly keys: readonly string[];
  readonly args: readonly string[];
  /** In the order in which the call has them. */
  readonly writes: readonly PlannedWrite[];
}

/** Writes of one owner to one partition, with nothing of another owner to that partition between them. */
interface Group {
  readonly partition: number;
  readonly owner: Incarnation;
  readonly writes: PlannedWrite[];
}

/**
 * Writes to one partition keep their order; writes to several have none, as no order is in two partitions.
 * @param perPartition whether partitions may be on different servers, and can't be in one call
 * @throws Error when a write's ids can't be right: a mistake of the caller
 */
export function commitCalls(writes: readonly PlannedWrite[], clusterId: string, perPartition: boolean): CommitCall[] {
  const groups = groupWrites(writes);
  if (groups.length === 0) return [];
  if (!perPartition) return [callOf(groups, clusterId)];
  const byPartition = Map.groupBy(groups, ({ partition }) => partition);
  return Array.from(byPartition.values(), (each) => callOf(each, clusterId));
}

function groupWrites(writes: readonly PlannedWrite[]): Group[] {
  const groups: Group[] = [];
  const last = new Map<number, Group>();
  for (const planned of writes) {
    const { orderId, write } = planned;
    const partition = partitionOf(orderId);
    if (partition === null) throw new Error(`${orderId} is not an order id`);
    const owner = write.kind === "create" ? write.event.owner : write.owner;
    const group = last.get(partition);
    if (group !== undefined && group.owner === owner) {
      group.writes.push(planned);
    } else {
      const next = { partition, owner, writes: [planned] };
      last.set(partition, next);
      groups.push(next);
    }
  }
  return groups;
}

function callOf(groups: readonly Group[], clusterId: string): CommitCall {
  const keys = groups.map(({ partition }) => partitionKey(partition));
  const args = [clusterId, String(groups.length), ...groups.map(({ owner }) => String(owner))];
  const writes: PlannedWrite[] = [];
  for (const { partition, writes: members } of groups) {
    keys.push(openKey(partition), idempotencyKeysKey(partition));
    args.push(String(members.length));
    for (const planned of members) {
      writes.push(planned);
      keys.push(orderKey(partition, planned.orderId));
      pushWrite(args, planned, partition);
    }
  }
  return { keys, args, writes };
}

function pushWrite(args: string[], { write, text, length }: PlannedWrite, partition: number): void {
  if (write.kind === "create") {
    const { orderId, user, idempotencyKey } = write;
    if (idempotencyKey === null) {
      args.push("c", text);
      return;
    }
    const digest = keyDigest(user, idempotencyKey);
    if (partitionOf(digest) !== partition) {
      throw new Error(`order id ${orderId} was not made for its user and idempotency key (newOrderId)`);
    }
    args.push("k", text, digest);
    return;
  }
  const { event, newStatus } = write;
  if (length === null) {
    args.push("n");
    return;
  }
  if (event.kind === "owner_changed") args.push("o", String(length), text, String(event.owner));
  else args.push(newStatus !== null && isFinal(newStatus) ? "f" : "a", String(length), text);
}
