/**
 * `order_process drill`: shows that orders survive their nodes. Starts a throw-away cluster, lets orders flow, and does to the nodes
 * what fate does: kills one, kills the leader, freezes one and wakes it, stops one in good order. Then it looks at every order that
 * was acknowledged. What it prints last is the verdict.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { judgeOrders, type Verdict } from "./judge.ts";
import { type ClusterAnswer, PracticeNode, readCluster, waitUntil } from "./practice-node.ts";
import { Workload } from "./workload.ts";
import type { Store } from "../store/store.ts";

export interface DrillOptions {
  /** Silence after which a node counts as dead. */
  readonly nodeTtlMs: number;
  /** How the nodes are told where the store is: `--store` and its value; empty: an embedded store in the drill's own folder. */
  readonly storeArgs: readonly string[];
  /** What the nodes need in their environment to open it. */
  readonly storeEnv: Readonly<Record<string, string>>;
  /** Opens that store to look at the orders afterwards; the path is the embedded store's. */
  readonly openStore: (path: string) => Promise<Store>;
  /** Ends the drill early, with the reason as the error. */
  readonly signal: AbortSignal;
  /** Writes a line, and shows another one below it while the drill goes on. */
  readonly screen: Screen;
}

export interface Screen {
  line(text: string): void;
  /** Replaced by the next one; dropped where nobody watches. */
  progress(text: string): void;
}

const NAMES = ["A", "B", "C"] as const;
const STEP_MS = 250;
/** How long orders flow undisturbed between two blows. */
const CALM_MS = 1_500;
const WAIT_MS_MAX = 60_000;

/**
 * Runs the drill; true when nothing was lost and nothing late was accepted.
 * @throws Error when it can't go on
 */
export async function runDrill(options: DrillOptions): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), "order-process-drill-"));
  const drill = new Drill(options, folder);
  const leaveNothing = (): void => {
    drill.killAll();
    rmSync(folder, { recursive: true, force: true });
  };
  process.once("exit", leaveNothing);
  try {
    const { signal } = options;
    signal.throwIfAborted();
    const stopped = new Promise<never>((_resolve, reject) => {
      signal.addEventListener("abort", () => reject(new Error(String(signal.reason))), { once: true });
    });
    return await Promise.race([drill.run(), stopped]);
  } finally {
    await drill.cleanUp();
    leaveNothing();
    process.off("exit", leaveNothing);
  }
}

class Drill {
  readonly #options: DrillOptions;
  readonly #folder: string;
  readonly #nodes: readonly PracticeNode[];
  readonly #workload: Workload;
  readonly #startMs = performance.now();
  readonly #results: string[][] = [];
  #progressTimer: NodeJS.Timeout | null = null;

  constructor(options: DrillOptions, folder: string) {
    this.#options = options;
    this.#folder = folder;
    const { storeArgs, storeEnv: env, nodeTtlMs } = options;
    const store = storeArgs.length > 0 ? storeArgs : ["--store", `sqlite:${this.#storePath}`];
    const args = [...store, "--node-ttl", `${nodeTtlMs}ms`, "--step-time", `${STEP_MS}ms`, "--grace", "2s"];
    this.#nodes = NAMES.map((name) => new PracticeNode({ name, data: join(folder, name), args, env }));
    this.#workload = new Workload(() => this.#nodes.flatMap((node) => (node.isListening ? [node.url] : [])));
  }

  get #storePath(): string {
    return join(this.#folder, "orders.sqlite");
  }

  async run(): Promise<boolean> {
    this.#say(
      `Three nodes, a TTL of ${this.#options.nodeTtlMs} ms, four steps of ${STEP_MS} ms each. One order in ten fails and is rolled back.`,
    );
    for (const node of this.#nodes) await node.start();
    await this.#together();
    this.#say(
      `${this.#nodes.map((node) => `${node.name} listens at ${node.url}`).join(", ")}. ${await this.#leaderName()} leads.`,
    );
    this.#workload.start();
    this.#progressTimer = setInterval(() => this.#showProgress(), 100);

    await this.#kill(await this.#follower());
    await this.#kill(await this.#leader());
    await this.#freeze(await this.#follower());
    await this.#stopInGoodOrder(await this.#follower());

