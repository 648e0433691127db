/** Requests to receivers, of which it is known whether anything of them has gone out. */
import { Agent, type Dispatcher, request } from "undici";

/** Connections to one receiver; more calls wait for one to be free. A step's `concurrency` is the way to have fewer. */
const CONNECTIONS_MAX = 256;

/** What a request is made of. */
export interface RequestParts {
  readonly method: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string | null;
  readonly signal: AbortSignal;
}

/** A request that got no answer. `cause` is why. */
export class NoAnswerError extends Error {
  override readonly name = "NoAnswerError";
  /** Whether something of the request may have gone out. */
  readonly begun: boolean;

  constructor(cause: unknown, begun: boolean) {
    super("no answer", { cause });
    this.begun = begun;
  }
}

interface Sending {
  readonly signal: AbortSignal;
  begun: boolean;
}

const agent = new Agent({
  connections: CONNECTIONS_MAX,
  pipelining: 1,
  // The step's timeout is the limit for both.
  headersTimeout: 0,
  bodyTimeout: 0,
  connectTimeout: 10_000,
}).compose((dispatch) => (options, handler) => {
  const { opaque } = options as { opaque?: Sending };
  return dispatch(options, opaque === undefined ? handler : noteBegin(handler, opaque));
});

/** A request begins once it has a connection (for TLS, a secured one), right before it is written. */
function noteBegin(handler: Dispatcher.DispatchHandler, sending: Sending): Dispatcher.DispatchHandler {
  return {
    onRequestStart: (controller, context) => {
      // One that was given up meanwhile is not written.
      if (!sending.signal.aborted) sending.begun = true;
      handler.onRequestStart?.(controller, context);
    },
    onRequestUpgrade: (...told) => handler.onRequestUpgrade?.(...told),
    onResponseStart: (...told) => handler.onResponseStart?.(...told),
    onResponseData: (...told) => handler.onResponseData?.(...told),
    onResponseEnd: (...told) => handler.onResponseEnd?.(...told),
    onResponseError: (...told) => handler.onResponseError?.(...told),
  };
}

/**
 * Makes a request. Redirects are not followed.
 * @throws NoAnswerError
 */
export function makeRequest(
  place: URL,
  { method, headers, body, signal }: RequestParts,
): Promise<Dispatcher.ResponseData<unknown>> {
  const sending: Sending = { signal, begun: false };
  return new Promise((resolve, reject) => {
    // Until there is a connection, undici does not hear of it.
    const giveUp = (): void => {
      if (!sending.begun) reject(new NoAnswerError(signal.reason, false));
    };
    signal.addEventListener("abort", giveUp, { once: true });
    request(place, { method, headers, body, signal, dispatcher: agent, opaque: sending })
      .then(resolve, (error: unknown) => reject(new NoAnswerError(error, sending.begun)))
      .finally(() => signal.removeEventListener("abort", giveUp));
  });
}
