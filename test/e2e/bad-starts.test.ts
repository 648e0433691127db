/** Starts that must be refused: one line on stderr that says what is wrong, the right exit code, and nothing harmed. */
import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { readInvocation } from "../../src/config.ts";
import { createLogger } from "../../src/log.ts";
import { startNode } from "../../src/main.ts";
import { StartError } from "../../src/order/errors.ts";
import { StoreUnavailableError } from "../../src/store/store.ts";
import { passOn, passOnCluster } from "../crash/fault-stores.ts";
import { assertRefused, assertServes } from "../support/checks.ts";
import { acceptedOrderId, finalOrder, send } from "../support/client.ts";
import { runCommand, type Service, startService, temporaryFolder } from "../support/service.ts";
import { mountSmallDisk, remountReadOnly } from "../support/tmpfs.ts";

const PAGE_BYTES = 8192;

/** Cases that share nothing run side by side: most of their time is the start of a process. */
const CONCURRENT = { concurrency: 2 };

// Each option, and what it may be: src/config.test.ts. Here: that what is refused there ends the process well.
test("what is no configuration is refused with exit code 2, before anything has been made", CONCURRENT, async (t) => {
  const file = join(temporaryFolder(t), "config.yaml");
  writeFileSync(file, "port: [80");
  const cases: readonly [args: readonly string[], env: Record<string, string>, line: RegExp][] = [
    [["--bogus"], {}, /unknown option '--bogus'.*--help/],
    [["--step-time", "5"], {}, /--step-time can't be "5".*60ms, 5s, 2m/],
    [["--log-level", "in\nfo"], {}, /--log-level can't be "in.*fo"/],
    [["--config", file], {}, /config.yaml can't be read: .*line 1/],
    [[], { ORDER_PROCESS_LOG_LEVEL: "loud" }, /ORDER_PROCESS_LOG_LEVEL can't be "loud"/],
  ];
  await Promise.all(
    cases.map(([args, env, line]) =>
      t.test(JSON.stringify([args, env]), async (tt) => {
        const data = join(temporaryFolder(tt), "data");
        assertRefused(await runCommand(["--port", "0", "--data", data, ...args], { env }), 2, line);
        assert.ok(!existsSync(data), "nothing has been made");
      }),
    ),
  );
});

test("a service runs with what its file, its environment and its command line say", async (t) => {
  const file = join(temporaryFolder(t), "config.yaml");
  writeFileSync(file, "step-time: 0s\nlog-format: json\n");
  const service = await startService(t, {
    args: ["--config", file, "--log-level", "debug"],
    env: { ORDER_PROCESS_LOG_FORMAT: "pretty" },
  });
  await assertServes(service.url);
  assert.match(service.output(), /Log configuration loaded: \{debug pretty\}/);
});

test("--help and --version go to stdout, with exit code 0", async () => {
  const help = await runCommand(["--help"]);
  assert.equal(help.code, 0);
  assert.equal(help.stderr, "");
  for (const option of ["--host", "--port", "--data", "--store", "--step-time", "--failure-rate", "--config"]) {
    assert.match(help.stdout, new RegExp(`^ .*${option} <`, "m"));
  }
  const version = await runCommand(["--version"]);
  assert.equal(version.code, 0);
  assert.equal(version.stderr, "");
  assert.match(version.stdout, /^\d+\.\d+\.\d+\n$/);
});

test("an address that can't be listened at is refused with exit code 1", async (t) => {
  const first = await startService(t, { args: ["--step-time", "0s"] });
  const { port } = new URL(first.url);
  const start = (...args: string[]): ReturnType<typeof runCommand> =>
    runCommand(["--data", temporaryFolder(t), ...args]);
  await t.test("a port in use, and what uses it goes on", async () => {
    assertRefused(await start("--port", port), 1, new RegExp(`127.0.0.1:${port}: the port is in use.*--port`));
    await assertServes(first.url);
  });
  for (const host of ["203.0.113.1", "no.such.host.invalid", "300.1.1.1", "not a host"]) {
    await t.test(host, async () => {
      assertRefused(await start("--port", "0", "--host", host), 1, new RegExp(`can't listen at ${host}:0: .*--host`));
    });
  }
});

test("a data folder that is missing is made, with those above it", async (t) => {
  const data = join(temporaryFolder(t), "a", "b c", "ü");
  const service = await startService(t, { data, args: ["--step-time", "0s"] });
  await assertServes(service.url);
  assert.ok(existsSync(join(data, "node.json")));
});

test("a data folder that can't be one is refused with exit code 1", async (t) => {
  const folder = temporaryFolder(t);
  const file = join(folder, "file");
  writeFileSync(file, "mine");
  const start = (data: string, ...args: string[]): ReturnType<typeof runCommand> =>
    runCommand(["--port", "0", "--data", data, ...args]);
  await t.test("it is a file", async () => {
    assertRefused(await start(file), 1, /data folder .*file can't be made.*--data/);
    assert.equal(readFileSync(file, "utf8"), "mine");
  });
  await t.test("it would be in a file", async () => {
    assertRefused(await start(join(file, "data")), 1, /data folder .*data can't be made.*--data/);
  });
  await t.test(
    "it would be where nobody can make one",
    { skip: !existsSync("/proc/self") && "needs /proc" },
    async () => {
      assertRefused(await start("/proc/order-process"), 1, /data folder \/proc\/order-process can't be made.*--data/);
    },
  );
  await t.test("it is on a disk that is read-only", async (tt) => {
    const disk = mountSmallDisk(tt, 8);
    if (disk === null) return;
    mkdirSync(join(disk, "data"));
    remountReadOnly(disk);
    assertRefused(await start(join(disk, "data")), 1, /data folder .*data can't be written.*--data/);
    assertRefused(await start(join(disk, "new")), 1, /data folder .*new can't be made.*--data/);
  });
  await t.test("it was written before, on a disk that is read-only now", async (tt) => {
    const disk = mountSmallDisk(tt, 8);
    if (disk === null) return;
    const service = await startService(tt, { data: disk, args: ["--step-time", "0s"] });
    await assertServes(service.url);
    assert.equal(await service.end("SIGTERM"), 0);
    remountReadOnly(disk);
    assertRefused(await start(disk), 1, /data folder .* can't be written.*--data/);
    const elsewhere = temporaryFolder(tt);
    const refused = await start(elsewhere, "--store", `sqlite:${join(disk, "orders.sqlite")}`);
    assertRefused(
      refused,
      1,
      new RegExp(`the store \\S*${disk}/orders\\.sqlite can't be opened: .*this user may read and write both`),
    );
  });
});

test("a store that opens and fails then is named, too", async (t) => {
  const data = temporaryFolder(t);
  const invocation = readInvocation(["--port", "0", "--data", data], {}, "0.0.0");
  assert.ok(invocation.kind === "run");
  const silent = createLogger("silent", "logfmt", () => undefined);
  const reason = "it is read-only; give this user write access to the file and its folder";
  const starting = startNode(invocation.config, silent, assert.ifError, {
    wrapStore: (store) => ({
      ...passOn(store),
      cluster: {
        ...passOnCluster(store.cluster),
        identity: () => Promise.reject(new StoreUnavailableError(reason)),
      },
    }),
  });
  await assert.rejects(starting, (error) => {
    assert.ok(error instanceof StartError);
    assert.equal(error.message, `the store sqlite:${join(data, "orders.sqlite")} can't be used: ${reason}`);
    return true;
  });
});

test("a second process on a data folder in use is refused by the name of the first, which goes on", async (t) => {
  const first = await startService(t, { args: ["--step-time", "0s"] });
  const second = await runCommand(["--port", "0", "--data", first.data]);
  assertRefused(second, 1, new RegExp(`data folder ${first.data} is in use by process ${first.pid};.*--data`));
  await assertServes(first.url);
});

test("a damaged file of the node's identity or lock is named, and left as it is", CONCURRENT, async (t) => {
  const { data } = await usedDataFolder(t, "SIGTERM");
  const cases: readonly [file: string, name: string, content: string][] = [
    ["node.json", "cut off", '{"service_id":"3f'],
    ["node.json", "empty", ""],
    ["node.json", "another sort of JSON", "[]"],
    ["node.json", "no UUID in it", '{"service_id":"../../x","pid":1}'],
    ["node.json", "noise", "\u0000\u0001\u0002\uFFFD"],
    ["node.lock", "noise", "not a lock, but something else".repeat(100)],
  ];
  await Promise.all(
    cases.map(([file, name, content]) =>
      t.test(`${file}: ${name}`, async (tt) => {
        const copy = join(temporaryFolder(tt), "data");
        cpSync(data, copy, { recursive: true });
        writeFileSync(join(copy, file), content);
        const finished = await runCommand(["--port", "0", "--data", copy]);
        assertRefused(finished, 1, new RegExp(`${file.replace(".", "\\.")} is damaged.*remove it`));
        assert.equal(readFileSync(join(copy, file), "utf8"), content);
      }),
    ),
  );
});

test("a store that is damaged, another program's or too new is refused, and left as it is", CONCURRENT, async (t) => {
  const { data } = await usedDataFolder(t, "SIGTERM");
  const sizeBytes = statSync(storeIn(data)).size;
  assert.ok(sizeBytes > 10 * PAGE_BYTES, "the store has pages to damage");
  const cases: readonly [name: string, damage: (path: string) => void, line: RegExp][] = [
    ["cut to half", (path) => truncateSync(path, sizeBytes / 2), /it is damaged/],
    ["cut to a page", (path) => truncateSync(path, PAGE_BYTES), /it is damaged/],
    ["cut to 100 bytes", (path) => truncateSync(path, 100), /it is damaged/],
    [
      "noise",
      (path) => writeFileSync(path, randomBytes(sizeBytes)),
      /it is not an order_process store, or it is damaged/,
    ],
    ["text", (path) => writeFileSync(path, "orders\n".repeat(1_000)), /it is not an order_process store/],
    ["noise in the middle", (path) => overwrite(path, 3 * PAGE_BYTES, randomBytes(5 * PAGE_BYTES)), /it is damaged/],
    [
      "zeros from the third page on",
      (path) => overwrite(path, 2 * PAGE_BYTES, Buffer.alloc(sizeBytes - 2 * PAGE_BYTES)),
      /it is damaged/,
    ],
    ["another program's", foreignDatabase, /it is a database of another program.*--store/],
    ["of a newer version", (path) => sql(path, "PRAGMA user_version = 99"), /it was written by a newer version/],
  ];
  await Promise.all([
    ...cases.map(([name, damage, line]) =>
      t.test(name, async (tt) => {
        const copy = join(temporaryFolder(tt), "data");
        cpSync(data, copy, { recursive: true });
        damage(storeIn(copy));
        const before = readFileSync(storeIn(copy));
        const finished = await runCommand(["--port", "0", "--data", copy]);
        assertRefused(finished, 1, new RegExp(`the store .*orders.sqlite can't be opened: ${line.source}`));
        assert.ok(before.equals(readFileSync(storeIn(copy))), "the file is as it was");
      }),
    ),
    t.test("a folder", async (tt) => {
      const finished = await runCommand(["--port", "0", "--data", temporaryFolder(tt), "--store", `sqlite:${data}`]);
      assertRefused(finished, 1, /the store .* can't be opened/);
    }),
    t.test("in a folder that is missing", async (tt) => {
      const path = join(temporaryFolder(tt), "missing", "orders.sqlite");
      const finished = await runCommand(["--port", "0", "--data", temporaryFolder(tt), "--store", `sqlite:${path}`]);
      assertRefused(finished, 1, /the store .*missing\/orders.sqlite can't .*check that its folder exists/);
    }),
  ]);
});

test("no acknowledged order is passed over in silence when the store's log is damaged", async (t) => {
  const killed = await usedDataFolder(t, "SIGKILL");
  const log = "orders.sqlite-wal";
  assert.ok(statSync(join(killed.data, log)).size > 0, "a killed service leaves its log");
  const copyOf = (tt: TestContext): string => {
    const copy = join(temporaryFolder(tt), "data");
    cpSync(killed.data, copy, { recursive: true });
    return copy;
  };
  await t.test("a log of noise is refused", async (tt) => {
    const data = copyOf(tt);
    writeFileSync(join(data, log), randomBytes(statSync(join(data, log)).size));
    const finished = await runCommand(["--port", "0", "--data", data]);
    assertRefused(finished, 1, /the store .*orders.sqlite can't be opened: .*damaged/);
  });
  await t.test("a log whose first bytes are noise is refused", async (tt) => {
    const data = copyOf(tt);
    overwrite(join(data, log), 0, randomBytes(32));
    const finished = await runCommand(["--port", "0", "--data", data]);
    assertRefused(finished, 1, /the store .*orders.sqlite can't be opened: .*damaged/);
  });
  await t.test("an index of noise is made anew", async (tt) => {
    const data = copyOf(tt);
    writeFileSync(join(data, "orders.sqlite-shm"), randomBytes(32 * 1024));
    await assertHasOrders(await startService(tt, { data, args: ["--step-time", "0s"] }), killed.orderIds);
  });
  await t.test("an index that is missing is made anew", async (tt) => {
    const data = copyOf(tt);
    rmSync(join(data, "orders.sqlite-shm"));
    await assertHasOrders(await startService(tt, { data, args: ["--step-time", "0s"] }), killed.orderIds);
  });
});

test("the service_id and all orders survive restarts, after a stop as after a kill", async (t) => {
  const { data, orderIds, serviceId } = await usedDataFolder(t, "SIGTERM");
  for (const ending of ["SIGKILL", "SIGTERM", "SIGKILL"] as const) {
    const service = await startService(t, { data, args: ["--step-time", "0s"] });
    assert.equal(await serviceIdOf(service), serviceId);
    await assertHasOrders(service, orderIds);
    orderIds.push(await acceptedOrderId(service.url));
    await service.end(ending);
  }
  const last = await startService(t, { data, args: ["--step-time", "0s"] });
  assert.equal(await serviceIdOf(last), serviceId);
  await assertHasOrders(last, orderIds);
});

/** The data folder of a service that has done some work and ended. */
async function usedDataFolder(
  t: TestContext,
  ending: "SIGTERM" | "SIGKILL",
): Promise<{ data: string; orderIds: string[]; serviceId: string }> {
  const service = await startService(t, { data: join(temporaryFolder(t), "data"), args: ["--step-time", "0s"] });
  const body = { filling: "x".repeat(2_000) };
  const orderIds = await Promise.all(Array.from({ length: 100 }, () => acceptedOrderId(service.url, body)));
  await assertHasOrders(service, orderIds);
  const serviceId = await serviceIdOf(service);
  await service.end(ending);
  return { data: service.data, orderIds, serviceId };
}

async function assertHasOrders(service: Service, orderIds: readonly string[]): Promise<void> {
  const orders = await Promise.all(orderIds.map((orderId) => finalOrder(service.url, orderId)));
  for (const order of orders) assert.equal(order.status, "completed");
}

async function serviceIdOf(service: Service): Promise<string> {
  return String((await send(`${service.url}/diagnostic/heartbeat`)).json?.["service_id"]);
}

function storeIn(data: string): string {
  return join(data, "orders.sqlite");
}

function overwrite(path: string, atByte: number, bytes: Uint8Array): void {
  const content = readFileSync(path);
  content.set(bytes, atByte);
  writeFileSync(path, content);
}

function foreignDatabase(path: string): void {
  rmSync(path);
  sql(path, "CREATE TABLE orders (id); PRAGMA journal_mode = DELETE");
}

function sql(path: string, statements: string): void {
  const db = new DatabaseSync(path);
  try {
    db.exec(statements);
  } finally {
    db.close();
  }
}
