import assert from "node:assert/strict";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { ManualClock } from "../../test/support/manual-clock.ts";
import { temporaryFolder } from "../../test/support/service.ts";
import type { Incarnation } from "../order/events.ts";
import type { ClusterStore } from "../store/cluster-store.ts";
import { openSqliteStore } from "../store/sqlite/sqlite-store.ts";
import { Membership } from "./membership.ts";
import { timingOf } from "./timing.ts";

const HOUR_MS = 3_600_000;
const TTL_MS = 5_000;

interface Rig {
  readonly clock: ManualClock;
  readonly rows: ClusterStore;
  readonly membership: Membership;
  /** Another node, whose wall clock is three hours behind. */
  readonly other: Incarnation;
  readonly otherNow: () => number;
}

async function start(t: TestContext): Promise<Rig> {
  const clock = new ManualClock();
  const store = await openSqliteStore({
    path: join(temporaryFolder(t), "orders.sqlite"),
    now: clock.now,
    onBroken: assert.ifError,
  });
  t.after(() => store.close());
  const rows = store.cluster;
  const register = (serviceId: string, atMs: number): Promise<Incarnation> =>
    rows.register({ serviceId, url: "http://127.0.0.1:1", version: "0", ttlMs: TTL_MS, process: null }, atMs);
  const otherNow = (): number => clock.now() - 3 * HOUR_MS;
  const other = await register("0b0d1f5e-3f5f-4b62-8b0e-6a5f6f0f2c11", otherNow());
  const membership = new Membership(
    {
      store: rows,
      incarnation: await register("8cc227c0-8dac-42cf-983e-f7bcb95bf455", clock.now()),
      timing: timingOf(TTL_MS),
      clock,
      ordersInFlight: () => 0,
      refusesConnections: () => Promise.resolve(false),
      onHeartbeat: () => undefined,
      onSnapshot: () => Promise.resolve(),
      onDead: () => undefined,
      onBroken: assert.ifError,
    },
    clock.monotonic(),
  );
  await membership.refresh();
  return { clock, rows, membership, other, otherNow };
}

test("what another node's clock shows is known while it lives, and after it has left or was taken for dead", async (t) => {
  for (const end of ["leaves", "dies", "starts anew"] as const) {
    const { clock, rows, membership, other, otherNow } = await start(t);
    assert.equal(membership.nowOf(other), otherNow());
    clock.advance(1_000);
    await rows.beat(other, 0, otherNow());
    if (end === "leaves") await rows.leave(other);
    else if (end === "dies") await rows.markDead(other, 2);
    else
      await rows.register(
        { serviceId: "0b0d1f5e-3f5f-4b62-8b0e-6a5f6f0f2c11", url: "", version: "0", ttlMs: TTL_MS, process: null },
        otherNow(),
      );
    clock.advance(1_000);
    await membership.refresh();
    clock.advance(HOUR_MS);
    await membership.refresh();
    assert.equal(membership.nowOf(other), otherNow(), `it ${end}`);
  }
});

test("of a node that was never seen alive nothing is known", async (t) => {
  const { rows, membership, other } = await start(t);
  const dead = await rows.register(
    { serviceId: "5b0d1f5e-3f5f-4b62-8b0e-6a5f6f0f2c11", url: "", version: "0", ttlMs: TTL_MS, process: null },
    0,
  );
  await rows.markDead(dead, 1);
  await membership.refresh();
  assert.equal(membership.nowOf(dead), null);
  assert.notEqual(membership.nowOf(other), null);
});
