/** Ports for servers that a test starts on a port of its choice, or stops and starts again on the same one. */
import { once } from "node:events";
import { createServer } from "node:net";

/** Below those that the system gives to connections and to whoever asks for any port: one of theirs can be taken while its server is away. */
const PORT_MIN = 15_000;
const PORT_MAX = 30_000;

/** A port of this host on which nothing listens. Two tests that ask at once get the same one in one of 15,000 cases. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = PORT_MIN + Math.floor(Math.random() * (PORT_MAX - PORT_MIN));
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!isFree) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}
