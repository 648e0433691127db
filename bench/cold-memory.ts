/** What memory costs that was not used for a while: next to nothing on a machine of one's own, tens of microseconds on some shared ones. */
import { setTimeout as delay } from "node:timers/promises";

const PAGE_BYTES = 4_096;
const PAGES = 262_144;
const TURNS = 40;
const PAGES_PER_TURN = 50;
const REST_MS = 100;

/** Microseconds that the first look at such a page takes: the mean over pages anywhere in a gigabyte. */
export async function coldPageUs(): Promise<number> {
  const memory = Buffer.allocUnsafeSlow(PAGES * PAGE_BYTES);
  for (let page = 0; page < PAGES; page++) memory[page * PAGE_BYTES] = 1;
  let tookMs = 0;
  let seen = 0;
  for (let turn = 0; turn < TURNS; turn++) {
    await delay(REST_MS);
    const pages = Array.from({ length: PAGES_PER_TURN }, () => Math.floor(Math.random() * PAGES) * PAGE_BYTES);
    const startMs = performance.now();
    for (const at of pages) seen += memory[at] ?? 0;
    tookMs += performance.now() - startMs;
  }
  if (seen !== TURNS * PAGES_PER_TURN) throw new Error("memory does not keep what is written to it");
  return (1_000 * tookMs) / seen;
}
