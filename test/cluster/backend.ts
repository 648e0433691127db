/** The store that the nodes of a test share: how they find it, and what it holds, read past the code that wrote it. */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import type { TestContext } from "node:test";
import type { Incarnation } from "../../src/order/order.ts";
import { countOpenOrders, readStoreContent, type StoreRow } from "../crash/store-content.ts";
import { temporaryFolder } from "../support/service.ts";

export interface Backend {
  /** Options of the command line with which a node uses it. */
  readonly args: readonly string[];
  /** The database file, where there is one. */
  readonly path: string | null;
  /** Every order. */
  readContent(): Promise<StoreRow[]>;
  /** How many orders are not final: all, or an incarnation's. */
  countOpen(owner?: Incarnation): Promise<number>;
  /** How many nodes the cluster still knows: those alive, and those that died and were not replaced. */
  countNodes(): Promise<number>;
  /** What proves membership from node to node. */
  readSecret(): Promise<string>;
}

/** A new, empty store that goes with the test. */
export function startBackend(t: TestContext): Promise<Backend> {
  const kind = process.env["ORDER_PROCESS_TEST_STORE"] ?? "sqlite";
  switch (kind) {
    case "sqlite":
      return Promise.resolve(sqliteBackend(join(temporaryFolder(t), "shared.sqlite")));
    default:
      throw new Error(`ORDER_PROCESS_TEST_STORE can't be "${kind}"; write sqlite`);
  }
}

function sqliteBackend(path: string): Backend {
  const readOne = (sql: string): Record<string, unknown> => {
    const db = new DatabaseSync(path, { readOnly: true, timeout: 5_000 });
    try {
      return db.prepare(sql).get() ?? {};
    } finally {
      db.close();
    }
  };
  return {
    args: ["--store", `sqlite:${path}`],
    path,
    readContent: () => Promise.resolve(readStoreContent(path)),
    countOpen: (owner) => Promise.resolve(countOpenOrders(path, owner)),
    countNodes: () =>
      Promise.resolve(Number(readOne("SELECT count(*) AS nodes FROM incarnations WHERE state <> 'left'")["nodes"])),
    readSecret: () => Promise.resolve(String(readOne("SELECT secret FROM cluster")["secret"])),
  };
}
