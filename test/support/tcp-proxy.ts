/** A network between a client and a server of this host that can be broken in the ways in which networks break. */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import { freePort } from "./ports.ts";
import type { Ending } from "./redis.ts";

interface Link {
  readonly client: Socket;
  readonly server: Socket;
}

export class TcpProxy {
  readonly #targetPort: number;
  readonly #links = new Set<Link>();
  #listener: Server | null = null;
  /** 0: none yet. */
  #port = 0;
  #stopped = false;
  #replyBytesLeft: number | null = null;

  private constructor(targetPort: number) {
    this.#targetPort = targetPort;
  }

  /** Listens on a free port; ends when its test ends. */
  static async start(ending: Ending, targetPort: number): Promise<TcpProxy> {
    const proxy = new TcpProxy(targetPort);
    await proxy.accept();
    ending.after(() => proxy.refuse());
    return proxy;
  }

  /** Where the clients find it. */
  get port(): number {
    return this.#port;
  }

  /** Accepts connections, on the same port as ever. */
  async accept(): Promise<void> {
    if (this.#port === 0) this.#port = await freePort();
    const listener = createServer((client) => this.#link(client));
    listener.listen(this.#port, "127.0.0.1");
    await once(listener, "listening");
    this.#listener = listener;
  }

  /** Cuts all connections and refuses new ones. */
  refuse(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#listener === null) return resolve();
      this.#listener.close(() => resolve());
      this.#listener = null;
      this.cut();
    });
  }

  /** Cuts all connections; new ones are accepted. */
  cut(): void {
    for (const { client, server } of this.#links) {
      client.destroy();
      server.destroy();
    }
  }

  /** Forwards nothing any more, and says nothing of it. What is sent waits, as it would in a network that loses packets. */
  stop(): void {
    this.#stopped = true;
    for (const { client, server } of this.#links) {
      client.pause();
      server.pause();
    }
  }

  /** Forwards again: what waited first, also what a client has sent that is gone. */
  go(): void {
    this.#stopped = false;
    for (const { client, server } of this.#links) {
      client.resume();
      server.resume();
    }
  }

  /** Cuts the next connection on which the server answers, after so many bytes of its answer. */
  cutReplyAfter(bytes: number): void {
    this.#replyBytesLeft = bytes;
  }

  #link(client: Socket): void {
    const server = connect(this.#targetPort, "127.0.0.1");
    const link = { client, server };
    this.#links.add(link);
    client.on("data", (data) => server.write(data));
    server.on("data", (data: Buffer) => this.#answer(link, data));
    // Each side hears of the other's end, after what was sent before it.
    client.on("end", () => server.end());
    server.on("end", () => client.end());
    for (const socket of [client, server]) {
      socket.on("error", () => socket.destroy());
      socket.on("close", () => {
        if (client.destroyed && server.destroyed) this.#links.delete(link);
        else if (!this.#stopped) (socket === client ? server : client).end();
      });
    }
    if (this.#stopped) {
      client.pause();
      server.pause();
    }
  }

  #answer({ client, server }: Link, data: Buffer): void {
    if (this.#replyBytesLeft === null) {
      client.write(data);
      return;
    }
    const part = data.subarray(0, this.#replyBytesLeft);
    this.#replyBytesLeft -= part.length;
    if (part.length > 0) client.write(part);
    if (this.#replyBytesLeft > 0) return;
    this.#replyBytesLeft = null;
    client.end(() => client.destroy());
    server.destroy();
  }
}
