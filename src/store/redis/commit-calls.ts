/** A batch of writes as calls of the script COMMIT. */
import { createHash } from "node:crypto";
import type { Incarnation } from "../../order/events.ts";
import { isFinal } from "../../order/status.ts";
import { keyDigest } from "../order-id.ts";
import {
  changesKey,
  idempotencyKeysKey,
  indexKey,
  indexKeys,
  openKey,
  orderKey,
  partitionKey,
  partitionOf,
  userKey,
} from "./keys.ts";
import type { PlannedWrite } from "./order-lengths.ts";

/** One call of the script. */
export interface CommitCall {
  readonly keys: readonly string[];
  readonly args: readonly string[];
  /** In the order in which the call has them. */
  readonly writes: readonly PlannedWrite[];
}

export interface CommitOptions {
  readonly clusterId: string;
  /** Whether partitions may be on different servers, and can't be in one call. */
  readonly perPartition: boolean;
  /** How many entries a stream of changes keeps, about; 0: nothing is written to it. */
  readonly entriesKept: number;
  /** Whether orders go into by_user, and not into their users' sets (keys.ts). */
  readonly writesByUser: boolean;
}

/** Writes of one owner to one partition, with nothing of another owner to that partition between them. */
interface Group {
  readonly partition: number;
  readonly owner: Incarnation;
  readonly writes: PlannedWrite[];
}

/**
 * Writes to one partition keep their order; writes to several have none, as no order is in two partitions.
 * @throws Error when a write's ids can't be right: a mistake of the caller
 */
export function commitCalls(
  writes: readonly PlannedWrite[],
  { clusterId, perPartition, entriesKept, writesByUser }: CommitOptions,
): CommitCall[] {
  const groups = groupWrites(writes);
  if (groups.length === 0) return [];
  if (!perPartition) return [callOf(groups, { clusterId, entriesKept, writesByUser, changes: changesKey(0) })];
  const byPartition = Map.groupBy(groups, ({ partition }) => partition);
  return Array.from(byPartition, ([partition, each]) =>
    callOf(each, { clusterId, entriesKept, writesByUser, changes: changesKey(partition) }),
  );
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

function callOf(
  groups: readonly Group[],
  { clusterId, entriesKept, writesByUser, changes }: Omit<CommitOptions, "perPartition"> & { changes: string },
): CommitCall {
  const keys = groups.map(({ partition }) => partitionKey(partition));
  const told = groups.flatMap(({ writes: members }) =>
    members.filter(({ write, length }) => write.kind === "create" || length !== null),
  );
  const changed = entriesKept === 0 ? "" : told.map(changeOf).join(",");
  const owners = groups.map(({ owner }) => String(owner));
  const args = [clusterId, String(groups.length), String(entriesKept), changed, ...owners];
  const writes: PlannedWrite[] = [];
  for (const { partition, writes: members } of groups) {
    keys.push(openKey(partition), idempotencyKeysKey(partition), ...indexKeys(partition));
    args.push(String(members.length));
    for (const planned of members) {
      writes.push(planned);
      keys.push(orderKey(partition, planned.orderId));
      if (planned.write.kind === "create") {
        const { user } = planned.write;
        keys.push(writesByUser ? indexKey(partition, "by_user") : userKey(partition, userDigest(user)));
      }
      pushWrite(args, planned, partition);
    }
  }
  keys.push(changes);
  return { keys, args, writes };
}

function pushWrite(args: string[], { write, text, length }: PlannedWrite, partition: number): void {
  if (write.kind === "create") {
    const { orderId, user, idempotencyKey } = write;
    const status = write.event.startAtMs === undefined ? "running" : "scheduled";
    if (idempotencyKey === null) {
      args.push("c", text, status, userDigest(user));
      return;
    }
    const digest = keyDigest(user, idempotencyKey);
    if (partitionOf(digest) !== partition) {
      throw new Error(`order id ${orderId} was not made for its user and idempotency key (newOrderId)`);
    }
    args.push("k", text, status, userDigest(user), digest);
    return;
  }
  const { event, newStatus, formerStatus, user } = write;
  if (length === null) {
    args.push("n");
    return;
  }
  if (event.kind === "owner_changed") args.push("o", String(length), text, String(event.owner));
  else if (newStatus === null) args.push("a", String(length), text);
  else args.push(isFinal(newStatus) ? "f" : "s", String(length), text, formerStatus, newStatus, userDigest(user));
}

/** As it stands in the stream of changes. */
function changeOf({ orderId, write }: PlannedWrite): string {
  const revision = write.kind === "create" ? 1 : write.expectedRevision + 1;
  return `"${orderId}",${revision},${JSON.stringify(write.user)}`;
}

/** Users whose digests are remembered: more than are busy at once. */
const DIGESTS_MAX = 10_000;
const digests = new Map<string, string>();

/** Stands for a user in indexes: a fixed length, whatever the name holds. */
export function userDigest(user: string): string {
  const known = digests.get(user);
  if (known !== undefined) return known;
  if (digests.size >= DIGESTS_MAX) digests.clear();
  const digest = createHash("sha256").update(user).digest("base64url").slice(0, 22);
  digests.set(user, digest);
  return digest;
}
