import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { test, type TestContext } from "node:test";
import { freePort } from "../../test/support/ports.ts";
import { systemClock } from "../runtime/clock.ts";
import type { ActOutcome } from "./cluster.ts";
import { type Peer, PeerError, Peers } from "./peers.ts";
import { ANSWER_PROOF_HEADER, isSameSignature, parseProof, PROOF_HEADER, signAnswer, signRequest } from "./proof.ts";

const SECRET = "the cluster's secret";
const [SENDER, TARGET] = [7, 8];

interface Asked {
  readonly path: string;
  readonly body: string;
  readonly headers: IncomingHttpHeaders;
  /** Answers as the node itself would. */
  readonly sign: (status: number, body: string) => void;
}

/** A node that answers as it is told. */
async function startNode(t: TestContext, answer: (asked: Asked, response: ServerResponse) => void): Promise<Peer> {
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      const { headers, url: path = "" } = request;
      const signature = parseProof(String(headers[PROOF_HEADER]))?.signature ?? "";
      const sign = (status: number, said: string): void => {
        const proof = signAnswer(SECRET, signature, { status, body: said });
        response.writeHead(status, { [ANSWER_PROOF_HEADER]: proof }).end(said);
      };
      answer({ path, body, headers, sign }, response);
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { incarnation: TARGET, url: `http://127.0.0.1:${(server.address() as AddressInfo).port}` };
}

function peers(): Peers {
  return new Peers({ secret: SECRET, sender: () => SENDER, timeoutMs: 10_000, clock: systemClock() });
}

test("each request is signed for the node that is asked, with a number that only grows", async (t) => {
  const counters: number[] = [];
  const peer = await startNode(t, ({ path, body, headers, sign }) => {
    const proof = parseProof(String(headers[PROOF_HEADER]));
    assert.ok(proof !== null);
    const { sender, target, counter, signature } = proof;
    assert.deepEqual([sender, target], [SENDER, TARGET]);
    assert.ok(isSameSignature(signRequest(SECRET, { method: "POST", path, body, sender, target, counter }), signature));
    counters.push(counter);
    sign(200, JSON.stringify({ room: 1, orders_transferred: 0 }));
  });
  const asking = peers();
  await asking.give(peer, []);
  await asking.transfer(peer, { serviceId: "x", incarnation: 1, ordersMax: 1 });
  await Promise.all(Array.from({ length: 20 }, () => asking.give(peer, [])));
  assert.deepEqual(counters.slice(0, 2), [1, 2]);
  assert.deepEqual(
    counters.toSorted((one, other) => one - other),
    Array.from({ length: 22 }, (_, index) => index + 1),
  );
});

test("a node without an incarnation asks nobody", async () => {
  const asking = new Peers({ secret: SECRET, sender: () => null, timeoutMs: 10_000, clock: systemClock() });
  await assert.rejects(asking.give({ incarnation: TARGET, url: "http://127.0.0.1:1" }, []), PeerError);
});

test("numbers that a node answers are believed only where they can be true", async (t) => {
  let said = "";
  const peer = await startNode(t, ({ sign }) => sign(200, said));
  const refused = ["-1", "1.5", "1e300", '"5"', "null", "[1]", "11"];
  for (const number of refused) {
    said = `{"orders_transferred":${number}}`;
    await assert.rejects(
      peers().transfer(peer, { serviceId: "x", incarnation: 1, ordersMax: 10 }),
      PeerError,
      `${said} orders`,
    );
    if (number === "11") continue;
    said = `{"room":${number}}`;
    await assert.rejects(peers().give(peer, []), PeerError, `${said} of room`);
  }
  for (said of ["", "{}", "[]", "null", "1"]) await assert.rejects(peers().give(peer, []), PeerError, said);
});

test("an answer without the node's own proof is none, however well it is formed", async (t) => {
  const good = JSON.stringify({ room: 1, kind: "done", orders_transferred: 1 });
  const peer = await startNode(t, (_, response) => response.end(good));
  await assert.rejects(peers().give(peer, []), PeerError);
  await assert.rejects(peers().act(peer, "x", { action: "pause", by: "user" }), PeerError);
  await assert.rejects(peers().transfer(peer, { serviceId: "x", incarnation: 1, ordersMax: 10 }), PeerError);
});

