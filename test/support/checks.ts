/** What the tests of bad input all ask: was it refused as it should be, and does the service still work? */
import assert from "node:assert/strict";
import { acceptedOrderId, type Answer, finalOrder, send } from "./client.ts";
import type { FinishedCommand } from "./service.ts";
import { waitFor } from "./wait.ts";

/** The answer is the RFC 9457 problem that the catalogue has for `code`. */
export function assertProblem(answer: Answer, status: number, code: string): void {
  assert.equal(answer.status, status, answer.text);
  assert.match(answer.headers.get("content-type") ?? "", /^application\/problem\+json/);
  assert.equal(answer.json?.["code"], code, answer.text);
  assert.equal(answer.json["status"], status);
  assert.equal(answer.json["type"], `urn:order-process:error:${code}`);
  assert.ok(typeof answer.json["detail"] === "string" && answer.json["detail"] !== "", "the detail says what is wrong");
}

/** The service is well: it says so, at once or when its heartbeat comes that the machine made late, and carries a new order to its end. */
export async function assertServes(serviceUrl: string): Promise<void> {
  await waitFor(async () => (await heartbeatStatus(serviceUrl)) === "OK", { what: "the service is well" });
  const order = await finalOrder(serviceUrl, await acceptedOrderId(serviceUrl));
  assert.equal(order.status, "completed");
}

/** What the service says of itself. */
export async function heartbeatStatus(serviceUrl: string): Promise<unknown> {
  const answer = await send(`${serviceUrl}/diagnostic/heartbeat`);
  assert.equal(answer.status, 200, answer.text);
  return answer.json?.["status"];
}

/** The command was refused: one line on stderr that says why, and the exit code. */
export function assertRefused(finished: FinishedCommand, code: 1 | 2, line: RegExp): void {
  assert.match(finished.stderr, line);
  assert.match(finished.stderr, /^order_process: [^\n]+\n$/, "stderr is one line");
  assert.equal(finished.code, code);
  assert.doesNotMatch(finished.stdout, /Listening at/);
}