    await delay(CALM_MS);
    this.#say("No more orders. Waiting for those under way ...");
    await this.#workload.stop();
    const allFinal = await waitUntil(() => this.#workload.allFinal(), WAIT_MS_MAX);
    if (!allFinal) this.#say("Not every order became final in time.");
    await this.#stopAll();
    const verdict = await this.#judge();
    this.#printResult(verdict);
    return verdict.lost === 0 && verdict.lateWritesAccepted === 0 && verdict.notFinal === 0;
  }

  async cleanUp(): Promise<void> {
    if (this.#progressTimer !== null) clearInterval(this.#progressTimer);
    await this.#workload.stop();
    this.killAll();
    await Promise.all(this.#nodes.map((node) => node.exited.catch(() => undefined)));
  }

  killAll(): void {
    for (const node of this.#nodes) node.retire();
  }

  async #kill(victim: PracticeNode): Promise<void> {
    await delay(CALM_MS);
    const role = victim.serviceId === (await this.#view()).leader_name ? "the leader" : "a follower";
    this.#say(`kill -9 ${victim.name}, ${role} (process ${victim.pid})`);
    const startMs = performance.now();
    victim.signal("SIGKILL");
    await victim.exited;
    await this.#takenOver(victim, startMs, `${victim.name} killed (${role})`);
    await victim.start();
    await this.#together();
    this.#say(`${victim.name} is back, as the same service`);
  }

  async #freeze(victim: PracticeNode): Promise<void> {
    await delay(CALM_MS);
    this.#say(`SIGSTOP ${victim.name}: it is silent, its connections stay`);
    const startMs = performance.now();
    victim.signal("SIGSTOP");
    await this.#takenOver(victim, startMs, `${victim.name} frozen`);
    if (!victim.isListening) {
      // On the embedded store, where it kept all the others from writing: nothing else helps.
      this.#say(`${victim.name} was frozen while it held the store's write lock, and the others ended it`);
      this.#results.push([`${victim.name} ended`, "it was frozen with the write lock", ""]);
      await victim.start();
      await this.#together();
      return;
    }
    const before = victim.log.length;
    this.#say(`SIGCONT ${victim.name}: it wakes up and knows nothing of that`);
    victim.signal("SIGCONT");
    const joined = /Joined again; late writes that were refused: (\d+)/;
    await this.#must(() => joined.test(victim.log.slice(before)), `${victim.name} joins again`);
    const refused = Number(joined.exec(victim.log.slice(before))?.[1]);
    this.#say(`${victim.name} has joined again; late writes of it that were refused: ${refused}`);
    this.#results.push([`${victim.name} woken`, "late writes refused", String(refused)]);
    await this.#together();
  }

  async #stopInGoodOrder(node: PracticeNode): Promise<void> {
    await delay(CALM_MS);
    this.#say(`SIGTERM ${node.name}: it gives its orders away`);
    const startMs = performance.now();
    node.signal("SIGTERM");
    const exit = await node.exited;
    const tookMs = performance.now() - startMs;
    const given = /orders given to other nodes: (\d+)/.exec(node.log)?.[1] ?? "0";
    this.#say(`${node.name} has ended with ${exit} after ${seconds(tookMs)}, and gave ${given} orders away`);
    this.#results.push([`${node.name} stopped`, `${given} orders given away`, seconds(tookMs)]);
    await node.start();
    await this.#together();
  }

  /** Waits until the others have all of its orders. */
  async #takenOver(victim: PracticeNode, startMs: number, what: string): Promise<void> {
    const since = Date.now() - (performance.now() - startMs);
    const transfers = async (): Promise<ClusterAnswer["transfers"]> => {
      const views = await Promise.all(this.#othersThan(victim).map(({ url }) => readCluster(url)));
      const all = views.flatMap((view) => view?.transfers ?? []);
      return all.filter((each) => each.service_id === victim.serviceId && Date.parse(each.start_time) >= since);
    };
    await this.#must(async () => (await transfers()).length > 0, `the others take over the orders of ${victim.name}`);
    const tookMs = performance.now() - startMs;
    const orders = (await transfers()).reduce((sum, each) => sum + each.orders_transferred, 0);
    this.#say(
      `the others go on with ${orders} orders of ${victim.name} after ${seconds(tookMs)}; ${await this.#leaderName(victim)} leads`,
    );
    this.#results.push([what, `${orders} orders taken over`, seconds(tookMs)]);
  }

