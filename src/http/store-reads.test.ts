import assert from "node:assert/strict";
import { test } from "node:test";
import { setImmediate as nextTurn } from "node:timers/promises";
import { turns } from "./store-reads.ts";

/** Something that is under way until it is ended. */
function task(name: string, log: string[]): { run: () => Promise<string>; end: () => void } {
  const { promise, resolve } = Promise.withResolvers<string>();
  return {
    run: () => {
      log.push(name);
      return promise;
    },
    end: () => resolve(name),
  };
}

test("so many are under way at once, and the others wait in the order in which they came", async () => {
  const begun: string[] = [];
  const inTurn = turns(2);
  const tasks = ["a", "b", "c", "d", "e"].map((name) => task(name, begun));
  const done = tasks.map(({ run }) => inTurn(run));
  assert.deepEqual(begun, ["a", "b"]);
  tasks[1]?.end();
  await done[1];
  await nextTurn();
  await nextTurn();
  assert.deepEqual(begun, ["a", "b", "c"]);
  for (const { end } of tasks) end();
  assert.deepEqual(await Promise.all(done), ["a", "b", "c", "d", "e"]);
});

test("no more than so many begin in a turn of the event loop", async () => {
  const inTurn = turns(3);
  let turn = 0;
  const begunIn: number[] = [];
  const run = async (): Promise<void> => void begunIn.push(turn);
  const done = Promise.all(Array.from({ length: 12 }, () => inTurn(run)));
  for (turn = 1; begunIn.length < 12 && turn < 100; turn++) await nextTurn();
  await done;
  const perTurn = Object.values(Object.groupBy(begunIn, (each) => each)).map((each) => each?.length ?? 0);
  assert.ok(Math.max(...perTurn) <= 3, `begun in the turns: ${begunIn.join(", ")}`);
});

test("who has left does not wait, and takes nobody's turn", async () => {
  const begun: string[] = [];
  const inTurn = turns(1);
  const first = task("first", begun);
  const last = task("last", begun);
  const firstDone = inTurn(first.run);
  const leavers = new Set<() => void>();
  const left = Array.from({ length: 1_000 }, () =>
    inTurn(
      async () => "left",
      (action) => leavers.add(action),
    ),
  );
  const lastDone = inTurn(last.run, (action) => leavers.add(action));
  const lastLeaves = [...leavers].at(-1);
  for (const leave of leavers) if (leave !== lastLeaves) leave();
  assert.deepEqual(new Set(await Promise.all(left)), new Set(["left"]));
  assert.deepEqual(begun, ["first"], "the turn is still that of the first");
  first.end();
  await firstDone;
  await nextTurn();
  await nextTurn();
  assert.deepEqual(begun, ["first", "last"]);
  lastLeaves?.();
  last.end();
  assert.equal(await lastDone, "last", "whoever leaves after it has begun is not run again");
});
