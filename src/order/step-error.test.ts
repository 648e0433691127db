import assert from "node:assert/strict";
import { test } from "node:test";
import { encodeResult } from "./result.ts";
import { failureTraits, permanent, retryAfter, StepError, textOf, uncertain } from "./step-error.ts";

const NOTHING = { permanent: false, unknown: false, retryAfterMs: null, shortage: false };
const hostile = new Proxy(
  {},
  {
    get: () => assert.fail("looked at"),
    has: () => assert.fail("looked at"),
    getPrototypeOf: () => assert.fail("looked at"),
  },
);

test("an error says what it means for the attempts to come, also one of another copy of the package", () => {
  assert.deepEqual(failureTraits(permanent("no")), { ...NOTHING, permanent: true });
  assert.deepEqual(failureTraits(uncertain("no")), { ...NOTHING, unknown: true });
  assert.deepEqual(failureTraits(retryAfter("no", 5)), { ...NOTHING, retryAfterMs: 5 });
  const foreign = Object.assign(new Error("no"), { [Symbol.for("order-process.step-error")]: true, permanent: true });
  assert.deepEqual(failureTraits(foreign), { ...NOTHING, permanent: true });
});

for (const [what, thrown] of [
  ["nothing", undefined],
  ["a text", "no"],
  ["a proxy that can't be looked at", hostile],
  ["a time that is no number", retryAfter("no", Number("Wed, 21 Oct 2026 07:28:00 GMT") * 1_000)],
  ["a time that is a text", retryAfter("no", "5" as unknown as number)],
  ["an endless time", retryAfter("no", Number.POSITIVE_INFINITY)],
  ["a mark of which nothing is true", new StepError("no", { permanent: 1 as unknown as boolean })],
] as const) {
  test(`${what} says nothing of the attempts to come`, () => assert.deepEqual(failureTraits(thrown), NOTHING));
}

test("whatever was thrown has a text, with the cause where that says more", () => {
  const refused = new AggregateError([
    new Error("connect ECONNREFUSED ::1:9"),
    new Error("connect ECONNREFUSED 127.0.0.1:9"),
  ]);
  for (const [thrown, text] of [
    ["no", "no"],
    [null, "null"],
    [new Error("no"), "no"],
    [new TypeError("fetch failed", { cause: new Error("other side closed") }), "fetch failed: other side closed"],
    [
      new TypeError("fetch failed", { cause: refused }),
      "fetch failed: connect ECONNREFUSED ::1:9, connect ECONNREFUSED 127.0.0.1:9",
    ],
    [permanent(new Error("no")), "no"],
    [Object.assign(new Error("no"), { message: 7 }), "7"],
    [hostile, "something was thrown that can't be shown"],
    [Object.create(null), "something was thrown that can't be shown"],
  ] as const) {
    assert.equal(textOf(thrown), text);
  }
});

test("a result that throws when it is made JSON is refused, whatever it throws", () => {
  for (const thrown of [Object.create(null), hostile, new Error("no")]) {
    const value = {
      toJSON: () => {
        throw thrown;
      },
    };
    assert.equal(encodeResult(value, 0).ok, false);
  }
});

/** What Node throws where a system call failed. */
const systemError = (code: string): Error =>
  Object.assign(new Error(`connect ${code}`), { code, syscall: "connect", errno: -24 });

test("a shortage of the node's own is known by what Node says of a system call, wherever it stands", () => {
  for (const code of ["EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS", "ENOMEM"]) {
    const error = systemError(code);
    assert.deepEqual(failureTraits(error), { ...NOTHING, shortage: true });
    assert.ok(failureTraits(new TypeError("fetch failed", { cause: error })).shortage);
    assert.ok(failureTraits(retryAfter(error, 5)).shortage);
    assert.ok(failureTraits(uncertain(error)).shortage);
    assert.ok(!failureTraits(permanent(error)).shortage);
  }
  const several = (...codes: string[]): boolean => failureTraits(new AggregateError(codes.map(systemError))).shortage;
  assert.deepEqual(
    [several("EMFILE", "EMFILE"), several("ECONNREFUSED", "EADDRNOTAVAIL"), several()],
    [true, false, false],
  );
  for (const other of [
    systemError("ECONNREFUSED"),
    Object.assign(new Error("no"), { code: "EMFILE" }),
    { code: "EMFILE" },
    "EMFILE",
  ])
    assert.ok(!failureTraits(other).shortage);
  const endless = new Error("in a circle");
  endless.cause = endless;
  assert.ok(!failureTraits(endless).shortage);
});
