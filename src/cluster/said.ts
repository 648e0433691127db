/** What another process says, as a part of a line for people. */

/** Enough for a sentence or two. */
const SAID_CHARS_MAX = 300;

/** The text as one line of bounded length: nothing in it moves the cursor, changes colours, or makes another line. */
export function showSaid(text: string): string {
  const line = text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "\ufffd");
  return line.length <= SAID_CHARS_MAX ? line : `${line.slice(0, SAID_CHARS_MAX)}…`;
}
