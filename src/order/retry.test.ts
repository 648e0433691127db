import assert from "node:assert/strict";
import { test } from "node:test";
import { ASKED_DELAY_MS_MAX, type Failure, retryDelayMs, unlimitedRetryDelayMs } from "./retry.ts";

const policy = { attemptsMax: 5, delayMs: 100, factor: 2, delayMsMax: 300, jitter: 0.5, deadlineMs: null };
const failure: Failure = { failures: 1, elapsedMs: 0, askedDelayMs: null, random: 0 };

test("each wait is longer than the one before, up to the longest", () => {
  assert.deepEqual(
    [1, 2, 3, 4].map((failures) => retryDelayMs(policy, { ...failure, failures })),
    [100, 200, 300, 300],
  );
});

test("no wait follows the last attempt", () => {
  assert.equal(retryDelayMs(policy, { ...failure, failures: 5 }), null);
});

test("jitter takes off at most its share", () => {
  assert.equal(retryDelayMs(policy, { ...failure, random: 1 }), 50);
});

test("no attempt is begun at or after the deadline", () => {
  const limited = { ...policy, deadlineMs: 1_000 };
  assert.equal(retryDelayMs(limited, { ...failure, elapsedMs: 899 }), 100);
  assert.equal(retryDelayMs(limited, { ...failure, elapsedMs: 900 }), null);
});

test("a wait that the receiver asks for is kept, up to an hour, but never shortens one", () => {
  assert.equal(retryDelayMs(policy, { ...failure, askedDelayMs: 5_000 }), 5_000);
  assert.equal(retryDelayMs(policy, { ...failure, askedDelayMs: 10 }), 100);
  assert.equal(retryDelayMs(policy, { ...failure, askedDelayMs: 10 * ASKED_DELAY_MS_MAX }), ASKED_DELAY_MS_MAX);
});

test("what must not be given up is tried again after the longest wait, for ever", () => {
  const limited = { ...policy, deadlineMs: 1_000 };
  assert.equal(unlimitedRetryDelayMs(limited, { ...failure, failures: 5_000, elapsedMs: 1e9 }), 300);
});
