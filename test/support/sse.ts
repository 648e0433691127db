/** Server-sent events as a client reads them. */

export interface SseEvent {
  readonly id: string;
  readonly data: Record<string, unknown>;
}

export interface SseStream {
  readonly status: number;
  /** What has come so far. */
  readonly events: readonly SseEvent[];
  /** Resolves when the server has ended it. */
  readonly ended: Promise<void>;
  readonly close: () => void;
}

/** Opens a stream and reads it until it ends or is closed. */
export async function openStream(
  url: string,
  { user = "user", lastEventId }: { readonly user?: string; readonly lastEventId?: string } = {},
): Promise<SseStream> {
  const controller = new AbortController();
  const response = await fetch(url, {
    signal: controller.signal,
    headers: { authorization: user, ...(lastEventId === undefined ? {} : { "last-event-id": lastEventId }) },
  });
  const events: SseEvent[] = [];
  const read = async (): Promise<void> => {
    let text = "";
    const decoder = new TextDecoder();
    for await (const chunk of response.body ?? []) {
      text += decoder.decode(chunk as Uint8Array, { stream: true });
      for (let end = text.indexOf("\n\n"); end >= 0; end = text.indexOf("\n\n")) {
        const fields = new Map(
          text
            .slice(0, end)
            .split("\n")
            .map((line) => line.split(/: (.*)/s) as [string, string]),
        );
        text = text.slice(end + 2);
        const [id, data] = [fields.get("id"), fields.get("data")];
        if (id !== undefined && data !== undefined)
          events.push({ id, data: JSON.parse(data) as Record<string, unknown> });
      }
    }
  };
  const ended =
    response.headers.get("content-type") === "text/event-stream" ? read().catch(() => undefined) : Promise.resolve();
  return { status: response.status, events, ended, close: () => controller.abort() };
}
