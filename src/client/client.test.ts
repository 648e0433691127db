import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

/** Modules that are loaded with one; types are gone by then. */
function importsOf(url: URL): string[] {
  const text = readFileSync(url, "utf8");
  return Array.from(text.matchAll(/^(?:import|export) (?!type )[^;]*?from "([^"]+)"/gm), ([, name = ""]) => name);
}

test("a browser can load the client: it needs no module but the product's own, and nothing of Node", () => {
  const loaded = new Map<string, URL>();
  const load = (url: URL): void => {
    if (loaded.has(url.href)) return;
    loaded.set(url.href, url);
    for (const name of importsOf(url)) {
      assert.ok(name.startsWith("."), `${url.pathname} imports ${name}`);
      load(new URL(name, url));
    }
  };
  load(new URL("client.ts", import.meta.url));
  assert.ok(loaded.size > 1, "what it imports is found");
  for (const url of loaded.values()) {
    assert.doesNotMatch(readFileSync(url, "utf8"), /\b(process|Buffer|setImmediate|require)\b[.(]/, url.pathname);
  }
});
