/** Somebody on the way between nodes: hears what they ask and answer, and changes the answers. */
import { once } from "node:events";
import { createServer, request as httpRequest } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import type { TestContext } from "node:test";

export type Headers = Readonly<Record<string, string | readonly string[] | undefined>>;

export interface WireAnswer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** A request, and the answer as the node gave it. */
export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly headers: Headers;
  readonly body: string;
  readonly answer: WireAnswer;
}

export class Wiretap {
  /** The node behind it. */
  targetUrl = "";
  /** All that went by. */
  readonly exchanges: Exchange[] = [];
  /** What is answered in the place of the node's answer; null: that itself. */
  change: ((exchange: Exchange) => WireAnswer) | null = null;
  readonly #server = createServer((request, response) => {
    void (async () => {
      const { method = "", url: path = "", headers } = request;
      const body = await text(request);
      const exchange = {
        method,
        path,
        headers,
        body,
        answer: await sendRaw(this.targetUrl, { method, path, headers, body }),
      };
      this.exchanges.push(exchange);
      const { status, headers: answered, body: said } = this.change?.(exchange) ?? exchange.answer;
      const kept = Object.entries(answered).filter(([name, value]) => name !== "content-length" && value !== undefined);
      response.writeHead(status, Object.fromEntries(kept) as Record<string, string>).end(said);
    })().catch(() => request.destroy());
  });

  /** Listens on a free port until the test ends. */
  static async start(t: TestContext): Promise<Wiretap> {
    const tap = new Wiretap();
    tap.#server.listen(0, "127.0.0.1");
    await once(tap.#server, "listening");
    t.after(() => {
      tap.#server.close();
      tap.#server.closeAllConnections();
    });
    return tap;
  }

  /** As `--advertise` takes it. */
  get address(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** The last request to a path. */
  last(path: string): Exchange {
    const exchange = this.exchanges.findLast((each) => each.path === path);
    if (exchange === undefined) throw new Error(`nobody has asked for ${path}`);
    return exchange;
  }
}

/** Sends a request as it stands, headers and all. */
export async function sendRaw(
  url: string,
  { method, path, headers, body }: Omit<Exchange, "answer">,
): Promise<WireAnswer> {
  const sending = httpRequest(new URL(path, url), {
    method,
    agent: false,
    headers: { ...headers } as Record<string, string>,
  });
  sending.end(body);
  const [response] = (await once(sending, "response")) as [import("node:http").IncomingMessage];
  return { status: response.statusCode ?? 0, headers: response.headers, body: await text(response) };
}