test("how an action ended is taken as it is where it has the form, and else not", async (t) => {
  let said = "";
  const peer = await startNode(t, ({ sign }) => sign(200, said));
  const ask = (): Promise<ActOutcome> => peers().act(peer, "x", { action: "pause", by: "user" });
  const outcomes: readonly ActOutcome[] = [
    { kind: "done" },
    { kind: "refused", reason: "the order is paused" },
    { kind: "not_now", reason: "later", mayBeDone: true },
    { kind: "not_now", reason: "later", mayBeDone: false, pipelineMissing: true },
  ];
  for (const outcome of outcomes) {
    said = JSON.stringify(outcome);
    assert.deepEqual(await ask(), outcome);
  }
  const others: readonly unknown[] = [
    { kind: "done", reason: "x" },
    { kind: "refused" },
    { kind: "refused", reason: 1 },
    { kind: "not_now", reason: "x", mayBeDone: "false" },
    { kind: "not_now", reason: "x", mayBeDone: false, pipelineMissing: false },
    { kind: "constructor", reason: "x", mayBeDone: false },
    [],
  ];
  for (const other of others) {
    said = JSON.stringify(other);
    await assert.rejects(ask(), PeerError, said);
  }
  said = '{"kind":"done","__proto__":{"reason":"x"}}';
  await assert.rejects(ask(), PeerError);
});

test("what another says in the place of an answer is in no error", async (t) => {
  const secretText = "hunter2";
  const answers: readonly ((asked: Asked, response: ServerResponse) => void)[] = [
    (_, response) => response.writeHead(500, `sorry ${secretText}`).end(secretText),
    ({ sign }) => sign(500, JSON.stringify({ detail: secretText, code: secretText, title: secretText })),
    ({ sign }) => sign(200, secretText),
    ({ sign }) => sign(200, JSON.stringify({ [secretText]: secretText })),
    (_, response) => response.writeHead(302, { location: `http://127.0.0.1:1/${secretText}` }).end(),
    (_, response) => response.socket?.end(`HTTP/1.1 ${secretText} OK\r\n\r\n`),
    (_, response) => response.socket?.end(`${secretText}\r\n\r\n`),
    (_, response) => response.socket?.end(`HTTP/1.1 200 OK\r\n${secretText}\r\n\r\n`),
    (_, response) => response.socket?.end(`HTTP/1.1 101 ${secretText}\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n`),
    (_, response) => response.socket?.end(`HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n${secretText}`),
    (_, response) => response.socket?.end(`HTTP/1.1 200 OK\r\nx: ${secretText.repeat(10_000)}\r\n\r\n`),
    (_, response) => response.socket?.destroy(),
  ];
  let answer = answers[0];
  const peer = await startNode(t, (asked, response) => answer?.(asked, response));
  for (answer of answers) {
    await assert.rejects(peers().give(peer, []), (error: Error) => {
      assert.ok(error instanceof PeerError, String(error));
      assert.ok(!error.message.includes(secretText), error.message);
      return true;
    });
  }
  answer = ({ sign }) => sign(503, JSON.stringify({ code: "shutting_down", detail: secretText }));
  await assert.rejects(peers().give(peer, []), { message: "it answered 503 (shutting_down)" });
  for (const url of ["", "nonsense", "https://127.0.0.1:1", "ftp://127.0.0.1:1"]) {
    await assert.rejects(peers().give({ incarnation: TARGET, url }, []), PeerError, url);
  }
});

test("of a node at whose address nothing listens it is certain that it was asked nothing, of one that breaks off it is not", async (t) => {
  const cutOff = await startNode(t, (_, response) => void response.destroy());
  const gone = { ...cutOff, url: `http://127.0.0.1:${await freePort()}` };
  const request = { action: "pause", by: "ann" } as const;
  for (const [peer, isUnsent] of [
    [gone, true],
    [cutOff, false],
  ] as const) {
    await assert.rejects(peers().act(peer, "an order", request), (error) => {
      assert.ok(error instanceof PeerError);
      assert.equal(error.isUnsent, isUnsent, error.message);
      return true;
    });
  }
});
