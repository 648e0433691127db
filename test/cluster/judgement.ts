/** Judges what a cluster did: its nodes, its orders and what its store counts. */
import assert from "node:assert/strict";
import { replay } from "../../src/order/evolve.ts";
import { listedStatus, type Order } from "../../src/order/order.ts";
import { LISTED_STATUSES } from "../../src/order/status.ts";
import { type Evidence, findViolations } from "../crash/checker.ts";
import type { StoreRow } from "../crash/store-content.ts";
import {
  type ClusterEvidence,
  confirmedDeaths,
  entriesOf,
  falseFailovers,
  findClusterViolations,
  moveAgainMs,
} from "./cluster-checker.ts";

/** All that is wrong, in lines and by rule, and what else is worth knowing of a test. */
export interface Judgement {
  readonly rules: ReadonlySet<string>;
  readonly lines: readonly string[];
  readonly evidence: ClusterEvidence;
  /** From a fault until the last order that changed hands had a call again; null: none did. */
  readonly moveAgainMs: number | null;
  readonly facts: readonly (readonly [name: string, value: number | null])[];
}

/** Far less than what the audit of a node takes to find orders that it was not told of, far more than any machine needs to be told. */
const FOUND_MS_MAX = 20_000;

/** Orders have changed hands, and whoever got them has gone on with them because it was told to. */
export function assertMovedAgain({ moveAgainMs: movedMs }: Pick<Judgement, "moveAgainMs">): void {
  assert.ok(movedMs !== null, "no order changed hands: nothing is proved");
  assert.ok(movedMs <= FOUND_MS_MAX, `the last order moved again after ${movedMs} ms`);
}

/** @param counts what the store says that it has, by status */
export function judge(nodes: ClusterEvidence, orders: Evidence, counts: ReadonlyMap<string, number>): Judgement {
  const ofOrders = findViolations(orders);
  const ofNodes = findClusterViolations(nodes);
  const moves = nodes.faults.flatMap((fault) => moveAgainMs(nodes, orders.calls, fault) ?? []);
  const movedMs = moves.length === 0 ? null : Math.max(...moves);
  const writes = entriesOf(nodes.record, "write");
  const late = ofNodes.filter(({ rule }) => rule === "written_by_non_owner" || rule === "written_after_fence");
  return {
    rules: new Set<string>([...ofOrders, ...ofNodes].map(({ rule }) => rule)),
    lines: [
      ...findMiscounts(nodes.stored, counts),
      ...ofNodes.map(({ guarantee, rule, detail }) => `${guarantee} ${rule}: ${detail}`),
      ...ofOrders.map(({ guarantee, rule, orderId, detail }) => `${guarantee} ${rule}: order ${orderId}: ${detail}`),
    ],
    evidence: nodes,
    moveAgainMs: movedMs,
    facts: [
      ["orders acknowledged", orders.acknowledged.length],
      ["lost", ofOrders.filter(({ rule }) => rule === "lost_order").length],
      ["late writes accepted", late.length],
      ["writes refused", writes.filter(({ outcome }) => outcome === "conflict" || outcome === "fenced").length],
      ["calls", orders.calls.length],
      ["deaths", confirmedDeaths(nodes.record).length],
      ["false failovers", falseFailovers(nodes).length],
      ["ms until the last order moved again", movedMs === null ? null : Math.round(movedMs)],
    ],
  };
}

/** Where the counts that the store keeps are not what there is. */
function findMiscounts(stored: ClusterEvidence["stored"], kept: ReadonlyMap<string, number>): string[] {
  const statusOf = (row: StoreRow): string => {
    const order = replayed(row);
    return order === null ? "damaged" : listedStatus(order);
  };
  const orders = Map.groupBy(stored, statusOf);
  return LISTED_STATUSES.flatMap((status) => {
    const [there, counted] = [orders.get(status)?.length ?? 0, kept.get(status) ?? 0];
    return there === counted ? [] : [`miscounted: ${there} orders are ${status}, and ${counted} are counted`];
  });
}

/** Null: it is damaged. Broken nodes have written that, and others find it. */
export function replayed({ orderId, history }: StoreRow): Order | null {
  try {
    return replay(orderId, history);
  } catch {
    return null;
  }
}
