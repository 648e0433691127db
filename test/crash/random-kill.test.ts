/** Random kill -9 under load: clients submit while the service is killed and started again, and nothing may be missing. */
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { type Service, temporaryFolder } from "../support/service.ts";
import { waitFor } from "../support/wait.ts";
import type { Acknowledgement } from "./checker.ts";
import { allFinal, expectNoViolation, judge, type OrderRequest, startCrashService, submit } from "./crash-service.ts";
import { startReceiver } from "./receiver.ts";
import { STEP_NAMES } from "./step-names.ts";
import { seededRandom } from "./seeded-random.ts";
import { storePathIn } from "./store-content.ts";

const SEED = Number(process.env["ORDER_PROCESS_SEED"] ?? Math.floor(Math.random() * 2 ** 32));
const ROUNDS = Number(process.env["ORDER_PROCESS_ROUNDS"] ?? 12);
const CLIENTS = 6;

/** The most calls that the service makes before it is killed. */
const CALLS_OF_LIFE_MAX = 60;

test(`no acknowledged order is lost or stuck after ${ROUNDS} kills at random moments under load`, async (t) => {
  const receiver = await startReceiver(t);
  const data = temporaryFolder(t);
  const random = seededRandom(SEED);
  const load = new Load();
  let service: Service | undefined;
  try {
    const clients = Promise.all(
      Array.from({ length: CLIENTS }, (_, index) => load.runClient(seededRandom(SEED + 1 + index))),
    );
    clients.catch(() => undefined); // heard below
    for (let round = 0; round < ROUNDS; round++) {
      service = await startCrashService(t, { receiver, data });
      load.serviceUrl = service.url;
      const dueCalls = receiver.calls.length + Math.floor(random() * (CALLS_OF_LIFE_MAX + 1));
      await waitFor(() => receiver.calls.length >= dueCalls, { what: "the service has made some calls" });
      load.serviceUrl = null;
      assert.equal(await service.end("SIGKILL"), "SIGKILL");
    }
    service = await startCrashService(t, { receiver, data });
    load.serviceUrl = service.url;
    load.stop();
    await clients;
    await allFinal(storePathIn(data));
    assert.equal(await service.end("SIGTERM"), 0);
    expectNoViolation(judge(storePathIn(data), receiver, load.acknowledged));
    assert.ok(load.acknowledged.length > 0 && receiver.repeatedCalls > 0, "no kill cut anything: nothing is proved");
  } catch (error) {
    sayHowToReplay(t, service);
    throw error;
  } finally {
    load.stop();
    load.serviceUrl = null;
  }
  t.diagnostic(
    `seed ${SEED}: ${ROUNDS} kills, ${load.acknowledged.length} acknowledged, ${load.cutOff} requests cut off ` +
      `(${load.retried} retried with their key), ${receiver.calls.length} calls, ${receiver.repeatedCalls} repeated`,
  );
});

/** Clients that submit one order after the other. */
class Load {
  /** Null while the service is down. */
  serviceUrl: string | null = null;
  readonly acknowledged: Acknowledgement[] = [];
  cutOff = 0;
  retried = 0;
  #made = 0;
  #stopping = false;

  /** No new order from now on; what was begun with a key is still brought to its answer. */
  stop(): void {
    this.#stopping = true;
  }

  async runClient(random: () => number): Promise<void> {
    while (!this.#stopping) await this.#submitOne(random);
  }

  async #submitOne(random: () => number): Promise<void> {
    const number = ++this.#made;
    const idempotencyKey = random() < 0.5 ? `key-${number}` : null;
    const request: OrderRequest = { body: { number, ...fate(random) }, idempotencyKey };
    for (;;) {
      const url = await waitFor(() => this.serviceUrl, { what: "the service is up" });
      const acknowledgement = await submit(url, request);
      if (acknowledgement !== null) {
        this.acknowledged.push(acknowledgement);
        return;
      }
      this.cutOff++;
      // Without a key, to send it again would be another order; whether there is one now, nobody knows.
      if (idempotencyKey === null) return;
      this.retried++;
    }
  }
}

/** What a body asks for: two in ten orders fail, two in ten have a hiccup. */
function fate(random: () => number): object {
  const step = STEP_NAMES[Math.floor(random() * STEP_NAMES.length)];
  const die = random();
  if (die < 0.2) return { fail_at: step };
  return die < 0.4 ? { flaky_at: step } : {};
}

/** The seed replays the orders and the moments of the kills; what the machine does between them is its own. */
function sayHowToReplay(t: TestContext, service: Service | undefined): void {
  t.diagnostic(
    `replay with: ORDER_PROCESS_SEED=${SEED} ORDER_PROCESS_ROUNDS=${ROUNDS} npx node --test test/crash/random-kill.test.ts`,
  );
  t.diagnostic(`the last service said:\n${service?.output() ?? ""}`);
}
