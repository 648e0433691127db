/** Spreads a dead node's orders over the live ones: whoever has least gets first, until all have as much. */

export interface Loaded<T> {
  readonly node: T;
  readonly ordersInFlight: number;
}

export interface Share<T> {
  readonly node: T;
  readonly orders: number;
}

/** How many of `orders` each node is to take; nodes that are to take none are left out. */
export function spreadOrders<T>(orders: number, nodes: readonly Loaded<T>[]): Share<T>[] {
  const byLoad = nodes.toSorted((one, other) => one.ordersInFlight - other.ordersInFlight);
  let left = orders;
  const shares = byLoad.map(({ node }) => ({ node, orders: 0 }));
  for (let level = 1; level <= byLoad.length && left > 0; level++) {
    // The first `level` nodes have been filled up alike; now they rise together to the next one's load.
    const load = byLoad[level - 1]?.ordersInFlight ?? 0;
    const nextLoad = byLoad[level]?.ordersInFlight ?? Number.POSITIVE_INFINITY;
    const rise = Math.min(nextLoad - load, left / level);
    let whole = Math.min(left, Math.round(rise * level));
    for (const [index, share] of shares.slice(0, level).entries()) {
      const part = Math.ceil(whole / (level - index));
      share.orders += part;
      whole -= part;
      left -= part;
    }
  }
  return shares.filter((share) => share.orders > 0);
}
