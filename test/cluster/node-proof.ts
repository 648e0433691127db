/** Requests as nodes make them, signed with the cluster's secret: by a test that knows it, as a node does. */
import { PROOF_HEADER, proofFor, type ProvenRequest } from "../../src/cluster/proof.ts";
import { type Answer, send } from "../support/client.ts";
import type { ClusterRig, RigNode } from "./cluster-rig.ts";

/** Above what a node has used up in a short test, and so close that it can go on counting. */
let counter = 1_000;

/** A counter that nobody has used. */
export function nextCounter(): number {
  return ++counter;
}

/** The proof of a request from one node to another; what is given replaces what would be right. */
export async function proofBetween(
  rig: ClusterRig,
  sender: RigNode,
  target: RigNode,
  request: Partial<ProvenRequest> & Pick<ProvenRequest, "path" | "body"> & { readonly secret?: string },
): Promise<string> {
  const { secret = await rig.backend.readSecret(), ...more } = request;
  const [from, to] = [rig.incarnationOf(sender), rig.incarnationOf(target)];
  return proofFor(secret, { method: "POST", sender: from, target: to, counter: nextCounter(), ...more });
}

/** Asks with whatever proof; null: with none. */
export function askWithProof(
  { url }: { readonly url: string },
  path: string,
  body: string,
  proof: string | null,
): Promise<Answer> {
  return send(`${url}${path}`, {
    method: "POST",
    headers: {
      authorization: "cluster",
      "content-type": "application/json",
      ...(proof === null ? {} : { [PROOF_HEADER]: proof }),
    },
    body,
  });
}

/** Asks a node as another one would. */
export async function askAsNode(
  rig: ClusterRig,
  sender: RigNode,
  target: RigNode,
  path: string,
  body: string,
): Promise<Answer> {
  return askWithProof(target, path, body, await proofBetween(rig, sender, target, { path, body }));
}
