/** Schemas that are code, good and bad, as files export them. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setImmediate as turn } from "node:timers/promises";
import type { BodyFinding, JsonObject } from "../order/pipeline.ts";
import { isStuck } from "./body-judge-keeper.ts";
import { loadPipelines } from "./load.ts";

/** A schema whose `how` is in the body. */
const FILE = `import { AsyncResource } from "node:async_hooks";
import { closeSync } from "node:fs";
import { definePipeline } from "order-process";
let checked = 0;
const ways = {
  backtrack: ({ text }) => ({ value: { ok: /^([a-zA-Z0-9]+[._-]?)+@example[.]org$/.test(text) } }),
  loop: () => { for (;;); },
  compare: ({ list }) => ({ value: { ok: list.every((x) => list.every((y) => JSON.stringify(x) !== JSON.stringify({ y }))) } }),
  spin: async () => { for (;;) await null; },
  exit: () => process.exit(1),
  fill: () => { const all = []; for (;;) all.push(new Array(100_000).fill(0)); },
  later: async ({ text }) => { await new Promise((done) => setTimeout(done, 150)); return { value: { text } }; },
  fail: () => { throw new Error("no connection"); },
  reject: async () => { throw new Error("no connection"); },
  date: () => ({ value: { at: new Date(0), gone: undefined } }),
  refuse: () => ({ issues: [{ message: "it is wrong", path: ["a/b", { key: 1 }] }] }),
  many: () => ({ issues: Array.from({ length: 100_000 }, (_, index) => ({ message: "x".repeat(10_000), path: [index] })) }),
  nothing: () => ({ value: undefined }),
  list: () => ({ value: [1] }),
  text: () => ({ value: "text" }),
  other: () => ({ value: { toJSON: () => [] } }),
  arrays: () => { const all = []; for (;;) all.push(new Array(1_000)); },
  map: async () => { await null; const all = new Map(); for (let at = 0; ; at++) all.set(at, {}); },
  spinLater: async () => { await new Promise((done) => setTimeout(done, 50)); for (;;); },
  fillLater: async () => { await null; await new Promise((done) => setImmediate(done)); const all = []; for (;;) all.push(new Array(1000).fill({})); },
  throwLater: () => new Promise(() => { setTimeout(() => { throw new Error("nobody catches it"); }, 50); }),
  exitAfter: (body) => { setTimeout(() => process.exit(1), 10); return { value: body }; },
  busy: (body) => { const from = process.cpuUsage(); while (process.cpuUsage(from).user < 40_000); return { value: body }; },
  turnForEver: async () => { for (;;) await new Promise((done) => setImmediate(done)); },
  buffers: async () => { const all = []; for (;;) { all.push(Buffer.alloc(1 << 24, 1)); await new Promise((done) => setTimeout(done, 5)); } },
  leaveScope: async () => { await null; new AsyncResource("X").runInAsyncScope(() => undefined); await null; for (;;); },
  slow: async (body) => { await new Promise((done) => setTimeout(done, 700)); return { value: body }; },
  leakAfter: (body) => { const all = []; setInterval(() => all.push(Buffer.alloc(1 << 24, 1)), 5); return { value: body }; },
  closeFd: (body) => { closeSync(3); return { value: body }; },
  stop: (body) => { process.kill(process.pid, "SIGSTOP"); return { value: body }; },
  deaf: (body) => { process.removeAllListeners("message"); return { value: body }; },
  send: (body) => {
    for (const message of [null, "x", 1, {}, { id: 1, kind: "x" }, { kind: "loading", by: 7 }, { id: 1, kind: "refused", issues: [null] }]) process.send(message);
    for (let id = 0; id < 1_000; id++) if (id % 2 === 0) process.send({ id, kind: "accepted", text: "no JSON" });
    return { value: body };
  },
  deep: ({ levels }) => { let value = {}; for (let at = 0; at < levels; at++) value = { value }; return { value }; },
  grow: ({ chars }) => ({ value: { text: "x".repeat(chars) } }),
  growLater: async ({ chars }) => { await null; return { value: { text: "x".repeat(chars) } }; },
  failLong: () => { throw new Error("x".repeat(10_000_000)); },
  pid: () => ({ value: { pid: process.pid } }),
  same: (body) => ({ value: { ...body } }),
  count: () => ({ value: { checked: ++checked } }),
};
const validate = (body) => ways[body.how](body);
export default [
  definePipeline({ name: "other", version: 1, steps: [{ name: "A", run: () => undefined }] }),
  definePipeline({ name: "judged", version: 1, body: { "~standard": { version: 1, vendor: "test", validate } },
    steps: [{ name: "A", run: () => undefined }] }),
];
`;

