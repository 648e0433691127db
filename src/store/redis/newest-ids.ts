/** Finds orders for a list: ids, newest first, by the indexes of all partitions. */
import { ID_TIME_MS, rareStatuses } from "../order-filter.ts";
import { lowestIdAt } from "../order-id.ts";
import type { OrderFilter } from "../store.ts";
import { userDigest } from "./commit-calls.ts";
import { allEnded } from "./all-ended.ts";
import { ALL_PARTITIONS, indexKey, PARTITIONS, userKey } from "./keys.ts";

/** A partition is asked for so many times its share of the newest ids: more than it has, hardly ever. */
const PARTITION_SHARES = 4;

/** Above all ids. */
const ABOVE_ALL = "g";

export interface NewestIdsOptions {
  readonly filter: OrderFilter;
  /** Only ids below it; null: all. */
  readonly before: string | null;
  /** How many at most. */
  readonly limit: number;
  /** Whether orders may be in by_user (keys.ts). */
  readonly hasByUser: boolean;
  readonly command: (key: string, args: readonly string[]) => Promise<unknown>;
}

/** Members of a sorted set that are ids behind a prefix. */
interface Index {
  readonly key: string;
  readonly prefix: string;
}

/**
 * Ids of orders that may match, from the indexes that leave the fewest to look at. Each index gives more than its share, and the newest of
 * all are taken as far down as each has been heard.
 */
export async function newestIds(options: NewestIdsOptions): Promise<{ ids: string[]; isLast: boolean }> {
  const { filter, before, limit, hasByUser, command } = options;
  const { fromMs, toMs } = filter;
  const byTime = toMs === null ? ABOVE_ALL : lowestIdAt(toMs + ID_TIME_MS);
  const upper = before !== null && before < byTime ? before : byTime;
  const lower = fromMs === null ? "" : lowestIdAt(fromMs - ID_TIME_MS);
  const share = Math.ceil((PARTITION_SHARES * limit) / PARTITIONS) + 2;
  const pages = await allEnded(
    ALL_PARTITIONS.flatMap((partition) => indexesFor(filter, partition, hasByUser)).map(async ({ key, prefix }) => {
      const range = [`(${prefix}${upper}`, `[${prefix}${lower}`, "LIMIT", "0", String(share)];
      const members = (await command(key, ["ZREVRANGEBYLEX", key, ...range])) as string[];
      return members.map((member) => member.slice(prefix.length));
    }),
  );
  // Where an index has more, nothing is known of it below the last id that it gave.
  const heardTo = pages.reduce((last, page) => {
    const id = page.length < share ? "" : (page.at(-1) ?? "");
    return id > last ? id : last;
  }, "");
  const known = pages
    .flat()
    .filter((id) => id >= heardTo)
    .toSorted((one, other) => (one < other ? 1 : -1));
  return { ids: known.slice(0, limit), isLast: heardTo === "" && known.length <= limit };
}

/** Together they have each order of the partition that may match, once. */
function indexesFor(filter: OrderFilter, partition: number, hasByUser: boolean): readonly Index[] {
  const digest = filter.user === null ? null : userDigest(filter.user);
  const rare = rareStatuses(filter);
  if (rare !== null) {
    const key = indexKey(partition, "rare");
    return rare.map((status) => ({ key, prefix: digest === null ? `${status} ` : `${status}/${digest} ` }));
  }
  if (digest === null) return [{ key: indexKey(partition, "orders"), prefix: "" }];
  const ofUser = { key: userKey(partition, digest), prefix: "" };
  return hasByUser ? [ofUser, { key: indexKey(partition, "by_user"), prefix: `${digest} ` }] : [ofUser];
}
