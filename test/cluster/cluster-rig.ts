/**
 * A cluster of real processes on one store, for a test that does something to them: starts nodes, harms them, waits for what should
 * follow, and judges at the end.
 *
 * Owns the processes that it has started, the receiver, the load and the list of what was done to whom. Every process ends with its
 * test.
 */
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import type { Incarnation } from "../../src/order/events.ts";
import type { Acknowledgement } from "../crash/checker.ts";
import type { BrokenGuarantee, KillPoint } from "../crash/fault-stores.ts";
import { type HeldCall, type ReceivedCall, type Receiver, startReceiver } from "../crash/receiver.ts";
import { STEERED_STEP_NAMES, STEP_NAMES } from "../crash/step-names.ts";
import { atEnd } from "../support/at-end.ts";
import { acceptedOrderId, send } from "../support/client.ts";
import { type FreezeMoment, isStopped, triesToFreeze } from "../support/freeze.ts";
import { type Service, startService, temporaryFolder } from "../support/service.ts";
import { DEADLINE_MS, monotonicMs, waitFor } from "../support/wait.ts";
import { type Backend, startBackend } from "./backend.ts";
import { entriesOf, type Fault, type Refusal } from "./cluster-checker.ts";
import { type Judgement, judge, replayed } from "./judgement.ts";
import { ClusterLoad } from "./load.ts";
import { type EntryOf, type RecordEntry, RecordReader } from "./node-record.ts";
import { Steerers } from "./steerers.ts";

const CRASH_NODE = fileURLToPath(new URL("../crash/crash-node.ts", import.meta.url));

/** Replays what clients and tests choose by chance; what the machine does between is its own. */
export const SEED = Number(process.env["ORDER_PROCESS_SEED"] ?? Math.floor(Math.random() * 2 ** 32));

/** Silence after which a node counts as dead, unless a test says otherwise. */
export const TTL_MS = 2_000;

/** Long enough that there are always some dozens of orders in flight under load. */
const ANSWER_MS = 80;

export interface NodeOptions {
  /** Default: a new folder. */
  readonly data?: string;
  readonly args?: readonly string[];
  /** What is wrong with it from its start (crash/crash-node.ts). */
  readonly kill?: KillPoint;
  readonly broken?: BrokenGuarantee;
  readonly clockMs?: number;
  readonly claimMs?: number;
  readonly lateDeath?: boolean;
  /** Start it without `--store`: it has to learn where the orders are. */
  readonly withoutStore?: boolean;
}

export interface RigOptions {
  /** Those to start with. Default: three without options. */
  readonly nodes?: readonly NodeOptions[];
  readonly ttlMs?: number;
  readonly answerMs?: number;
  /** The nodes run the pipeline that is steered, and so do people while there is load. */
  readonly steered?: boolean;
  /** The nodes run the pipeline whose orders wait: nothing of it is judged. */
  readonly waiting?: boolean;
}

/** One process. A restart of its service is another. */
export interface RigNode extends Service {
  readonly serviceId: string;
}

/** The cluster as a node shows it. */
export interface ClusterAnswer {
  readonly leader_name: string;
  readonly cluster_id: string;
  readonly term: number;
  readonly nodes_count: number;
  readonly nodes: readonly {
    readonly name: string;
    readonly connection_string: string;
    readonly connected: boolean;
    readonly last_activity: string;
    readonly orders_in_flight: number;
  }[];
  readonly transfers: readonly { readonly service_id: string; readonly orders_transferred: number }[];
}

export class ClusterRig {
  readonly backend: Backend;
  readonly receiver: Receiver;
  readonly ttlMs: number;
  /** All that were ever started. */
  readonly nodes: RigNode[] = [];
  readonly faults: Fault[] = [];
  /** Orders submitted by hand. */
  readonly acknowledged: Acknowledgement[] = [];
  readonly #t: TestContext;
  readonly #recordFolder: string;
  readonly #reader: RecordReader;
  readonly #gone = new Set<RigNode>();
  readonly #frozen = new Set<RigNode>();
  readonly #refusals: Refusal[] = [];
  readonly #pipeline: string;
  #storeBackMs = 0;
  #load: ClusterLoad | null = null;
  #steerers: Steerers | null = null;