const folder = mkdtempSync(join(tmpdir(), "order-process-judge-"));
after(() => rmSync(folder, { recursive: true }));
writeFileSync(join(folder, "judged.mjs"), FILE);
const { pipelines, problems } = await loadPipelines(join(folder, "judged.mjs"), {});
assert.deepEqual(problems, []);

async function judged(body: JsonObject, user = "alice", bytesMax = 1_000_000): Promise<BodyFinding> {
  const finding = await pipelines[1]?.pipeline.checkBody?.(body, { user, bytesMax });
  return finding ?? assert.fail("there is no check");
}

const list = Array.from({ length: 20_000 }, (_, index) => ({ index }));

for (const [how, message] of [
  ["backtrack", /takes more than 100 ms/],
  ["loop", /takes more than 100 ms/],
  ["compare", /takes more than 100 ms/],
  ["spin", /did not end/],
  ["exit", /did not end, or ended the process/],
  ["fill", /takes more than 100 ms|ended the process/],
  // V8 lets nobody interrupt the first, and ends a whole process for the second, also where a thread has a limit of its own.
  ["arrays", /ended the process/],
  ["map", /ended the process/],
] as const) {
  test(`a body that makes its schema ${how} is refused, the event loop goes on, and so do other bodies`, async () => {
    const seen = { isOver: false, turns: 0 };
    const bad = judged({ how, list, text: `${"a".repeat(66)}!` }).finally(() => (seen.isOver = true));
    while (!seen.isOver) {
      await turn();
      seen.turns++;
    }
    const finding = await bad;
    assert.ok(finding.kind === "refused");
    assert.match(finding.issues[0]?.message ?? "", message);
    assert.ok(seen.turns > 10, `the event loop took ${seen.turns} turns`);
    assert.equal((await judged({ how: "same" })).kind, "accepted");
  });
}

test("bodies that wait behind one that ends the process are checked in the next", async () => {
  const bad = judged({ how: "exit" });
  const good = await Promise.all(Array.from({ length: 20 }, (_, index) => judged({ how: "same", index })));
  assert.equal((await bad).kind, "refused");
  assert.ok(good.every(({ kind }) => kind === "accepted"));
});

test("a schema that awaits something takes its time, beside others", async () => {
  const texts = Array.from({ length: 20 }, (_, index) => `${index}`);
  const findings = await Promise.all(texts.map((text) => judged({ how: "later", text })));
  assert.deepEqual(
    findings.map((finding) => finding.kind === "accepted" && finding.body["text"]),
    texts,
  );
});

test("a schema that fails is a failure, and no refusal", async () => {
  await assert.rejects(judged({ how: "fail" }), /the schema of the body failed: no connection/);
  await assert.rejects(judged({ how: "reject" }), /no connection/);
});

for (const how of ["nothing", "list", "text", "other"]) {
  test(`a schema that makes ${how} of a body fails, and nothing else does`, async () => {
    await assert.rejects(
      judged({ how }),
      /the schema of the body failed: it made something of the body that is no JSON/,
    );
    assert.equal((await judged({ how: "same" })).kind, "accepted");
  });
}

for (const how of ["spinLater", "fillLater", "throwLater", "leaveScope", "buffers"]) {
  test(`a body whose check ends the process after it has awaited something is refused, and none of those beside it (${how})`, async () => {
    const bad = [judged({ how }, "mallory"), judged({ how }, "mallory")];
    const good = ["same", "later", "later", "same", "later"].map((each) => judged({ how: each, text: "" }, each));
    await Promise.all(good.slice(0, 2)); // it has come round
    const more = Array.from({ length: 5 }, () => judged({ how: "later", text: "" }));
    assert.deepEqual(new Set((await Promise.all([...good, ...more])).map(({ kind }) => kind)), new Set(["accepted"]));
    assert.deepEqual(new Set((await Promise.all(bad)).map(({ kind }) => kind)), new Set(["refused"]));
  });
}

test("what a schema makes of a body is what is kept, as JSON, and the same body is the same", async () => {
  const body = { how: "same", amount: 1.5 };
  const finding = await judged(body);
  assert.ok(finding.kind === "accepted");
  assert.equal(finding.body, body);
  assert.deepEqual(await judged({ how: "date" }), { kind: "accepted", body: { at: "1970-01-01T00:00:00.000Z" } });
});

test("what is wrong is told with its place, and not without end", async () => {
  assert.deepEqual(await judged({ how: "refuse" }), {
    kind: "refused",
    issues: [{ pointer: "/a~1b/1", message: "it is wrong" }],
  });
  const many = await judged({ how: "many" });
  assert.ok(many.kind === "refused" && JSON.stringify(many).length < 200_000);
});

test("what a file remembers between bodies it remembers", async () => {
  const [first, second] = [await judged({ how: "count" }), await judged({ how: "count" })];
  assert.ok(first.kind === "accepted" && second.kind === "accepted");
  assert.equal(Number(second.body["checked"]), Number(first.body["checked"]) + 1);
});

