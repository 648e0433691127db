import assert from "node:assert/strict";
import { test } from "node:test";
import { AT_START, noteHead, type ParserPosition, takeBodyWithoutEnd, takePiece } from "./request-pieces.ts";

/** In what pieces a body in chunks, and what follows it, are given that have come in reads of so many bytes. */
function piecesOf(text: string, readBytes = text.length, take = takePiece): string[] {
  const position: ParserPosition = { ...AT_START, request: { complete: false } };
  noteHead(position, "chunks");
  const pieces: string[] = [];
  for (let at = 0; at < text.length; at += readBytes) {
    for (let waiting = Buffer.from(text.slice(at, at + readBytes), "latin1"); waiting.length > 0;) {
      const piece = waiting.subarray(0, take(position, waiting));
      if (piece.length === 0) return pieces;
      pieces.push(piece.toString("latin1"));
      waiting = waiting.subarray(piece.length);
    }
  }
  return pieces;
}

function startsOf(pieces: readonly string[]): number[] {
  return pieces.map((_, index) => pieces.slice(0, index).join("").length);
}

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

const END = "0\r\n\r\n";
const NEXT = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

for (const [what, body] of [
  ["large chunks", chunk("x".repeat(16_384)).repeat(4) + END],
  ["a chunk that is full of what looks like its end", chunk("\r\n0\r\n\r\n".repeat(8_000)) + END],
  ["a chunk of many lines", chunk("{\r\n}\r\n".repeat(8_000)) + END],
  ["100 tiny chunks", chunk("x").repeat(99) + END],
] as const) {
  test(`a body of ${what} is given as it has come`, () => {
    assert.deepEqual(piecesOf(body), [body]);
  });
}

test("a body of tiny chunks is given in pieces of 100", () => {
  const pieces = piecesOf(chunk("x").repeat(250) + END);
  assert.deepEqual(
    pieces.map((piece) => piece.split("\r\n").length >> 1),
    [100, 100, 51],
  );
});

for (const [what, body] of [
  ["many zeros before its digits", `${"0".repeat(19)}10\r\nabcffffff\r\ndefgh\r\n`],
  ["many zeros and an extension", `${"0".repeat(19)}1;xfffff\r\na\r\n`],
  ["letters in upper case", `0A\r\nffffff\r\n\r\n\r\n`],
] as const) {
  for (const readBytes of [1, 2, 20, 22, 1_000]) {
    test(`a size with ${what} is as long as the parser takes it for (reads of ${readBytes} bytes)`, () => {
      const starts = startsOf(piecesOf(body + END + NEXT, readBytes));
      assert.ok(starts.includes(body.length + END.length));
      assert.ok(
        !piecesOf(body + END + NEXT, readBytes, takeBodyWithoutEnd)
          .join("")
          .includes(END),
      );
    });
  }
}

test("what comes with the last chunk, and before it, is not counted as coming behind it", () => {
  const position: ParserPosition = { ...AT_START, request: { complete: false } };
  noteHead(position, "chunks");
  takePiece(position, Buffer.from(`${chunk("x".repeat(50_000))}0\r\nA: b\r\n`));
  assert.equal(position.headBytes, "A: b\r\n".length);
});

for (const [what, end] of [
  ["the last chunk", END],
  ["further headers", "0\r\nTrailer: 0\r\nX: y\r\n\r\n"],
  ["a last chunk with an extension", `000;a="${"0".repeat(100)}"\r\n\r\n`],
  ["a last chunk of many zeros", `${"0".repeat(50)}\r\n\r\n`],
  ["a last chunk of many zeros and an extension", `${"0".repeat(20)};xfffff\r\n\r\n`],
] as const) {
  for (const readBytes of [1, 2, 3, 5, 7, 64, 10_000]) {
    test(`what follows ${what} begins a piece, and nothing is lost (reads of ${readBytes} bytes)`, () => {
      const body = `${chunk("a\r\n\r\nb").repeat(3)}000${chunk("0\r\n\r\n")}A;b=c\r\n${"c".repeat(10)}\r\n${chunk("d".repeat(5_000))}`;
      const pieces = piecesOf(body + end + NEXT, readBytes);
      assert.equal(pieces.join(""), body + end + NEXT);
      assert.ok(startsOf(pieces).includes(body.length + end.length), JSON.stringify(pieces));
    });
    test(`${what} is not given ahead (reads of ${readBytes} bytes)`, () => {
      const body = chunk("a\r\n0\r\n\r\nb").repeat(3);
      const given = piecesOf(body + end + NEXT, readBytes, takeBodyWithoutEnd).join("");
      assert.ok(given.startsWith(body) && given.length < body.length + end.length - 2, JSON.stringify(given));
    });
  }
}

const POST = 'POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n{"a":"\r\n\r\n0123"}';
const LOWER = "POST /orders HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
const LENGTH_LAST = "POST /orders HTTP/1.1\r\nHost: a\r\nX: Content-Length: 9\r\nContent-Length:  2 \r\n\r\n{}";

for (const readBytes of [1, 2, 3, 4, 5, 7, 31, 64, 10_000]) {
  test(`each request begins a piece, whatever its body looks like (reads of ${readBytes} bytes)`, () => {
    const requests = [NEXT, POST, NEXT, LOWER, LENGTH_LAST, POST];
    const position: ParserPosition = { ...AT_START, request: null };
    const text = requests.join("");
    const starts: number[] = [];
    let given = "";
    for (let at = 0; at < text.length; at += readBytes) {
      for (let waiting = Buffer.from(text.slice(at, at + readBytes), "latin1"); waiting.length > 0;) {
        starts.push(given.length);
        const length = takePiece(position, waiting);
        given += waiting.subarray(0, length).toString("latin1");
        waiting = waiting.subarray(length);
        position.request = noteAsParserWould(position, given, requests);
      }
    }
    assert.equal(given, text);
    for (const start of startsOf(requests)) assert.ok(starts.includes(start), `${start} of ${starts.join()}`);
  });
}

test("what has come of a head counts until its end has come", () => {
  const position: ParserPosition = { ...AT_START, request: null };
  takePiece(position, Buffer.from("GET / HTTP/1.1\r\n"));
  assert.equal(position.headBytes, 16);
  takePiece(position, Buffer.from("Host: a\r\n\r"));
  assert.equal(position.headBytes, 26);
  takePiece(position, Buffer.from("\n"));
  assert.equal(position.headBytes, 0);
});

/** The last request whose head has been given; it is noted when that has just come to its end. */
function noteAsParserWould(
  position: ParserPosition,
  given: string,
  requests: readonly string[],
): ParserPosition["request"] {
  const at = startsOf(requests).findLastIndex((start, index) => start + headOf(requests[index]) <= given.length);
  if (at < 0) return null;
  const request = requests[at] ?? "";
  const came = given.length - (startsOf(requests)[at] ?? 0);
  const bodyBytes = request.length - headOf(request);
  const bodyCame = Math.min(came - headOf(request), bodyBytes);
  if (noted.get(position) !== at) noteHead(position, { bytes: bodyBytes - bodyCame });
  noted.set(position, at);
  return { complete: bodyCame === bodyBytes };
}

const noted = new WeakMap<ParserPosition, number>();

function headOf(request = ""): number {
  return request.indexOf("\r\n\r\n") + 4;
}
