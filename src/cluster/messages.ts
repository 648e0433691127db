/**
 * What nodes ask of each other and answer, beside joining. Both sides take it from here: the server has the requests checked by these
 * schemas, and who asked has the answer checked by them; nothing that comes from another node is believed to have a shape.
 *
 * Nodes of one PROTOCOL (join.ts) say exactly this: it grows when anything here changes.
 */
import { Ajv, type ValidateFunction } from "ajv";
import type { FromSchema } from "json-schema-to-ts";
import type { ActionRequest } from "../order/actions.ts";
import { exceedsDepth } from "../order/json-depth.ts";
import { RESULT_CHARS_MAX } from "../order/result.ts";

/** Of any version, in lower case. */
const uuid = { type: "string", pattern: "^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$" } as const;
/** A user's name, as the Authorization header takes it. */
const by = { type: "string", minLength: 1, maxLength: 1_024 } as const;
/** As the bodies of actions take it. */
const REASON_CHARS_MAX = 1_000;

/** What one node asks another to do to an order that is the other's. */
export const ForwardedAction = {
  type: "object",
  additionalProperties: false,
  required: ["order_id", "request"],
  properties: {
    order_id: uuid,
    request: {
      oneOf: [
        {
          type: "object",
          additionalProperties: false,
          required: ["action", "by", "reason"],
          properties: {
            action: { const: "cancel" },
            by,
            reason: { anyOf: [{ type: "string", maxLength: REASON_CHARS_MAX }, { type: "null" }] },
          },
        },
        {
          type: "object",
          additionalProperties: false,
          required: ["action", "by"],
          properties: { action: { enum: ["pause", "resume", "retry"] }, by },
        },
        {
          type: "object",
          additionalProperties: false,
          required: ["action", "by", "reason"],
          properties: {
            action: { const: "skip" },
            by,
            reason: { type: "string", minLength: 1, maxLength: REASON_CHARS_MAX },
          },
        },
        {
          type: "object",
          additionalProperties: false,
          required: ["action", "by", "stepName", "result"],
          properties: {
            action: { const: "complete" },
            by,
            stepName: { type: "string" },
            result: { type: "string", maxLength: RESULT_CHARS_MAX, description: "JSON, as a text." },
          },
        },
      ],
    },
  },
} as const;
export type ForwardedAction = FromSchema<typeof ForwardedAction>;

/** How a forwarded action ended. */
export const ForwardedActionAnswer = {
  oneOf: [
    {
      type: "object",
      additionalProperties: false,
      required: ["kind"],
      properties: { kind: { const: "done" } },
    },
    {
      type: "object",
      additionalProperties: false,
      required: ["kind", "reason"],
      properties: { kind: { const: "refused" }, reason: { type: "string" } },
    },
    {
      type: "object",
      additionalProperties: false,
      required: ["kind", "reason", "mayBeDone"],
      properties: {
        kind: { const: "not_now" },
        reason: { type: "string" },
        mayBeDone: { type: "boolean" },
        pipelineMissing: { const: true },
      },
    },
  ],
} as const;
export type ForwardedActionAnswer = FromSchema<typeof ForwardedActionAnswer>;

/** Orders that one node has given to another. */
export const GivenOrders = {
  type: "object",
  additionalProperties: false,
  required: ["order_ids"],
  properties: {
    order_ids: { type: "array", items: uuid, maxItems: 1_000, description: "Orders that the node asked owns now." },
  },
} as const;
export type GivenOrders = FromSchema<typeof GivenOrders>;

const count = { type: "integer", minimum: 0, maximum: Number.MAX_SAFE_INTEGER } as const;

const GivenOrdersAnswer = {
  type: "object",
  required: ["room"],
  properties: { room: count },
} as const;

const TransferAnswer = {
  type: "object",
  required: ["orders_transferred"],
  properties: { orders_transferred: count },
} as const;

/** Whether a forwarded action brings what JSON schemas can't say: a result that is JSON. */
export function bringsJson(request: ActionRequest): boolean {
  if (request.action !== "complete") return true;
  if (exceedsDepth(request.result)) return false;
  try {
    JSON.parse(request.result);
    return true;
  } catch {
    return false;
  }
}

/** Reads answers of one form. Compiled when it is first needed: it would make each start longer. */
class AnswerParser<Answer> {
  readonly #schema: object;
  #isValid: ValidateFunction<Answer> | null = null;

  constructor(schema: object) {
    this.#schema = schema;
  }

  /** @returns null: it has another form */
  parse(answer: unknown): Answer | null {
    this.#isValid ??= new Ajv().compile<Answer>(this.#schema);
    return this.#isValid(answer) ? answer : null;
  }
}

const actionAnswers = new AnswerParser<ForwardedActionAnswer>(ForwardedActionAnswer);
const givenOrdersAnswers = new AnswerParser<FromSchema<typeof GivenOrdersAnswer>>(GivenOrdersAnswer);
const transferAnswers = new AnswerParser<FromSchema<typeof TransferAnswer>>(TransferAnswer);

/** How a forwarded action ended; null: the answer does not say it. */
export function parseActionAnswer(answer: unknown): ForwardedActionAnswer | null {
  return actionAnswers.parse(answer);
}

/** How many more orders the node takes; null: the answer does not say it. */
export function parseRoom(answer: unknown): number | null {
  return givenOrdersAnswers.parse(answer)?.room ?? null;
}

/** How many orders the node took over; null: the answer does not say it. */
export function parseOrdersTransferred(answer: unknown): number | null {
  return transferAnswers.parse(answer)?.orders_transferred ?? null;
}
