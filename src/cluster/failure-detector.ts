/**
 * Tells how long others have been silent, from heartbeats that were read.
 *
 * Pure but for what it remembers: times come in, on the observer's monotonic clock.
 *
 * 1. Silence is what lies between successful reads that saw the same heartbeat. A read that failed adds nothing, and neither
 *    does a pause of the observer: of a gap between two reads no more than `gapMsMax` counts (cluster rule 2, guarantee G7).
 * 2. Whatever has shown a new heartbeat starts anew.
 */

export interface Heartbeat {
  /** Whose it is. */
  readonly id: string;
  /** Any value that changes with each heartbeat. */
  readonly beat: string;
}

export interface Silence {
  readonly silentMs: number;
  /** Successful reads that saw the last heartbeat. */
  readonly reads: number;
}

interface Subject {
  beat: string;
  silentMs: number;
  reads: number;
}

/** A death takes this many reads, however long the silence. */
const READS_MIN = 3;

export class FailureDetector {
  readonly #gapMsMax: number;
  #subjects = new Map<string, Subject>();
  #lastReadEndMs: number | null = null;

  constructor(gapMsMax: number) {
    this.#gapMsMax = gapMsMax;
  }

  /** Takes in a successful read of all heartbeats there are, which began and ended at these times. */
  observe(heartbeats: Iterable<Heartbeat>, startMs: number, endMs: number): void {
    const gapMs = this.#lastReadEndMs === null ? 0 : Math.max(0, startMs - this.#lastReadEndMs);
    const countedMs = Math.min(gapMs, this.#gapMsMax);
    this.#lastReadEndMs = endMs;
    const seen = new Map<string, Subject>();
    for (const { id, beat } of heartbeats) {
      const known = this.#subjects.get(id);
      const isSilent = known !== undefined && known.beat === beat;
      seen.set(id, {
        beat,
        silentMs: isSilent ? known.silentMs + countedMs : 0,
        reads: isSilent ? known.reads + 1 : 1,
      });
    }
    this.#subjects = seen;
  }

  /** Forgets all silence: it begins anew with the next read. */
  reset(): void {
    this.#subjects = new Map();
    this.#lastReadEndMs = null;
  }

  /** Zero for whom no read has seen. */
  silenceOf(id: string): Silence {
    const { silentMs = 0, reads = 0 } = this.#subjects.get(id) ?? {};
    return { silentMs, reads };
  }
}

/** Whether silence is long enough to be death; `afterMs` is the TTL, or less with evidence. */
export function isDeadly({ silentMs, reads }: Silence, afterMs: number): boolean {
  return reads >= READS_MIN && silentMs >= afterMs;
}