test("who sends many bodies that take long keeps no other user waiting for all of them", async () => {
  const order: string[] = [];
  const many = Array.from({ length: 12 }, () => judged({ how: "loop" }, "mallory").then(() => order.push("mallory")));
  const others = ["alice", "bob"].map((user) => judged({ how: "same" }, user).then(() => order.push(user)));
  await Promise.all([...many, ...others]);
  assert.ok(Math.max(order.indexOf("alice"), order.indexOf("bob")) < 8, order.join(" "));
});

test("who ends the process again and again has no other user's body refused", async () => {
  const state = { isOver: false };
  const flood = Array.from({ length: 4 }, async () => {
    while (!state.isOver) await judged({ how: "exit" }, "mallory");
  });
  for (let at = 0; at < 10; at++)
    assert.equal((await judged({ how: "same" }, at % 2 === 0 ? "alice" : "bob")).kind, "accepted");
  state.isOver = true;
  await Promise.all(flood);
});

for (const [how, wait] of [
  ["exit", "slow"],
  ["spinLater", "slow"],
  ["exitAfter", "slow"],
  ["leakAfter", "same"],
] as const) {
  test(`whose bodies end the process again and again (${how}) keeps nobody else from an answer (${wait})`, async () => {
    const state = { isOver: false };
    const flood = Array.from({ length: 2 }, async () => {
      while (!state.isOver) await judged({ how }, `mallory ${how}`);
    });
    for (let at = 0; at < (wait === "same" ? 50 : 2); at++)
      assert.equal((await judged({ how: wait, at }, `carol ${at}`)).kind, "accepted");
    state.isOver = true;
    await Promise.all(flood);
  });
}

for (const how of ["closeFd", "stop", "deaf"]) {
  test(`a process that hears or says nothing any more is ended soon enough for others (${how})`, async () => {
    const bad = judged({ how }, `mallory ${how}`);
    const good = Array.from({ length: 3 }, (_, at) => judged({ how: "same" }, `dora ${at}`));
    assert.deepEqual(new Set((await Promise.all(good)).map(({ kind }) => kind)), new Set(["accepted"]));
    await bad;
  });
}

test("what a schema sends to the node by itself is not taken for an answer that it understands", async () => {
  const finding = await judged({ how: "send" }, "eve").catch((error: unknown) => error);
  assert.ok(finding instanceof Error ? /no JSON object/.test(finding.message) : finding !== null);
  assert.equal((await judged({ how: "same" }, "frank")).kind, "accepted");
});

test("what a schema makes of a body is nested no deeper than a body may be", async () => {
  assert.equal((await judged({ how: "deep", levels: 90 }, "gina")).kind, "accepted");
  const refused = await judged({ how: "deep", levels: 150 }, "gina");
  assert.match(refused.kind === "refused" ? (refused.issues[0]?.message ?? "") : "", /nested deeper than 100 levels/);
});

test("a body that was accepted and ends the process later has no other refused", async () => {
  const good = Array.from({ length: 20 }, (_, at) => judged({ how: "later", text: "" }, `user ${at}`));
  assert.equal((await judged({ how: "exitAfter" }, "mallory")).kind, "accepted");
  assert.deepEqual(new Set((await Promise.all(good)).map(({ kind }) => kind)), new Set(["accepted"]));
});

test("the first body after a file that takes long to load is at the beginning of its time", async () => {
  const pid = async (): Promise<unknown> => {
    const finding = await judged({ how: "pid" });
    return finding.kind === "accepted" ? finding.body.pid : finding;
  };
  const pids = new Set<unknown>();
  for (const name of ["first", "second"]) {
    const file = join(folder, `${name}.mjs`);
    writeFileSync(
      file,
      `import { definePipeline } from "order-process";
       const from = performance.now();
       while (performance.now() < from + 2_500);
       const pause = new Int32Array(new SharedArrayBuffer(4));
       const validate = (value) => { Atomics.wait(pause, 0, 0, 80); return { value }; };
       export default definePipeline({ name: "${name}", version: 1, body: { "~standard": { version: 1, vendor: "test", validate } },
         steps: [{ name: "A", run: () => undefined }] });`,
    );
    const loaded = await loadPipelines(file, {});
    assert.deepEqual(loaded.problems, []);
    const finding = await loaded.pipelines[0]?.pipeline.checkBody?.({}, { user: "alice", bytesMax: 1_000 });
    assert.deepEqual(finding, { kind: "accepted", body: {} });
    pids.add(await pid());
  }
  assert.equal(pids.size, 1, "the process was ended");
});

