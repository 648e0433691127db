/** How the store reaches its data: one server that has all of it, or the servers of a Redis Cluster that have a part each. */
import type { RedisConnection } from "./connection.ts";
import type { Script } from "./scripts.ts";

export interface Servers {
  /** Whether keys of several partitions can't be in one call. */
  readonly isCluster: boolean;
  /** Sends one command to the server that has the key. */
  command(key: string, args: readonly string[]): Promise<unknown>;
  /** Runs a script on the server that has the keys. */
  script(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown>;
  /** Sends one command to every server that has data. */
  onEach(args: readonly string[]): Promise<readonly unknown[]>;
  /** Lets go of all connections. What is under way rejects. */
  close(): void;
}

/**
 * Runs a script by its name, or, on a server that doesn't know it, by its text: a script that isn't known was not run.
 * @param before commands to be sent directly before it
 */
export async function runScript(
  connection: RedisConnection,
  { text, sha1 }: Script,
  keys: readonly string[],
  args: readonly string[],
  before: readonly (readonly string[])[] = [],
): Promise<unknown> {
  const rest = [String(keys.length), ...keys, ...args];
  try {
    return await connection.send(...before, ["EVALSHA", sha1, ...rest]);
  } catch (error) {
    if (!(error instanceof Error) || !error.message.startsWith("NOSCRIPT")) throw error;
    return connection.send(...before, ["EVAL", text, ...rest]);
  }
}

/** One server that has all keys. */
export class SingleServer implements Servers {
  readonly isCluster = false;
  readonly #connection: RedisConnection;

  constructor(connection: RedisConnection) {
    this.#connection = connection;
  }

  command(_key: string, args: readonly string[]): Promise<unknown> {
    return this.#connection.send(args);
  }

  script(script: Script, keys: readonly string[], args: readonly string[]): Promise<unknown> {
    return runScript(this.#connection, script, keys, args);
  }

  async onEach(args: readonly string[]): Promise<readonly unknown[]> {
    return [await this.#connection.send(args)];
  }

  close(): void {
    this.#connection.close();
  }
}
