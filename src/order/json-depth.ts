/** How deeply JSON is nested, found out without parsing it. */

/** What walks JSON recursively, ours or a step's, must not run out of stack; no sensible order comes near this. */
export const JSON_DEPTH_MAX = 100;

/** Whether brackets nest deeper than `max`, outside of strings. */
export function exceedsDepth(text: string, max: number = JSON_DEPTH_MAX): boolean {
  if (text.length <= 2 * max) return false; // too short to open and close that many
  let depth = 0;
  let inString = false;
  for (let index = 0; index < text.length; index++) {
    const char = text.charCodeAt(index);
    if (inString) {
      if (char === 0x5c /* \ */) index++;
      else if (char === 0x22 /* " */) inString = false;
    } else if (char === 0x22) inString = true;
    else if (char === 0x7b /* { */ || char === 0x5b /* [ */) {
      if (++depth > max) return true;
    } else if (char === 0x7d /* } */ || char === 0x5d /* ] */) depth--;
  }
  return false;
}
