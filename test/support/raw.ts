/** Requests byte for byte, for what a well-behaved client can't or won't send. */
import { connect, type Socket } from "node:net";
import type { Answer } from "./client.ts";
import { DEADLINE_MS } from "./wait.ts";

/**
 * Sends bytes as they are and resolves with the first answer, when the service has closed the connection or sent all that
 * the answer's content-length promises.
 * @param ending "stay": leave the connection open; "leave": send nothing more and say so (FIN)
 */
export function sendBytes(
  serviceUrl: string,
  bytes: string | Uint8Array,
  ending: "stay" | "leave" = "stay",
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const socket = openConnection(serviceUrl);
    let received = "";
    const finish = (): void => {
      clearTimeout(timer);
      socket.destroy();
      const answer = parseAnswer(received);
      if (answer === null) reject(new Error(`the connection ended without an answer; it gave: ${received}`));
      else resolve(answer);
    };
    const timer = setTimeout(finish, DEADLINE_MS);
    socket.setEncoding("utf8");
    socket.on("data", (text: string) => {
      received += text;
      if (isWhole(parseAnswer(received))) finish();
    });
    socket.on("error", () => undefined); // a reset comes as a close, too; what counts is what was received before
    socket.once("close", finish);
    if (ending === "leave") socket.end(bytes);
    else socket.write(bytes);
  });
}

/** A connection to the service on which nothing has been sent. */
export function openConnection(serviceUrl: string): Socket {
  const { hostname, port } = new URL(serviceUrl);
  return connect(Number(port), hostname);
}

/** The head of a request, with what every order needs. */
export function requestHead(method: string, path: string, headers: Readonly<Record<string, string>> = {}): string {
  const all = Object.entries({ host: "localhost", authorization: "user", ...headers });
  return `${method} ${path} HTTP/1.1\r\n${all.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;
}

/** The first answer in what was received, as far as it has come; null while its head is not complete. */
export function parseAnswer(received: string): Answer | null {
  const headEnd = received.indexOf("\r\n\r\n");
  if (headEnd < 0) return null;
  const [statusLine, ...lines] = received.slice(0, headEnd).split("\r\n");
  const status = /^HTTP\/1\.1 (\d{3}) /.exec(statusLine ?? "")?.[1];
  if (status === undefined) return null;
  const headers = new Headers(
    lines.map((line): [string, string] => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    }),
  );
  const text = received.slice(headEnd + 4);
  const isJson = (headers.get("content-type") ?? "").includes("json");
  const whole = Buffer.byteLength(text) >= Number(headers.get("content-length") ?? "0");
  return {
    status: Number(status),
    headers,
    text,
    json: isJson && whole && text !== "" ? (JSON.parse(text) as Record<string, unknown>) : undefined,
  };
}

function isWhole(answer: Answer | null): boolean {
  const length = answer?.headers.get("content-length") ?? null;
  return answer !== null && length !== null && Buffer.byteLength(answer.text) >= Number(length);
}
