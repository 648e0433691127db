/**
 * A lock that one process holds and the operating system lets go of when the process ends, however it ends.
 *
 * Node has no file locks of its own, SQLite has: an open exclusive transaction on an otherwise empty database is one.
 */
import { DatabaseSync } from "node:sqlite";

export interface FileLock {
  release(): void;
}

const SQLITE_BUSY = 5;

/** Two that try at the same moment can be in each other's way; one of them has it after that. */
const TRY_MS = 250;

/**
 * Locks the file at `path`, making it if need be.
 * @returns null when another process holds the lock
 * @throws Error when the file can't be made or written
 */
export function lockFile(path: string): FileLock | null {
  let database: DatabaseSync | null = null;
  try {
    database = new DatabaseSync(path, { timeout: TRY_MS });
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    if (database?.isOpen) database.close();
    if (error instanceof Error && "errcode" in error && error.errcode === SQLITE_BUSY) return null;
    throw error;
  }
  const held = database;
  return { release: () => held.close() };
}
