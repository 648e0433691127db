/** Recovery when the end of the WAL did not reach the disk whole: the last commit is there whole or not at all. */
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test, type TestContext } from "node:test";
import { atEnd } from "../support/at-end.ts";
import { SqliteDatabase } from "../../src/store/sqlite/database.ts";
import { type FlatBatch, flattenBatch, OUTCOME_APPLIED } from "../../src/store/sqlite/protocol.ts";
import type { AdvanceWrite, CreateWrite } from "../../src/store/store.ts";
import { seededRandom } from "./seeded-random.ts";

/** What precedes each page in the WAL (sqlite.org/fileformat2.html, 4.1). */
const FRAME_HEADER_BYTES = 24;
const FRAME_BYTES = FRAME_HEADER_BYTES + 8_192;

/** Primes, so that the bytes looked at fall differently in each page. Recovery sums up a page whole: where it is cut makes no difference. */
const SAMPLE_BYTES = 41;
const DENSE_SAMPLE_BYTES = 7;

/** A store's files after some commits, as a crash would leave them, and what they held before and after the last one. */
interface Scene {
  readonly path: string;
  readonly database: Buffer;
  readonly wal: Buffer;
  /** Where the last commit begins in the WAL. */
  readonly lastCommitByte: number;
  readonly lastBatch: FlatBatch;
  readonly before: string;
  readonly after: string;
}

test("a last commit of one page that is cut anywhere is gone whole, and can be made again", (t) => {
  const scene = makeScene(t, advance("order-1"));
  assert.equal(scene.wal.length - scene.lastCommitByte, FRAME_BYTES, "the last commit is one page");
  const sampled = new Set(sampledEnds(scene));
  const ends = new Set([...sampled, ...sampledEnds(scene, DENSE_SAMPLE_BYTES)]);
  for (const end of ends) {
    expectRecovery(scene, scene.wal.subarray(0, end), `cut after byte ${end}`, { again: sampled.has(end) });
  }
  t.diagnostic(`cut at ${ends.size} of ${FRAME_BYTES} bytes, and made again after ${sampled.size} of them`);
});

test("a last commit of several pages that is cut within any of them is gone whole, and can be made again", (t) => {
  const scene = makeScene(t, create("order-9"));
  const frames = (scene.wal.length - scene.lastCommitByte) / FRAME_BYTES;
  assert.ok(frames >= 3, "the last commit is several pages");
  const ends = sampledEnds(scene);
  for (const end of ends) expectRecovery(scene, scene.wal.subarray(0, end), `cut after byte ${end}`);
  t.diagnostic(
    `${frames} pages, cut at each byte of the headers and every ${SAMPLE_BYTES}th of the pages: ${ends.length}`,
  );
});

/** What can stand where bytes did not arrive: a file grown but not written, garbage, the log's former round. */
const LEFTOVERS = {
  zeros: (wal: Buffer) => Buffer.alloc(wal.length),
  noise: (wal: Buffer) => {
    const random = seededRandom(1);
    return Buffer.from(wal.map(() => Math.floor(random() * 256)));
  },
  "a former log's": (_: Buffer, t: TestContext) => makeScene(t, create("order-9")).wal,
};

for (const [what, leftover] of Object.entries(LEFTOVERS)) {
  test(`a last commit whose end is ${what} is gone whole, and can be made again`, (t) => {
    const scene = makeScene(t, create("order-9"));
    const other = leftover(scene.wal, t);
    const ends = sampledEnds(scene);
    for (const end of ends) {
      const wal = Buffer.concat([scene.wal.subarray(0, end), other.subarray(end)]);
      expectRecovery(scene, wal, `${what} from byte ${end}`);
    }
    t.diagnostic(`${ends.length} places from which it is ${what}`);
  });
}

/** Opens the store on that WAL and expects what was before the last commit, or after it where the WAL is whole; and makes it again. */
function expectRecovery(scene: Scene, wal: Buffer, what: string, { again = true } = {}): void {
  writeFileSync(scene.path, scene.database);
  writeFileSync(`${scene.path}-wal`, wal);
  const database = new SqliteDatabase(scene.path, 0);
  try {
    const isWhole = wal.equals(scene.wal);
    assert.equal(contentOf(scene.path), isWhole ? scene.after : scene.before, what);
    if (isWhole || !again) return;
    assert.deepEqual([...database.commit(scene.lastBatch).outcomes], [OUTCOME_APPLIED], what);
    assert.equal(contentOf(scene.path), scene.after, what);
  } finally {
    database.close();
  }
}

/** Makes a store in which `last` was the last commit, and copies its files while it is open. */
function makeScene(t: TestContext, last: CreateWrite | AdvanceWrite): Scene {
  const folder = memoryFolder(t);
  const source = join(folder, "source.sqlite");
  // A commit's own pages only, not those by which its changes are followed.
  const database = new SqliteDatabase(source, 0);
  database.register("service", "{}", 1);
  for (let order = 1; order <= 3; order++) database.commit(flattenBatch([create(`order-${order}`)]));
  database.commit(flattenBatch([advance("order-2"), advance("order-3")]));
  const before = contentOf(source);
  const lastCommitByte = readFileSync(`${source}-wal`).length;
  const lastBatch = flattenBatch([last]);
  database.commit(lastBatch);
  const scene: Scene = {
    path: join(folder, "copy.sqlite"),
    database: readFileSync(source),
    wal: readFileSync(`${source}-wal`),
    lastCommitByte,
    lastBatch,
    before,
    after: contentOf(source),
  };
  database.close();
  assert.notEqual(scene.before, scene.after);
  return scene;
}

/** Each place in the headers of the last commit's pages, and some in the pages, to the end of the WAL. */
function sampledEnds({ wal, lastCommitByte }: Scene, everyBytes = SAMPLE_BYTES): number[] {
  const ends = Array.from({ length: wal.length - lastCommitByte + 1 }, (_, index) => index);
  return ends
    .filter((index) => index % FRAME_BYTES <= FRAME_HEADER_BYTES || index % everyBytes === 0)
    .map((index) => lastCommitByte + index);
}

/** Everything in the store as text, having checked its integrity. */
function contentOf(path: string): string {
  const db = new DatabaseSync(path, { readOnly: true });
  try {
    assert.deepEqual(db.prepare("PRAGMA integrity_check").all().map(Object.values), [["ok"]]);
    const tables = ["incarnations", "orders", "order_bodies"];
    return JSON.stringify(tables.map((table) => db.prepare(`SELECT * FROM ${table}`).all()));
  } finally {
    db.close();
  }
}

/** A folder in memory where there is one: what is tested is what recovery makes of given bytes, and that many times. */
function memoryFolder(t: TestContext): string {
  const folder = mkdtempSync(join(existsSync("/dev/shm") ? "/dev/shm" : tmpdir(), "order-process-test-"));
  atEnd(t, () => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

function create(orderId: string): CreateWrite {
  return {
    kind: "create",
    orderId,
    user: "user",
    idempotencyKey: `key of ${orderId}`,
    pipelineName: "default",
    pipelineVersion: 1,
    event: { kind: "created", atMs: 1, owner: 1, stepName: "A" },
    body: "{}",
  };
}

/** Small: it changes one page. */
function advance(orderId: string): AdvanceWrite {
  return {
    kind: "advance",
    orderId,
    owner: 1,
    expectedRevision: 1,
    event: { kind: "step_completed", atMs: 2, nextStepName: "B" },
    newStatus: null,
    formerStatus: "running",
    user: "user",
  };
}
