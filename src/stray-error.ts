/**
 * Whose an error is that nobody has caught: a step's code may leave promises and timers behind that fail when its call is over. They must
 * not end the node, and after it, as the order is taken over, every other one.
 */
import { fileURLToPath } from "node:url";

const OWN_FOLDER = fileURLToPath(new URL(".", import.meta.url));

/**
 * Whether an error arose in code of pipelines, going by its stack: where the first place in it that is neither Node's nor a library's is
 * not ours. An error without any such place is taken for theirs: what we begin we wait for.
 * @param ownFolder where the service's own code is
 */
export function isOfPipelines(error: unknown, ownFolder = OWN_FOLDER): boolean {
  let stack = "";
  try {
    stack = error instanceof Error ? String(error.stack) : "";
  } catch {
    // It can't even be looked at, and so is none of ours.
  }
  const places = Array.from(
    stack.matchAll(/^\s*at (?:.*\()?((?:file:\/\/)?\/[^()\n]*):\d+:\d+\)?$/gm),
    ([, place = ""]) => (place.startsWith("file:") ? fileURLToPath(place) : place),
  );
  const first = places.find((place) => !place.includes("/node_modules/") || place.startsWith(ownFolder));
  return first === undefined || !first.startsWith(ownFolder);
}
