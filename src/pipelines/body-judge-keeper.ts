/**
 * The keeper of the process that bodies are checked in (body-judge-child.ts), a thread of it: ends the process when its main thread comes
 * round no more, when it takes too much memory, or when the node that it works for is gone. It counts its own ticks: a process that was stopped and goes on was not stuck,
 * for this thread was stopped, too.
 */
import { writeSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { AT_FD, MEMORY_POSITION } from "./body-judge-process.ts";

/** Shared with the main thread: how often that came round, and how many files it is loading. */
export const STATE_ROUNDS = 0;
export const STATE_LOADING = 1;
export const STATE_LENGTH = 2;

/** The main thread comes round so often, at least, unless something keeps it. */
export const ROUND_MS = 100;

const TICK_MS = 100;
const STUCK_TICKS = 20;
const LOADING_TICKS = 300;

/** In all: a heap that is full, and what a process has beside it. Buffers are in no heap. */
const MEMORY_BYTES_MAX = 384 * 1024 ** 2;

/** For the keeper. */
export interface Kept {
  readonly state: SharedArrayBuffer;
  /** The node that the process works for. */
  readonly parentPid: number;
}

function keep({ state: memory, parentPid }: Kept): void {
  const state = new Int32Array(memory);
  const sleeper = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  let seenRounds = 0;
  for (let ticks = 0; ; ticks++) {
    Atomics.wait(sleeper, 0, 0, TICK_MS);
    const rounds = Atomics.load(state, STATE_ROUNDS);
    if (rounds !== seenRounds) ticks = 0;
    seenRounds = rounds;
    const ticksMax = Atomics.load(state, STATE_LOADING) > 0 ? LOADING_TICKS : STUCK_TICKS;
    const isTooLarge = process.memoryUsage.rss() > MEMORY_BYTES_MAX;
    if (isTooLarge) noteMemory();
    // Nothing else ends a process from here whose main thread is in a loop.
    if (ticks > ticksMax || process.ppid !== parentPid || isTooLarge) process.kill(process.pid, "SIGKILL");
  }
}

function noteMemory(): void {
  try {
    writeSync(AT_FD, Buffer.from([1]), 0, 1, MEMORY_POSITION);
  } catch {
    // A schema has closed it: then nobody is blamed.
  }
}

if (workerData !== null) keep(workerData as Kept);
