/** Requests between nodes, with somebody on the way who hears them, says them again and changes what is answered. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { ANSWER_PROOF_HEADER, parseProof, PROOF_HEADER, signAnswer } from "../../src/cluster/proof.ts";
import { assertProblem } from "../support/checks.ts";
import { type Answer, send } from "../support/client.ts";
import { waitFor } from "../support/wait.ts";
import { ClusterRig, type RigNode } from "./cluster-rig.ts";
import { askAsNode, askWithProof, nextCounter, proofBetween } from "./node-proof.ts";
import { type Exchange, sendRaw, type WireAnswer, Wiretap } from "./wiretap.ts";

const ACTIONS = "/cluster/actions";

/** Two nodes: what the first asks of the second goes through the wiretap. */
interface Tapped {
  readonly rig: ClusterRig;
  readonly asking: RigNode;
  readonly asked: RigNode;
  readonly tap: Wiretap;
}

test("a request between nodes that was heard on the way does nothing when it is sent again, to whomever and however changed", async (t) => {
  const { rig, asking, asked, tap } = await startTapped(t);
  const orderId = await rig.submit(asked);
  assert.equal((await act(asking, orderId, "pause")).status, 200);
  const heard = tap.last(ACTIONS);
  assert.equal(heard.answer.status, 200);
  assert.equal((await act(asked, orderId, "resume")).status, 200);
  const other = await rig.submit(asked);
  const proof = parseProof(String(heard.headers[PROOF_HEADER]));
  assert.ok(proof !== null);
  const { sender, target, counter, signature } = proof;
  const withProof = (text: string): Partial<Exchange> => ({ headers: { ...heard.headers, [PROOF_HEADER]: text } });
  const changes: Readonly<Record<string, Partial<Exchange>>> = {
    "as it was": {},
    "with another method": { method: "PUT" },
    "to another path": {
      path: "/cluster/orders",
      body: JSON.stringify({ order_ids: [orderId] }),
      ...lengthFree(heard),
    },
    "to the path with a query": { path: `${ACTIONS}?again` },
    "for another order": { body: heard.body.replace(orderId, other), ...lengthFree(heard) },
    "for another action": { body: heard.body.replace("pause", "resume"), ...lengthFree(heard) },
    "as a person's": { path: "/service/transfer" },
    "with the next counter": withProof([sender, target, counter + 1, signature].join(" ")),
    "with a counter far ahead": withProof([sender, target, counter + 1_000_000, signature].join(" ")),
    "from another node": withProof([sender + 1, target, counter, signature].join(" ")),
    "with what signs its answer": withProof(
      [sender, target, counter, String(heard.answer.headers[ANSWER_PROOF_HEADER])].join(" "),
    ),
  };
  for (const [what, change] of Object.entries(changes)) {
    const { status, body } = await sendRaw(asked.url, { ...heard, ...change });
    assert.ok(status === 403 || (status === 405 && change.method !== undefined), `${what}: ${status} ${body}`);
  }
  const reflected = await sendRaw(asking.url, heard);
  assert.equal(reflected.status, 403, `to who has sent it: ${reflected.body}`);
  const swapped = withProof([target, sender, counter, signature].join(" "));
  assert.equal((await sendRaw(asking.url, { ...heard, ...swapped })).status, 403, "the same, turned round");
  for (const id of [orderId, other]) assert.equal(await pending(asked, id), undefined, "no order is to be paused");
  assert.equal((await act(asking, orderId, "pause")).status, 200, "what the node asks itself is done all the same");
});

test("many requests of one node at once are all let in, and each once", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}], answerMs: 0 });
  const [one, other] = rig.nodes;
  assert.ok(one !== undefined && other !== undefined);
  const [path, body] = ["/cluster/orders", JSON.stringify({ order_ids: [] })];
  const proofs = await Promise.all(Array.from({ length: 200 }, () => proofBetween(rig, other, one, { path, body })));
  const askAll = (): Promise<number[]> =>
    Promise.all(proofs.toReversed().map(async (proof) => (await askWithProof(one, path, body, proof)).status));
  assert.deepEqual(new Set(await askAll()), new Set([202]));
  assert.deepEqual(new Set(await askAll()), new Set([403]));
  const ahead = await proofBetween(rig, other, one, { path, body, counter: nextCounter() + 50_000 });
  assert.equal((await askWithProof(one, path, body, ahead)).status, 202);
  assert.equal((await askAsNode(rig, other, one, path, body)).status, 403, "far behind the highest, though never used");
});

