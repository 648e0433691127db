/**
 * What a node may use of the memory that it has (guarantee G8). A container's limit is for all of a process, and the heap is only a part of
 * that: two threads each have a young generation, the store has a page cache, and requests have buffers. Pure: the arithmetic only.
 *
 * 1. All parts together stay within 90 % of the limit. The rest is the kernel's, and for what is not foreseen.
 * 2. What intake promises fits the heap: orders in flight a quarter, their bodies and results another, and an eighth is for what calls under way
 *    keep. The rest is for requests under way, and for garbage: a collector with less room would hardly do anything else.
 */

const MIB = 1024 ** 2;

/** Of the limit, what is planned with. */
const SHARE = 0.9;

/** A node that does nothing, measured at 147 to 152 MiB resident in small containers: Node's code, ours, and the heaps of three threads. */
const IDLE_BYTES = 152 * MIB;

/** What of that is in the main thread's old generation. */
const IDLE_HEAP_BYTES = 32 * MIB;

/** A heap that is smaller than this beside what is in it at first is not worth a start. */
const HEAP_BYTES_MIN = 24 * MIB;

/** More is of no use: the collector's pauses grow with it. With what is in it at first, it is what V8 takes by itself on a large machine. */
const HEAP_BYTES_MAX = 4096 * MIB - IDLE_HEAP_BYTES;

/** Semi-spaces of 64 MiB keep short-lived garbage from being copied into the old generation under load. */
const SEMI_SPACE_BYTES_MAX = 64 * MIB;

/** A young generation is three semi-spaces. */
const SEMI_SPACES = 3;

/** The main thread and the store's. The watchdog's makes no garbage. */
const THREADS = 2;

/** The pages of 100,000 orders in flight fit. */
const STORE_CACHE_BYTES_MAX = 64 * MIB;

/** Batches on their way to the store, in the copies that are made of them. */
const STORE_THREAD_BYTES_MAX = 64 * MIB;

/** Buffers of connections: bodies that come in, answers that are not read. */
const BUFFER_BYTES_MAX = 256 * MIB;

/** An order in flight, twice what one takes at the most without its body. */
const ORDER_BYTES = 4096;

/** An order takes this many times its body's text at once while it is received: `{},{},…` makes an object of three characters. */
const PARSED_PER_CHAR = 24;

/** What is needed is told in steps of this. */
const NEEDED_STEP_BYTES = 16 * MIB;

/** How a node divides its memory. */
export interface MemoryPlan {
  /** V8's `--max-old-space-size`. */
  readonly oldGenerationBytes: number;
  /** V8's `--max-semi-space-size`, of each thread. */
  readonly semiSpaceBytes: number;
  /** Pages that the embedded store keeps. */
  readonly storeCacheBytes: number;
  /** What connections may have waiting outside of the heap. */
  readonly bufferBytes: number;
  /** All parts together. */
  readonly totalBytes: number;
}

/** What intake may promise with a heap. */
export interface IntakePlan {
  /** Orders in flight. */
  readonly ordersMax: number;
  /** Their bodies and results. */
  readonly bodyBytesMax: number;
  /** What calls under way keep of those, and of what they have made of them. */
  readonly callBytesMax: number;
  /** Bodies that are being received or answered. */
  readonly incomingBytesMax: number;
}

/**
 * Divides a limit.
 * @param largestOrderBytes the largest body together with the most results
 * @returns null: it is too little to work with; see `neededBytes`
 */
export function planMemory(limitBytes: number, largestOrderBytes: number): MemoryPlan | null {
  const spare = Math.floor(limitBytes * SHARE) - IDLE_BYTES;
  if (spare <= 0) return null;
  let semiSpaceBytes = SEMI_SPACE_BYTES_MAX;
  while (semiSpaceBytes > MIB && THREADS * SEMI_SPACES * semiSpaceBytes > spare / 6) semiSpaceBytes /= 2;
  const storeCacheBytes = Math.min(STORE_CACHE_BYTES_MAX, wholeMib(spare / 8));
  const storeThreadBytes = Math.min(STORE_THREAD_BYTES_MAX, wholeMib(spare / 8));
  const bufferBytes = Math.min(BUFFER_BYTES_MAX, wholeMib(spare / 6));
  const outside = THREADS * SEMI_SPACES * semiSpaceBytes + storeCacheBytes + storeThreadBytes + bufferBytes;
  const heapBytes = Math.min(HEAP_BYTES_MAX, wholeMib(spare - outside));
  if (heapBytes < HEAP_BYTES_MIN || heapBytes / 4 < 2 * largestOrderBytes) return null;
  return {
    oldGenerationBytes: heapBytes + IDLE_HEAP_BYTES,
    semiSpaceBytes,
    storeCacheBytes,
    bufferBytes,
    totalBytes: IDLE_BYTES + outside + heapBytes,
  };
}

/** The least limit that can be planned with. */
export function neededBytes(largestOrderBytes: number): number {
  let bytes = 0;
  do bytes += NEEDED_STEP_BYTES;
  while (planMemory(bytes, largestOrderBytes) === null);
  return bytes;
}

/** What intake may promise with an old generation of that size. */
export function planIntake(
  oldGenerationBytes: number,
  { inFlightMax, bodyBytesMax }: { readonly inFlightMax: number; readonly bodyBytesMax: number },
): IntakePlan {
  // A heap that was made smaller than is sensible (NODE_OPTIONS) still takes some orders.
  const heapBytes = Math.max(oldGenerationBytes - IDLE_HEAP_BYTES, oldGenerationBytes / 4);
  return {
    ordersMax: Math.min(inFlightMax, Math.floor(heapBytes / 4 / ORDER_BYTES)),
    bodyBytesMax: Math.floor(heapBytes / 4),
    callBytesMax: Math.floor(heapBytes / 8),
    incomingBytesMax: Math.max(bodyBytesMax, Math.floor(heapBytes / PARSED_PER_CHAR)),
  };
}

/** A connection, with what it has received of a request. */
const CONNECTION_BYTES = 8 * 1024;

/** What clients may hold of the buffers. */
interface ConnectionPlan {
  readonly connectionsMax: number;
  /** What they have sent, and is part of no request yet. */
  readonly receivedBytesMax: number;
  /** Answers that they don't read. */
  readonly outgoingBytesMax: number;
}

/** Half of the buffers are for connections, a quarter for what comes in, a quarter for what goes out; never more than is of use. */
export function planConnections(bufferBytes: number, most: ConnectionPlan): ConnectionPlan {
  return {
    connectionsMax: Math.min(most.connectionsMax, Math.floor(bufferBytes / 2 / CONNECTION_BYTES)),
    receivedBytesMax: Math.min(most.receivedBytesMax, Math.floor(bufferBytes / 4)),
    outgoingBytesMax: Math.min(most.outgoingBytesMax, Math.floor(bufferBytes / 4)),
  };
}

function wholeMib(bytes: number): number {
  return Math.floor(bytes / MIB) * MIB;
}
