/**
 * Whether something costs more on a store that holds much than on one that holds little.
 *
 * Both are measured in turn, round by round, and the least of all rounds counts: another process can only make a round longer. Where the
 * ratio is too high there are more rounds, so that a busy machine takes longer and does not fail.
 */
import assert from "node:assert/strict";

/** What a round's calls took, by what was called, in microseconds. */
export type RoundCosts = ReadonlyMap<string, number>;

/** Something that may cost more where more is stored. */
export interface Exception {
  readonly reason: string;
  /** How many times as much. */
  readonly ratioMax: number;
}

export interface Comparison {
  readonly small: () => RoundCosts | Promise<RoundCosts>;
  readonly large: () => RoundCosts | Promise<RoundCosts>;
  /** What must have been called, all of it: what the code has, not what a test knows of. */
  readonly expected: readonly string[];
  /** What may cost more. */
  readonly exceptions: Readonly<Record<string, Exception>>;
  /** What is not called in a round, and why. */
  readonly leftOut: Readonly<Record<string, string>>;
  /**
   * What the clock, and memory that no cache has, may add, in microseconds: far less than to go through LARGE_ROWS of anything.
   * @param least what each call took at the least, on both
   */
  readonly slackUs: (least: { readonly small: RoundCosts; readonly large: RoundCosts }) => number;
}

export const SMALL_ROWS = 1_000;
export const LARGE_ROWS = 200_000;

const RATIO_MAX = 1.5;
const ROUNDS_MIN = 5;
/** A round adds some rows, of which the small store is not to have many more in the end. */
const ROUNDS_MAX = 150;
const MEASURED_MS_MAX = 40_000;

/** Fails for what costs more than RATIO_MAX times as much on the large store, and for what was never called. */
export async function assertFlat(comparison: Comparison): Promise<void> {
  const { small, large, expected, exceptions, leftOut, slackUs } = comparison;
  const least = { small: new Map<string, number>(), large: new Map<string, number>() };
  const steep = (): string[] => {
    const slack = slackUs(least);
    return Array.from(least.large, ([name, largeUs]) => ({ name, largeUs, smallUs: least.small.get(name) ?? 0 }))
      .filter(({ name, largeUs, smallUs }) => largeUs > (exceptions[name]?.ratioMax ?? RATIO_MAX) * smallUs + slack)
      .toSorted((one, other) => other.largeUs / other.smallUs - one.largeUs / one.smallUs)
      .map(
        ({ name, largeUs, smallUs }) =>
          `${name}: ${smallUs.toFixed(1)} µs at ${SMALL_ROWS} rows, ${largeUs.toFixed(1)} µs at ${LARGE_ROWS}, of which ${slack.toFixed(1)} µs may be memory's`,
      );
  };
  const startMs = performance.now();
  for (let round = 1; round <= ROUNDS_MAX; round++) {
    keepLeast(least.small, await small());
    keepLeast(least.large, await large());
    if (round === 1) assertAllAreCalled(least.small, expected, { ...exceptions, ...leftOut }, leftOut);
    if (round < ROUNDS_MIN) continue;
    if (steep().length === 0) return;
    if (performance.now() - startMs > MEASURED_MS_MAX) break;
  }
  assert.fail(`it takes longer the more is stored:\n${steep().join("\n")}`);
}

function keepLeast(least: Map<string, number>, round: RoundCosts): void {
  for (const [name, us] of round) least.set(name, Math.min(us, least.get(name) ?? Number.POSITIVE_INFINITY));
}

function assertAllAreCalled(
  called: ReadonlyMap<string, number>,
  expected: readonly string[],
  named: Readonly<Record<string, unknown>>,
  leftOut: Readonly<Record<string, string>>,
): void {
  const missing = expected.filter((name) => !called.has(name) && leftOut[name] === undefined);
  assert.deepEqual(
    missing,
    [],
    "what the store can do and this test does not measure: add it to a round, or say why not",
  );
  const unknown = Object.keys(named).filter((name) => !expected.includes(name) && !called.has(name));
  assert.deepEqual(unknown, [], "named here, and the store does not have it");
}
