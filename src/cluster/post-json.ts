/**
 * A request from node to node: JSON there and back. Not by `fetch`, which refuses some ports (fetch.spec.whatwg.org, "bad port") on
 * which a node may well listen.
 */

import type { Clock } from "../runtime/clock.ts";

// Not imported: that would load all of Node's `fetch`, too, and make each start longer by a twentieth.
const { request } = process.getBuiltinModule("node:http");

/** An answer as it came. */
export interface TextAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly text: string;
}

/** An answer that is to be JSON. */
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
 * Posts a JSON text and reads the answer as JSON.
 * @throws Error as postText does
 */
export async function postJson(url: URL, body: string, options: PostOptions): Promise<JsonAnswer> {
  const { status, text } = await postText(url, body, options);
  return { status, answer: parseAnswer(text) };
}

/**
 * Posts a JSON text and reads the answer. Redirections are not followed.
 *
 * The timeout is the other's: while this process is too busy to read an answer, as when it cuts thousands of calls to stop, hardly any of
 * it passes.
 * @throws Error when there is no whole answer in time, or of Node's
 */
export function postText(url: URL, body: string, { headers = {}, timeoutMs, clock }: PostOptions): Promise<TextAnswer> {
  return new Promise((resolve, reject) => {
    let isAnswering = false;
    const sending = request(
      url,
      {
        method: "POST",
        agent: false, // a connection kept from before may be to a process that is gone, and these requests are few
        headers: { ...headers, "content-type": "application/json", "content-length": Buffer.byteLength(body) },
      },
      (response) => {
        isAnswering = true;
        const chunks: Buffer[] = [];
        let bytes = 0;
        response.on("data", (chunk: Buffer) => {
          chunks.push(chunk);
          bytes += chunk.length;
          if (bytes > ANSWER_BYTES_MAX) response.destroy(new Error("the answer is too long"));
        });
        response.once("error", reject);
        response.once("end", () =>
          resolve({
            status: response.statusCode ?? 0,
            headers: response.headers,
            text: Buffer.concat(chunks).toString("utf8"),
          }),
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
    sending.once("close", () => {
      timer[Symbol.dispose]();
      // Where there was neither an answer nor an error, as when another protocol is switched to.
      if (!isAnswering) reject(new Error("the connection ended without an answer"));
    });
    sending.once("error", reject);
    sending.end(body);
  });
}

/** An answer's JSON; null: it is none. */
export function parseAnswer(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return null;
  }
}
