/**
 * The header of SQLite's write-ahead log (sqlite.org/fileformat2.html#the_write_ahead_log).
 *
 * SQLite takes a log whose header is damaged for an empty one, and what was committed to it since the last checkpoint is
 * gone without a word. A log that was cut short by a crash has a whole header: it is written and synced first.
 */
import { closeSync, openSync, readSync } from "node:fs";

const HEADER_BYTES = 32;
const MAGIC = 0x377f0682; // checksums over little-endian words; with the last bit set, big-endian

/** Whether the log beside a database, if there is one, begins as a log does. */
export function logHeaderIsSound(databasePath: string): boolean {
  const header = readHeader(`${databasePath}-wal`);
  if (header === null || header.every((byte) => byte === 0)) return true;
  const magic = header.readUInt32BE(0);
  if (magic !== MAGIC && magic !== MAGIC + 1) return false;
  const wordAt = (offset: number): number =>
    magic === MAGIC ? header.readUInt32LE(offset) : header.readUInt32BE(offset);
  let [first, second] = [0, 0];
  for (let offset = 0; offset < 24; offset += 8) {
    first = (first + wordAt(offset) + second) >>> 0;
    second = (second + wordAt(offset + 4) + first) >>> 0;
  }
  return first === header.readUInt32BE(24) && second === header.readUInt32BE(28);
}

/** Null where there is no log, or one too short to hold anything. */
function readHeader(path: string): Buffer | null {
  const file = openIfThere(path);
  if (file === null) return null;
  try {
    const header = Buffer.alloc(HEADER_BYTES);
    return readSync(file, header, 0, HEADER_BYTES, 0) === HEADER_BYTES ? header : null;
  } finally {
    closeSync(file);
  }
}

/** At the moment the last other process may let go of the database, and take the log with it: to look first says nothing. */
function openIfThere(path: string): number | null {
  try {
    return openSync(path, "r");
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return null;
    throw error;
  }
}
