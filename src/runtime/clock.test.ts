import assert from "node:assert/strict";
import { test } from "node:test";
import { systemClock } from "./clock.ts";

const DAY_MS = 86_400_000;

for (const days of [0, 1, 24, 25, 60, 400]) {
  test(`a wait of ${days} days ends when it is over, and once`, (t) => {
    t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
    let ended = 0;
    const timer = systemClock().after(days * DAY_MS, () => ended++);
    for (let day = 0; day < days; day++) {
      assert.equal(ended, 0);
      t.mock.timers.tick(DAY_MS);
    }
    t.mock.timers.tick(1);
    assert.equal(ended, 1);
    t.mock.timers.tick(2 * days * DAY_MS);
    assert.equal(ended, 1);
    timer[Symbol.dispose]();
  });

  test(`a wait of ${days} days that is disposed of is over`, (t) => {
    t.mock.timers.enable({ apis: ["setTimeout", "setInterval"] });
    let ended = 0;
    const timer = systemClock().after(days * DAY_MS, () => ended++);
    timer[Symbol.dispose]();
    t.mock.timers.tick(2 * days * DAY_MS + 1);
    assert.equal(ended, 0);
  });
}
