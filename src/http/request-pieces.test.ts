import assert from "node:assert/strict";
import { test } from "node:test";
import { AT_START, isTurnOver, nextPieceBytes, noteHead, notePiece, type ParserPosition } from "./request-pieces.ts";

/** In what pieces a body in chunks, and what follows it, are given that have come in reads of so many bytes. */
function piecesOf(text: string, readBytes = text.length): string[] {
  const position: ParserPosition = { ...AT_START, request: { complete: false } };
  noteHead(position, null);
  const pieces: string[] = [];
  for (let at = 0; at < text.length; at += readBytes) {
    for (let waiting = Buffer.from(text.slice(at, at + readBytes)); waiting.length > 0;) {
      const piece = waiting.subarray(0, nextPieceBytes(position, waiting));
      notePiece(position, piece);
      pieces.push(piece.toString());
      waiting = waiting.subarray(piece.length);
    }
  }
  return pieces;
}

/** How many turns a connection needs for a body in chunks that waits. */
function turnsFor(text: string): number {
  const pieces = piecesOf(text).map((piece) => piece.length);
  const position: ParserPosition = { ...AT_START, request: { complete: false }, bodyBytesLeft: null };
  let turns = 0;
  while (pieces.length > 0) {
    turns++;
    for (let [count, bytes] = [0, 0]; pieces.length > 0 && !isTurnOver(position, count, bytes); count++) {
      bytes += pieces.shift() ?? 0;
    }
  }
  return turns;
}

function chunk(text: string): string {
  return `${text.length.toString(16)}\r\n${text}\r\n`;
}

const END = "0\r\n\r\n";
const NEXT = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

test("a body in large chunks is given as it has come", () => {
  const body = chunk("x".repeat(16_384)).repeat(4) + END;
  assert.deepEqual(piecesOf(body), [body]);
});

test("a body in tiny chunks is given in pieces of 256 chunks, or of 2 KiB", () => {
  const tiny = piecesOf(chunk("x").repeat(10_000) + END);
  assert.equal(Math.max(...tiny.map((piece) => piece.length)), 2_048);
  const small = piecesOf(chunk("x".repeat(100)).repeat(1_000) + END);
  assert.ok(small.every((piece) => piece.split("\n").length - 1 <= 512));
  assert.equal(small.length, 4);
});

test("a body that is full of what looks like its end needs few turns", () => {
  assert.ok(turnsFor(chunk("\r\n".repeat(32_768)) + END) <= 16_384 / 64 + 1);
});

test("a connection that sends tiny chunks has its turn for 2 KiB", () => {
  const body = chunk("x").repeat(10_000) + END;
  assert.equal(turnsFor(body), Math.ceil(body.length / 2_048));
});

for (const readBytes of [1, 2, 3, 5, 7, 64, 1_000]) {
  test(`what follows a body in chunks begins a piece, and nothing is lost (reads of ${readBytes} bytes)`, () => {
    for (const end of [END, "0\r\nTrailer: a\r\n\r\n"]) {
      const body = chunk("a\r\nb").repeat(3) + chunk("c".repeat(5_000)) + end;
      const pieces = piecesOf(body + NEXT, readBytes);
      assert.equal(pieces.join(""), body + NEXT);
      const starts = pieces.map((_, index) => pieces.slice(0, index).join("").length);
      assert.ok(starts.includes(body.length), JSON.stringify(pieces));
    }
  });
}
