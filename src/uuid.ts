const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/** Whether the text is a UUID of any version, in lower case as we write them. */
export function isUuid(text: string): boolean {
  return UUID.test(text);
}
