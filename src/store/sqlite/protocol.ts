/**
 * What the store's main-thread half and its worker say to each other. A batch of writes travels as one flat list of
 * primitives: cloning objects one by one cost more than the writes themselves (bench/README.md).
 */
import type { Incarnation } from "../../order/events.ts";
import type { ClusterIdentity, LeaderRow, Permits } from "../cluster-store.ts";
import type { AdvanceWrite, CreateWrite, OrderFilter, OwnerSummary, Write, ClaimTimes } from "../store.ts";
import { encodeEvent } from "../codec.ts";

/** The first value of a write in the flat list; says which follow. */
export const TAG_CREATE = 0;
/** An advance that leaves the status as it is, and so the index over it. */
export const TAG_ADVANCE = 1;
export const TAG_ADVANCE_STATUS = 2;
export const TAG_ADVANCE_OWNER = 3;

export type FlatBatch = (string | number | null)[];

/** How a write ended, in the list of outcomes. */
export const OUTCOME_APPLIED = 0;
export const OUTCOME_CONFLICT = 1;
export const OUTCOME_KEY_TAKEN = 2;
export const OUTCOME_FENCED = 3;

/** The order that a used idempotency key belongs to; `index` is the write's place in its batch. */
export interface TakenKey {
  readonly index: number;
  readonly orderId: string;
  readonly startTimeMs: number;
  readonly body: string;
}

export interface BatchOutcomes {
  readonly outcomes: Uint8Array;
  readonly takenKeys: readonly TakenKey[];
}

/** A row of `orders` with its owner's service, as it is read. */
export interface OrderRow {
  readonly order_id: string;
  readonly user: string;
  readonly pipeline_name: string;
  readonly pipeline_version: number;
  readonly status: string;
  readonly owner: number;
  readonly service_id: string;
  readonly revision: number;
  readonly history: string;
}

/** A page of rows as they are found. */
export interface OrderRows {
  readonly rows: readonly OrderRow[];
  readonly next: string | null;
}

/** A page of changes: rows of `changes`, from the one that has the next change on. */
export type ChangeRows =
  | {
      readonly kind: "rows";
      readonly rows: readonly { readonly first: number; readonly changes: string }[];
      readonly last: number;
    }
  | { readonly kind: "gone" };

export interface OwnedRow extends OrderRow {
  readonly body: string;
}

/** How a claim ended, with rows as they are read. */
export type ClaimResult =
  | { readonly kind: "claimed"; readonly rows: readonly OwnedRow[] }
  | { readonly kind: "owner_alive" }
  | { readonly kind: "fenced" };

/** A row of `incarnations`, as it is read. */
export interface NodeRecord {
  readonly incarnation: Incarnation;
  readonly service_id: string;
  readonly state: string;
  readonly heartbeat: number;
  readonly heartbeat_time: number;
  readonly orders_in_flight: number;
  readonly description: string;
}

/** Each request of the worker and what answers it. */
export interface Requests {
  open: { args: OpenArguments; result: null };
  commit: { args: { batch: FlatBatch }; result: BatchOutcomes };
  readOrder: { args: { orderId: string }; result: OrderRow | null };
  readOrders: { args: { orderIds: readonly string[] }; result: OrderRow[] };
  listOrders: { args: { filter: OrderFilter; before: string | null; limit: number }; result: OrderRows };
  countOrders: { args: { user: string }; result: { status: string; count: number }[] };
  readChanges: { args: { after: number | null; limit: number }; result: ChangeRows };
  readBody: { args: { orderId: string }; result: string | null };
  readOwned: { args: { owner: Incarnation; orderIds: readonly string[] }; result: OwnedRow[] };
  listOwners: { args: null; result: OwnerSummary[] };
  listOrderIds: { args: { owner: Incarnation; after: string; limit: number }; result: string[] };
  claimOrders: { args: { from: Incarnation; to: Incarnation; times: ClaimTimes; limit: number }; result: ClaimResult };
  probe: { args: { atMs: number }; result: null };
  identity: { args: ClusterIdentity; result: ClusterIdentity };
  register: { args: { serviceId: string; description: string; atMs: number }; result: Incarnation };
  pipelineShape: { args: { name: string; version: number; shape: string }; result: string };
  recordedShape: { args: { name: string; version: number }; result: string | null };
  permits: { args: { key: string }; result: Permits };
  changePermits: { args: { key: string; seen: string | null; record: string }; result: boolean };
  serviceOf: { args: { incarnation: Incarnation }; result: string | null };
  hasService: { args: { serviceId: string }; result: boolean };
  beat: { args: { incarnation: Incarnation; ordersInFlight: number; atMs: number }; result: boolean };
  readCluster: { args: null; result: { nodes: NodeRecord[]; leader: LeaderRow } };
  markDead: { args: { incarnation: Incarnation; seenHeartbeat: number }; result: boolean };
  leave: { args: { incarnation: Incarnation }; result: null };
  claimLeadership: { args: { incarnation: Incarnation; seen: LeaderRow }; result: boolean };
  renewLeadership: { args: { incarnation: Incarnation; term: number }; result: boolean };
  close: { args: null; result: null };
}

export interface OpenArguments {
  readonly path: string;
  /** How many changes are remembered; 0: none. */
  readonly changesKept: number;
  /** Memory for pages; left out: enough for many orders. */
  readonly cacheBytes?: number;
  /** Refuse a file in which no cluster was ever. */
  readonly mustExist: boolean;
  /** A write waits as long for a process that holds the lock and is frozen, before that process is ended. */
  readonly frozenWriterMs: number;
}

export type RequestKind = keyof Requests;

export type RequestMessage = {
  [K in RequestKind]: { readonly id: number; readonly kind: K; readonly args: Requests[K]["args"] };
}[RequestKind];

export type ReplyMessage =
  | { readonly id: number; readonly ok: true; readonly result: unknown }
  | { readonly id: number; readonly ok: false; readonly reason: string; readonly unexpected: boolean };

/** Something an operator should hear of; answers nothing. */
export interface NoticeMessage {
  readonly notice: string;
}

/** A batch as one flat list. */
export function flattenBatch(writes: readonly Write[]): FlatBatch {
  const batch: FlatBatch = [];
  for (const write of writes) {
    if (write.kind === "advance") flattenAdvance(batch, write);
    else flattenCreate(batch, write);
  }
  return batch;
}

function flattenCreate(batch: FlatBatch, write: CreateWrite): void {
  batch.push(
    TAG_CREATE,
    write.orderId,
    write.user,
    write.idempotencyKey,
    write.pipelineName,
    write.pipelineVersion,
    write.event.atMs,
    write.event.startAtMs === undefined ? "running" : "scheduled",
    write.event.owner,
    encodeEvent(write.event),
    write.body,
  );
}

function flattenAdvance(batch: FlatBatch, write: AdvanceWrite): void {
  const { event, newStatus } = write;
  if (event.kind === "owner_changed") batch.push(TAG_ADVANCE_OWNER, event.owner);
  else if (newStatus === null) batch.push(TAG_ADVANCE);
  else batch.push(TAG_ADVANCE_STATUS, newStatus, write.formerStatus);
  batch.push(`,${encodeEvent(event)}`, write.orderId, write.owner, write.expectedRevision, write.user);
}
