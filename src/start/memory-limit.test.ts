import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { test } from "node:test";
import { memoryLimitBytes } from "./memory-limit.ts";

const MIB = 1024 ** 2;
const MACHINE_BYTES = 8192 * MIB;

/** The limit that is found on a system with these files. */
function limitMibOf(files: Readonly<Record<string, string>>): number {
  const root = mkdtempSync(join(tmpdir(), "order-process-test-"));
  try {
    for (const [path, text] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), text);
    }
    return memoryLimitBytes(root, MACHINE_BYTES) / MIB;
  } finally {
    rmSync(root, { recursive: true });
  }
}

const NONE_V1 = "9223372036854771712\n";
const bytes = (mib: number): string => `${mib * MIB}\n`;

test("without control groups, or limits of theirs, the machine's memory is the limit", () => {
  assert.equal(limitMibOf({}), 8192);
  assert.equal(limitMibOf({ "proc/self/cgroup": "0::/\n" }), 8192);
  assert.equal(limitMibOf({ "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n" }), 8192);
  assert.equal(
    limitMibOf({ "proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": NONE_V1 }),
    8192,
  );
  assert.equal(limitMibOf({ "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": bytes(100_000) }), 8192);
  assert.equal(limitMibOf({ "proc/self/cgroup": "nonsense\n:::\n", "sys/fs/cgroup/memory.max": "nonsense" }), 8192);
});

test("version 2: a group's own limit and those of its parents hold, the least of them", () => {
  const files = {
    "proc/self/cgroup": "0::/kube.slice/pod.slice/container\n",
    "sys/fs/cgroup/kube.slice/memory.max": bytes(4096),
    "sys/fs/cgroup/kube.slice/pod.slice/memory.max": bytes(300),
    "sys/fs/cgroup/kube.slice/pod.slice/container/memory.max": bytes(512),
  };
  assert.equal(limitMibOf(files), 300);
  assert.equal(limitMibOf({ ...files, "sys/fs/cgroup/kube.slice/pod.slice/container/memory.high": bytes(200) }), 200);
});

test("version 2 in a container: its own group is the mount", () => {
  assert.equal(limitMibOf({ "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": bytes(256) }), 256);
  // Without a namespace of its own it sees the host's path.
  assert.equal(limitMibOf({ "proc/self/cgroup": "0::/docker/1a2b\n", "sys/fs/cgroup/memory.max": bytes(256) }), 256);
  assert.equal(limitMibOf({ "proc/self/cgroup": "0::/../../pod\n", "sys/fs/cgroup/memory.max": bytes(256) }), 256);
});

test("version 1: the same, also beside other controllers and version 2", () => {
  const cgroup = "9:name=systemd:/a\n5:cpu,cpuacct:/x\n4:memory,hugetlb:/docker/1a2b\n0::/system.slice/a.service\n";
  const file = "memory.limit_in_bytes";
  assert.equal(
    limitMibOf({
      "proc/self/cgroup": cgroup,
      [`sys/fs/cgroup/memory/${file}`]: NONE_V1,
      [`sys/fs/cgroup/memory/docker/${file}`]: bytes(700),
      [`sys/fs/cgroup/memory/docker/1a2b/${file}`]: bytes(512),
      [`sys/fs/cgroup/memory/x/${file}`]: bytes(1), // another controller's path
    }),
    512,
  );
  assert.equal(limitMibOf({ "proc/self/cgroup": cgroup, [`sys/fs/cgroup/memory/${file}`]: bytes(256) }), 256);
});

test("this machine's own files are read", () => {
  assert.ok(memoryLimitBytes() > 0);
});
