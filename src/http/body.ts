/** Request bodies: from bytes to a JSON object, or to an error that says why not. */
import { isUtf8 } from "node:buffer";
import { parse as parseSafely } from "secure-json-parse";
import { CatalogueError } from "../order/errors.ts";
import { exceedsDepth, JSON_DEPTH_MAX } from "../order/json-depth.ts";
import type { JsonObject } from "../order/pipeline.ts";

export interface JsonBody {
  readonly text: string;
  readonly value: JsonObject;
}

/**
 * Parses a body.
 * @throws CatalogueError body_not_json, body_not_object, body_too_deep, body_key_refused
 */
export function parseJsonBody(bytes: Buffer): JsonBody {
  if (bytes.length === 0)
    throw new CatalogueError("body_not_json", "The body is empty; send a JSON object, {} at least.");
  if (!isUtf8(bytes)) throw new CatalogueError("body_not_json", "The body is not valid UTF-8, as JSON must be.");
  const text = bytes.toString("utf8");
  if (text.startsWith("\uFEFF")) {
    throw new CatalogueError(
      "body_not_json",
      "The body begins with a byte order mark, which JSON does not have; leave it out.",
    );
  }
  if (exceedsDepth(text)) {
    throw new CatalogueError("body_too_deep", `The body is nested deeper than ${JSON_DEPTH_MAX} levels.`);
  }
  const value = parseText(text);
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new CatalogueError("body_not_object", "The body is JSON, but not an object; send {…}.");
  }
  return { text, value: value as JsonObject };
}

function parseText(text: string): unknown {
  try {
    return parseSafely(text, undefined, { protoAction: "error", constructorAction: "ignore" });
  } catch (error) {
    if (!(error instanceof SyntaxError)) throw error;
    if (error.message.includes("forbidden prototype property")) {
      throw new CatalogueError(
        "body_key_refused",
        'The body has a key "__proto__", which is refused: it can harm whoever reads it.',
      );
    }
    throw new CatalogueError("body_not_json", `The body is not JSON: ${error.message}.`);
  }
}
