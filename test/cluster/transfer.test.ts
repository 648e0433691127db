/** Orders that change hands: by hand, by requests of nodes, and beside a restart; and who may ask for it. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { assertProblem } from "../support/checks.ts";
import { type Answer, send } from "../support/client.ts";
import { waitFor } from "../support/wait.ts";
import { changesOfOwner, confirmedDeaths, entriesOf } from "./cluster-checker.ts";
import { ClusterRig, type RigNode } from "./cluster-rig.ts";
import { askAsNode, askWithProof, proofBetween } from "./node-proof.ts";

/** Where nobody is to be taken for dead, however busy the machine is. */
const LONG_TTL_MS = 15_000;

/** Each claim is held back as long, so that several are under way at once. */
const CLAIM_MS = 300;

test("two nodes that are told at once to take over a dead node's orders, while the leader does, take each order once", async (t) => {
  const slow = { claimMs: CLAIM_MS };
  const rig = await ClusterRig.start(t, { nodes: [slow, slow, slow], answerMs: 0 });
  const [victim, other] = await rig.workers();
  const leader = await rig.settled();
  assert.ok(other !== undefined);
  rig.receiver.hold();
  const orderIds = await Promise.all(Array.from({ length: 60 }, () => rig.submit(victim)));
  const dead = rig.incarnationOf(victim);
  await rig.kill(victim);
  const answers = await Promise.all([leader, other].map((node) => transferWhenDead(node, victim.serviceId)));
  for (const answer of answers) {
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.json?.["transferred_service_id"], victim.serviceId);
  }
  await rig.ownsNothing(dead);
  const { evidence } = await rig.expectSound();
  assert.equal(changesOfOwner(evidence.stored, dead), orderIds.length, "each has changed hands once");
  const byHand = answers.map(({ json }) => Number(json?.["orders_transferred"]));
  assert.ok(byHand.reduce((sum, orders) => sum + orders, 0) <= orderIds.length);
  const takers = entriesOf(evidence.record, "claim").filter(({ orderIds: taken }) => taken.length > 0);
  assert.ok(takers.length > 0);
  t.diagnostic(`taken by hand: ${byHand.join(" and ")}; claims: ${entriesOf(evidence.record, "claim").length}`);
});

test("a node that is started again while its orders are transferred takes what is left, and none twice", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}], answerMs: 0 });
  // The leader takes its share at once; the other one takes so long that the restart comes first.
  await rig.addNode({ claimMs: 10 * CLAIM_MS });
  const victim = await rig.addNode();
  await rig.settled();
  rig.receiver.hold();
  const orderIds = await Promise.all(Array.from({ length: 60 }, () => rig.submit(victim)));
  const dead = rig.incarnationOf(victim);
  await rig.kill(victim);
  await waitFor(() => entriesOf(rig.record(), "claim").length > 0, { what: "the leader takes its share" });
  const again = await rig.addNode({ data: victim.data });
  assert.equal(again.serviceId, victim.serviceId);
  await rig.ownsNothing(dead);
  await rig.settled();
  const { evidence } = await rig.expectSound();
  assert.equal(changesOfOwner(evidence.stored, dead), orderIds.length, "each has changed hands once");
  const shares = Map.groupBy(evidence.stored, ({ owner }) => owner).values();
  t.diagnostic(`orders by their last owner: ${[...shares].map((rows) => rows.length).join(", ")}`);
});

test("a node that is started again at once goes on with its own orders, and nobody has to find out that it was gone", async (t) => {
  // The others may take a node for dead after 3/10 of the TTL: a start must be over by then, on a slow machine, too.
  const rig = await ClusterRig.start(t, { ttlMs: 60_000, answerMs: 0 });
  const [worker] = await rig.workers();
  rig.receiver.hold();
  const orderIds = await Promise.all(Array.from({ length: 20 }, () => rig.submit(worker)));
  const former = rig.incarnationOf(worker);
  await rig.kill(worker);
  const again = await rig.addNode({ data: worker.data });
  await rig.ownsNothing(former);
  await rig.settled();
  const { evidence } = await rig.expectSound();
  assert.deepEqual(confirmedDeaths(evidence.record), []);
  const owners = new Set(evidence.stored.map(({ owner }) => owner));
  assert.deepEqual(owners, new Set([rig.incarnationOf(again)]));
  assert.match(again.output(), new RegExp(`Orders of a former start taken over: ${orderIds.length}`));
});

