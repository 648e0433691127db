import assert from "node:assert/strict";
import { test } from "node:test";
import type { StoreReport } from "../store.ts";
import { LogsInForce, parseConfig, parseInfo, reportOf, type Settings, worstReport } from "./settings.ts";

const ON = { aof_enabled: "1", aof_last_write_status: "ok" };
const DURABLE = {
  appendonly: "yes",
  appendfsync: "always",
  "no-appendfsync-on-rewrite": "no",
  maxmemory: "0",
  "maxmemory-policy": "noeviction",
};

/** What is reported of a server that was never looked at before. */
function told(info: Settings, config: Settings): StoreReport {
  return reportOf(info, config, new LogsInForce());
}

test("durable settings leave nothing to say", () => {
  assert.deepEqual(told(ON, DURABLE), { durability: "fsync-always", advice: [] });
});

test("each weak setting is told with the command that mends it", () => {
  for (const [info, config, durability, advice] of [
    [ON, { ...DURABLE, appendfsync: "everysec" }, "fsync-every-second", /CONFIG SET appendfsync always/],
    [ON, { ...DURABLE, appendfsync: "no" }, "none", /CONFIG SET appendfsync always/],
    [{ aof_enabled: "0" }, { ...DURABLE, appendonly: "no" }, "none", /CONFIG SET appendonly yes/],
    [ON, { ...DURABLE, "no-appendfsync-on-rewrite": "yes" }, "none", /CONFIG SET no-appendfsync-on-rewrite no/],
    [
      ON,
      { ...DURABLE, "maxmemory-policy": "volatile-lru" },
      "fsync-always",
      /\(volatile-lru\): CONFIG SET maxmemory-policy/,
    ],
    [
      ON,
      { ...DURABLE, "maxmemory-policy": "allkeys-lru" },
      "none",
      /\(allkeys-lru\): CONFIG SET maxmemory-policy noeviction/,
    ],
    [{ ...ON, aof_last_write_status: "err" }, DURABLE, "fsync-always", /can't write its log/],
    [ON, {}, "unknown", /does not let its settings be read/],
    [{ aof_enabled: "0" }, {}, "none", /CONFIG SET appendonly yes/],
  ] as const) {
    const report = told(info, config);
    assert.equal(report.durability, durability);
    assert.equal(report.advice.length, 1, report.advice.join("\n"));
    assert.match(report.advice[0] ?? "", advice);
  }
});

test("a log that was switched on counts when it has been written, and one that is rewritten goes on counting", () => {
  const logs = new LogsInForce();
  const durabilities = [
    { aof_enabled: "0" },
    { ...ON, aof_rewrite_scheduled: "1" },
    { ...ON, aof_rewrite_in_progress: "1" },
    ON,
    { ...ON, aof_rewrite_in_progress: "1" },
    ON,
    { aof_enabled: "0" },
    { ...ON, aof_rewrite_in_progress: "1" },
  ].map((info) => reportOf({ run_id: "one", ...info }, DURABLE, logs).durability);
  const [on, off, begun] = ["fsync-always", "none", "unknown"] as const;
  assert.deepEqual(durabilities, [off, begun, begun, on, on, on, off, begun]);
  const other = reportOf({ run_id: "two", ...ON, aof_rewrite_in_progress: "1" }, DURABLE, logs);
  assert.equal(other.durability, "unknown", "it is another server");
  assert.match(other.advice.join(), /wait for it/);
});

test("of several servers the worst counts, and the same advice is given once", () => {
  const everySecond = told(ON, { ...DURABLE, appendfsync: "everysec" });
  const worst = worstReport([told(ON, DURABLE), everySecond, everySecond, told(ON, {})]);
  assert.equal(worst.durability, "unknown");
  assert.equal(worst.advice.length, 2);
  assert.equal(worstReport([told(ON, DURABLE), everySecond]).durability, "fsync-every-second");
  assert.equal(worstReport([told({ aof_enabled: "0" }, {}), told(ON, {})]).durability, "none");
});

test("answers of Redis are read", () => {
  assert.deepEqual(parseInfo("# Persistence\r\nloading:0\r\naof_enabled:1\r\n"), { loading: "0", aof_enabled: "1" });
  assert.deepEqual(parseConfig(["appendonly", "yes", "maxmemory", "0"]), { appendonly: "yes", maxmemory: "0" });
  assert.deepEqual(parseConfig(null), {});
});
