/**
 * What has changed, read from the streams that commits write: one stream on a single server, one a partition on a Redis Cluster.
 *
 * A cursor names for each stream the last entry that was read from, and how many of its changes: `<id>.<count>`, parted by commas. Where
 * nothing was read yet it names the beginning, `0-0.0`. An entry that a cursor names and that is not there was forgotten, and with it what
 * came after it, perhaps.
 */
import type { Change, ChangePage } from "../store.ts";
import { changesKey } from "./keys.ts";

interface Position {
  readonly id: string;
  /** How many changes of the entry were read. */
  readonly count: number;
}

type Entry = [id: string, fields: string[]];

const BEGINNING: Position = { id: "0-0", count: 0 };

/** Entries read from each stream at once; an entry may have as many changes as a commit has writes. */
const ENTRIES_READ = 50;

export class ChangeStreams {
  readonly #keys: readonly string[];
  readonly #command: (key: string, args: readonly string[]) => Promise<unknown>;

  constructor(partitions: readonly number[], command: (key: string, args: readonly string[]) => Promise<unknown>) {
    this.#keys = partitions.map(changesKey);
    this.#command = command;
  }

  async read(cursor: string | null, limit: number): Promise<ChangePage> {
    if (cursor === null)
      return { kind: "changes", changes: [], next: encode(await Promise.all(this.#keys.map((key) => this.#end(key)))) };
    const positions = decode(cursor, this.#keys.length);
    if (positions === null) return { kind: "gone" };
    const pages = await Promise.all(this.#keys.map((key, at) => this.#after(key, positions[at] ?? BEGINNING, limit)));
    const changes: Change[] = [];
    for (const [at, page] of pages.entries()) {
      if (page === null) return { kind: "gone" };
      for (const [id, flat] of page) {
        const former = positions[at] ?? BEGINNING;
        for (let count = former.id === id ? former.count : 0; 3 * count + 2 < flat.length; count++) {
          if (changes.length === limit) return { kind: "changes", changes, next: encode(positions) };
          positions[at] = { id, count: count + 1 };
          const [orderId, revision, user] = flat.slice(3 * count, 3 * count + 3);
          changes.push({
            orderId: String(orderId),
            revision: Number(revision),
            user: String(user),
            cursor: encode(positions),
          });
        }
      }
    }
    return { kind: "changes", changes, next: encode(positions) };
  }

  /** The end of a stream as it is now. */
  async #end(key: string): Promise<Position> {
    const [last] = (await this.#command(key, ["XREVRANGE", key, "+", "-", "COUNT", "1"])) as Entry[];
    return last === undefined ? BEGINNING : { id: last[0], count: flatOf(last).length / 3 };
  }

  /** Entries from a position on, its own included; null: what followed it is forgotten, or there never was such an entry. */
  async #after(
    key: string,
    { id, count }: Position,
    limit: number,
  ): Promise<(readonly [string, readonly unknown[]])[] | null> {
    const read = (start: string): Promise<Entry[]> =>
      this.#command(key, ["XRANGE", key, start, "+", "COUNT", String(ENTRIES_READ)]) as Promise<Entry[]>;
    const entries = await read(id);
    if (id !== BEGINNING.id) {
      if (entries[0]?.[0] !== id) return null;
    } else if (await this.#hasForgotten(key)) {
      return null;
    }
    const decoded: (readonly [string, readonly unknown[]])[] = [];
    let changes = -count;
    for (let page = entries; ; page = await read(`(${page.at(-1)?.[0] ?? id}`)) {
      for (const entry of page) {
        const flat = flatOf(entry);
        changes += flat.length / 3;
        decoded.push([entry[0], flat]);
      }
      // A page with fewer changes than wanted says that there are no more.
      if (page.length < ENTRIES_READ || changes >= limit) return decoded;
    }
  }

  async #hasForgotten(key: string): Promise<boolean> {
    if ((await this.#command(key, ["EXISTS", key])) === 0) return false;
    const info = (await this.#command(key, ["XINFO", "STREAM", key])) as unknown[];
    const fieldOf = (name: string): number => Number(info[info.indexOf(name) + 1]);
    return fieldOf("entries-added") > fieldOf("length");
  }
}

function flatOf([, fields]: Entry): unknown[] {
  return JSON.parse(`[${fields[1] ?? ""}]`) as unknown[];
}

function encode(positions: readonly Position[]): string {
  return positions.map(({ id, count }) => `${id}.${count}`).join(",");
}

function decode(cursor: string, streams: number): Position[] | null {
  const positions: Position[] = [];
  for (const part of cursor.split(",", streams + 1)) {
    const [, id, time, number, count] = /^((\d{1,20})-(\d{1,20}))\.(\d{1,9})$/.exec(part) ?? [];
    // Redis's ids are two numbers of 64 bits.
    if (id === undefined || [time, number].some((each) => BigInt(each ?? 0) >= 1n << 64n)) return null;
    positions.push({ id, count: Number(count) });
  }
  return positions.length === streams ? positions : null;
}
