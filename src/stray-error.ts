/**
 * Whose an error is that nobody has caught: a step's code may leave promises and timers behind that fail when its call is over. They must
 * not end the node, and after it, as the order is taken over, every other one.
 */
import { fileURLToPath } from "node:url";
import { isStepError } from "./order/step-error.ts";

const OWN_FOLDER = fileURLToPath(new URL(".", import.meta.url));

/**
 * Whether an error arose in code of pipelines, going by its stack: where the first place in it that is neither Node's nor a library's is
 * not ours. An error without any such place is taken for theirs: what we begin we wait for.
 * @param ownFolder where the service's own code is
 */
export function isOfPipelines(error: unknown, ownFolder = OWN_FOLDER): boolean {
  try {
    // What a call's signal aborts with is ours, and so is `permanent(…)`; who throws it is a step.
    if (!(error instanceof Error) || isStepError(error)) return true;
    const stack = String(error.stack);
    // The message comes first, and may look like anything.
    const first = placesIn(stack.slice(stack.indexOf(error.message) + error.message.length)).find(
      (place) => !place.includes("/node_modules/") || place.startsWith(ownFolder),
    );
    return first === undefined || !first.startsWith(ownFolder);
  } catch {
    return true; // it can't even be looked at, and so is none of ours
  }
}

function placesIn(stack: string): string[] {
  const places = stack.matchAll(/^\s*at (?:.*\()?((?:file:\/\/)?\/[^()\n]*):\d+:\d+\)?$/gm);
  return Array.from(places, ([, place = ""]) => (place.startsWith("file:") ? fileURLToPath(place) : place));
}
