/** Starts that must be refused: one line on stderr that says what is wrong, the right exit code, and nothing harmed. */
import assert from "node:assert/strict";
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { assertRefused, assertServes } from "../support/checks.ts";
import { acceptedOrderId, finalOrder, send } from "../support/client.ts";
import { runCommand, type Service, startService, temporaryFolder } from "../support/service.ts";
import { mountSmallDisk, remountReadOnly } from "../support/tmpfs.ts";

const PAGE_BYTES = 8192;

/** Cases that share nothing run side by side: most of their time is the start of a process. */
const CONCURRENT = { concurrency: 2 };

test("a command line that can't be meant is refused with exit code 2", CONCURRENT, async (t) => {
  const cases: readonly [args: readonly string[], line: RegExp][] = [
    [["--bogus"], /unknown option '--bogus'.*--help/],
    [["--prot", "8080"], /unknown option '--prot'/],
    [["-x"], /unknown option '-x'/],
    [["extra"], /"extra" is no option.*--help/],
    [["--port"], /--port .*argument missing/],
    [["--port", "abc"], /--port can't be "abc".*0 to 65535/],
    [["--port", ""], /--port can't be ""/],
    [["--port", "99999"], /--port can't be "99999"/],
    [["--port=-1"], /--port can't be "-1"/],
    [["--port", "80.5"], /--port can't be "80.5"/],
    [["--port", "0x50"], /--port can't be "0x50"/],
    [["--host", " "], /--host can't be " "/],
    [["--data", ""], /--data can't be ""/],
    [["--store", "mysql://x"], /--store can't be "mysql:\/\/x".*sqlite:PATH/],
    [["--store", "orders.sqlite"], /--store can't be "orders.sqlite".*sqlite:PATH/],
    [["--step-time", "5"], /--step-time can't be "5".*60ms, 5s, 2m/],
    [["--step-time=-5s"], /--step-time can't be "-5s"/],
    [["--step-time", "5 parsecs"], /--step-time can't be "5 parsecs"/],
    [["--step-time", "1000h"], /--step-time can't be "1000h"/], // longer than a timer can be: it would end at once
    [["--grace", "soon"], /--grace can't be "soon"/],
    [["--grace", "1000h"], /--grace can't be "1000h"/],
    [["--failure-rate", "2"], /--failure-rate can't be "2".*0 to 1/],
    [["--failure-rate", "NaN"], /--failure-rate can't be "NaN"/],
    [["--in-flight", "0"], /--in-flight can't be "0"/],
    [["--body-limit", "1GiB"], /--body-limit can't be "1GiB".*256KiB/],
    [["--body-limit", "0"], /--body-limit can't be "0"/],
    [["--body-limit", "65MiB"], /--body-limit can't be "65MiB"/],
    [["--log-level", "loud"], /--log-level can't be "loud".*info/],
    [["--log-level", "in\nfo"], /--log-level can't be "in.*fo"/],
    [["--log-format", "xml"], /--log-format can't be "xml".*logfmt/],
  ];
  await Promise.all(
    cases.map(([args, line]) =>
      t.test(JSON.stringify(args.join(" ")), async (tt) => {
        const data = join(temporaryFolder(tt), "data");
        assertRefused(await runCommand(["--port", "0", "--data", data, ...args]), 2, line);
        assert.ok(!existsSync(data), "nothing has been made");
      }),
    ),
  );
});

test("a bad value in the environment is refused by the name of its variable", async () => {
  for (const [variable, value] of [
    ["ORDER_PROCESS_PORT", "abc"],
    ["ORDER_PROCESS_STEP_TIME", "5"],
    ["ORDER_PROCESS_LOG_LEVEL", "loud"],
    ["ORDER_PROCESS_STORE", "mysql://x"],
  ] as const) {
    const finished = await runCommand([], { env: { [variable]: value } });
    assertRefused(finished, 2, new RegExp(`${variable} can't be "${value}"`));
  }
});

test("a configuration file that can't be used is refused with exit code 2", CONCURRENT, async (t) => {
  const folder = temporaryFolder(t);
  const cases: readonly [name: string, content: string, line: RegExp][] = [
    ["broken YAML", "port: [80", /can't be read: .*line 1/],
    ["a list", "- port: 8080\n", /config.yaml/],
    ["a text", "port\n", /config.yaml/],
    ["an unknown option", "prot: 8080\n", /unknown option "prot"; known are .*port/],
    ["an option of the command line alone", "config: other.yaml\n", /unknown option "config"/],
    ["an option twice", "port: 1\nport: 2\n", /can't be read: .*unique/],
    ["a list as value", "port: [80]\n", /port in .*config.yaml/],
    ["a truth value", "port: true\n", /port in .*config.yaml/],
    ["nothing as value", "port:\n", /port in .*config.yaml/],
    ["a bad value", "step-time: 5\n", /step-time in .*config.yaml can't be "5"/],
    ["two documents", "port: 0\n---\nport: 1\n", /can't be read/],
    ["bytes that are no text", "\u0000\u0001\u0002", /config.yaml/],
  ];
  const missing = join(folder, "missing.yaml");
  await Promise.all([
    ...cases.map(([name, content, line]) =>
      t.test(name, async (tt) => {
        const file = join(temporaryFolder(tt), "config.yaml");
        writeFileSync(file, content);
        assertRefused(await runCommand(["--config", file]), 2, line);
      }),
    ),
    t.test("missing", async () =>
      assertRefused(await runCommand(["--config", missing]), 2, /missing.yaml can't be read/),
    ),
    t.test("missing, named by the environment", async () =>
      assertRefused(await runCommand([], { env: { ORDER_PROCESS_CONFIG: missing } }), 2, /missing.yaml can't be read/),
    ),
    t.test("a folder", async () => assertRefused(await runCommand(["--config", folder]), 2, /can't be read/)),
  ]);
});

test("an option beats its environment variable, which beats the file, which beats the default", async (t) => {
  const file = join(temporaryFolder(t), "config.yaml");
  writeFileSync(file, "log-format: json\nstep-time: 0s\n");
  const formatOf = async (args: readonly string[], env: Record<string, string>): Promise<unknown> => {
    const service = await startService(t, { args, env });
    await assertServes(service.url);
    return /Log configuration loaded: \{info (\w+)\}/.exec(service.output())?.[1];
  };
  const env = { ORDER_PROCESS_LOG_FORMAT: "pretty" };
  assert.equal(await formatOf(["--step-time", "0s"], {}), "logfmt");
  assert.equal(await formatOf(["--config", file], {}), "json");
  assert.equal(await formatOf(["--config", file], env), "pretty");
  assert.equal(await formatOf(["--config", file, "--log-format", "logfmt"], env), "logfmt");
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
  const start = (data: string): ReturnType<typeof runCommand> => runCommand(["--port", "0", "--data", data]);
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
