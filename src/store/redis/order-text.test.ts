import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { newOrderId } from "../order-id.ts";
import type { CreateWrite } from "../store.ts";
import { decodeOrder, encodeNextEvent, encodeOrder } from "./order-text.ts";

const AT_MS = 1_700_000_000_000;

function creation(change: Partial<CreateWrite> = {}): CreateWrite {
  return {
    kind: "create",
    orderId: newOrderId("alice", null),
    user: "alice",
    idempotencyKey: null,
    pipelineName: "default",
    pipelineVersion: 1,
    event: { kind: "created", atMs: AT_MS, owner: 3, stepName: "Scheduling" },
    body: '{"item":"book"}',
    ...change,
  };
}

test("an order's text is what its description says", () => {
  const completed = { kind: "step_completed", atMs: AT_MS + 5_000, nextStepName: "Pre-Processing" } as const;
  assert.equal(
    encodeOrder(creation()) + encodeNextEvent(completed),
    '["alice",null,"default",1,15]\n{"item":"book"}\n' +
      '["created",1700000000000,3,"Scheduling"],["step_completed",1700000005000,"Pre-Processing"]',
  );
});

test("any order is read back as it was written, whatever its texts hold", () => {
  const text = fc.string({ unit: "binary" });
  fc.assert(
    fc.property(
      text,
      fc.option(text),
      text,
      fc.nat(),
      text,
      text,
      (user, idempotencyKey, pipelineName, pipelineVersion, stepName, body) => {
        const event = { kind: "created", atMs: AT_MS, owner: 7, stepName } as const;
        const written = encodeOrder(creation({ user, idempotencyKey, pipelineName, pipelineVersion, event, body }));
        // As it goes through Redis.
        const read = Buffer.from(written).toString();
        const wellFormed = body.toWellFormed();
        assert.deepEqual(decodeOrder(read), {
          user,
          pipelineName,
          pipelineVersion,
          status: "running",
          owner: 7,
          revision: 1,
          history: [event],
          body: wellFormed,
        });
      },
    ),
  );
});

test("what is not an order is refused", () => {
  const text = encodeOrder(creation());
  for (const damaged of [
    "",
    "nonsense",
    "[]\n{}\n",
    text.replace("15", "14"),
    text.replace("15", "1500"),
    text.replace('["alice"', "[1"),
    text.slice(0, -1),
    text.slice(0, text.lastIndexOf("\n") + 1),
    text.replace("created", "made"),
  ]) {
    assert.throws(() => decodeOrder(damaged), Error, damaged);
  }
});
