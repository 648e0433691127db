/** Brings the plan for the memory (memory-plan.ts) and this process's heap together. */
import { constants, PerformanceObserver } from "node:perf_hooks";
import { getHeapSpaceStatistics, getHeapStatistics, setFlagsFromString } from "node:v8";
import type { Config } from "../config.ts";
import { memoryLimitBytes } from "./memory-limit.ts";
import { type MemoryPlan, neededBytes, planMemory } from "./memory-plan.ts";
import { StartError } from "../order/errors.ts";
import { RESULTS_CHARS_MAX } from "../order/result.ts";

const MIB = 1024 ** 2;

/** What the launcher sets; V8 does not tell it. */
const LAUNCHED_SEMI_SPACE_BYTES = 64 * MIB;

/** V8 rounds what it is told, and takes about what is planned by itself on a large machine. */
const NEAR = 0.02;

/** The heap's limit includes the young generation, three semi-spaces. */
const SEMI_SPACES = 3;

/**
 * How the C library (glibc; others pass it over) gives back what has been freed, buffers above all: by itself it keeps some for each
 * thread, and with time all that is smaller than 32 MiB.
 */
const SPARING_MALLOC = {
  MALLOC_ARENA_MAX: "1",
  MALLOC_MMAP_THRESHOLD_: String(32 * 1024),
  MALLOC_TRIM_THRESHOLD_: String(128 * 1024),
};

/**
 * How the memory is divided that the configuration, the container and the machine leave to this process.
 * @throws StartError when it is too little
 */
export function memoryPlanOf({ memoryLimitBytes: wanted, bodyBytesMax }: Config): MemoryPlan {
  const limitBytes = Math.min(wanted ?? Number.POSITIVE_INFINITY, memoryLimitBytes());
  const largestOrderBytes = bodyBytesMax + RESULTS_CHARS_MAX;
  const plan = planMemory(limitBytes, largestOrderBytes);
  if (plan !== null) return plan;
  throw new StartError(
    `the memory is limited to ${Math.floor(limitBytes / MIB)} MiB, and a node with a --body-limit of ${Math.ceil(bodyBytesMax / 1024)} KiB needs ${neededBytes(largestOrderBytes) / MIB} MiB; ` +
      "give its container more, or see --memory-limit and --body-limit",
  );
}

/** The limit of the main thread's old generation. */
export function oldGenerationBytes(): number {
  const { heap_size_limit: limitBytes } = getHeapStatistics();
  return Math.max(limitBytes - SEMI_SPACES * semiSpaceBytes(), limitBytes / 4);
}

/**
 * Starts this process anew, as the same process, with a heap as the plan has it; returns where it is so already. A heap that was made smaller,
 * by NODE_OPTIONS, stays so.
 * @param script what the process runs
 */
export function fitHeap(plan: MemoryPlan, script: string): void {
  const oldBytes = oldGenerationBytes();
  const isChosen = sizeFlag("max-old-space-size") !== null;
  const isNear = Math.abs(oldBytes - plan.oldGenerationBytes) < plan.oldGenerationBytes * NEAR;
  const fits = oldBytes <= plan.oldGenerationBytes && isChosen;
  if ((fits || isNear) && semiSpaceBytes() <= plan.semiSpaceBytes) return;
  const semiSpaceMib = plan.semiSpaceBytes / MIB;
  const flags = [
    `--max-old-space-size=${Math.floor((fits ? oldBytes : plan.oldGenerationBytes) / MIB)}`,
    `--min-semi-space-size=${semiSpaceMib}`,
    `--max-semi-space-size=${semiSpaceMib}`,
  ];
  // Should V8 not do as it was told, that is how it is.
  if (process.execve === undefined || flags.every((flag) => process.execArgv.includes(flag))) return;
  const others = process.execArgv.filter((flag) => !/^--(max-old|min-semi|max-semi)-space-size=/.test(flag));
  process.execve(process.execPath, [process.execPath, ...others, ...flags, script, ...process.argv.slice(2)], {
    ...SPARING_MALLOC,
    ...process.env,
  });
}

/** More buffers than this are of no use to anybody, on a machine of any size. */
const BUFFERS_KEPT_MAX = 32 * MIB;

