/**
 * Text of somebody else's on its way to a terminal or a log: a peer, a service, an order, a file or the environment may hold sequences that
 * move the cursor, change colours, turn the direction of writing, hide what follows or forge a line. All that this process writes to people
 * goes through here once, where it is written.
 */

/**
 * Control characters (C0, DEL, C1), format characters (directions, invisible ones), line and paragraph separators, and halves of
 * characters, which are none.
 */
const UNSAFE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** The same without the line feed. */
const UNSAFE_IN_LINES = /(?!\n)[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** What most texts are. */
const PLAIN = /^[\x20-\x7e]*$/;

/** A text as a part of a line: what is unsafe in it is written as JSON would escape it. JSON stays JSON of the same meaning. */
export function printable(text: string): string {
  return PLAIN.test(text) ? text : text.replaceAll(UNSAFE, escaped);
}

/** The same for a text of several lines that this process has composed. */
export function printableLines(text: string): string {
  return text.replaceAll(UNSAFE_IN_LINES, escaped);
}

/** An error's text of several lines as one. */
export function oneLine(text: string): string {
  return printable(text.replaceAll(/\s*\n\s*/g, " "));
}

function escaped(character: string): string {
  return Array.from({ length: character.length }, (_, at) => {
    return `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`;
  }).join("");
}