test("a node that is dead is not let in any more, nor is what it has signed before", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}], answerMs: 0, ttlMs: 1_000 });
  const [one, other] = rig.nodes;
  assert.ok(one !== undefined && other !== undefined);
  const [path, body] = ["/cluster/orders", JSON.stringify({ order_ids: [] })];
  const proof = await proofBetween(rig, other, one, { path, body });
  assert.equal((await askWithProof(one, path, body, proof)).status, 202);
  await rig.kill(other);
  const refused = (): Promise<boolean> => askAsNode(rig, other, one, path, body).then(({ status }) => status === 403);
  await waitFor(refused, { what: "the node has seen that the other one is dead" });
  assert.equal((await askWithProof(one, path, body, proof)).status, 403);
  assert.equal((await rig.view(one)).nodes.find(({ name }) => name === other.serviceId)?.connected, false);
});

test("what nodes ask each other is refused where it has not exactly the form of it, proven or not", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}], answerMs: 0 });
  const [one, other] = rig.nodes;
  assert.ok(one !== undefined && other !== undefined);
  rig.receiver.hold();
  const order_id = await rig.submit(one);
  const by = "user";
  const requests: readonly unknown[] = [
    { action: "delete", by },
    { action: "pause" },
    { action: "pause", by: "" },
    { action: "pause", by: 1 },
    { action: "pause", by: "x".repeat(1_025) },
    { action: "pause", by, reason: "none is asked for" },
    { action: "cancel", by },
    { action: "cancel", by, reason: 1 },
    { action: "cancel", by, reason: "x".repeat(1_001) },
    { action: "skip", by, reason: null },
    { action: "complete", by, stepName: "Charge" },
    { action: "complete", by, stepName: "Charge", result: { a: 1 } },
    { action: "complete", by, stepName: "Charge", result: "{" },
    { action: "complete", by, stepName: "Charge", result: "" },
    { action: "complete", by, stepName: "Charge", result: "1],[" },
    { action: "complete", by, stepName: "Charge", result: "[".repeat(101) + "]".repeat(101) },
    { action: "complete", by, stepName: "Charge", result: `"${"x".repeat(64 * 1024)}"` },
    "pause",
    null,
  ];
  const bodies = [
    ...requests.map((request) => ({ order_id, request })),
    { order_id: "none", request: { action: "pause", by } },
    { order_id, request: { action: "pause", by }, more: 1 },
    { request: { action: "pause", by } },
  ].map((body) => JSON.stringify(body));
  for (const body of bodies) {
    const answer = await askAsNode(rig, other, one, ACTIONS, body);
    assert.equal(answer.status, 400, `${body.slice(0, 200)}: ${answer.text}`);
    assert.ok(answer.headers.has(ANSWER_PROOF_HEADER), "the refusal is proven, too");
    const unproven = await askWithProof(one, ACTIONS, body, null);
    assert.equal(unproven.status, 403, "and nobody else hears what is wrong with it");
    assert.ok(!unproven.headers.has(ANSWER_PROOF_HEADER));
  }
  for (const order_ids of [[1], ["x"], [order_id, null], "all", Array.from({ length: 1_001 }, () => order_id)]) {
    const answer = await askAsNode(rig, other, one, "/cluster/orders", JSON.stringify({ order_ids }));
    assert.equal(answer.status, 400, answer.text);
  }
  assert.equal(await pending(one, order_id), undefined);
  rig.receiver.letGo();
  await rig.expectSound();
});

const SECRET_TEXT = "postgres://admin:hunter2@db.internal";
const ESCAPES = "\u001b[31m\u0007\u009b2J\u2028";

