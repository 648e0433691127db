/** Which hash slot of a Redis Cluster a key is in, and which server has which slots. */

export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

/** Slots from `first` to `last` are one server's. */
export interface SlotRange {
  readonly first: number;
  readonly last: number;
  readonly server: ServerAddress;
}

export interface SlotMap {
  readonly ranges: readonly SlotRange[];
  /** Every server that is known, also those that only copy others. */
  readonly servers: readonly ServerAddress[];
}

/** What a Redis Cluster says to a command that it has not carried out. */
export interface Redirection {
  /** MOVED: for good; ASK: this command only. */
  readonly kind: "moved" | "ask";
  readonly slot: number;
  readonly server: ServerAddress;
}

const SLOTS = 16_384;

/** The slot of a key: a checksum (CRC16/XMODEM) of its hash tag, or of all of it. */
export function slotOf(key: string): number {
  const start = key.indexOf("{");
  const end = start < 0 ? -1 : key.indexOf("}", start + 1);
  const hashed = end > start + 1 ? key.slice(start + 1, end) : key;
  let crc = 0;
  for (const byte of Buffer.from(hashed)) {
    crc ^= byte << 8;
    for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? ((crc << 1) ^ 0x1021) & 0xffff : (crc << 1) & 0xffff;
  }
  return crc % SLOTS;
}

/** An address as one text. */
export function showAddress({ host, port }: ServerAddress): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}

/**
 * Reads the redirection out of an error's text.
 * @param asked the server that said it: where it names no host, it means its own
 * @returns null: it is none
 */
export function parseRedirection(message: string, asked: ServerAddress): Redirection | null {
  const [, kind, slot, host, port] = /^(MOVED|ASK) (\d+) (\S*):(\d+)/.exec(message) ?? [];
  if (kind === undefined) return null;
  return {
    kind: kind === "MOVED" ? "moved" : "ask",
    slot: Number(slot),
    server: { host: hostOf(host, asked), port: Number(port) },
  };
}

/**
 * Reads the reply of CLUSTER SLOTS.
 * @throws Error when it is none
 */
export function parseSlotMap(reply: unknown, asked: ServerAddress): SlotMap {
  if (!Array.isArray(reply)) throw new Error("CLUSTER SLOTS gave no list");
  const servers = new Map<string, ServerAddress>();
  const ranges = reply.map((entry: unknown): SlotRange => {
    if (!Array.isArray(entry) || entry.length < 3) throw new Error("CLUSTER SLOTS gave a range without a server");
    const [first, last, ...nodes] = entry as unknown[];
    const addresses = nodes.map((node) => addressOf(node, asked));
    for (const address of addresses) servers.set(showAddress(address), address);
    const [server] = addresses;
    if (server === undefined) throw new Error("CLUSTER SLOTS gave a range without a server");
    return { first: Number(first), last: Number(last), server };
  });
  return { ranges, servers: Array.from(servers.values()) };
}

function addressOf(node: unknown, asked: ServerAddress): ServerAddress {
  const [host, port] = Array.isArray(node) ? (node as unknown[]) : [];
  return { host: hostOf(host, asked), port: Number(port) };
}

/** A server that does not know its own name says nothing, or "?". */
function hostOf(host: unknown, asked: ServerAddress): string {
  return typeof host === "string" && host !== "" && host !== "?" ? host.replace(/^\[(.*)\]$/, "$1") : asked.host;
}
