/** Orders as people see them, also those whose pipeline this node lacks: what is on record of its steps says what such an order allows. */
import { ACTIONS_WITHOUT_PIPELINE } from "../order/actions.ts";
import { type Pipeline, pipelineLabel, pipelineOfShape } from "../order/pipeline.ts";
import type { PipelineSet } from "../order/pipeline-set.ts";
import { isFinal } from "../order/status.ts";
import type { StoredOrder } from "../store/store.ts";
import { orderView } from "./order-view.ts";
import type { OrderView } from "./schemas.ts";

export interface ShownOrdersResource {
  readonly pipelines: PipelineSet;
  /** The pipelines that live nodes have, as pipelineLabel names them. */
  readonly livePipelines: () => ReadonlySet<string>;
  /** What the cluster remembers of the steps of a pipeline (pipelineShape), or null. */
  readonly recordedShape: (name: string, version: number) => Promise<string | null>;
}

export interface ShownOrders {
  /** The order's pipeline. Where this node lacks it, one of which nothing can be called; null: nothing is on record of it. */
  readonly pipelineOf: (stored: StoredOrder) => Promise<Pipeline | null>;
  readonly view: (stored: StoredOrder) => Promise<OrderView>;
}

export function shownOrders({ pipelines, livePipelines, recordedShape }: ShownOrdersResource): ShownOrders {
  const pipelineOf = async ({
    pipelineName: name,
    pipelineVersion: version,
  }: StoredOrder): Promise<Pipeline | null> => {
    const own = pipelines.find(name, version);
    if (own !== null) return own;
    const shape = await recordedShape(name, version);
    return shape === null ? null : pipelineOfShape(name, version, shape);
  };
  return {
    pipelineOf,
    view: async (stored) => {
      const { status, pipelineName: name, pipelineVersion: version } = stored;
      const view = orderView(stored, await pipelineOf(stored));
      const label = pipelineLabel({ name, version });
      // A new order is made from one that has ended, in this node's newest version.
      if (isFinal(status)) return pipelines.choose(name).kind === "chosen" ? view : { ...view, allowed_actions: [] };
      if (pipelines.find(name, version) !== null || livePipelines().has(label)) return view;
      return {
        ...view,
        waiting_for: `a node that has the pipeline ${label}`,
        allowed_actions: view.allowed_actions.filter((action) => ACTIONS_WITHOUT_PIPELINE.includes(action)),
      };
    },
  };
}
