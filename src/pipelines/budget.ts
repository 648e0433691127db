/**
 * A budget for what is done with an order's data: evaluating expressions, and checking a body against a JSON Schema. Both run on the
 * event loop, so that one order could keep all others waiting.
 *
 * 1. Work is counted before it is done, in steps of about 100 ns: the same data gives the same count on every node.
 * 2. Budgets don't nest, and work under one doesn't await: there is one budget at a time.
 * 3. Once it is used up, every further step throws, and so does `withinBudget`, whatever was caught in between.
 */

/** What one order may take at once: a tenth of a second. Lists of 10,000 items fit in, with twenty operations on each. */
export const STEPS_MAX = 1_000_000;

/** The budget is used up. One object for all: what catches it and goes on would make many. */
export class BudgetError extends Error {
  override readonly name = "BudgetError";
}

const USED_UP = new BudgetError(`it takes more than ${STEPS_MAX.toLocaleString("en")} steps`);

/** Without a budget nothing is counted: what a file is checked with when it is loaded is its author's. */
let left = Number.POSITIVE_INFINITY;

/**
 * Does something with a budget of its own.
 * @throws BudgetError when it is used up
 */
export function withinBudget<T>(work: () => T, stepsMax: number = STEPS_MAX): T {
  left = stepsMax;
  try {
    const result = work();
    requireBudget();
    return result;
  } finally {
    left = Number.POSITIVE_INFINITY;
  }
}

/**
 * Counts steps, before they are done.
 * @throws BudgetError when there are not so many left
 */
export function spend(steps: number): void {
  left -= steps;
  if (left < 0) throw USED_UP;
}

/**
 * To be called where errors may have been caught since.
 * @throws BudgetError when it is used up
 */
export function requireBudget(): void {
  if (left < 0) throw USED_UP;
}