test("an answer that is not the asked node's own, or not of the form, counts for nothing, and nothing of it is shown", async (t) => {
  const { rig, asking, asked, tap } = await startTapped(t);
  const orderId = await rig.submit(asked);
  const running = await rig.submit(asked);
  const secret = await rig.backend.readSecret();
  const signed = (exchange: Exchange, status: number, body: string): WireAnswer => {
    const signature = parseProof(String(exchange.headers[PROOF_HEADER]))?.signature ?? "";
    const proof = signAnswer(secret, signature, { status, body });
    return { status, body, headers: { "content-type": "application/json", [ANSWER_PROOF_HEADER]: proof } };
  };
  const json = (value: object): string => JSON.stringify(value);
  const problem = json({ code: SECRET_TEXT, title: ESCAPES, detail: SECRET_TEXT, status: 500 });
  tap.change = null;
  assert.equal((await act(asking, orderId, "pause")).status, 200);
  const former = tap.last(ACTIONS).answer;
  const changes: Readonly<Record<string, (exchange: Exchange) => WireAnswer>> = {
    "made up": () => ({ status: 200, headers: {}, body: json({ kind: "done" }) }),
    "without a proof": ({ answer }) => ({ ...answer, headers: { "content-type": "application/json" } }),
    "with another status": ({ answer }) => ({ ...answer, status: 201 }),
    "with another body": ({ answer }) => ({ ...answer, body: json({ kind: "refused", reason: SECRET_TEXT }) }),
    "of another request": () => former,
    "that repeats the request's proof": ({ answer, headers }) => ({
      ...answer,
      headers: { ...answer.headers, [ANSWER_PROOF_HEADER]: String(headers[PROOF_HEADER]).split(" ")[3] },
    }),
    "too long": (exchange) => signed(exchange, 200, json({ kind: "refused", reason: "x".repeat(1024 * 1024) })),
    "that is no JSON": (exchange) => signed(exchange, 200, `${SECRET_TEXT}${ESCAPES}`),
    "of another form": (exchange) => signed(exchange, 200, json({ kind: "done", reason: SECRET_TEXT })),
    "of an unknown kind": (exchange) => signed(exchange, 200, json({ kind: SECRET_TEXT })),
    "that lacks a part": (exchange) => signed(exchange, 200, json({ kind: "not_now", reason: SECRET_TEXT })),
    "of nothing": (exchange) => signed(exchange, 200, "null"),
    "of a failure": (exchange) => signed(exchange, 500, problem),
    "of a failure, unproven": () => ({ status: 500, headers: { "x-more": SECRET_TEXT }, body: problem }),
    "of a redirection": (exchange) => ({
      ...signed(exchange, 307, "{}"),
      headers: { ...signed(exchange, 307, "{}").headers, location: `http://127.0.0.1:1/${SECRET_TEXT}` },
    }),
  };
  for (const [what, change] of Object.entries(changes)) {
    tap.change = change;
    const asks = tap.exchanges.length;
    // The node itself refuses that.
    const answer = await act(asking, running, "resume");
    assert.equal(tap.exchanges.length, asks + 1, `${what}: the node was asked once`);
    assertProblem(answer, 503, "store_unavailable");
    assert.match(answer.text, /Whether it was done is not known: /, what);
    for (const secretText of [SECRET_TEXT, "hunter2", "\u001b", "\u009b"]) {
      assert.ok(!answer.text.includes(secretText), `${what}: ${answer.text}`);
    }
  }
  tap.change = (exchange) =>
    signed(exchange, 200, json({ kind: "refused", reason: `${ESCAPES}no${"!".repeat(10_000)}` }));
  const refused = await act(asking, running, "resume");
  assertProblem(refused, 409, "action_not_allowed");
  assert.ok(refused.text.length < 2_000, refused.text);
  for (const text of ["\u001b", "\\u001b", "\u2028", "\u009b"]) assert.ok(!refused.text.includes(text), refused.text);
  for (const text of [SECRET_TEXT, "hunter2", "\u001b[31m", "\\u001b"]) {
    assert.ok(!asking.output().includes(text), `${JSON.stringify(text)} is in the log:\n${asking.output()}`);
  }
});

async function startTapped(t: TestContext): Promise<Tapped> {
  const tap = await Wiretap.start(t);
  const rig = await ClusterRig.start(t, { nodes: [{}], answerMs: 0 });
  const [asking] = rig.nodes;
  const asked = await rig.addNode({ args: ["--advertise", tap.address] });
  tap.targetUrl = asked.url;
  await rig.settled();
  rig.receiver.hold();
  assert.ok(asking !== undefined);
  return { rig, asking, asked, tap };
}

function act({ url }: RigNode, orderId: string, action: string, body: object = {}): Promise<Answer> {
  return send(`${url}/orders/${orderId}/${action}`, {
    method: "POST",
    headers: { authorization: "user", "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

/** What is asked of an order and not done yet. */
async function pending({ url }: RigNode, orderId: string): Promise<unknown> {
  const { json } = await send(`${url}/orders/${orderId}`, { headers: { authorization: "user" } });
  assert.equal(json?.["status"], "running", JSON.stringify(json));
  return json["pending_action"];
}

/** The headers without the length of the body that came with them. */
function lengthFree({ headers }: Exchange): Pick<Exchange, "headers"> {
  const { "content-length": _, ...others } = headers;
  return { headers: { ...others, "transfer-encoding": "chunked" } };
}
