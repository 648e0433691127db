/** What SQLite's errors mean, in an operator's words. */

/** A failure of the embedded store. `message` is one line for an operator. */
export class SqliteStoreError extends Error {
  override readonly name = "SqliteStoreError";
}

/** SQLite's primary result codes (sqlite.org/rescode.html) that have a remedy. */
const REASONS: Readonly<Record<number, string>> = {
  5: "another process holds its lock",
  6: "another process holds its lock",
  8: "it is read-only; give this user write access to the file and its folder",
  10: "the disk reports an error; look at the system's log",
  11: "it is damaged; restore it from a backup",
  13: "the disk is full; free some space",
  14: "the file can't be opened; check that its folder exists, and that this user may read and write both",
  26: "it is not an order_process store, or it is damaged; restore it from a backup",
};

/** One line that says why, with SQLite's own words behind it. Errors that are not SQLite's speak for themselves. */
export function reasonOf(error: unknown): string {
  const code = primaryCode(error);
  const message = error instanceof Error ? error.message : String(error);
  const reason = code === null ? undefined : REASONS[code];
  return reason === undefined ? message : `${reason} (SQLite: ${message})`;
}

/** Whether the error comes from SQLite: expected in operation, however bad. Any other is a mistake of ours. */
export function isSqliteError(error: unknown): boolean {
  return primaryCode(error) !== null || error instanceof SqliteStoreError;
}

/** Whether another process has the lock at the moment. */
export function isBusy(error: unknown): boolean {
  const code = primaryCode(error);
  return code === SQLITE_BUSY || code === SQLITE_LOCKED;
}

const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;

function primaryCode(error: unknown): number | null {
  if (!(error instanceof Error) || !("errcode" in error) || typeof error.errcode !== "number") return null;
  return error.errcode & 0xff;
}
