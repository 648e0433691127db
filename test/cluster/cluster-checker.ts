/**
 * Judges what the nodes of a cluster did to each other and to each other's orders, from their records (node-record.ts), the orders'
 * histories, and what the test did to the nodes. What happened to the orders themselves is judged by crash/checker.ts.
 */
import { silenceWithEvidenceMs, timingOf } from "../../src/cluster/timing.ts";
import type { Incarnation, OrderEvent } from "../../src/order/events.ts";
import type { ReceivedCall } from "../crash/receiver.ts";
import type { StoreRow } from "../crash/store-content.ts";
import type { EntryOf, RecordEntry } from "./node-record.ts";

/**
 * Something that a test did to a process, after which the others may take it for dead until it says again that it lives. When it took
 * effect is not known to the moment: what the process says between `askedMs` and `surelyMs` proves nothing.
 */
export interface Fault {
  readonly pid: number;
  readonly askedMs: number;
  /** Infinity until it has surely taken effect. */
  surelyMs: number;
}

/** A time for which the test had the address of a node refuse connections. */
export interface Refusal {
  readonly pid: number;
  readonly startMs: number;
  readonly endMs: number;
}

export interface ClusterEvidence {
  readonly record: readonly RecordEntry[];
  readonly stored: readonly StoreRow[];
  readonly faults: readonly Fault[];
  readonly refusals?: readonly Refusal[];
  /** When the store could be reached again, which nobody had reached for a while: silence before that makes nobody dead. */
  readonly storeBackMs?: number;
  /** The nodes' TTL. */
  readonly ttlMs: number;
}

/** Each rule, with the guarantee (docs/guarantees.md) or the rule of docs/cluster.md that it watches over. */
const GUARANTEE_OF = {
  /** A write was confirmed to one who, by the history, did not own the order at that revision. */
  written_by_non_owner: "G2",
  /** A write was confirmed, and the history has another event in its place. */
  confirmed_write_missing: "G2",
  /** An incarnation's write was confirmed after a claim had found nothing left of it. */
  written_after_fence: "G6",
  /** A claim was confirmed, and the history has no change of owner for it. */
  confirmed_claim_missing: "G2",
  /** Orders were claimed from an incarnation before anybody could have marked it dead. */
  claimed_from_living: "rule 5",
  /** A node was marked dead by a heartbeat that was not its last. */
  dead_despite_heartbeat: "rule 1",
  /** A node was marked dead to which the test had done nothing, and which the machine had not kept from saying that it lives. */
  false_failover: "rule 2",
  /** An incarnation said that it lives, and was heard, after it had been marked dead. */
  revived: "rule 1",
  /** Two elections made the same term. */
  term_given_twice: "rule 4",
} as const;

export type ClusterRule = keyof typeof GUARANTEE_OF;

export interface ClusterViolation {
  readonly guarantee: (typeof GUARANTEE_OF)[ClusterRule];
  readonly rule: ClusterRule;
  readonly detail: string;
}

type Report = (rule: ClusterRule, detail: string) => void;

/** Everything that is wrong. */
export function findClusterViolations(evidence: ClusterEvidence): ClusterViolation[] {
  const violations: ClusterViolation[] = [];
  const report: Report = (rule, detail) => violations.push({ guarantee: GUARANTEE_OF[rule], rule, detail });
  checkWrites(evidence, report);
  checkClaims(evidence, report);
  checkDeaths(evidence, report);
  checkTerms(evidence, report);
  return violations;
}

/** The entries of one kind. */
export function entriesOf<K extends RecordEntry["kind"]>(record: readonly RecordEntry[], kind: K): EntryOf<K>[] {
  return record.filter((entry): entry is EntryOf<K> => entry.kind === kind);
}

/** Nodes that were marked dead, with who was running then. */
export function confirmedDeaths(record: readonly RecordEntry[]): (EntryOf<"death"> & { readonly deadPid: number })[] {
  const pidOf = new Map(entriesOf(record, "registered").map(({ incarnation, pid }) => [incarnation, pid]));
  return entriesOf(record, "death")
    .filter(({ done }) => done)
    .map((death) => ({ ...death, deadPid: pidOf.get(death.incarnation) ?? -1 }));
}