test("the orders of a living node are not transferred, and those of an unknown one can't be", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}], ttlMs: LONG_TTL_MS, answerMs: 0 });
  const [one, other] = rig.nodes;
  assert.ok(one !== undefined && other !== undefined);
  rig.receiver.hold();
  await rig.submit(other);
  assertProblem(await askToTransfer(one, { service_id: other.serviceId }), 409, "service_alive");
  assertProblem(await askToTransfer(one, { service_id: one.serviceId }), 409, "service_alive");
  assertProblem(await askToTransfer(one, { service_id: randomUUID() }), 404, "service_not_found");
  // What only nodes say: the store itself has the last word.
  const body = JSON.stringify({ service_id: other.serviceId, incarnation: rig.incarnationOf(other) });
  const proven = await askAsNode(rig, other, one, "/service/transfer", body);
  assert.equal(proven.status, 200, proven.text);
  assert.equal(proven.json?.["orders_transferred"], 0);
  await rig.expectSound();
});

test("what nodes ask of each other is refused without a proof that was made for this request and this node", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}], ttlMs: LONG_TTL_MS, answerMs: 0 });
  const [one, other] = rig.nodes;
  assert.ok(one !== undefined && other !== undefined);
  rig.receiver.hold();
  const orderId = await rig.submit(other);
  const own = rig.incarnationOf(one);
  const requests = [
    { path: "/cluster/orders", body: JSON.stringify({ order_ids: [orderId] }) },
    {
      path: "/service/transfer",
      body: JSON.stringify({ service_id: other.serviceId, incarnation: rig.incarnationOf(other) }),
    },
  ];
  for (const { path, body } of requests) {
    const proof = (made: Partial<Parameters<typeof proofBetween>[3]>): Promise<string> =>
      proofBetween(rig, other, one, { path, body, ...made });
    const good = await proof({});
    const [sender, target, counter, signature = ""] = good.split(" ");
    const refused: Readonly<Record<string, string | null>> = {
      "none at all": null,
      "an empty one": "",
      "one without a signature": [sender, target, counter].join(" "),
      "one that is made up": [sender, target, counter, "A".repeat(43)].join(" "),
      "one by another secret": await proof({ secret: "another" }),
      "one for another method": await proof({ method: "GET" }),
      "one for another path": await proof({ path: "/orders" }),
      "one for the path with a query": await proof({ path: `${path}?a=b` }),
      "one for another body": await proof({ body: body.replace("{", "{ ") }),
      "one for another node": await proof({ target: rig.incarnationOf(other) }),
      "one for another node, said to be for this one": (await proof({ target: 99 })).replace(" 99 ", ` ${own} `),
      "one of another sender": [Number(sender) + 1, target, counter, signature].join(" "),
      "one of the node itself": await proof({ sender: own }),
      "one with another counter": [sender, target, Number(counter) + 1, signature].join(" "),
      "one with counter 0": await proof({ counter: 0 }),
      "one with a counter that is no safe integer": await proof({ counter: 2 ** 53 }),
      "one with a counter that is written otherwise": [sender, target, `0${counter}`, signature].join(" "),
      "one with more behind it": `${good}x`,
      "one twice": `${good}, ${good}`,
    };
    for (const [what, text] of Object.entries(refused)) {
      const answer = await askWithProof(one, path, body, text);
      assert.equal(answer.status, 403, `${path} with ${what}: ${answer.text}`);
      assertProblem(answer, 403, "membership_unproven");
    }
    const taken = await askWithProof(one, path, body, good);
    assert.ok(taken.status === 200 || taken.status === 202, `${path}: ${taken.text}`);
  }
  // Being told of an order that is another's changes nothing.
  assert.equal(await rig.backend.countOpen(rig.incarnationOf(other)), 1);
  await rig.expectSound();
});

test("a proof that was made for a node's former incarnation is no proof for the one that follows", async (t) => {
  const rig = await ClusterRig.start(t, { nodes: [{}, {}], ttlMs: LONG_TTL_MS, answerMs: 0 });
  const [one, other] = rig.nodes;
  assert.ok(one !== undefined && other !== undefined);
  const [path, body] = ["/cluster/orders", JSON.stringify({ order_ids: [] })];
  assert.equal((await askAsNode(rig, other, one, path, body)).status, 202);
  const proof = await proofBetween(rig, other, one, { path, body });
  await rig.kill(one);
  const again = await rig.addNode({ data: one.data });
  assertProblem(await askWithProof(again, path, body, proof), 403, "membership_unproven");
});

/** Asks by hand, again and again while the node is not known to be dead. */
function transferWhenDead(node: RigNode, serviceId: string): Promise<Answer> {
  return waitFor(
    async () => {
      const answer = await askToTransfer(node, { service_id: serviceId });
      return answer.status === 409 ? undefined : answer;
    },
    { what: `${serviceId} is dead` },
  );
}

function askToTransfer({ url }: RigNode, body: object): Promise<Answer> {
  return send(`${url}/service/transfer`, {
    method: "POST",
    headers: { authorization: "operator", "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}
