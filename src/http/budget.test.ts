import assert from "node:assert/strict";
import { test } from "node:test";
import { Budget, type Holding } from "./budget.ts";

/** Holdings of one holder, and which of them were taken back. */
function open(budget: Budget, holder: string, amounts: readonly number[]) {
  const gone = new Set<number>();
  const holdings = amounts.map((amount, at): Holding => {
    const holding = budget.open(holder, () => {
      gone.add(at);
      return true;
    });
    assert.ok(holding.set(amount));
    return holding;
  });
  return { gone, holdings };
}

const budgetOf = (max: number): Budget => new Budget({ max, keepMs: 0, keepOwnMs: 0, clock: () => 0 });

test("anybody may have all of it while nobody else asks", () => {
  const budget = budgetOf(100);
  const { holdings, gone } = open(budget, "one", [60, 40]);
  assert.equal(budget.used, 100);
  for (const holding of holdings) holding.close();
  assert.deepEqual([budget.used, gone.size], [0, 0]);
});

test("who has most gives way, and of his what has stood still for longest", () => {
  const budget = budgetOf(100);
  const large = open(budget, "large", [30, 30, 30]);
  const small = open(budget, "small", [10]);
  assert.ok(small.holdings[0]?.set(20));
  assert.deepEqual([[...large.gone], small.gone.size], [[0], 0]);
});

test("what is much smaller than the others does not give way for them", () => {
  const budget = budgetOf(1_000);
  const small = open(budget, "shared", [1, 1, 1]);
  const large = open(budget, "shared", [300, 300, 300]);
  const asking = budget.open("shared", () => true);
  assert.ok(asking.set(300));
  assert.deepEqual([small.gone.size, [...large.gone]], [0, [0]]);
});

test("many small ones give way where there is nothing else", () => {
  const budget = budgetOf(1_000);
  const small = open(
    budget,
    "shared",
    Array.from({ length: 1_000 }, () => 1),
  );
  const asking = budget.open("shared", () => true);
  assert.ok(asking.set(100));
  assert.ok(small.gone.size >= 100 && budget.used <= 1_000);
});

test("what is small gives way to who has more, where nothing else can", () => {
  const budget = budgetOf(1_000);
  const { gone, holdings } = open(budget, "shared", [...Array.from({ length: 80 }, () => 10), 200]);
  assert.ok(holdings.at(-1)?.set(250));
  assert.ok(gone.size >= 5 && !gone.has(80));
  const mixed = budgetOf(100);
  const { gone: ended } = open(mixed, "shared", [50, ...Array.from({ length: 100 }, () => 0.5)]);
  assert.ok(mixed.open("shared", () => true).set(100));
  assert.equal(ended.size, 101);
});

test("more than there is at all is refused, and takes nothing from anybody", () => {
  const budget = budgetOf(100);
  const { gone } = open(budget, "one", [100]);
  for (const holder of ["one", "another"]) assert.ok(!budget.open(holder, () => true).set(101));
  assert.equal(gone.size, 0);
});
