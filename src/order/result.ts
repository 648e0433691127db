/** What a step returned, as the JSON that is kept. */
import { exceedsDepth, JSON_DEPTH_MAX } from "./json-depth.ts";
import type { JsonText } from "./events.ts";
import { textOf } from "./step-error.ts";

/** What one step may return: results are kept in the order's history, and given to every later step. */
export const RESULT_CHARS_MAX = 64 * 1024;

/** What all steps of an order may return together. */
export const RESULTS_CHARS_MAX = 256 * 1024;

export type EncodedResult =
  /** Null: nothing was returned. */
  | { readonly ok: true; readonly text: JsonText | null }
  /** `error` ends a sentence that begins with what returned it. */
  | { readonly ok: false; readonly error: string };

const NOTHING: EncodedResult = Object.freeze({ ok: true, text: null });

/**
 * @param charsBefore of the results that the order has already
 */
export function encodeResult(value: unknown, charsBefore: number): EncodedResult {
  if (value === undefined) return NOTHING;
  if (typeof value === "function" || typeof value === "symbol") {
    return { ok: false, error: `returned a ${typeof value}; return JSON, or nothing` };
  }
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (error) {
    const [why] = textOf(error).split("\n");
    return { ok: false, error: `returned what can't be made JSON: ${why}` };
  }
  if (text === undefined) return NOTHING;
  if (text.length > RESULT_CHARS_MAX) {
    return { ok: false, error: `returned ${text.length} characters of JSON; the most is ${RESULT_CHARS_MAX}` };
  }
  if (charsBefore + text.length > RESULTS_CHARS_MAX) {
    return {
      ok: false,
      error: `returned more than an order may keep: all results together have at most ${RESULTS_CHARS_MAX} characters`,
    };
  }
  if (exceedsDepth(text))
    return { ok: false, error: `returned JSON that is nested deeper than ${JSON_DEPTH_MAX} levels` };
  return { ok: true, text };
}