  private constructor(t: TestContext, backend: Backend, receiver: Receiver, ttlMs: number, pipeline: string) {
    this.#t = t;
    this.#pipeline = pipeline;
    this.backend = backend;
    this.receiver = receiver;
    this.ttlMs = ttlMs;
    this.#recordFolder = join(temporaryFolder(t), "record");
    mkdirSync(this.#recordFolder);
    this.#reader = new RecordReader(this.#recordFolder);
  }

  /** Starts a cluster and resolves when all its nodes see each other and one leader. */
  static async start(t: TestContext, options: RigOptions = {}): Promise<ClusterRig> {
    const { nodes = [{}, {}, {}], ttlMs = TTL_MS, answerMs = ANSWER_MS, steered = false, waiting = false } = options;
    const pipeline = waiting ? "waiting" : steered ? "steered" : "crash-test";
    const rig = new ClusterRig(t, await startBackend(t), await startReceiver(t), ttlMs, pipeline);
    rig.receiver.answerMs = answerMs;
    const started = await Promise.all(nodes.map((node) => rig.addNode(node)));
    rig.nodes.splice(0, started.length, ...started); // in the order of the options, whichever was the first to listen
    await rig.settled();
    return rig;
  }

  /** Starts one more node; resolves when it listens. */
  async addNode(options: NodeOptions = {}): Promise<RigNode> {
    const { data, args = [], kill, broken, clockMs, claimMs, lateDeath = false, withoutStore = false } = options;
    const killPoint =
      kill === undefined ? [] : [kill.moment, kill.write, ...(kill.kind === undefined ? [] : [kill.kind])];
    const service = await startService(this.#t, {
      script: CRASH_NODE,
      ...(data === undefined ? {} : { data }),
      args: [...(withoutStore ? [] : this.backend.args), "--node-ttl", `${this.ttlMs}ms`, ...args],
      env: {
        CRASH_RECEIVER: this.receiver.url,
        CRASH_RECORD: this.#recordFolder,
        CRASH_PIPELINE: this.#pipeline,
        ...(kill === undefined ? {} : { CRASH_KILL: killPoint.join(":") }),
        ...(broken === undefined ? {} : { CRASH_BREAK: broken }),
        ...(clockMs === undefined ? {} : { CRASH_CLOCK_MS: String(clockMs) }),
        ...(claimMs === undefined ? {} : { CRASH_CLAIM_MS: String(claimMs) }),
        ...(lateDeath ? { CRASH_LATE: "death" } : {}),
      },
    });
    const heartbeat = await send(`${service.url}/diagnostic/heartbeat`);
    const node = { ...service, serviceId: String(heartbeat.json?.["service_id"]) };
    this.nodes.push(node);
    void service.exited.then(() => this.#gone.add(node));
    return node;
  }

  /** Processes that run, frozen ones too. */
  get running(): readonly RigNode[] {
    return this.nodes.filter((node) => !this.#gone.has(node));
  }

  /** The cluster as a node shows it. */
  async view({ url }: RigNode): Promise<ClusterAnswer> {
    const answer = await send(`${url}/diagnostic/cluster`);
    assert.equal(answer.status, 200, answer.text);
    return answer.json as unknown as ClusterAnswer;
  }

  /** Resolves with the leader when all that are awake see each other, and it, and nobody else connected. */
  settled(deadlineMs = DEADLINE_MS): Promise<RigNode> {
    let last = "";
    return waitFor(
      async () => {
        const awake = this.running.filter((node) => !this.#frozen.has(node));
        const views = await Promise.all(awake.map((node) => this.view(node)));
        last = JSON.stringify(views);
        const due = awake.map(({ serviceId }) => serviceId).toSorted();
        const agree = views.every(({ nodes, leader_name: leader }) => {
          const connected = nodes.filter((node) => node.connected).map(({ name }) => name);
          return leader === views[0]?.leader_name && connected.toSorted().join() === due.join();
        });
        return agree ? awake.find(({ serviceId }) => serviceId === views[0]?.leader_name) : undefined;
      },
      { deadlineMs, what: () => `the nodes agree; they said: ${last}` },
    );
  }

  /** Those that run and don't lead. */
  async workers(): Promise<readonly [RigNode, ...RigNode[]]> {
    const leader = await this.settled();
    const [first, ...others] = this.running.filter((node) => node !== leader);
    assert.ok(first !== undefined, "there is no worker");
    return [first, ...others];
  }

  /** Submits an order and keeps what is promised. */
  async submit(node: RigNode, body: object = {}): Promise<string> {
    const orderId = await acceptedOrderId(node.url, body);
    this.acknowledged.push({ orderId, idempotencyKey: null, body: JSON.stringify(body) });
    return orderId;
  }

  /** Begins the load; resolves when every node has calls under way. */
  async startLoad(clients = 6): Promise<ClusterLoad> {
    const urls = (): readonly string[] => this.running.map(({ url }) => url);
    const load = new ClusterLoad({ urls, seed: SEED, clients, stepNames: this.#stepNames });
    this.#load = load;
    atEnd(this.#t, () => load.abandon());
    if (this.#pipeline === "steered") {
      const steerers = new Steerers({ urls, seed: SEED, orders: load.acknowledged });
      this.#steerers = steerers;
      atEnd(this.#t, () => steerers.abandon());
    }
    await this.goesOn();
    return load;
  }

  /** Resolves when every node that runs and is awake has made some more calls, and more orders were acknowledged. */
  async goesOn(): Promise<void> {
    const from = this.receiver.calls.length;
    const promised = this.#load?.acknowledged.length ?? 0;
    await waitFor(
      () => {
        if (this.#load?.failure) throw this.#load.failure;
        if (this.#steerers?.failure) throw this.#steerers.failure;
        const callers = Map.groupBy(this.receiver.calls.slice(from), ({ incarnation }) => incarnation);
        const awake = this.running.filter((node) => !this.#frozen.has(node));
        const busy = awake.filter((node) => (callers.get(this.incarnationOf(node))?.length ?? 0) >= CALLS_DUE);
        return busy.length === awake.length && (this.#load?.acknowledged.length ?? 0) >= promised + ORDERS_DUE;
      },
      { what: () => `every node works; ${this.#said()}` },
    );
  }

  /**
   * Kills nodes at the same moment, as kill -9 does; resolves when they are gone. Under load it is a moment at which they have orders, which
   * only a process that stands still can't change any more.
   */
  async kill(...nodes: readonly RigNode[]): Promise<Fault> {
    const kill = async (): Promise<Fault | undefined> => {
      const faults = nodes.map((node) => this.noteFault(node));
      if (!(await this.#standStillAtWork(nodes))) {
        this.faults.splice(this.faults.length - faults.length);
        return undefined;
      }
      await Promise.all(nodes.map((node) => node.end("SIGKILL")));
      for (const fault of faults) fault.surelyMs = monotonicMs();
      return faults[0];
    };
    return waitFor(kill, { what: () => `nodes are killed while they have orders; ${this.#said()}` });
  }

  /** Tells a node to stop in good order. Under load it is a moment at which it has orders that it can't end before. */
  async stop(node: RigNode): Promise<Fault> {
    const { pid } = node;
    const stop = async (): Promise<Fault | undefined> => {
      const fault = { pid, askedMs: monotonicMs(), surelyMs: Number.POSITIVE_INFINITY };
      if (!(await this.#standStillAtWork([node], 2))) return undefined;
      const exited = node.end("SIGTERM");
      process.kill(pid, "SIGCONT");
      assert.equal(await exited, 0);
      return fault;
    };
    return waitFor(stop, { what: () => `a node is stopped while it has orders; ${this.#said()}` });
  }

  /** Under load: has processes stand still, and resolves with true if they have orders then; or lets them go on. */
  async #standStillAtWork(nodes: readonly RigNode[], stepsLeft = 1): Promise<boolean> {
    if (this.#load?.isOn !== true) return true;
    for (const { pid } of nodes) process.kill(pid, "SIGSTOP");
    await waitFor(() => nodes.every(({ pid }) => isStopped(pid)), { what: "processes stand still" });
    if (await this.#haveOrders(nodes, stepsLeft)) return true;
    for (const node of nodes) if (!this.#frozen.has(node)) process.kill(node.pid, "SIGCONT");
    return false;
  }

  /** Whether the nodes own an order that has so many steps to go. */
  async #haveOrders(nodes: readonly RigNode[], stepsLeft: number): Promise<boolean> {
    const owners = nodes.map((node) => this.incarnationOf(node));
    return (await this.backend.readContent()).some((row) => {
      const order = replayed(row);
      if (order?.state.status !== "running" || !owners.includes(order.owner)) return false;
      return order.state.call.stepIndex + stepsLeft <= this.#stepNames.length;
    });
  }

  /** Resolves when a process was killed by itself or by another. */
  async isKilled(node: RigNode): Promise<void> {
    await waitFor(() => this.#gone.has(node), { what: () => `process ${node.pid} is killed; ${this.#said()}` });
    assert.equal(await node.exited, "SIGKILL");
  }

  /** From now on the others may take it for dead, until it says that it lives after the fault has surely taken effect. */
  noteFault({ pid }: RigNode): Fault {
    const fault = { pid, askedMs: monotonicMs(), surelyMs: Number.POSITIVE_INFINITY };
    this.faults.push(fault);
    return fault;
  }

  /** From now on, until the end, a node's address refuses connections. */
  noteRefusal({ pid }: RigNode): void {
    this.#refusals.push({ pid, startMs: monotonicMs(), endMs: Number.POSITIVE_INFINITY });
  }

  /** The store can be reached again: what the nodes did not say before this moment makes nobody dead. */
  noteStoreBack(): void {
    this.#storeBackMs = monotonicMs();
  }

  /** Stops a process as SIGSTOP does; resolves when it stands still. Under load it has orders then. */
  freeze(node: RigNode, moment: FreezeMoment = "between writes"): Promise<Fault> {
    return waitFor(
      async () => {
        const fault = this.noteFault(node);
        if (await this.#triesToFreeze(node, moment)) {
          fault.surelyMs = monotonicMs();
          this.#frozen.add(node);
          return fault;
        }
        this.faults.splice(this.faults.indexOf(fault), 1);
        return undefined;
      },
      { what: () => `a process is frozen ${moment}; ${this.#said()}` },
    );
  }

  async #triesToFreeze(node: RigNode, moment: FreezeMoment): Promise<boolean> {
    if (!(await triesToFreeze(node.pid, moment, this.backend.path))) return false;
    return this.#standStillAtWork([node]);
  }

  wake(node: RigNode): void {
    process.kill(node.pid, "SIGCONT");
    this.#frozen.delete(node);
  }

  /** The last incarnation that a process has registered; 0: none. */
  incarnationOf({ pid }: RigNode): Incarnation {
    return entriesOf(this.#reader.of(pid), "registered").at(-1)?.incarnation ?? 0;
  }

  /** What a process has in memory and can't do without, in bytes. */
  async heapBytes(node: RigNode): Promise<number> {
    const notes = (): readonly EntryOf<"memory">[] => entriesOf(this.#reader.of(node.pid), "memory");
    const before = notes().length;
    process.kill(node.pid, "SIGUSR2");
    const { heapBytes } = await waitFor(() => notes()[before], { what: "the node has looked at its memory" });
    return heapBytes;
  }

  /** What all nodes have asked of the store, and heard. */
  record(): RecordEntry[] {
    return this.#reader.all();
  }

  /** Resolves when an incarnation owns no order that is not final. */
  async ownsNothing(incarnation: Incarnation): Promise<void> {
    await waitFor(async () => (await this.backend.countOpen(incarnation)) === 0, {
      what: () => `the orders of incarnation ${incarnation} are others'; ${this.#said()}`,
    });
  }

  /** The same for a process that is gone; at once for one that runs. */
  async ownsNothingIfGone(node: RigNode): Promise<void> {
    if (this.#gone.has(node)) await this.ownsNothing(this.incarnationOf(node));
  }

  /** Resolves with the first such call that the receiver holds. */
  heldCall(what: string, which: (call: HeldCall) => boolean): Promise<HeldCall> {
    return waitFor(() => this.receiver.held.find(which), { what: () => `${what} is called; ${this.#said()}` });
  }

  /** Resolves with the first such call. */
  call(what: string, which: (call: ReceivedCall) => boolean): Promise<ReceivedCall> {
    return waitFor(() => this.receiver.calls.find(which), { what: () => `${what} is called; ${this.#said()}` });
  }

  /** Resolves when a node has written such a line. */
  async says(node: RigNode, line: RegExp): Promise<void> {
    await waitFor(() => line.test(node.output()), {
      what: () => `a node says ${String(line)}; it said:\n${node.output()}`,
    });
  }

  /** Resolves when a node shows that another one has so many orders in flight. */
  async seesInFlight(node: RigNode, other: RigNode, orders: number): Promise<void> {
    await waitFor(
      async () => {
        const { nodes } = await this.view(node);
        return nodes.find(({ name }) => name === other.serviceId)?.orders_in_flight === orders;
      },
      { what: () => `${node.serviceId} sees ${orders} orders in flight at ${other.serviceId}; ${this.#said()}` },
    );
  }

  /** Ends the load, waits until every order is final, stops all nodes in good order and judges what happened. */
  async judge(): Promise<Judgement> {
    await this.#load?.stop();
    this.receiver.letGo();
    await this.#steerers?.finish();
    const isDone = async (): Promise<boolean> => {
      await this.#steerers?.finishUnknown();
      return (await this.backend.countOpen()) === 0;
    };
    await waitFor(isDone, { what: () => `every order is final; ${this.#said()}` });
    const exits = await Promise.all(this.running.map((node) => node.end("SIGTERM")));
    assert.deepEqual(
      exits.filter((exit) => exit !== 0),
      [],
      this.#said(),
    );
    return this.#judgeEvidence();
  }

  /** Kills all nodes and judges what has happened so far, finished or not: for what is broken so far that nothing may ever finish. */
  async judgeAsItIs(): Promise<Judgement> {
    await Promise.all(this.running.map((node) => node.end("SIGKILL")));
    return this.#judgeEvidence();
  }

  /** Like judge, and nothing is wrong. */
  async expectSound(): Promise<Judgement> {
    const judgement = await this.judge();
    const { lines } = judgement;
    const first = lines.slice(0, 20).join("\n");
    assert.equal(lines.length, 0, `${lines.length} violations, the first:\n${first}\n${this.#said()}`);
    return judgement;
  }

  get #stepNames(): readonly string[] {
    return this.#pipeline === "steered" ? STEERED_STEP_NAMES : STEP_NAMES;
  }

  async #judgeEvidence(): Promise<Judgement> {
    const stored = await this.backend.readContent();
    const judgement = judge(
      {
        record: this.record(),
        stored,
        faults: this.faults,
        refusals: this.#refusals,
        storeBackMs: this.#storeBackMs,
        ttlMs: this.ttlMs,
      },
      {
        pipeline: this.#stepNames,
        acknowledged: [...this.acknowledged, ...(this.#load?.acknowledged ?? [])],
        stored,
        calls: this.receiver.calls,
        ...(this.#steerers === null ? {} : { actions: this.#steerers.acknowledged }),
      },
      await this.backend.readCounts(),
    );
    const facts = [
      ...judgement.facts,
      ["repeated calls", this.receiver.repeatedCalls] as const,
      ...(this.#steerers?.facts() ?? []),
    ];
    this.#t.diagnostic(facts.map(([name, value]) => `${name}: ${value ?? "-"}`).join(", "));
    return judgement;
  }

  /** For whoever looks into a failure. */
  #said(): string {
    const said = this.nodes.map(({ serviceId, pid, output }) => `--- ${serviceId}, process ${pid}:\n${output()}`);
    return `seed ${SEED}; the nodes said:\n${said.join("\n")}`;
  }
}

/** By each node, until it counts as working. */
const CALLS_DUE = 20;
const ORDERS_DUE = 40;
