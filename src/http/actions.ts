/** `/orders/{order_id}/<action>`: what people do to an order. Which action each state allows is order/actions.ts's. */
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { ActOutcome } from "../cluster/cluster.ts";
import type { SubmitOutcome, Submission } from "../engine/engine.ts";
import {
  type Action,
  type ActionRequest,
  ACTIONS,
  isDoneAlready,
  refusalOf,
  type RetryFrom,
  stepsToCarry,
  stepsToUndo,
} from "../order/actions.ts";
import { CatalogueError } from "../order/errors.ts";
import type { Incarnation } from "../order/events.ts";
import { replay } from "../order/evolve.ts";
import { isFinal } from "../order/status.ts";
import type { BodyCheckOptions, JsonObject, Pipeline } from "../order/pipeline.ts";
import type { PipelineSet } from "../order/pipeline-set.ts";
import { encodeResult } from "../order/result.ts";
import { type StoredOrder, StoreUnavailableError } from "../store/store.ts";
import { USER_SECURITY } from "./authorization.ts";
import { ACTION_BODY_BYTES_MAX } from "./cluster.ts";
import { acceptedText, type ReadVisible, submitRefusal } from "./orders.ts";
import { ActionBodies, named, problemResponses } from "./schemas.ts";
import type { ShownOrders } from "./shown-orders.ts";
import type { ReadGate } from "./store-reads.ts";

export interface ActionsResource {
  readonly pipelines: PipelineSet;
  readonly submit: (submission: Submission) => Promise<SubmitOutcome>;
  /** Whether the user may decide about an order that was set aside: operators may, and where none are named, whose order it is. */
  readonly mayDecide: (user: string) => boolean;
  readonly readBody: (orderId: string) => Promise<string | null>;
  /** Does what is asked, on whichever node owns the order. */
  readonly act: (
    orderId: string,
    request: ActionRequest,
    owner: () => Promise<Incarnation | null>,
  ) => Promise<ActOutcome>;
}

/** What comes with an action, after its schema has been checked. */
interface ActionBody {
  readonly reason?: string;
  readonly dry_run?: boolean;
  readonly from?: RetryFrom;
  readonly step?: string;
  readonly result?: unknown;
}

type ActionCall = FastifyRequest<{ Params: { order_id: string }; Body: ActionBody }>;

export function actionsRoutes(
  app: FastifyInstance,
  resource: ActionsResource & ReadGate,
  readVisible: ReadVisible,
  shown: ShownOrders,
): void {
  for (const action of Object.keys(ACTIONS) as Action[]) actionRoute(app, action, resource, readVisible, shown);
}

function actionRoute(
  app: FastifyInstance,
  action: Action,
  resource: ActionsResource & ReadGate,
  readVisible: ReadVisible,
  shown: ShownOrders,
): void {
  app.route<{ Params: { order_id: string }; Body: ActionBody }>({
    method: "POST",
    url: `/orders/:order_id/${action}`,
    bodyLimit: ACTION_BODY_BYTES_MAX,
    config: { emptyBody: true },
    schema: {
      operationId: `${action}Order`,
      summary: ACTIONS[action],
      security: USER_SECURITY,
      params: { type: "object", required: ["order_id"], properties: { order_id: { type: "string" } } },
      // What is meant for the body must not be swallowed here: a dry run would be none.
      querystring: { type: "object", additionalProperties: false, properties: {} },
      body: ActionBodies[action],
      response: {
        200:
          action === "cancel"
            ? {
                description:
                  "The order after that, or what it would roll back. What was done before is not done again.",
                anyOf: [{ $ref: "Order#" }, { $ref: "DryRun#" }],
              }
            : named("Order", "The order after that. What was done before is not done again."),
        ...(action === "retry" ? { 201: named("Order", "The new order that was made from the failed one.") } : {}),
        ...problemResponses(
          "body_not_json",
          "body_not_object",
          "body_too_deep",
          "body_key_refused",
          "request_invalid",
          "authorization_required",
          "order_not_found",
          "action_not_allowed",
          "body_too_large",
          "body_refused",
          "media_type_unsupported",
          "headers_too_large",
          "too_many_reads",
          "too_many_in_flight",
          "store_unavailable",
          "pipeline_not_loaded",
          "shutting_down",
        ),
      },
    },
    onRequest: resource.findReader,
    handler: async (request, reply) => {
      const stored = await readVisible(request, request.params.order_id);
      if (stored.status === "set_aside" && !resource.mayDecide(request.user)) {
        throw new CatalogueError(
          "action_not_allowed",
          "The order is set aside, and only an operator can decide about it.",
        );
      }
      if (request.body.dry_run === true) return dryRun(stored, await shown.pipelineOf(stored));
      if (action === "retry" && isFinal(stored.status)) {
        const made = await retryAsNew(
          stored,
          request,
          { ...resource, bodyBytesMax: app.initialConfig.bodyLimit ?? 0 },
          readVisible,
        );
        return reply
          .code(201)
          .header("location", `/orders/${made.orderId}`)
          .send(await shown.view(made));
      }
      const outcome = await resource.act(stored.orderId, requestOf(action, request), async () => {
        const now = await readVisible(request, stored.orderId);
        return isFinal(now.status) ? null : now.owner;
      });
      const after = await readVisible(request, stored.orderId);
      if (!wasDoneBefore(outcome, requestOf(action, request), after)) requireDone(outcome, action, after);
      return shown.view(after);
    },
  });
}

