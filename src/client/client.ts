/**
 * A client of the service, for Node and browsers: `import { createClient } from "order-process/client"`. Its types are the server's own,
 * and it needs nothing but fetch.
 */
import type { Action, RetryFrom } from "../order/actions.ts";
import type { OrderStatus } from "../order/status.ts";
import type { HistoryEntry, OrderList, OrderSummary, OrderView, Problem } from "../http/schemas.ts";

export type { Action, HistoryEntry, OrderList, OrderStatus, OrderSummary, OrderView, Problem, RetryFrom };
export { ACTIONS, ACTIONS_BY_STATUS } from "../order/actions.ts";

/** Where the service is, and who asks. */
export interface ClientOptions {
  /** Such as `http://127.0.0.1:8080`. */
  readonly url: string;
  /** The value of the header Authorization. */
  readonly user: string;
  /** In the place of the global fetch. */
  readonly fetch?: typeof fetch;
}

/** What may be said with a new order. */
export interface SubmitOptions {
  /** Which pipeline; may be left out where there is one only. */
  readonly pipeline?: string;
  /** When its first step starts; left out: at once. */
  readonly startAt?: Date;
  /** Makes it safe to submit again: the same key and body give the same order. */
  readonly idempotencyKey?: string;
}

/** Which orders are looked for. */
export interface ListOptions {
  readonly status?: OrderStatus;
  /** Only those that a person should look at. */
  readonly needsPerson?: boolean;
  readonly step?: string;
  readonly pipeline?: string;
  /** The service_id of the node that owns them. */
  readonly node?: string;
  /** For operators: whose orders. */
  readonly user?: string;
  /** Created then or later. */
  readonly from?: Date;
  /** Created before then. */
  readonly to?: Date;
  readonly limit?: number;
  /** The `next_cursor` of the page before. */
  readonly cursor?: string;
}

export interface FollowOptions {
  /** The id of the last event that was received. */
  readonly lastEventId?: string;
  /** Ends it. */
  readonly signal?: AbortSignal;
  /** The connection is lost, and made again a moment later: nothing that happens meanwhile is missed. */
  readonly onDisconnect?: (error: Error) => void;
}

/** An event, and the id from which to go on behind it. */
export interface FollowedEvent {
  readonly id: string;
  readonly entry: HistoryEntry;
}

/** The service has refused, or could not do it. */
export class ServiceError extends Error {
  override readonly name = "ServiceError";
  /** What it answered (RFC 9457), with its stable code. */
  readonly problem: Problem;

