/**
 * A step's run, rollback or verification that is one HTTP call, as YAML describes it.
 *
 * 1. The host that is called is the file's author's choice, never the order's.
 * 2. What comes back is bounded: in size here, in time by the step's timeout. Redirects are not followed.
 * 3. Whether the receiver may have done something is told apart from whether it answered (`uncertain`).
 * 4. What the environment holds goes to the receiver and nowhere else: messages show the file's words and ours, and what a receiver
 *    says is redacted.
 */
import { exceedsDepth, JSON_DEPTH_MAX } from "../order/json-depth.ts";
import { type MeteredCall, requestCharsMax, type RollbackContext, type StepContext } from "../order/pipeline.ts";
import { RESULT_CHARS_MAX } from "../order/result.ts";
import { permanent, StepError } from "../order/step-error.ts";
import { BudgetError, withinBudget } from "./budget.ts";
import { breakReason, connectionFailure } from "./connection-failure.ts";
import { makeRequest, NoAnswerError } from "./http-request.ts";
import { type Secrets, secretsOf } from "./secrets.ts";
import {
  fillText,
  parseTemplate,
  parseText,
  type TemplateScope,
  TemplateError,
  type TemplateValues,
  variablesOf,
  within,
} from "./template.ts";

/** A call as it is written. */
export interface CallOptions {
  readonly method?: string;
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

/** A call that can be made. */
export interface HttpCall {
  /** The environment variables that it needs. */
  readonly variables: readonly string[];
  readonly make: (context: CallContext, env: Readonly<Record<string, string>>) => Promise<HttpAnswer>;
}

export type CallContext = (StepContext | RollbackContext) & Partial<MeteredCall>;

export interface HttpAnswer {
  readonly status: number;
  /** Null where there was none. */
  readonly json: unknown;
  /** Why there is no JSON, although there is a body; null: there is nothing to complain about. */
  readonly notJson: string | null;
  readonly retryAfterMs: number | null;
  /** Names the call in messages. */
  readonly label: string;
}

/** Answers are results, or less: more is not read. In UTF-8 a character may take three bytes that is one in memory. */
const ANSWER_BYTES_MAX = 3 * RESULT_CHARS_MAX;

/**
 * Prepares a call.
 * @throws TemplateError when an expression is wrong, or the url is none
 */
export function parseCall({ method, url, headers = {}, body }: CallOptions, scope: TemplateScope): HttpCall {
  const verb = method ?? (body === undefined ? "GET" : "POST");
  const urlParts = within("url", () => {
    const parts = parseText(url, scope);
    requireFixedOrigin(url, parts);
    return parts;
  });
  const headerTemplates = Object.entries(headers).map(
    ([name, value]) => [name, within("headers", () => within(name, () => parseText(value, scope)))] as const,
  );
  const bodyTemplate = body === undefined ? null : within("body", () => parseTemplate(body, scope));
  const ownChars = JSON.stringify([url, headers, body]).length;
  return {
    variables: [
      ...variablesOf(urlParts),
      ...headerTemplates.flatMap(([, parts]) => variablesOf(parts)),
      ...(bodyTemplate?.variables ?? []),
    ],
    make: async (context, env) => {
      const filled = fillIn(context, env, (values) => ({
        // What begins the url is the place itself; what stands further on is a part of it, and must not become several.
        url: fillText(urlParts, values, (text, index) => (index === 0 ? text : encodeURIComponent(text))),
        headers: headerTemplates.map(([name, parts]) => [name, fillText(parts, values)] as const),
        json: bodyTemplate?.fill(values),
      }));
      const label = `${verb} ${url}`;
      const request = writtenDown(filled, {
        label,
        charsMax: ownChars + requestCharsMax(context.givenChars ?? 0),
      });
      context.keepsOnly?.(request.chars);
      return send(verb, request, { label, context, secrets: secretsOf(env) });
    },
  };
}

/** A step's run: what was answered is its result. */
export function runOutcome(answer: HttpAnswer): unknown {
  const { status, json, notJson, label } = answer;
  if (status >= 200 && status < 300) {
    if (notJson === null) return json === null ? undefined : json;
    throw new StepError(`${label} answered ${status} with ${notJson}`, { permanent: true, unknown: true });
  }
  throw failureOf(answer);
}

/** A step's rollback. What is not there needs no undoing. */
export function rollbackOutcome(answer: HttpAnswer): void {
  const { status } = answer;
  if ((status >= 200 && status < 300) || status === 404 || status === 410) return;
  throw failureOf(answer);
}

/** A step's verification: what is there has been done, what is not there has not. */
export function verifyOutcome(answer: HttpAnswer): { done: true; result: unknown } | { done: false } {
  if (answer.status === 404 || answer.status === 410) return { done: false };
  return { done: true, result: runOutcome(answer) };
}

/** Statuses below 500 that another attempt may change. */
const PASSING_STATUSES: ReadonlySet<number> = new Set([408, 425, 429]);

function failureOf({ status, retryAfterMs, label, json }: HttpAnswer): StepError {
  const said = textIn(json);
  const message = `${label} answered ${status}${said === null ? "" : `: ${said}`}`;
  if (status >= 300 && status < 400) return permanent(`${message}: redirects are not followed`);
  if (status >= 500) return new StepError(message, { unknown: true, retryAfterMs });
  return PASSING_STATUSES.has(status) ? new StepError(message, { retryAfterMs }) : permanent(message);
}

/** Where answers tell what is wrong, the most telling first (`detail` and `title` by RFC 9457). */
const TELLING_FIELDS = ["detail", "message", "error", "title"];

/** Longer texts are for the receiver's own log. */
const SAID_CHARS_MAX = 200;

/** What a receiver says of its refusal, or null. */
function textIn(json: unknown): string | null {
  if (typeof json !== "object" || json === null) return null;
  const fields = json as Readonly<Record<string, unknown>>;
  const said = TELLING_FIELDS.map((name) => fields[name]).find((text) => typeof text === "string" && text !== "");
  return typeof said === "string" ? said.slice(0, SAID_CHARS_MAX) : null;
}

interface FilledCall {
  readonly url: string;
  readonly headers: readonly (readonly [string, string])[];
  /** Undefined: the call has no body. */
  readonly json: unknown;
}

interface WrittenCall extends Omit<FilledCall, "json"> {
  readonly body: string | null;
  readonly chars: number;
}

/** @throws StepError when the request would be too large; it is not even made then, as an expression may have made much of little */
function writtenDown(
  { url, headers, json }: FilledCall,
  { label, charsMax }: { readonly label: string; readonly charsMax: number },
): WrittenCall {
  const headChars = headers.reduce((sum, [, value]) => sum + value.length, url.length);
  if (headChars + charsIn(json, charsMax - headChars) <= charsMax) {
    const body = json === undefined ? null : JSON.stringify(json);
    const chars = headChars + (body?.length ?? 0);
    if (chars <= charsMax) return { url, headers, body, chars };
  }
  throw permanent(`${label} would be a request of more than ${charsMax} characters, and is not made`);
}

/** How many characters JSON has at the least; no more than that it is more than the limit. */
function charsIn(json: unknown, limit: number): number {
  if (typeof json === "string") return json.length;
  if (typeof json !== "object" || json === null) return 1;
  let chars = 2;
  for (const [key, value] of Object.entries(json)) {
    chars += (Array.isArray(json) ? 0 : key.length) + charsIn(value, limit - chars);
    if (chars > limit) break;
  }
  return chars;
}

function fillIn(
  context: CallContext,
  env: Readonly<Record<string, string>>,
  fill: (values: TemplateValues) => FilledCall,
): FilledCall {
  const { order, body, results, attempt } = context;
  const values: TemplateValues = {
    order: { id: order.orderId, user: order.user },
    body,
    results,
    result: "result" in context ? (context.result ?? null) : null,
    attempt,
    env,
  };
  try {
    return withinBudget(() => fill(values));
  } catch (error) {
    // A half of a surrogate pair, which no url can have.
    if (error instanceof TemplateError || error instanceof URIError || error instanceof BudgetError)
      throw permanent(error);
    throw error;
  }
}

interface Sender {
  /** Names the call in messages, without what was filled in: that may be secret. */
  readonly label: string;
  readonly context: StepContext;
  readonly secrets: Secrets;
}

async function send(
  method: string,
  { url, headers, body }: WrittenCall,
  { label, context, secrets }: Sender,
): Promise<HttpAnswer> {
  const { place, authorization } = placeOf(url, label);
  const { idempotencyKey, order, fence, signal, stepName } = context;
  let answer: Awaited<ReturnType<typeof makeRequest>>;
  try {
    answer = await makeRequest(place, {
      method,
      signal,
      headers: {
        accept: "application/json",
        ...(body === null ? {} : { "content-type": "application/json" }),
        ...(authorization === null ? {} : { authorization }),
        ...Object.fromEntries(headers.map(([name, value]) => [name.toLowerCase(), value])),
        "idempotency-key": idempotencyKey,
        "order-id": order.orderId,
        "order-step": stepName,
        "order-fence": String(fence),
      },
      body,
    });
  } catch (error) {
    if (!(error instanceof NoAnswerError)) throw error;
    throw connectionFailure(label, error, signal);
  }
  const { statusCode: status, headers: answered } = answer;
  const retryAfterMs = parseRetryAfter(answered["retry-after"], Date.now());
  let text: string;
  try {
    text = await readText(answer.body);
  } catch (error) {
    if (error instanceof StepError) throw error;
    throw new StepError(`${label} answered ${status}, and its answer broke off: ${breakReason(error, signal)}`, {
      unknown: true,
      shortage: false,
    });
  }
  const { json, notJson } = parseAnswer(text, answered["content-type"]);
  return {
    status,
    retryAfterMs,
    label,
    json: secrets.redactJson(json),
    notJson: notJson === null ? null : secrets.redact(notJson),
  };
}

/** Where a call goes to, and the credentials that were in its url. */
function placeOf(url: string, label: string): { place: URL; authorization: string | null } {
  let place: URL;
  try {
    place = new URL(url);
  } catch {
    throw permanent(`${label} has no url once it is filled in`);
  }
  if (place.protocol !== "http:" && place.protocol !== "https:")
    throw permanent(`${label} has a url that does not begin with http:// or https:// once it is filled in`);
  // They would leave the path that the file's author has written, encoded or not.
  if (/[\\/](\.|%2e){1,2}(?=[\\/]|$)/i.test(url.replace(/[?#].*$/s, "").replaceAll(/[\t\r\n]/g, ""))) {
    throw permanent(`${label} has a part that is "." or ".." once it is filled in`);
  }
  const { username, password } = place;
  if (username === "" && password === "") return { place, authorization: null };
  place.username = "";
  place.password = "";
  let credentials: string;
  try {
    credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  } catch {
    throw permanent(`${label} has credentials in its url that are not percent-encoded`);
  }
  return { place, authorization: `Basic ${Buffer.from(credentials, "utf8").toString("base64")}` };
}

async function readText(body: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    // Leaving the loop closes the connection.
    if (bytes > ANSWER_BYTES_MAX) {
      throw new StepError(`the answer has more than ${ANSWER_BYTES_MAX} bytes`, { permanent: true, unknown: true });
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseAnswer(text: string, type: string | string[] | undefined): Pick<HttpAnswer, "json" | "notJson"> {
  if (text === "") return { json: null, notJson: null };
  const mediaType =
    String(type ?? "")
      .split(";")[0]
      ?.trim()
      .toLowerCase() ?? "";
  if (!/^application\/([\w.+-]+\+)?json$/.test(mediaType)) {
    return { json: null, notJson: `${mediaType === "" ? "no content type" : mediaType}, and not with JSON` };
  }
  // Walking it must not run out of stack.
  if (exceedsDepth(text)) return { json: null, notJson: `JSON that is nested deeper than ${JSON_DEPTH_MAX} levels` };
  try {
    return { json: JSON.parse(text) as unknown, notJson: null };
  } catch {
    return { json: null, notJson: "a body that is not the JSON that it says it is" };
  }
}

/** A date, or seconds (RFC 9110, 10.2.3); null: nothing that can be understood. */
export function parseRetryAfter(text: string | string[] | undefined, nowMs: number): number | null {
  if (typeof text !== "string") return null;
  if (/^\d+$/.test(text.trim())) return Number(text) * 1_000;
  const dateMs = text.endsWith("GMT") ? Date.parse(text) : Number.NaN;
  return Number.isNaN(dateMs) ? null : Math.max(0, dateMs - nowMs);
}

/** @throws TemplateError when the url's host can't be known, or is not the author's choice (invariant 1) */
function requireFixedOrigin(url: string, parts: ReturnType<typeof parseText>): void {
  const [first, second] = parts;
  if (typeof first === "string") {
    const origin = /^https?:\/\/[^/?#]+/i.exec(first)?.[0];
    const isWhole = origin !== undefined && (origin.length < first.length || second === undefined);
    if (isWhole && URL.canParse(origin)) {
      if (!origin.includes("@")) return;
      throw new TemplateError(
        "a url in a file can't hold credentials, as messages show it; take it from the environment",
      );
    }
  } else if (
    first?.isConstant === true &&
    first.variables.length > 0 &&
    (second === undefined || (typeof second === "string" && /^[/?#]/.test(second)))
  ) {
    return;
  }
  throw new TemplateError(
    `the url "${url.slice(0, 200)}" must begin with http:// or https:// and a host, or with \${env.NAME} and a slash; an order can't choose the host`,
  );
}
