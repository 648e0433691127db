import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { createLogger, LOG_FORMATS } from "./log.ts";
import { oneLine, printable, printableLines } from "./printable.ts";

/** Whatever a terminal could obey, or show otherwise than it is. */
const OBEYED = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;
const OBEYED_IN_LINES = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/u;

/** Texts in which such characters are frequent, and of any other characters. */
const hostile = fc
  .array(
    fc.oneof(
      fc.constantFrom("\u001b[2J", "\u001b]0;x\u0007", "\u009b31m", "\u007f", "\u202e", "\u2066", "\u200b", "\u2028"),
      fc.constantFrom("\r", "\n", "\t", "\b", "\u0000", "\u0085", "\ud800", "\udc00", "\u{e0041}", "\\", '"', "="),
      fc.string({ unit: "binary" }),
      fc.string(),
    ),
  )
  .map((parts) => parts.join(""));

test("whatever is in a text, nothing that a terminal obeys is left, and printable text stays as it is", () => {
  fc.assert(
    fc.property(hostile, (text) => {
      assert.doesNotMatch(printable(text), OBEYED);
      assert.doesNotMatch(oneLine(text), OBEYED);
      assert.doesNotMatch(printableLines(text), OBEYED_IN_LINES);
      assert.equal(printableLines(text).split("\n").length, text.split("\n").length);
      assert.equal(printable(printable(text)), printable(text));
    }),
    { numRuns: 2_000 },
  );
  const plain = 'Zoë ordered "naïve café", 東京, 👍 – 5 € \\ \u0661';
  assert.equal(printable(plain), plain);
  assert.equal(printable("a\u001b[31m\u{e0041}\u202e"), String.raw`a\u001b[31m\udb40\udc41\u202e`);
});

test("JSON that is made printable means the same", () => {
  fc.assert(
    fc.property(fc.jsonValue({ stringUnit: "binary" }), hostile, (value, text) => {
      for (const each of [value, text, { [text]: text }]) {
        const json = JSON.stringify(each);
        assert.deepEqual(JSON.parse(printable(json)), JSON.parse(json));
      }
    }),
  );
});

for (const format of LOG_FORMATS) {
  test(`a line of the log as ${format} is one line, and nothing in it is obeyed, wherever the text comes from`, () => {
    fc.assert(
      fc.property(hostile, hostile, (text, key) => {
        let written = "";
        const log = createLogger("trace", format, (line) => (written += line));
        log.info(text);
        assert.doesNotMatch(written.replace(/\n$/, ""), OBEYED, "a message");
        written = "";
        const error = Object.assign(new Error(text, { cause: new Error(text) }), { code: text, [`x${key}`]: [text] });
        log.error({ err: error, [`y${key}`]: text }, `failed: ${text}`);
        // A stack has several lines, which pretty indents.
        if (format === "pretty") {
          assert.doesNotMatch(written, OBEYED_IN_LINES);
          for (const line of written.trimEnd().split("\n").slice(1)) assert.match(line, /^ /, written);
        } else {
          assert.doesNotMatch(written.replace(/\n$/, ""), OBEYED, "an error");
        }
      }),
    );
  });
}
