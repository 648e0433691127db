/**
 * Cancels an order whose pipeline this node lacks, or skips its rollback. What the pipeline's steps are, and which of them roll back and
 * commit, is on record in the store (pipelineShape), and that is enough to decide these two; nothing is called.
 */
import { ACTIONS_WITHOUT_PIPELINE, type ActionRequest, decideAction } from "../order/actions.ts";
import { decideStepCanceled } from "../order/decide.ts";
import { evolve, replay } from "../order/evolve.ts";
import { listedStatus } from "../order/order.ts";
import { pipelineOfShape } from "../order/pipeline.ts";
import type { Clock } from "../runtime/clock.ts";
import type { OwnedOrder, Store } from "../store/store.ts";
import type { GroupCommit } from "./group-commit.ts";
import type { ActionOutcome } from "./order-run.ts";

export interface StrandedSteering {
  readonly store: Store;
  readonly clock: Clock;
  readonly groupCommit: GroupCommit;
}

/**
 * Does what is asked of an order of this incarnation; resolves when it is durable, or refused.
 * @throws StoreUnavailableError when the shape can't be read; then nothing was done
 */
export async function steerStranded(
  { store, clock, groupCommit }: StrandedSteering,
  { orderId, history, owner, revision, user, pipelineName: name, pipelineVersion: version }: OwnedOrder,
  request: ActionRequest,
): Promise<ActionOutcome | { readonly kind: "pipeline_missing" }> {
  const shape = await store.cluster.recordedShape(name, version);
  if (shape === null) return { kind: "pipeline_missing" };
  const order = replay(orderId, history);
  const pipeline = pipelineOfShape(name, version, shape);
  // Its former owner was asked, and is gone, and with it the call that the cancellation waited for.
  const isAsked = request.action === "cancel" && order.asked === "cancel";
  const decision = isAsked
    ? ({ kind: "event", event: decideStepCanceled(order, pipeline, null) } as const)
    : decideAction(order, pipeline, request, { atMs: clock.now(), callUnderWay: false });
  if (decision.kind !== "event") return decision.kind === "refused" ? decision : { kind: "done" };
  if (!ACTIONS_WITHOUT_PIPELINE.includes(request.action)) return { kind: "pipeline_missing" };
  const { event } = decision;
  const [formerStatus, status] = [listedStatus(order), listedStatus(evolve(order, event))];
  return new Promise((resolve) => {
    groupCommit.advance(
      {
        kind: "advance",
        orderId,
        owner,
        expectedRevision: revision,
        event,
        newStatus: status === formerStatus ? null : status,
        formerStatus,
        user,
      },
      { settled: (outcome) => resolve({ kind: outcome.kind === "applied" ? "done" : "unknown" }) },
    );
  });
}
