/** Times as RFC 3339 writes them. */

/** What was asked for last: at full load many orders begin in the same millisecond. */
let last = { timeMs: 0, text: new Date(0).toISOString() };

/** Milliseconds since the epoch as RFC 3339 in UTC. */
export function rfc3339(timeMs: number): string {
  if (timeMs !== last.timeMs) last = { timeMs, text: new Date(timeMs).toISOString() };
  return last.text;
}

/** The milliseconds since the epoch that a time stands for; null: it is none. */
export function parseRfc3339(text: string): number | null {
  const match = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d(?:\.\d{1,9})?)(Z|[+-]\d\d:\d\d)$/i.exec(text);
  const [, date = "", time = "", zone = ""] = match ?? [];
  // Date takes the 30th of February for the 2nd of March.
  const asUtc = new Date(`${date}T${time}Z`);
  if (Number.isNaN(asUtc.getTime()) || !asUtc.toISOString().startsWith(date)) return null;
  const timeMs = Date.parse(`${date}T${time}${zone.toUpperCase()}`);
  return Number.isNaN(timeMs) ? null : timeMs;
}
