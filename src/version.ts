/** Which version of the program this is. */
import { readFileSync } from "node:fs";

/** This program's version. */
export function programVersion(): string {
  const content = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string };
  return content.version;
}
