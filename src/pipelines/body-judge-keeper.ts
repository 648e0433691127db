/**
 * The keeper of the process that bodies are checked in (body-judge-child.ts), a thread of it: ends the process when its main thread comes
 * round no more, when it takes too much memory, or when the node that it works for is gone. It counts its own ticks: a process that was stopped and goes on was not stuck,
 * for this thread was stopped, too.
 */
import { writeSync } from "node:fs";
import { workerData } from "node:worker_threads";
import { AT_FD, MEMORY_POSITION } from "./body-judge-process.ts";

/** Shared with the main thread: how often that came round or was done with a body, and how many files it is loading. */
export const STATE_ROUNDS = 0;
export const STATE_LOADING = 1;
export const STATE_LENGTH = 2;

/** The main thread comes round so often, at least, unless something keeps it. */
export const ROUND_MS = 100;

const TICK_MS = 100;
const LOADING_TICKS = 300;

/** A main thread is stuck that has not come round for so long, and has worked for longer than one body may take. */
const STUCK_TICKS = 20;
const STUCK_WORK_MS = 300;

/** One that has worked less may wait for a processor: it has twice as long. */
const ASLEEP_TICKS = 40;

/** In all: a heap that is full, and what a process has beside it. Buffers are in no heap. */
const MEMORY_BYTES_MAX = 384 * 1024 ** 2;

/** For the keeper. */
export interface Kept {
  readonly state: SharedArrayBuffer;
  /** The node that the process works for. */
  readonly parentPid: number;
}

/** Since the main thread came round last. */
export interface Absence {
  readonly ticks: number;
  /** Processor time of the process, in milliseconds. */
  readonly workMs: number;
  readonly isLoading: boolean;
}

/** Whether the process is to be ended for it. Pure. */
export function isStuck({ ticks, workMs, isLoading }: Absence): boolean {
  if (isLoading) return ticks > LOADING_TICKS;
  return ticks > ASLEEP_TICKS || (ticks > STUCK_TICKS && workMs >= STUCK_WORK_MS);
}

function keep({ state: memory, parentPid }: Kept): void {
  const state = new Int32Array(memory);
  const sleeper = new Int32Array(new SharedArrayBuffer(Int32Array.BYTES_PER_ELEMENT));
  let seenRounds = 0;
  let work = process.cpuUsage();
  for (let ticks = 0; ; ticks++) {
    Atomics.wait(sleeper, 0, 0, TICK_MS);
    const isLoading = Atomics.load(state, STATE_LOADING) > 0; // first: once it is over, a new round is seen
    const rounds = Atomics.load(state, STATE_ROUNDS);
    if (rounds !== seenRounds) {
      ticks = 0;
      work = process.cpuUsage();
    }
    seenRounds = rounds;
    const { user, system } = process.cpuUsage(work);
    const isTooLarge = process.memoryUsage.rss() > MEMORY_BYTES_MAX;
    if (isTooLarge) noteMemory();
    // Nothing else ends a process from here whose main thread is in a loop.
    if (isStuck({ ticks, workMs: (user + system) / 1_000, isLoading }) || process.ppid !== parentPid || isTooLarge)
      process.kill(process.pid, "SIGKILL");
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
