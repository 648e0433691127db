/** JSON Pointers (RFC 6901): where in a JSON value something is. */

/** The pointer to what such keys lead to, one after another; "" is the value itself. */
export function pointerOf(keys: readonly string[]): string {
  return keys.map((key) => `/${pointerSegment(key)}`).join("");
}

/** A key as it stands in a pointer. */
export function pointerSegment(key: string): string {
  return key.replaceAll("~", "~0").replaceAll("/", "~1");
}