/** Deaths that nothing explains: neither what was done to the node nor what the machine, by the node's own record, did to it. */
export function falseFailovers(evidence: ClusterEvidence): EntryOf<"death">[] {
  return confirmedDeaths(evidence.record).filter((death) => {
    const signs = signsOfLife(evidence.record, death);
    const explains = ({ pid, askedMs, surelyMs }: Fault): boolean =>
      pid === death.deadPid && askedMs <= death.endMs && !signs.some(({ startMs }) => startMs > surelyMs);
    return !evidence.faults.some(explains) && !isTheMachines(evidence, death, signs);
  });
}

type ConfirmedDeath = ReturnType<typeof confirmedDeaths>[number];

/** An incarnation's heartbeats whose answer it had before its death was asked for; its registration is the first. */
function signsOfLife(record: readonly RecordEntry[], death: ConfirmedDeath): (RecordEntry & { endMs: number })[] {
  return [...entriesOf(record, "registered"), ...entriesOf(record, "beat").filter(({ alive }) => alive)].filter(
    ({ incarnation, endMs }) => incarnation === death.incarnation && endMs < death.startMs,
  );
}

/**
 * Whether the node was silent for as long as death takes (cluster rule 2), and could not help it: for nearly all of the time for which its
 * heartbeat was late, its process got no time on the machine's processors, or what it had asked of the store was on its way.
 */
function isTheMachines(
  { record, refusals = [], storeBackMs = 0, ttlMs }: ClusterEvidence,
  death: ConfirmedDeath,
  signs: readonly RecordEntry[],
): boolean {
  const lastMs = Math.max(storeBackMs, ...signs.map(({ startMs }) => startMs));
  const refuses = refusals.some(
    ({ pid, startMs, endMs }) => pid === death.deadPid && startMs < death.startMs && lastMs < endMs,
  );
  const silentMs = death.startMs - lastMs;
  if (silentMs < (refuses ? silenceWithEvidenceMs(ttlMs) : ttlMs)) return false;
  const stalls = record.filter(
    (entry): entry is EntryOf<"stall" | "beat"> =>
      entry.pid === death.deadPid && (entry.kind === "stall" || entry.kind === "beat"),
  );
  const dueMs = lastMs + timingOf(ttlMs).heartbeatMs;
  return coveredMs(stalls, dueMs, death.startMs) >= STALLED_SHARE_MIN * (death.startMs - dueMs);
}

/** Between two stalls that follow each other the process may have a moment, and short ones are not noted. */
const STALLED_SHARE_MIN = 0.75;

/** How much of a time the spans cover together. */
function coveredMs(
  spans: readonly { readonly startMs: number; readonly endMs: number }[],
  fromMs: number,
  toMs: number,
): number {
  let [sumMs, reachedMs] = [0, fromMs];
  for (const { startMs, endMs } of spans.toSorted((one, other) => one.startMs - other.startMs)) {
    const untilMs = Math.min(endMs, toMs);
    sumMs += Math.max(0, untilMs - Math.max(startMs, reachedMs));
    reachedMs = Math.max(reachedMs, untilMs);
  }
  return sumMs;
}

/** How long it took from a fault until the last order that changed hands by it was worked on again; null: none changed hands. */
export function moveAgainMs(
  { record, stored }: ClusterEvidence,
  calls: readonly ReceivedCall[],
  { pid, askedMs }: Pick<Fault, "pid" | "askedMs">,
): number | null {
  const registered = entriesOf(record, "registered").findLast((entry) => entry.pid === pid && entry.endMs <= askedMs);
  if (registered === undefined) return null;
  const callsByOrder = Map.groupBy(calls, ({ orderId }) => orderId);
  const delays = stored.flatMap(({ orderId, history }) => {
    const owners = history.flatMap((event) => ("owner" in event ? [event.owner] : []));
    const newOwners = new Set(owners.slice(owners.indexOf(registered.incarnation) + 1));
    if (!owners.includes(registered.incarnation) || newOwners.size === 0) return [];
    const first = callsByOrder.get(orderId)?.find((call) => newOwners.has(call.incarnation) && call.atMs >= askedMs);
    return first === undefined ? [] : [first.atMs - askedMs];
  });
  return delays.length === 0 ? null : Math.max(...delays);
}

/** Orders that were an incarnation's when another one got them. */
export function changesOfOwner(stored: readonly StoreRow[], from: Incarnation): number {
  return stored.reduce((sum, { history }) => {
    const owners = history.flatMap((event) => ("owner" in event ? [event.owner] : []));
    return sum + owners.filter((owner, index) => index > 0 && owners[index - 1] === from && owner !== from).length;
  }, 0);
}