test("a process that does not come round is stuck when it has worked or slept for long, and not while it waits for a processor", () => {
  const stuck = [
    { ticks: 21, workMs: 2_100, isLoading: false },
    { ticks: 21, workMs: 300, isLoading: false },
    { ticks: 41, workMs: 0, isLoading: false },
    { ticks: 301, workMs: 0, isLoading: true },
  ];
  const busy = [
    { ticks: 20, workMs: 2_000, isLoading: false },
    { ticks: 40, workMs: 200, isLoading: false },
    { ticks: 300, workMs: 30_000, isLoading: true },
  ];
  assert.deepEqual(stuck.map(isStuck), [true, true, true, true]);
  assert.deepEqual(busy.map(isStuck), [false, false, false]);
});

test("a body whose check goes on after its time is ended, and neither that nor many that take long has others refused", async () => {
  const pid = async (): Promise<unknown> => {
    const finding = await judged({ how: "pid" });
    return finding.kind === "accepted" ? finding.body["pid"] : finding;
  };
  const first = await pid();
  const bad = judged({ how: "turnForEver" }, "mallory");
  const state = { isOver: false };
  const many = Array.from({ length: 400 }, () => judged({ how: "busy" }, "bob"));
  void bad.finally(() => (state.isOver = true));
  while (!state.isOver) assert.equal((await judged({ how: "same" })).kind, "accepted");
  const refused = await bad;
  assert.match(refused.kind === "refused" ? (refused.issues[0]?.message ?? "") : "", /within 10 s/);
  assert.ok(
    (await Promise.all(many)).some(({ kind }) => kind === "refused"),
    "they were too many",
  );
  while ((await pid()) === first) await turn();
});

for (const how of ["grow", "growLater"]) {
  test(`what a schema makes of a body is not looked at where it is too large (${how})`, async () => {
    const bytesMax = 1_000;
    const chars = bytesMax - JSON.stringify({ text: "" }).length;
    assert.deepEqual(await judged({ how, chars }, "alice", bytesMax), {
      kind: "accepted",
      body: { text: "x".repeat(chars) },
    });
    assert.deepEqual(await judged({ how, chars: chars + 1 }, "alice", bytesMax), { kind: "too_large" });
    const before = process.memoryUsage().external + process.memoryUsage().heapUsed;
    assert.deepEqual(await judged({ how, chars: 8_000_000 }, "alice", bytesMax), { kind: "too_large" });
    const grown = process.memoryUsage().external + process.memoryUsage().heapUsed - before;
    assert.ok(grown < 6_000_000, `${grown} bytes more are in memory`);
  });
}

test("a body that a schema leaves as it is may be as large as it came", async () => {
  const body = { how: "same", numbers: Array.from({ length: 100 }, () => 1e20) };
  assert.deepEqual(await judged(body, "alice", JSON.stringify(body).length - 1_000), { kind: "accepted", body });
});

test("what a schema says when it fails is cut", async () => {
  await assert.rejects(judged({ how: "failLong" }), ({ message }: Error) => message.length < 2_000);
});

test("large bodies whose schema takes its time neither fill the memory that it has nor keep others' from an answer", async () => {
  const large = { how: "slow", list: Array.from({ length: 87_000 }, () => ({})) };
  const larges = Array.from({ length: 30 }, () => judged(large, "mallory"));
  const smalls = Array.from({ length: 20 }, () => judged({ how: "slow" }, "alice"));
  const kinds = (await Promise.all(smalls)).map(({ kind }) => kind);
  assert.deepEqual(new Set(kinds), new Set(["accepted"]));
  const others = (await Promise.all(larges)).map(({ kind }) => kind);
  assert.ok(
    others.every((kind) => kind === "accepted" || kind === "no_turn"),
    others.join(),
  );
  assert.ok(others.filter((kind) => kind === "accepted").length >= 10, others.join());
});

test("a large body that waits for room lets small ones of others pass", async () => {
  const large = { how: "slow", list: Array.from({ length: 87_000 }, () => ({})) };
  const larges = Promise.all(Array.from({ length: 8 }, () => judged(large, "mallory")));
  const order: string[] = [];
  void larges.then(() => order.push("large"));
  const small = judged({ how: "same" }, "alice").then(() => order.push("small"));
  await Promise.all([larges, small]);
  assert.deepEqual(order, ["small", "large"]);
});

test("a number that JavaScript has none for is refused before its schema takes it for nothing", async () => {
  const body = JSON.parse('{"how":"same","lines":[null,{"a/b":1e400}]}') as JsonObject;
  const message = "the number is too large for a schema in TypeScript; send it as text";
  assert.deepEqual(await judged(body), { kind: "refused", issues: [{ pointer: "/lines/1/a~1b", message }] });
  const fine = { how: "same", lines: [null, "null", 1e300] };
  assert.deepEqual(await judged(fine), { kind: "accepted", body: fine });
});
