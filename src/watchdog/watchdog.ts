/**
 * Ends this process when its main thread is blocked for too long: a step that never gives the event loop back would keep every order of
 * this node, and its requests, and nobody could tell. The orders go to other nodes, or to the next start, which count the death
 * (guarantee G10).
 *
 * A thread of its own looks; the main thread only has to turn (board.ts).
 */
import { url as inspectorUrl } from "node:inspector";
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { Board } from "./board.ts";

export interface Watchdog {
  /** A call begins; named where the main thread is blocked. */
  noteCall(orderId: string, stepName: string): void;
  stop(): void;
}

export interface WatchdogOptions {
  /** How long the main thread may be blocked, asked again and again; 0: as long as it likes. */
  readonly limitMs: () => number;
}

/** How often the main thread shows that it turns. */
const TICK_MS = 100;

/** Source in a checkout, JavaScript in an installed package: whatever this file is. */
const THREAD = new URL(`thread${extname(import.meta.url)}`, import.meta.url);

export function startWatchdog({ limitMs }: WatchdogOptions): Watchdog {
  const board = new Board();
  // Whoever debugs it may hold it for as long as they like.
  const tick = (): void => board.tick(inspectorUrl() === undefined ? limitMs() : 0);
  tick();
  const timer = setInterval(tick, TICK_MS);
  timer.unref();
  const worker = new Worker(THREAD, { workerData: board.memory, resourceLimits: { maxOldGenerationSizeMb: 16 } });
  worker.unref();
  return {
    noteCall: (orderId, stepName) => board.noteCall(orderId, stepName),
    stop: () => {
      clearInterval(timer);
      void worker.terminate();
    },
  };
}