/** Whether an order that is final by now was asked the same before: whoever asks may not have heard the answer. */
function wasDoneBefore(outcome: ActOutcome, request: ActionRequest, after: StoredOrder): boolean {
  if (outcome.kind !== "refused" || !isFinal(after.status)) return false;
  return isDoneAlready(replay(after.orderId, after.history), request);
}

/** @throws CatalogueError action_not_allowed, pipeline_not_loaded, store_unavailable */
function requireDone(outcome: ActOutcome, action: Action, after: StoredOrder): void {
  if (outcome.kind === "done") return;
  if (outcome.kind === "refused") {
    const reason = isFinal(after.status) ? `the order is ${after.status}` : outcome.reason;
    throw new CatalogueError("action_not_allowed", `The order does not allow ${action} now: ${reason}.`);
  }
  if (outcome.pipelineMissing === true) {
    throw new CatalogueError("pipeline_not_loaded", `It was not done: ${outcome.reason}. Start a node that has it.`);
  }
  throw new CatalogueError(
    "store_unavailable",
    outcome.mayBeDone
      ? `Whether it was done is not known: ${outcome.reason}. Look at the order, and ask again.`
      : `It was not done: ${outcome.reason}. Ask again.`,
  );
}

/** @throws CatalogueError request_invalid */
function requestOf(action: Action, { user: by, body }: ActionCall): ActionRequest {
  switch (action) {
    case "cancel":
      return { action, by, reason: body.reason ?? null };
    case "skip":
      return { action, by, reason: body.reason ?? "" };
    case "complete": {
      const encoded = encodeResult(body.result ?? null, 0);
      if (!encoded.ok)
        throw new CatalogueError(
          "request_invalid",
          `The result can't be kept: it ${encoded.error.replace("returned", "has")}.`,
        );
      return { action, by, stepName: body.step ?? "", result: encoded.text ?? "null" };
    }
    default:
      return { action, by };
  }
}

function dryRun(stored: StoredOrder, pipeline: Pipeline | null): { order_id: string; would_roll_back: string[] } {
  if (pipeline === null) throw pipelineNotLoaded();
  const order = replay(stored.orderId, stored.history);
  const reason = refusalOf(order, pipeline, "cancel");
  if (reason !== null)
    throw new CatalogueError("action_not_allowed", `The order does not allow cancel now: ${reason}.`);
  return { order_id: stored.orderId, would_roll_back: stepsToUndo(order, pipeline) };
}

function pipelineNotLoaded(): CatalogueError {
  return new CatalogueError(
    "pipeline_not_loaded",
    "This node does not have the order's pipeline: ask one that has it, or start one with it.",
  );
}

/** Begins the key of a retry, so that one asked twice makes one order. No header can carry such a key. */
const RETRY_KEY = "\u0000retry";

/**
 * Makes a failed or canceled order again, as a new one.
 * @throws CatalogueError action_not_allowed, body_refused, body_too_large, too_many_in_flight, store_unavailable, shutting_down
 */
async function retryAsNew(
  stored: StoredOrder,
  request: ActionCall,
  { pipelines, submit, readBody, bodyBytesMax }: ActionsResource & { readonly bodyBytesMax: number },
  readVisible: ReadVisible,
): Promise<StoredOrder> {
  const { orderId, user } = stored;
  const from = request.body.from ?? "start";
  const choice = pipelines.choose(stored.pipelineName);
  if (choice.kind !== "chosen") throw pipelineNotLoaded();
  const { pipeline } = choice;
  const found = stepsToCarry(replay(orderId, stored.history), pipeline, from);
  if (found.kind === "refused") {
    throw new CatalogueError("action_not_allowed", `The order does not allow retry now: ${found.reason}.`);
  }
  const body = await readBody(orderId);
  if (body === null) throw new StoreUnavailableError(`the body of order ${orderId} is gone`);
  const isSameVersion = pipeline.version === stored.pipelineVersion;
  const outcome = await submit({
    user,
    body: isSameVersion ? body : await bodyForVersion(body, pipeline, { user, bytesMax: bodyBytesMax }),
    idempotencyKey: `${RETRY_KEY} ${orderId} ${from}`,
    pipeline,
    options: { retry: { orderId, by: request.user, carried: found.steps } },
  });
  if (outcome.kind !== "accepted") throw submitRefusal(outcome);
  return readVisible(request, outcome.orderId);
}

/**
 * A newer version of a pipeline may want another body. What its own version's schema has made of a body, that schema does not get again: it
 * may make something else of it each time.
 * @throws CatalogueError body_refused, body_too_large
 */
async function bodyForVersion(text: string, { checkBody }: Pipeline, options: BodyCheckOptions): Promise<string> {
  if (checkBody === null) return text;
  const body = JSON.parse(text) as JsonObject;
  return acceptedText(await checkBody(body, options), { body, text, bytesMax: options.bytesMax });
}
