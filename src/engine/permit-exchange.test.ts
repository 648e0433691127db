import assert from "node:assert/strict";
import { test } from "node:test";
import { waitFor } from "../../test/support/wait.ts";
import type { ClusterStore } from "../store/cluster-store.ts";
import { StoreUnavailableError } from "../store/store.ts";
import { systemClock } from "../runtime/clock.ts";
import { PermitExchange } from "./permit-exchange.ts";
import { decodePermits, divide } from "./permits.ts";
import { Slots } from "./slots.ts";

const [SELF, OTHER] = [1, 2];
const LIMIT = { scope: "cluster", callsMax: 4 } as const;

test("a change that is carried out long after its answer got lost takes nothing from what is allowed since", async (t) => {
  let record: string | null = null;
  let held: (() => void) | null = null;
  let losesNext = false;
  const alive = [SELF, OTHER];
  const change = (seen: string | null, next: string): boolean => {
    if (record !== seen) return false;
    record = next;
    return true;
  };
  const store = {
    permits: () => Promise.resolve({ record, alive }),
    changePermits: (_key: string, seen: string | null, next: string) => {
      if (!losesNext) return Promise.resolve(change(seen, next));
      losesNext = false;
      held = () => change(seen, next);
      return Promise.reject(new StoreUnavailableError("the answer is lost"));
    },
  } as unknown as ClusterStore;
  const slots = new Slots(() => exchange.want());
  const exchange = new PermitExchange({ store, incarnation: SELF, slots, clock: systemClock() });
  t.after(() => exchange.stop());
  const begin = (): void => {
    if (slots.take("limit", LIMIT, { granted: () => undefined })) return;
  };

  // All four calls are this node's; when they have ended it gives its share back, and that is lost on the way.
  for (let calls = 0; calls < 4; calls++) begin();
  await waitFor(() => slots.underWay("limit") === 4, { what: "four calls are under way" });
  losesNext = true;
  for (let calls = 0; calls < 4; calls++) slots.giveBack("limit");
  await waitFor(() => held, { what: "the change is lost" });
  for (let calls = 0; calls < 4; calls++) begin();
  await waitFor(() => slots.underWay("limit") === 4, { what: "four calls are under way again" });

  (held as (() => void) | null)?.();
  const others = divide(decodePermits(record, alive), OTHER, LIMIT.callsMax, { underWay: 0, wanted: 4 }).allowed;
  assert.equal(slots.underWay("limit") + others, 4, "calls of both together");
});
