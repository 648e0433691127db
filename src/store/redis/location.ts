/** Where a Redis server is, as an operator writes it: `redis://[user[:password]@]host[:port][/database]`, or `rediss:` for TLS. */

export interface RedisLocation {
  readonly tls: boolean;
  /** A name or an address; an IPv6 address without brackets. */
  readonly host: string;
  readonly port: number;
  /** The number of the database; 0 in a Redis Cluster. */
  readonly db: number;
}

export interface ParsedRedisUrl {
  readonly location: RedisLocation;
  readonly username?: string;
  readonly password?: string;
}

const DEFAULT_PORT = 6379;

/** Whether a text is meant as the address of a Redis server: `parseRedisUrl` may still refuse it. */
export function isRedisUrl(text: string): boolean {
  return /^rediss?:/i.test(text);
}

/**
 * Reads a Redis URL.
 * @throws Error whose message says what is wrong with it, without the password
 */
export function parseRedisUrl(text: string): ParsedRedisUrl {
  if (!isRedisUrl(text)) throw new Error("it must begin with redis:// or, for TLS, rediss://");
  const url = URL.parse(text);
  if (url === null || url.hostname === "") {
    throw new Error(
      "it is not of the form redis://user:password@host:port/database; in a password, write %40 for @, %2F for / and so on",
    );
  }
  if (!/^(?:[\w.-]+|\[[\da-f:.]+\])$/i.test(url.hostname)) throw new Error("its host is neither a name nor an address");
  if (url.search !== "" || url.hash !== "") throw new Error("it must end after the database's number");
  if (url.port === "0") throw new Error("its port must be from 1 to 65535");
  const location = {
    tls: url.protocol === "rediss:",
    host: url.hostname.replace(/^\[(.*)\]$/, "$1"),
    port: url.port === "" ? DEFAULT_PORT : Number(url.port),
    db: databaseOf(url.pathname),
  };
  const username = decoded(url.username);
  const password = decoded(url.password);
  return { location, ...(username === "" ? {} : { username }), ...(password === "" ? {} : { password }) };
}

/** The location as a URL, without credentials: for logs and messages. */
export function showRedisLocation({ tls, host, port, db }: RedisLocation): string {
  const shownHost = host.includes(":") ? `[${host}]` : host;
  return `${tls ? "rediss" : "redis"}://${shownHost}:${port}${db === 0 ? "" : `/${db}`}`;
}

function databaseOf(path: string): number {
  const number = path.replace(/^\//, "");
  if (number === "") return 0;
  if (!/^\d{1,6}$/.test(number)) throw new Error("its database must be a number, as in redis://host:6379/0");
  return Number(number);
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    throw new Error(
      "its user name or password has a % that is not followed by two hexadecimal digits; write %25 for %",
    );
  }
}
