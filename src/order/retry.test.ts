import assert from "node:assert/strict";
import { test } from "node:test";
import { retryDelayMs } from "./retry.ts";

const policy = { attemptsMax: 5, delayMs: 100, factor: 2, delayMsMax: 300, jitter: 0.5 };

test("each wait is longer than the one before, up to the longest", () => {
  assert.deepEqual(
    [1, 2, 3, 4].map((failures) => retryDelayMs(policy, failures, 0)),
    [100, 200, 300, 300],
  );
});

test("no wait follows the last attempt", () => {
  assert.equal(retryDelayMs(policy, 5, 0), null);
});

test("jitter takes off at most its share", () => {
  assert.equal(retryDelayMs(policy, 1, 1), 50);
});
