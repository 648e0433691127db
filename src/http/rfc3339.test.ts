import assert from "node:assert/strict";
import { test } from "node:test";
import { parseRfc3339, rfc3339 } from "./rfc3339.ts";

test("a time is read as it was written, in any zone", () => {
  assert.equal(parseRfc3339(rfc3339(1_764_000_000_123)), 1_764_000_000_123);
  assert.equal(parseRfc3339("2026-11-24T19:00:00+01:00"), Date.UTC(2026, 10, 24, 18));
  assert.equal(parseRfc3339("2026-11-24t18:00:00.5z"), Date.UTC(2026, 10, 24, 18, 0, 0, 500));
});

for (const text of [
  "",
  "tomorrow",
  "2026-11-24",
  "2026-11-24T18:00:00",
  "2026-02-30T00:00:00Z",
  "2026-11-24T25:00:00Z",
  "2026-11-24T18:00:00+99:99",
]) {
  test(`"${text}" is no time`, () => assert.equal(parseRfc3339(text), null));
}
