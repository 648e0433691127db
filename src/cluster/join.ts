/** `--join`: asks a node where its cluster's store is, and makes sure that this node can be part of it. */
import { Ajv } from "ajv";
import type { FromSchema } from "json-schema-to-ts";
import { StartError } from "../order/errors.ts";
import { type Clock, pause } from "../runtime/clock.ts";
import { postJson } from "./post-json.ts";

/** What a node says of its cluster to one that wants to join. Nothing of it is secret: credentials never travel (cluster rule 9). */
export const JoinAnswer = {
  type: "object",
  required: ["cluster_id", "service_id", "leader_name", "version", "protocol", "store", "host"],
  properties: {
    cluster_id: { type: "string" },
    service_id: { type: "string" },
    leader_name: { type: "string" },
    version: { type: "string" },
    // What nodes say to each other; nodes of another number can't be in one cluster.
    protocol: { type: "number" },
    // Where the store is, as `--store` takes it, without credentials.
    store: { type: "string" },
    // The boot of the host that the node runs on: who shares an embedded store must run there, too. Null: it can't be told.
    host: { anyOf: [{ type: "string" }, { type: "null" }] },
  },
} as const;
export type JoinAnswer = FromSchema<typeof JoinAnswer>;

/** Grows when nodes of the former number can't work beside nodes of the new one. */
export const PROTOCOL = 2;

export interface JoinRequest {
  /** `host:port` of any node of the cluster. */
  readonly address: string;
  readonly serviceId: string;
  readonly version: string;
  /** How long to try: the two may be started together. */
  readonly patienceMs: number;
  readonly clock: Clock;
}

const TRY_AGAIN_MS = 200;
const ANSWER_MS = 2_000;

/**
 * Asks a node of the cluster. A node that is about to end may hang up, so who hangs up may be one, and is asked again.
 * @returns null when no node answers there in time
 * @throws StartError with one line when who answers is no node, or one of a version that can't be joined
 */
export async function askToJoin({
  address,
  serviceId,
  version,
  patienceMs,
  clock,
}: JoinRequest): Promise<JoinAnswer | null> {
  const isJoinAnswer = new Ajv().compile<JoinAnswer>(JoinAnswer);
  const endMs = clock.monotonic() + patienceMs;
  const body = JSON.stringify({ service_id: serviceId, version, protocol: PROTOCOL });
  for (;;) {
    const said = await postJson(new URL(`http://${address}/cluster/join`), body, { timeoutMs: ANSWER_MS, clock }).catch(
      (error: unknown) => {
        if (!speaksNoHttp(error)) return null;
        throw new StartError(`can't join ${address}: what answers there is no order_process; check the address`);
      },
    );
    if (said === null || said.status === 503) {
      if (clock.monotonic() >= endMs) return null;
      await pause(clock, TRY_AGAIN_MS);
      continue;
    }
    const { status, answer } = said;
    if (status !== 200 || !isJoinAnswer(answer)) {
      const why = detailOf(answer) ?? `it answered ${status}, and is perhaps no order_process`;
      throw new StartError(`can't join ${address}: ${why}; check the address that --join names`);
    }
    if (answer.protocol !== PROTOCOL) {
      throw new StartError(
        `can't join ${address}: its version ${answer.version} (protocol ${answer.protocol}) and this one, ${version} (protocol ${PROTOCOL}), can't work in one cluster; run the same version`,
      );
    }
    return answer;
  }
}

/** Node's parser could not read the answer. */
function speaksNoHttp(error: unknown): boolean {
  return error instanceof Error && "code" in error && String(error.code).startsWith("HPE_");
}

function detailOf(answer: unknown): string | null {
  if (typeof answer !== "object" || answer === null || !("detail" in answer)) return null;
  return typeof answer.detail === "string" ? answer.detail : null;
}
