/** A node that is told to stop while it joins its cluster again: whichever comes first, nothing of it stays behind as alive. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { readInvocation } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { startNode } from "../../src/main.ts";
import { openSqliteStore } from "../../src/store/sqlite/sqlite-store.ts";
import { passOn, passOnCluster } from "../crash/fault-stores.ts";
import { atEnd } from "../support/at-end.ts";
import { temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";

test("a node that is stopped while it registers again leaves when it has", async (t) => {
  const path = join(temporaryFolder(t), "shared.sqlite");
  const broken = (error: Error): never => {
    throw error;
  };
  const gate = Promise.withResolvers<void>();
  const args = ["--port", "0", "--data", temporaryFolder(t), "--store", `sqlite:${path}`, "--grace", "0s"];
  const invocation = readInvocation(args, {}, "0.0.0");
  assert.ok(invocation.kind === "run");
  const registrations = { begun: 0 };
  const node = await startNode(
    invocation.config,
    createLogger("silent", "logfmt", () => undefined),
    broken,
    {
      wrapStore: (store) => ({
        ...passOn(store),
        cluster: {
          ...passOnCluster(store.cluster),
          register: async (description, atMs) => {
            if (++registrations.begun > 1) await gate.promise;
            return store.cluster.register(description, atMs);
          },
        },
      }),
    },
  );
  const store = await openSqliteStore({ path, now: Date.now, onBroken: broken });
  atEnd(t, () => store.close());

  const takenForDead = async (): Promise<boolean> => {
    const [row] = (await store.cluster.read()).nodes;
    return row !== undefined && (await store.cluster.markDead(row.incarnation, row.heartbeat));
  };
  await waitFor(takenForDead, { what: "the node is taken for dead" });
  await waitFor(() => registrations.begun === 2, { what: "it registers again" });
  const stopped = node.stop();
  gate.resolve();
  await stopped;
  const { nodes } = await store.cluster.read();
  assert.deepEqual(
    nodes.filter(({ alive }) => alive),
    [],
  );
});
