/** A process that opens embedded stores when it is told to: each line of its input is a path, each of its output what came of it. */
import { createInterface } from "node:readline";
import { SqliteDatabase } from "../../src/store/sqlite/database.ts";

for await (const path of createInterface({ input: process.stdin })) {
  let outcome = "opened";
  try {
    new SqliteDatabase(path).close();
  } catch (error) {
    outcome = String(error).replaceAll("\n", " ");
  }
  process.stdout.write(`${outcome}\n`);
}
