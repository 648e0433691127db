/** `--join`: asks a node what its cluster is, and where its store, and makes sure that this node can be part of it. */
import { createHmac } from "node:crypto";
import { Ajv } from "ajv";
import type { FromSchema } from "json-schema-to-ts";
import { StartError } from "../order/errors.ts";
import { bootIdentity } from "../process-identity.ts";
import { type Clock, pause } from "../runtime/clock.ts";
import { showStoreLocation, type StoreLocation } from "../store/store-location.ts";
import { postJson } from "./post-json.ts";
import { showSaid } from "./said.ts";

/** On one line, and nothing in it moves a cursor: it comes from whoever answers at an address. */
const line = (charsMax: number) =>
  ({ type: "string", maxLength: charsMax, pattern: "^[^\\p{Cc}\\p{Cf}\\p{Zl}\\p{Zp}]*$" }) as const;

/**
 * What a node says of its cluster to one that wants to join. Credentials never travel (cluster rule 9). Only callers on the same host are
 * told where the store is, or all callers if the operator says so (`--share-store`).
 */
export const JoinAnswer = {
  type: "object",
  required: ["cluster_id", "service_id", "leader_name", "version", "protocol", "store", "host"],
  properties: {
    cluster_id: line(100),
    service_id: line(100),
    leader_name: line(100),
    version: line(100),
    // What nodes say to each other; nodes of another number can't be in one cluster.
    protocol: { type: "number" },
    // Where the store is, as `--store` takes it, without credentials. Null: the caller is not told.
    store: { anyOf: [line(4_096), { type: "null" }] },
    // Whether the store is an embedded one: who shares it must run on the same host.
    embedded: { type: "boolean" },
    // Proves the boot of the host that the node runs on to one that knows it (hostProof). Null: the caller is not told, or it can't be.
    host: { anyOf: [line(100), { type: "null" }] },
  },
} as const;
export type JoinAnswer = FromSchema<typeof JoinAnswer>;

/** Who asks to join. */
export interface JoinCaller {
  /** It runs on this host, as far as can be seen. */
  readonly isLoopback: boolean;
  /** What it has made up for this request; null: nothing. */
  readonly nonce: string | null;
}

/** What a caller is told of the store, as parts of the answer. */
export function storeFor(
  { isLoopback, nonce }: JoinCaller,
  { location, isShared }: { readonly location: StoreLocation; readonly isShared: boolean },
): Pick<JoinAnswer, "store" | "embedded" | "host"> {
  const embedded = location.kind === "sqlite";
  const isTold = isLoopback || (isShared && !embedded);
  return {
    store: isTold ? showStoreLocation(location) : null,
    embedded,
    host: isLoopback && nonce !== null ? hostProof(nonce) : null,
  };
}

/** Proves that this process runs in this boot of this host, without saying which it is; null: the host doesn't tell. */
export function hostProof(nonce: string): string | null {
  const boot = bootIdentity();
  if (boot === null) return null;
  return createHmac("sha256", boot)
    .update(JSON.stringify(["order-process host", nonce]))
    .digest("base64url");
}

/** Grows when nodes of the former number can't work beside nodes of the new one. */
export const PROTOCOL = 2;

export interface JoinRequest {
  /** `host:port` of any node of the cluster. */
  readonly address: string;
  readonly serviceId: string;
  readonly version: string;
  /** Made up for this request. */
  readonly nonce: string;
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
  nonce,
  patienceMs,
  clock,
}: JoinRequest): Promise<JoinAnswer | null> {
  const isJoinAnswer = new Ajv().compile<JoinAnswer>(JoinAnswer);
  const endMs = clock.monotonic() + patienceMs;
  const body = JSON.stringify({ service_id: serviceId, version, protocol: PROTOCOL, nonce });
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
  return typeof answer.detail === "string" ? showSaid(answer.detail) : null;
}
