/** Durations as people write them: `60ms`, `5s`, `2m`, `36h`, `7d`. */
import ms from "ms";

/** In milliseconds, whole ones; null: the text is no duration. */
export function parseDuration(text: string): number | null {
  const value = /^\d+(\.\d+)?(ms|s|m|h|d)$/.test(text) ? ms(text as ms.StringValue) : undefined;
  return value === undefined ? null : Math.round(value);
}
