/** The moment of a claim between nodes whose clocks show the same. */
import type { ClaimTimes } from "../../src/store/store.ts";

export function claimTimes(atMs: number): ClaimTimes {
  return { atMs, formerAtMs: atMs };
}