/**
 * Buffers that nobody has any more stay until a collection, and V8 makes none for their sake before they are some 50 MiB: a node in a small
 * container does not have that. So one is made when there are more than the half of the plan's that is not for connections themselves.
 * @returns what to call with the size of everything that is received
 */
export function bufferCollector({ bufferBytes }: MemoryPlan): (receivedBytes: number) => void {
  const keptMax = Math.min(bufferBytes / 2, BUFFERS_KEPT_MAX);
  const checkEvery = keptMax / 2;
  let uncheckedBytes = 0;
  /** More are collected. What is in use stays all the same, and is not looked at again before there is as much garbage beside it. */
  let mostBytes = keptMax;
  return (receivedBytes) => {
    uncheckedBytes += receivedBytes;
    if (uncheckedBytes < checkEvery) return;
    uncheckedBytes = 0;
    const isTooMuch = buffersBytes() > mostBytes;
    if (isTooMuch) globalThis.gc?.({ type: "minor" }); // the launcher lends the function
    const nextBytes = Math.max(keptMax, buffersBytes() + keptMax / 2);
    mostBytes = isTooMuch ? nextBytes : Math.min(mostBytes, nextBytes);
  };
}

/** V8 lets a heap of this size grow to four times what a collection has left, and a smaller one to twice that at the most. */
const FAST_HEAP_BYTES = 2_048 * MIB;

/** From so much in use on the heap is bound. */
const MUCH_IN_USE_BYTES = 48 * MIB;

/** Below this it is let go again. */
const LITTLE_IN_USE_BYTES = 40 * MIB;

/** Of what is in use. */
const GROWTH_PERCENT = 60;

/**
 * What a collection leaves in the old generation is not always in use: beside clients whose bodies are no JSON it was 105 MiB once, of which the
 * next collection left 22. A large heap grew by hundreds of MiB of garbage between the two. So where a collection leaves much, another one is
 * made at once, and the heap grows by some half only for as long as much is in use. Where little is in use, slow growth would cost orders a
 * twentieth of their rate, and gain nothing. The heaps of the process's other threads hear the flag, too.
 * @returns ends it
 */
export function boundGrowth(): () => void {
  if (oldGenerationBytes() < FAST_HEAP_BYTES) return () => undefined;
  let isBound = false;
  const bind = (shallBe: boolean): void => {
    if (shallBe === isBound) return;
    isBound = shallBe;
    setFlagsFromString(`--heap-growing-percent=${isBound ? GROWTH_PERCENT : 0}`); // 0: as V8 finds right
    if (isBound) globalThis.gc?.(); // V8 heeds the flag when it has collected
  };
  const observer = new PerformanceObserver((list) => {
    if (!list.getEntries().some(isMajor)) return;
    bind(oldGenerationUsed() > (isBound ? LITTLE_IN_USE_BYTES : MUCH_IN_USE_BYTES));
  });
  observer.observe({ entryTypes: ["gc"] });
  return () => {
    observer.disconnect();
    bind(false);
  };
}

/** Whether a collection was of the old generation. */
function isMajor(entry: PerformanceEntry): boolean {
  const { detail } = entry as PerformanceEntry & { readonly detail: { readonly kind: number } };
  return detail.kind === constants.NODE_PERFORMANCE_GC_MAJOR;
}

/** Soon after a collection: about what it has left. */
function oldGenerationUsed(): number {
  const spaces = getHeapSpaceStatistics().filter(({ space_name }) => !space_name.startsWith("new_"));
  return spaces.reduce((bytes, { space_used_size }) => bytes + space_used_size, 0);
}

function buffersBytes(): number {
  return process.memoryUsage().arrayBuffers;
}

function semiSpaceBytes(): number {
  return sizeFlag("max-semi-space-size") ?? LAUNCHED_SEMI_SPACE_BYTES;
}

/** What V8 was told, in bytes; the command line beats the environment. */
function sizeFlag(name: string): number | null {
  const given = [...(process.env["NODE_OPTIONS"] ?? "").split(/\s+/), ...process.execArgv];
  const value = given.findLast((flag) => flag.startsWith(`--${name}=`))?.slice(name.length + 3);
  return value === undefined || !/^\d+$/.test(value) ? null : Number(value) * MIB;
}
