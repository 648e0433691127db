/** An address that leads to a node, and that can be shut or made silent while the node itself is well. */
import { once } from "node:events";
import { connect, createServer, type Server, type Socket } from "node:net";
import type { TestContext } from "node:test";
import { atEnd } from "../support/at-end.ts";
import { freePort } from "../support/ports.ts";

export class PortProxy {
  /** The port of the node behind it; until it is set, connections are cut. */
  targetPort: number | null = null;
  readonly #sockets = new Set<Socket>();
  #server: Server | null = null;
  /** 0: none yet. */
  #port = 0;
  #isSilent = false;

  /** Listens on a free port until the test ends. */
  static async start(t: TestContext): Promise<PortProxy> {
    const proxy = new PortProxy();
    await proxy.accept();
    atEnd(t, () => proxy.refuse());
    return proxy;
  }

  /** As `--advertise` takes it. */
  get address(): string {
    return `127.0.0.1:${this.#port}`;
  }

  /** Accepts connections, on the same port as ever. */
  async accept(): Promise<void> {
    this.#isSilent = false;
    if (this.#port === 0) this.#port = await freePort();
    const server = createServer((socket) => this.#link(socket));
    server.listen(this.#port, "127.0.0.1");
    await once(server, "listening");
    this.#server = server;
  }

  /** Cuts all connections and refuses new ones. */
  async refuse(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server === null) return;
    server.close();
    this.#cut();
    await once(server, "close");
  }

  /** Accepts connections and passes nothing on, as a network that loses every packet. */
  silence(): void {
    this.#isSilent = true;
    this.#cut();
  }

  #cut(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  #link(socket: Socket): void {
    this.#keep(socket);
    if (this.#isSilent) return void socket.resume();
    if (this.targetPort === null) return void socket.destroy();
    const target = connect(this.targetPort, "127.0.0.1");
    this.#keep(target);
    socket.pipe(target).pipe(socket);
    socket.on("close", () => target.destroy());
    target.on("close", () => socket.destroy());
  }

  #keep(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on("error", () => undefined); // its close is what counts
    socket.on("close", () => this.#sockets.delete(socket));
  }
}
