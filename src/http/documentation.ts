/**
 * `/openapi.json`, and the page to try it at `/docs`: Swagger UI's own files. Each is read or made once, when it is first asked for, and
 * all answers share it: a client that takes nothing costs nothing.
 */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import type { FastifyInstance } from "fastify";

/** The files that the page loads, under `/docs/static`. */
const FILES = {
  "swagger-ui.css": "text/css; charset=utf-8",
  "index.css": "text/css; charset=utf-8",
  "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
  "swagger-ui-standalone-preset.js": "text/javascript; charset=utf-8",
  "favicon-16x16.png": "image/png",
  "favicon-32x32.png": "image/png",
} as const;

/** The kernel takes a millisecond to copy a large one: each waits for a turn, and new connections come first. */
const LARGE_BYTES = 64 * 1024;

/** Where the page finds the document, seen from itself: a proxy may have put something in front of all paths. */
const INITIALIZER = `window.addEventListener("load", () => {
  const script = document.querySelector('script[src$="swagger-initializer.js"]');
  window.ui = SwaggerUIBundle({
    url: new URL("../../openapi.json", script.src).href,
    dom_id: "#swagger-ui",
    deepLinking: true,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    layout: "StandaloneLayout",
    validatorUrl: null,
    tryItOutEnabled: true,
    persistAuthorization: true,
  });
});
`;

/** @param folder of its files, relative to the page */
function page(folder: string): string {
  return `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <title>order_process</title>
    <link rel="stylesheet" href="${folder}/swagger-ui.css" />
    <link rel="stylesheet" href="${folder}/index.css" />
    <link rel="icon" type="image/png" href="${folder}/favicon-32x32.png" sizes="32x32" />
    <link rel="icon" type="image/png" href="${folder}/favicon-16x16.png" sizes="16x16" />
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="${folder}/swagger-ui-bundle.js"></script>
    <script src="${folder}/swagger-ui-standalone-preset.js"></script>
    <script src="${folder}/swagger-initializer.js"></script>
  </body>
</html>
`;
}

/** @param turnForLarge resolves when a large answer may be sent */
export function documentationRoutes(app: FastifyInstance, turnForLarge: () => Promise<void>): void {
  /** A route that always gives the same. */
  const constantRoute = (url: string, type: string, make: () => string | Buffer): void => {
    let constant: Constant | null = null;
    app.get(url, { schema: { hide: true } }, async (request, reply) => {
      constant ??= constantOf(make());
      const { bytes, etag } = constant;
      void reply.type(type).header("etag", etag).header("cache-control", "no-cache");
      if (request.headers["if-none-match"] === etag) return reply.code(304).send();
      if (bytes.length > LARGE_BYTES) await turnForLarge();
      return request.raw.socket.destroyed ? reply.hijack() : reply.send(bytes);
    });
  };
  constantRoute("/openapi.json", "application/json; charset=utf-8", () => JSON.stringify(app.swagger()));
  constantRoute("/docs", "text/html; charset=utf-8", () => page("docs/static"));
  constantRoute("/docs/", "text/html; charset=utf-8", () => page("static"));
  constantRoute("/docs/static/swagger-initializer.js", "text/javascript; charset=utf-8", () => INITIALIZER);
  for (const [name, type] of Object.entries(FILES)) {
    constantRoute(`/docs/static/${name}`, type, () => readFileSync(join(filesFolder(), name)));
  }
}

function filesFolder(): string {
  return join(dirname(createRequire(import.meta.url).resolve("@fastify/swagger-ui/package.json")), "static");
}

interface Constant {
  readonly bytes: Buffer;
  readonly etag: string;
}

function constantOf(content: string | Buffer): Constant {
  const bytes = Buffer.from(content);
  return { bytes, etag: `"${createHash("sha256").update(bytes).digest("base64url")}"` };
}
