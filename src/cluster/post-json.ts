/**
 * A request from node to node: JSON there and back. Not by `fetch`, which refuses some ports (fetch.spec.whatwg.org, "bad port") on
 * which a node may well listen.
 */

import type { Clock } from "../runtime/clock.ts";

// Not imported: that would load all of Node's `fetch`, too, and make each start longer by a twentieth.
const { request } = process.getBuiltinModule("node:http");

export interface JsonAnswer {
  readonly status: number;
  /** Null: it was no JSON. */
  readonly answer: unknown;
}

export interface PostOptions {
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  readonly clock: Clock;
}

/** In so many parts a timeout passes. */
const TICKS = 10;

/** Far more than any answer of a node has. */
const ANSWER_BYTES_MAX = 1024 * 1024;

/**
 * Posts a JSON text and reads the answer. Redirections are not followed.
 *
 * The timeout is the other's: while this process is too busy to read an answer, as when it cuts thousands of calls to stop, hardly any of
 * it passes.
 * @throws Error when there is no whole answer in time, or of Node's
 */
export function postJson(url: URL, body: string, { headers = {}, timeoutMs, clock }: PostOptions): Promise<JsonAnswer> {
  return new Promise((resolve, reject) => {
    const sending = request(
      url,
      {
        method: "POST",
        agent: false, // a connection kept from before may be to a process that is gone, and these requests are few
        headers: { ...headers, "content-type": "application/json", "content-length": Buffer.byteLength(body) },
      },
      (response) => {
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          bytes += chunk.length;
          if (bytes > ANSWER_BYTES_MAX) response.destroy(new Error("the answer is too long"));
        });
        response.once("error", reject);
        response.once("end", () =>
          resolve({ status: response.statusCode ?? 0, answer: parsed(Buffer.concat(chunks).toString("utf8")) }),
        );
      },
    );
    // Between two ticks the event loop has looked for the answer, however late they are.
    let ticks = 0;
    const tick = (): void => {
      if (++ticks === TICKS) sending.destroy(new Error(`no whole answer within ${timeoutMs} ms`));
      else timer = clock.after(timeoutMs / TICKS, tick);
    };
    let timer = clock.after(timeoutMs / TICKS, tick);
    sending.once("close", () => timer.cancel());
    sending.once("error", reject);
    sending.end(body);
  });
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
