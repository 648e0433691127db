/**
 * The watchdog's own thread. It counts its own ticks, not the time: a process that was stopped and goes on has not been blocked, for this
 * thread was stopped, too.
 */
import { writeSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { Board } from "./board.ts";

/** How often it looks. */
const LOOK_MS = 50;

const board = new Board(workerData as SharedArrayBuffer);
const sleeper = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));

let seenTicks = board.ticks;
let blockedMs = 0;
for (;;) {
  Atomics.wait(sleeper, 0, 0, LOOK_MS);
  const { ticks, limitMs } = board;
  blockedMs = ticks === seenTicks ? blockedMs + LOOK_MS : 0;
  seenTicks = ticks;
  if (limitMs > 0 && blockedMs >= limitMs) end();
}

function end(): void {
  const call = board.lastCall;
  const hint =
    call === null ? "" : `; the last call that began is step ${JSON.stringify(call.stepName)} of order ${call.orderId}`;
  writeSync(2, `order_process: stopped: the event loop was blocked for ${blockedMs} ms (--blocked-limit)${hint}\n`);
  // Nothing else ends a process from here whose main thread is blocked. Whatever is not durable was promised to nobody.
  process.kill(process.pid, "SIGKILL");
}
