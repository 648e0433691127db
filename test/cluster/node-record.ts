/**
 * What a node asked of the store and what it heard, noted by the node's own process as it happens: orders' histories don't say who
 * wrote them and when, and so can't prove that nobody wrote who must not.
 *
 * 1. An entry is in the file when the node goes on from what it heard: a process that is killed leaves out the last one at most.
 * 2. Times are those of monotonicMs: entries of all processes of this host can be compared.
 */
import { closeSync, openSync, readdirSync, readSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import type { Incarnation, OrderEvent } from "../../src/order/events.ts";
import type { Store, WriteOutcome } from "../../src/store/store.ts";
import { passOn, passOnCluster } from "../crash/fault-stores.ts";
import { monotonicMs } from "../support/wait.ts";

/** When something was asked, and when the answer was heard. */
interface Span {
  readonly startMs: number;
  readonly endMs: number;
}

export type RecordEntry = { readonly pid: number } & (
  | (Span & { readonly kind: "registered"; readonly serviceId: string; readonly incarnation: Incarnation })
  | (Span & { readonly kind: "beat"; readonly incarnation: Incarnation; readonly alive: boolean })
  /** Noted before it is asked, as who asks may not live to hear. */
  | {
      readonly kind: "death_asked";
      readonly incarnation: Incarnation;
      readonly heartbeat: number;
      readonly startMs: number;
    }
  | (Span & {
      readonly kind: "death";
      readonly incarnation: Incarnation;
      readonly heartbeat: number;
      readonly done: boolean;
    })
  | { readonly kind: "leave_asked"; readonly incarnation: Incarnation; readonly startMs: number }
  | (Span & {
      readonly kind: "leadership";
      readonly incarnation: Incarnation;
      readonly term: number;
      readonly done: boolean;
    })
  | (Span & {
      readonly kind: "claim";
      readonly from: Incarnation;
      readonly to: Incarnation;
      readonly outcome: "claimed" | "owner_alive" | "fenced";
      /** What it brought. */
      readonly orderIds: readonly string[];
      /** Nothing was left to claim after it. */
      readonly wasLast: boolean;
    })
  | (Span & {
      readonly kind: "write";
      readonly orderId: string;
      /** Who the write says it is. */
      readonly owner: Incarnation;
      /** The revision that it follows; 0: it creates the order. */
      readonly follows: number;
      readonly event: OrderEvent;
      readonly outcome: WriteOutcome["kind"];
    })
  /** For so long the process did nothing: it got no time on a processor, stood still, was busy with one thing, or waited for the store. */
  | (Span & { readonly kind: "stall" })
  | { readonly kind: "memory"; readonly heapBytes: number; readonly startMs: number }
);

export type EntryOf<K extends RecordEntry["kind"]> = Extract<RecordEntry, { kind: K }>;

type Noted = RecordEntry extends infer E ? (E extends RecordEntry ? Omit<E, "pid"> : never) : never;

const LOOK_MS = 20;

/** Less can't make a heartbeat late that matters: the shortest are 200 ms apart. */
const STALL_MS_MIN = 50;

/** Writes the record of this process to a file of its own in a folder. */
export class NodeRecord {
  readonly #file: number;

  constructor(folder: string) {
    this.#file = openSync(join(folder, `${process.pid}.jsonl`), "a");
  }

  /** From now on notes when this process stands still, for whatever reason. */
  watchStalls(): void {
    let dueMs = monotonicMs() + LOOK_MS;
    setInterval(() => {
      const nowMs = monotonicMs();
      if (nowMs - dueMs > STALL_MS_MIN) this.#note({ kind: "stall", startMs: dueMs, endMs: nowMs });
      dueMs = nowMs + LOOK_MS;
    }, LOOK_MS).unref();
  }

  /** Notes how much memory is in use at the moment. */
  noteMemory(heapBytes: number): void {
    this.#note({ kind: "memory", heapBytes, startMs: monotonicMs() });
  }

  /** A store as it is, with this record of it. */
  wrap(store: Store): Store {
    return recordedStore(store, (...entries) => this.#note(...entries));
  }

  #note(...entries: readonly Noted[]): void {
    const lines = entries.map((entry) => `${JSON.stringify({ pid: process.pid, ...entry })}\n`);
    if (lines.length > 0) writeSync(this.#file, lines.join(""));
  }
}

function recordedStore(store: Store, note: (...entries: readonly Noted[]) => void): Store {
  const timed = async <T>(ask: () => Promise<T>): Promise<Span & { readonly answer: T }> => {
    const startMs = monotonicMs();
    const answer = await ask();
    return { answer, startMs, endMs: monotonicMs() };
  };
  const { cluster } = store;
  return {
    ...passOn(store),
    cluster: {
      ...passOnCluster(cluster),
      // Only where it was slow: a node reads many times a second.
      read: async () => {
        const { answer, ...span } = await timed(() => cluster.read());
        if (span.endMs - span.startMs > STALL_MS_MIN) note({ kind: "stall", ...span });
        return answer;
      },
      register: async (node, atMs) => {
        const { answer: incarnation, ...span } = await timed(() => cluster.register(node, atMs));
        note({ kind: "registered", serviceId: node.serviceId, incarnation, ...span });
        return incarnation;
      },
      beat: async (incarnation, ordersInFlight, atMs) => {
        const { answer: alive, ...span } = await timed(() => cluster.beat(incarnation, ordersInFlight, atMs));
        note({ kind: "beat", incarnation, alive, ...span });
        return alive;
      },
      markDead: async (incarnation, heartbeat) => {
        note({ kind: "death_asked", incarnation, heartbeat, startMs: monotonicMs() });
        const { answer: done, ...span } = await timed(() => cluster.markDead(incarnation, heartbeat));
        note({ kind: "death", incarnation, heartbeat, done, ...span });
        return done;
      },
      leave: (incarnation) => {
        note({ kind: "leave_asked", incarnation, startMs: monotonicMs() });
        return cluster.leave(incarnation);
      },
      claimLeadership: async (incarnation, seen) => {
        const { answer: done, ...span } = await timed(() => cluster.claimLeadership(incarnation, seen));
        note({ kind: "leadership", incarnation, term: seen.term + 1, done, ...span });
        return done;
      },
    },
    commit: async (writes) => {
      const { answer: outcomes, ...span } = await timed(() => store.commit(writes));
      const entries = writes.map((write, index): Noted => {
        const outcome = outcomes[index]?.kind ?? "conflict";
        const { orderId, event } = write;
        return write.kind === "create"
          ? { kind: "write", orderId, owner: write.event.owner, follows: 0, event, outcome, ...span }
          : { kind: "write", orderId, owner: write.owner, follows: write.expectedRevision, event, outcome, ...span };
      });
      note(...entries);
      return outcomes;
    },
    claimOrders: async (from, to, atMs, limit) => {
      const { answer: claim, ...span } = await timed(() => store.claimOrders(from, to, atMs, limit));
      const claimed = claim.kind === "claimed" ? [...claim.orders, ...claim.damaged] : [];
      const orderIds = claimed.map(({ orderId }) => orderId);
      const wasLast = claim.kind === "claimed" && orderIds.length < limit;
      note({ kind: "claim", from, to, outcome: claim.kind, orderIds, wasLast, ...span });
      return claim;
    },
  };
}

/** Reads the record of all processes that have a folder, again and again: each entry once. */
export class RecordReader {
  readonly #folder: string;
  /** By process. */
  readonly #files = new Map<number, { bytesRead: number; entries: RecordEntry[] }>();

  constructor(folder: string) {
    this.#folder = folder;
  }

  /** All entries so far, by their start. */
  all(): RecordEntry[] {
    const pids = readdirSync(this.#folder).map((name) => Number(name.replace(".jsonl", "")));
    return pids.flatMap((pid) => this.of(pid)).toSorted((one, other) => one.startMs - other.startMs);
  }

  /** One process's, in the order in which it noted them. */
  of(pid: number): readonly RecordEntry[] {
    const file = this.#files.get(pid) ?? { bytesRead: 0, entries: [] };
    this.#files.set(pid, file);
    const path = join(this.#folder, `${pid}.jsonl`);
    const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0;
    if (size === file.bytesRead) return file.entries;
    const bytes = readPart(path, file.bytesRead, size);
    // What follows the last line's end is not written yet, or was cut off by a kill.
    const whole = bytes.subarray(0, bytes.lastIndexOf("\n") + 1);
    file.bytesRead += whole.length;
    for (const line of whole.toString().split("\n")) {
      if (line !== "") file.entries.push(JSON.parse(line) as RecordEntry);
    }
    return file.entries;
  }
}

/** A record grows to many megabytes: what has been read is not read again. */
function readPart(path: string, from: number, to: number): Buffer {
  const bytes = Buffer.alloc(to - from);
  const file = openSync(path, "r");
  try {
    return bytes.subarray(0, readSync(file, bytes, 0, bytes.length, from));
  } finally {
    closeSync(file);
  }
}