  /** Waits until every node sees every node, and a leader. */
  async #together(): Promise<void> {
    const isTogether = async (): Promise<boolean> => {
      const views = await Promise.all(this.#nodes.map(({ url }) => readCluster(url)));
      return views.every(
        (view) =>
          view !== null &&
          view.leader_name !== "" &&
          view.nodes.filter((node) => node.connected).length === NAMES.length,
      );
    };
    await this.#must(isTogether, "all nodes see each other");
  }

  async #stopAll(): Promise<void> {
    for (const node of this.#nodes) node.signal("SIGTERM");
    await Promise.all(this.#nodes.map((node) => node.exited));
  }

  async #judge(): Promise<Verdict> {
    const store = await this.#options.openStore(this.#storePath);
    try {
      return await judgeOrders(store, this.#workload.acknowledged);
    } finally {
      await store.close();
    }
  }

  #printResult(verdict: Verdict): void {
    if (this.#progressTimer !== null) clearInterval(this.#progressTimer);
    const rows = [
      ...this.#results,
      ["orders acknowledged", "", String(verdict.acknowledged)],
      ["  completed", "", String(verdict.completed)],
      ["  failed as asked, rolled back", "", String(verdict.rolledBack)],
      ["  not final", "", String(verdict.notFinal)],
      ["  lost", "", String(verdict.lost)],
      ["late writes accepted", "", String(verdict.lateWritesAccepted)],
    ];
    const widths = [0, 1, 2].map((column) => Math.max(...rows.map((row) => (row[column] ?? "").length)));
    const { screen } = this.#options;
    screen.line("");
    for (const [what = "", detail = "", figure = ""] of rows) {
      screen.line(
        `  ${what.padEnd(widths[0] ?? 0)}  ${detail.padEnd(widths[1] ?? 0)}  ${figure.padStart(widths[2] ?? 0)}`,
      );
    }
    screen.line("");
    for (const complaint of verdict.complaints) screen.line(`  ${complaint}`);
    const isGood = verdict.lost + verdict.lateWritesAccepted + verdict.notFinal === 0;
    screen.line(isGood ? "Passed: nothing was lost, and nothing late was accepted." : "FAILED.");
  }

  #showProgress(): void {
    const { acknowledged, retried } = this.#workload;
    this.#options.screen.progress(
      `${seconds(performance.now() - this.#startMs)}  orders acknowledged: ${acknowledged.length}, sent again: ${retried}`,
    );
  }

  #say(text: string): void {
    this.#options.screen.line(`${seconds(performance.now() - this.#startMs).padStart(7)}  ${text}`);
  }

  async #must(isSo: () => boolean | Promise<boolean>, what: string): Promise<void> {
    if (await waitUntil(isSo, WAIT_MS_MAX)) return;
    throw new Error(`waited ${WAIT_MS_MAX / 1_000} s in vain until ${what}`);
  }

  #othersThan(node: PracticeNode): PracticeNode[] {
    return this.#nodes.filter((other) => other !== node);
  }

  async #view(except?: PracticeNode): Promise<ClusterAnswer> {
    for (const node of this.#nodes) {
      if (node === except) continue;
      const view = await readCluster(node.url);
      if (view !== null && view.leader_name !== "") return view;
    }
    throw new Error("no node answers");
  }

  async #leader(): Promise<PracticeNode> {
    const { leader_name: name } = await this.#view();
    const leader = this.#nodes.find((node) => node.serviceId === name);
    if (leader === undefined) throw new Error("the leader is no node of this drill");
    return leader;
  }

  async #follower(): Promise<PracticeNode> {
    const [follower] = this.#othersThan(await this.#leader());
    if (follower === undefined) throw new Error("there is no follower");
    return follower;
  }

  async #leaderName(except?: PracticeNode): Promise<string> {
    const { leader_name: name } = await this.#view(except);
    return this.#nodes.find((node) => node.serviceId === name)?.name ?? "nobody";
  }
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(2)} s`;
}
