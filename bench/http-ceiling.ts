/**
 * The HTTP ceiling: the service's own server, routes, limits and schemas, with no work behind them: an order is
 * "accepted" at once and forgotten. Prints where it listens.
 */
import { randomUUIDv7 } from "node:crypto";
import { createHttpServer, listen } from "../src/http/server.ts";
import { createLogger } from "../src/log.ts";
import { BARE } from "../test/support/bare-server.ts";

const app = await createHttpServer({
  ...BARE,
  log: createLogger("warn", "logfmt", (text) => process.stderr.write(text)),
  submit: () => Promise.resolve({ kind: "accepted", orderId: randomUUIDv7(), startTimeMs: Date.now() }),
});
console.log(`Listening at: ${await listen(app, "127.0.0.1", 0)}`);