  constructor(problem: Problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

/** All that can be asked about orders. Each method throws ServiceError when the service refuses, and TypeError when it is not there. */
export interface Client {
  submit(body: object, options?: SubmitOptions): Promise<{ readonly order_id: string; readonly start_time: string }>;
  get(orderId: string): Promise<OrderView>;
  list(options?: ListOptions): Promise<OrderList>;
  history(orderId: string): Promise<readonly HistoryEntry[]>;
  cancel(orderId: string, options?: { readonly reason?: string }): Promise<OrderView>;
  /** The names of the steps that a cancellation would roll back, in that order. */
  dryCancel(orderId: string): Promise<readonly string[]>;
  pause(orderId: string): Promise<OrderView>;
  resume(orderId: string): Promise<OrderView>;
  /** Of a failed or canceled order: the new one. Of one whose rollback is incomplete: itself, its rollback being tried again. */
  retry(orderId: string, options?: { readonly from?: RetryFrom }): Promise<OrderView>;
  /** Leaves out the rollback that has failed. */
  skip(orderId: string, options: { readonly reason: string }): Promise<OrderView>;
  /** Completes the step that waits for a signal. */
  complete(orderId: string, options: { readonly step: string; readonly result?: unknown }): Promise<OrderView>;
  /** An order's events, until it is final. Connects again by itself. */
  follow(orderId: string, options?: FollowOptions): AsyncGenerator<FollowedEvent, void>;
  /** The events of all orders that one may see, without end. Connects again by itself. */
  followAll(options?: FollowOptions): AsyncGenerator<FollowedEvent, void>;
}

/** How long to wait before connecting again to a service that is away. */
const RECONNECT_MS = 1_000;

/** Makes a client. */
export function createClient({ url, user, fetch: ask = fetch }: ClientOptions): Client {
  const base = url.replace(/\/+$/, "");

  const request = async (path: string, init: RequestInit = {}): Promise<Response> => {
    const response = await ask(`${base}${path}`, {
      ...init,
      headers: {
        authorization: user,
        accept: "application/json",
        ...(init.headers as Record<string, string> | undefined),
      },
    });
    if (!response.ok) throw await serviceError(response);
    return response;
  };
  const read = async <T>(path: string): Promise<T> => (await request(path)).json() as Promise<T>;
  const post = async <T>(path: string, body: object, headers: Record<string, string> = {}): Promise<T> => {
    const init = {
      method: "POST",
      body: JSON.stringify(body),
      headers: { "content-type": "application/json", ...headers },
    };
    return (await request(path, init)).json() as Promise<T>;
  };
  const pathOf = (orderId: string): string => `/orders/${encodeURIComponent(orderId)}`;
  const act = <T = OrderView>(orderId: string, action: Action, body: object = {}): Promise<T> =>
    post<T>(`${pathOf(orderId)}/${action}`, body);

  async function* followPath(
    path: string,
    { lastEventId = "", signal, onDisconnect }: FollowOptions,
  ): AsyncGenerator<FollowedEvent, void> {
    let last = lastEventId;
    for (;;) {
      let hasEvents = false;
      try {
        const headers = { accept: "text/event-stream", ...(last === "" ? {} : { "last-event-id": last }) };
        const response = await request(path, { headers, ...(signal === undefined ? {} : { signal }) });
        if (response.status === 204 || response.body === null) return;
        for await (const { id, entry } of eventsIn(response.body)) {
          last = id;
          if (entry === null) continue;
          hasEvents = true;
          yield { id, entry };
        }
      } catch (error) {
        if (signal?.aborted === true) return;
        const mayPass = error instanceof ServiceError ? error.problem.status >= 500 : error instanceof TypeError;
        if (!mayPass) throw error;
        hasEvents = false;
        onDisconnect?.(error as Error);
      }
      if (!hasEvents) await new Promise((resolve) => setTimeout(resolve, RECONNECT_MS));
      if (signal?.aborted === true) return;
    }
  }

  return {
    submit: (body, { pipeline, startAt, idempotencyKey } = {}) =>
      post(
        `/orders${queryOf({ pipeline, start_at: startAt?.toISOString() })}`,
        body,
        idempotencyKey === undefined ? {} : { "idempotency-key": idempotencyKey },
      ),
    get: (orderId) => read(pathOf(orderId)),
    list: ({ from, to, limit, needsPerson, ...named } = {}) =>
      read(
        `/orders${queryOf({
          ...named,
          needs_person: needsPerson?.toString(),
          from: from?.toISOString(),
          to: to?.toISOString(),
          limit: limit?.toString(),
        })}`,
      ),
    history: async (orderId) => (await read<{ events: HistoryEntry[] }>(`${pathOf(orderId)}/history`)).events,
    cancel: (orderId, options = {}) => act(orderId, "cancel", options),
    dryCancel: async (orderId) =>
      (await act<{ would_roll_back: string[] }>(orderId, "cancel", { dry_run: true })).would_roll_back,
    pause: (orderId) => act(orderId, "pause"),
    resume: (orderId) => act(orderId, "resume"),
    retry: (orderId, options = {}) => act(orderId, "retry", options),
    skip: (orderId, options) => act(orderId, "skip", options),
    complete: (orderId, options) => act(orderId, "complete", options),
    follow: (orderId, options = {}) => followPath(`${pathOf(orderId)}/events`, options),
    followAll: (options = {}) => followPath("/events", options),
  };
}

function queryOf(parameters: Readonly<Record<string, string | undefined>>): string {
  const given = Object.entries(parameters).filter((entry): entry is [string, string] => entry[1] !== undefined);
  return given.length === 0 ? "" : `?${new URLSearchParams(given).toString()}`;
}

async function serviceError(response: Response): Promise<ServiceError> {
  const text = await response.text();
  try {
    const problem: unknown = JSON.parse(text);
    if (typeof problem === "object" && problem !== null && "code" in problem)
      return new ServiceError(problem as Problem);
  } catch {
    // No answer of this service: what stands before it has answered, perhaps.
  }
  const { status, statusText } = response;
  return new ServiceError({
    type: "about:blank",
    title: statusText,
    status,
    detail: `the answer was ${status} ${statusText}, and none of order_process`,
    code: "",
  });
}

/** Server-sent events as they come, and ids without an event, from which to go on all the same. */
async function* eventsIn(
  body: ReadableStream<Uint8Array>,
): AsyncGenerator<{ readonly id: string; readonly entry: HistoryEntry | null }, void> {
  const decoder = new TextDecoder();
  const reader = body.getReader();
  try {
    for (let text = ""; ;) {
      const { done, value } = await reader.read();
      if (done) return;
      text += decoder.decode(value, { stream: true });
      const frames = text.split("\n\n");
      text = frames.pop() ?? "";
      for (const frame of frames) {
        // Not by an expression: to that, a line ends at U+2028, too.
        const valueOf = (field: string): string | undefined =>
          frame
            .split("\n")
            .find((line) => line.startsWith(field))
            ?.slice(field.length);
        const id = valueOf("id: ");
        const data = valueOf("data: ");
        if (id !== undefined) yield { id, entry: data === undefined ? null : (JSON.parse(data) as HistoryEntry) };
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