function checkWrites({ record, stored }: ClusterEvidence, report: Report): void {
  const histories = new Map(stored.map(({ orderId, history }) => [orderId, history]));
  const fencedMs = new Map<Incarnation, number>();
  for (const { from, wasLast, endMs } of entriesOf(record, "claim")) {
    if (wasLast) fencedMs.set(from, Math.min(endMs, fencedMs.get(from) ?? Number.POSITIVE_INFINITY));
  }
  for (const { orderId, owner, follows, event, outcome, startMs } of entriesOf(record, "write")) {
    if (outcome !== "applied") continue;
    const detail = `order ${orderId}: ${event.kind} by incarnation ${owner} after revision ${follows}`;
    const history = histories.get(orderId) ?? [];
    if (!isSame(history[follows], event)) {
      report("confirmed_write_missing", `${detail}; the history has ${JSON.stringify(history[follows])}`);
    }
    const due = follows === 0 ? owner : ownerAt(history, follows);
    if (due !== owner) report("written_by_non_owner", `${detail}; the owner was ${due}`);
    if (startMs > (fencedMs.get(owner) ?? Number.POSITIVE_INFINITY)) report("written_after_fence", detail);
  }
}

function checkClaims({ record, stored }: ClusterEvidence, report: Report): void {
  const histories = new Map(stored.map(({ orderId, history }) => [orderId, history]));
  for (const { from, to, orderIds, endMs } of entriesOf(record, "claim")) {
    if (orderIds.length === 0) continue;
    if (!mayHaveBeenDead(record, from, endMs)) {
      report("claimed_from_living", `${orderIds.length} orders, by incarnation ${to} from ${from}`);
    }
    for (const orderId of orderIds) {
      const owners = (histories.get(orderId) ?? []).flatMap((event) => ("owner" in event ? [event.owner] : []));
      const isThere = owners.some((owner, index) => owner === to && index > 0 && owners[index - 1] === from);
      if (!isThere) report("confirmed_claim_missing", `order ${orderId}: from incarnation ${from} to ${to}`);
    }
  }
}

/** Whether, by then, an incarnation had been marked dead, had left or had a successor, or whoever asked for that may have had it. */
function mayHaveBeenDead(record: readonly RecordEntry[], incarnation: Incarnation, byMs: number): boolean {
  const refused = new Set(
    entriesOf(record, "death").flatMap((death) => (death.done ? [] : [`${death.pid}:${death.startMs}`])),
  );
  const serviceId = entriesOf(record, "registered").find((entry) => entry.incarnation === incarnation)?.serviceId;
  return record.some((entry) => {
    if (entry.startMs > byMs) return false;
    if (entry.kind === "registered") return entry.serviceId === serviceId && entry.incarnation > incarnation;
    if (entry.kind !== "leave_asked" && entry.kind !== "death_asked") return false;
    return entry.incarnation === incarnation && !refused.has(`${entry.pid}:${entry.startMs}`);
  });
}

function checkDeaths(evidence: ClusterEvidence, report: Report): void {
  const { record } = evidence;
  for (const death of falseFailovers(evidence)) {
    report("false_failover", `incarnation ${death.incarnation}, by process ${death.pid}`);
  }
  const beats = entriesOf(record, "beat").filter(({ alive }) => alive);
  for (const { incarnation, heartbeat, startMs, endMs } of confirmedDeaths(record)) {
    const own = beats.filter((beat) => beat.incarnation === incarnation);
    // The registration was the first.
    const seen = 1 + own.filter((beat) => beat.endMs < startMs).length;
    if (seen > heartbeat) {
      report("dead_despite_heartbeat", `incarnation ${incarnation} by ${heartbeat}, at heartbeat ${seen}`);
    }
    const after = own.filter((beat) => beat.startMs > endMs).length;
    if (after > 0) report("revived", `incarnation ${incarnation}: ${after} heartbeats after its death`);
  }
}

function checkTerms({ record }: ClusterEvidence, report: Report): void {
  const terms = entriesOf(record, "leadership").flatMap(({ term, done }) => (done ? [term] : []));
  for (const [index, term] of terms.entries()) {
    if (terms.indexOf(term) !== index) report("term_given_twice", `term ${term}`);
  }
}

/** Whose an order is after so many of its events. */
function ownerAt(history: readonly OrderEvent[], revision: number): Incarnation | undefined {
  return history.slice(0, revision).findLast((event) => "owner" in event)?.owner;
}

function isSame(stored: OrderEvent | undefined, written: OrderEvent): boolean {
  return stored?.kind === written.kind && stored.atMs === written.atMs;
}
