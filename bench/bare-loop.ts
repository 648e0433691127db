/**
 * The store's ceiling: the writes that an order of four steps makes, put straight into the embedded store from a bare
 * loop on one thread, with nothing decided, awaited or checked. Prints one line of JSON.
 *
 *     node bench/bare-loop.ts <folder> <orders> <writes per commit>
 */
import { randomUUIDv7 } from "node:crypto";
import { join } from "node:path";
import { SqliteDatabase } from "../src/store/sqlite/database.ts";
import { type FlatBatch, TAG_ADVANCE, TAG_ADVANCE_STATUS, TAG_CREATE } from "../src/store/sqlite/protocol.ts";

const [folder = ".", orders = "0", writesPerCommit = "0"] = process.argv.slice(2);
const ordersMax = Number(orders);
const perCommit = Number(writesPerCommit);

const database = new SqliteDatabase(join(folder, "orders.sqlite"));
const owner = database.register("00000000-0000-4000-8000-000000000000", "{}", 0);
const STEPS = ["Pre-Processing", "Processing", "Post-Processing"];
const WRITES_PER_ORDER = STEPS.length + 2;

const startMs = performance.now();
let created = 0;
let open: { readonly id: string; revision: number }[] = [];
while (created < ordersMax || open.length > 0) {
  const batch: FlatBatch = [];
  const stillOpen: typeof open = [];
  const nowMs = Date.now();
  for (const order of open) {
    const step = STEPS[order.revision - 1];
    if (step === undefined) {
      batch.push(TAG_ADVANCE_STATUS, "completed", "running", `,["step_completed",${nowMs}]`);
      batch.push(order.id, owner, order.revision, "user");
    } else {
      batch.push(TAG_ADVANCE, `,["step_completed",${nowMs},"${step}"]`, order.id, owner, order.revision, "user");
      order.revision++;
      stillOpen.push(order);
    }
  }
  const creations = Math.min(ordersMax - created, Math.ceil(perCommit / WRITES_PER_ORDER));
  for (let count = 0; count < creations; count++) {
    const id = randomUUIDv7();
    const event = `["created",${nowMs},${owner},"Scheduling"]`;
    batch.push(TAG_CREATE, id, "user", null, "default", 1, nowMs, "running", owner, event, "{}");
    stillOpen.push({ id, revision: 1 });
  }
  created += creations;
  database.commit(batch);
  open = stillOpen;
}
const seconds = (performance.now() - startMs) / 1_000;
database.close();
console.log(JSON.stringify({ ordersPerSecond: ordersMax / seconds }));
