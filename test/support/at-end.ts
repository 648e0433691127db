/** What is to be done when a test ends, in the order that is safe: `t.after` does first what was asked for first. */
import type { TestContext } from "node:test";

/** May return a promise. */
type Ending = () => unknown;

const endings = new WeakMap<TestContext, Ending[]>();

/** Has something done when the test ends, and before what was asked for earlier: a process ends before its folder goes. */
export function atEnd(t: TestContext, end: Ending): void {
  const known = endings.get(t);
  if (known !== undefined) {
    known.push(end);
    return;
  }
  const own = [end];
  endings.set(t, own);
  t.after(async () => {
    const failures: unknown[] = [];
    for (const each of own.toReversed()) {
      try {
        await each();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures.length === 1 ? failures[0] : new AggregateError(failures);
  });
}
