/** Files with pipelines as people write them, good and bad. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { test, type TestContext } from "node:test";
import type { Pipeline } from "../order/pipeline.ts";
import { loadPipelines, showProblem } from "./load.ts";

const TS = `import { definePipeline } from "order-process";
export default definePipeline({ name: "NAME", version: 1, steps: [{ name: "A", run: (): number => 1 }] });
`;
const YAML = `name: NAME
version: 1
steps:
  - name: A
    run: { url: "http://127.0.0.1:1/" }
`;

function folderOf(t: TestContext, files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), "order-process-pipelines-"));
  t.after(() => rmSync(folder, { recursive: true }));
  for (const [name, text] of Object.entries(files))
    writeFileSync(join(folder, name), text.replace("NAME", basename(name)));
  return folder;
}

async function loaded(path: string, environment: Record<string, string> = {}): Promise<Pipeline[]> {
  const { pipelines, problems } = await loadPipelines(path, environment);
  assert.deepEqual(problems, []);
  return pipelines.map(({ pipeline }) => pipeline);
}

/** The problems of one file, each as a line without the folder. */
async function problemsOf(t: TestContext, name: string, text: string): Promise<string[]> {
  const folder = folderOf(t, { [name]: text });
  const { problems } = await loadPipelines(join(folder, name), {});
  return problems.map((problem) => showProblem(problem).replace(`${folder}/`, ""));
}

test("a folder's pipelines are loaded, in TypeScript, JavaScript, YAML and JSON, and what is none is left alone", async (t) => {
  const folder = folderOf(t, {
    "a.ts": TS,
    "b.mjs": TS.replace(": number", ""),
    "c.yaml": YAML,
    "d.json": '{"name":"NAME","version":1,"steps":[{"name":"A","run":{"url":"http://127.0.0.1:1/"}}]}',
    "package.json": "{}",
    "tsconfig.json": "{}",
    "a.test.ts": "throw new Error('this is a test')",
    "README.md": "# Pipelines",
  });
  assert.deepEqual(
    (await loaded(folder)).map(({ name }) => name),
    ["a.ts", "b.mjs", "c.yaml", "d.json"],
  );
  assert.deepEqual(
    (await loaded(join(folder, "c.yaml"))).map(({ name }) => name),
    ["c.yaml"],
  );
});

test("a file may have several versions: an array in TypeScript, documents in YAML", async (t) => {
  const next = YAML.replace("version: 1", "version: 2").replace("NAME", "c.yaml");
  const folder = folderOf(t, {
    "c.yaml": `${YAML}---\n${next}`,
    "d.ts": `import { definePipeline } from "order-process";
      export default [1, 2].map((version) => definePipeline({ name: "NAME", version, steps: [{ name: "A", run: () => 1 }] }));`,
  });
  const labels = (await loaded(folder)).map(({ name, version }) => `${name} ${version}`);
  assert.deepEqual(labels, ["c.yaml 1", "c.yaml 2", "d.ts 1", "d.ts 2"]);
});

test("one name and version in two files is a mistake, and both files are named", async (t) => {
  const folder = folderOf(t, { "a.yaml": YAML.replace("NAME", "same"), "b.yaml": YAML.replace("NAME", "same") });
  const { problems } = await loadPipelines(folder, {});
  assert.deepEqual(problems.map(showProblem), [
    `${join(folder, "b.yaml")}: same v1 is in ${join(folder, "a.yaml")}, too; give one of them another name or version`,
  ]);
});

for (const [what, name, text, expected] of [
  [
    "throws when it is loaded",
    "a.ts",
    'const port: number = 1;\nthrow new Error("no database\\nat all");',
    /^a\.ts:2:7: no database$/,
  ],
  ["throws a text", "a.ts", 'throw "no database";', /^a\.ts: no database$/],
  ["is no TypeScript", "a.ts", "export default {", /^a\.ts:1(:\d+)?: \S.*$/],
  ["has what can't be stripped", "a.ts", "enum Color { Red }\nexport default Color;", /^a\.ts(:1)?(:\d+)?: .*enum/i],
  ["imports what is not there", "a.ts", 'import "no-such-package";', /^a\.ts: Cannot find package 'no-such-package'/],
  [
    "exports nothing",
    "a.ts",
    "export const pipeline = 1;",
    /^a\.ts: it does not export a pipeline; write export default definePipeline/,
  ],
  [
    "exports a plain object",
    "a.ts",
    'export default { name: "a", version: 1, steps: [] };',
    /^a\.ts: it does not export a pipeline/,
  ],
  [
    "has a wrong pipeline",
    "a.ts",
    TS.replace("version: 1", "version: 0"),
    /^a\.ts:2:\d+: pipeline "a\.ts": its version must be a whole number from 1$/,
  ],
  ["is empty", "a.yaml", "", /^a\.yaml:1:1: the file is empty$/],
  ["is no YAML", "a.yaml", "name: [", /^a\.yaml:1:8: /],
  ["has a key twice", "a.yaml", "name: a\nname: b\n", /^a\.yaml:2:1: Map keys must be unique/],
  ["is a list", "a.yaml", "- a\n", /^a\.yaml:1:1: the pipeline: must be object$/],
  [
    "has an unknown field",
    "a.yaml",
    `${YAML}    retries: 5\n`,
    /^a\.yaml:6:5: there is no property "retries" here; there are name, run, .*wait$/,
  ],
  [
    "has no steps",
    "a.yaml",
    "name: a\nversion: 1\nsteps: []\n",
    /^a\.yaml:3:8: steps: must NOT have fewer than 1 items$/,
  ],
  [
    "has two steps of one name",
    "a.yaml",
    `${YAML}  - name: A\n    run: { url: "http://127.0.0.1:1/" }\n`,
    /^a\.yaml:6:11: another step is named "A"$/,
  ],
  [
    "has a step named like an end",
    "a.yaml",
    YAML.replace("name: A", "name: Failed"),
    /^a\.yaml:1:1: .*the name of an order's end/,
  ],
  ["has a duration that is none", "a.yaml", `${YAML}    timeout: soon\n`, /^a\.yaml:6:14: timeout: /],
  [
    "has a template that names nothing",
    "a.yaml",
    YAML.replace("1/", "1/${bodi.x}"),
    /^a\.yaml:5:\d+: \$\{bodi\.x\}: Unknown variable: bodi$/,
  ],
  [
    "names a step that comes later",
    "a.yaml",
    YAML.replace("1/", "1/${results.B.id}"),
    /^a\.yaml:5:\d+: .*no step before this one is named "B"$/,
  ],
  [
    "names a secret that isn't set",
    "a.yaml",
    YAML.replace("1/", "1/${env.PAY_TOKEN}"),
    /^a\.yaml:5:10: the environment variable PAY_TOKEN is not set$/,
  ],
  [
    "has a body that is no JSON Schema",
    "a.yaml",
    `${YAML}body: { type: nonsense }\n`,
    /^a\.yaml:6:7: no JSON Schema: /,
  ],
  [
    "has a body whose pattern looks ahead",
    "a.yaml",
    `${YAML}body: { properties: { sku: { pattern: "^(?=x)" } } }\n`,
    /^a\.yaml:6:39: the pattern "\^\(\?=x\)" is none of RE2, which has no lookaround/,
  ],
  [
    "has an expression whose pattern refers back",
    "a.yaml",
    YAML.replace("1/", "1/${body.sku.matches(r'(a)\\\\1')}"),
    /^a\.yaml:5:17: \$\{body\.sku\.matches.*the pattern ".*" is none of RE2/,
  ],
  [
    "has a form of a limit that is right but for its number",
    "a.yaml",
    `${YAML}    concurrency: { cluster: two }\n`,
    /^a\.yaml:6:29: cluster: must be integer$/,
  ],
  [
    "has a limit in a form that there is not",
    "a.yaml",
    `${YAML}    concurrency: two\n`,
    /^a\.yaml:6:18: concurrency: it is not valid \(how many calls .* together\)$/,
  ],
  [
    "has a step that does nothing",
    "a.yaml",
    "name: a\nversion: 1\nsteps:\n  - name: A\n",
    /^a\.yaml:4:5: item 1: it is not valid \(a step has a run, or waits for a signal, or both\)$/,
  ],
  [
    "names what its body's schema doesn't",
    "a.yaml",
    `${YAML.replace("1/", "1/${body.?note.orValue('')}/${body.custmer}")}body: { type: object, properties: { customer: {} } }\n`,
    /^a\.yaml:5:\d+: \$\{body\.custmer\}: the schema of the body has no property "custmer"; add it, or write body\.\?custmer/,
  ],
  [
    "has a body that is checked asynchronously",
    "a.yaml",
    `${YAML}body: { $async: true, type: object }\n`,
    /^a\.yaml:6:17: no JSON Schema: there is no \$async in it$/,
  ],
  [
    "has an alias within what it stands for",
    "a.yaml",
    'name: a\nversion: 1\nsteps:\n  - name: A\n    run: { url: "http://127.0.0.1:1/", body: &a { again: *a } }\n',
    /^a\.yaml:1:1: it is nested too deeply, or an alias is within what it stands for$/,
  ],
  [
    "names what every object has",
    "a.yaml",
    YAML.replace("1/", "1/${env.constructor}"),
    /^a\.yaml:5:10: the environment variable constructor is not set$/,
  ],
  ["is full of aliases", "a.yaml", bomb(), /^a\.yaml:1:1: .*alias/i],
  ["has another ending", "a.txt", YAML, /^a\.txt: a file with pipelines ends in/],
] as const) {
  test(`a file that ${what} is told of in one line, with its place`, async (t) => {
    const [first = ""] = await problemsOf(t, name, text);
    assert.match(first, expected);
    assert.doesNotMatch(first, /\n/);
  });
}

test("a folder without pipelines, and a path that leads nowhere, are told of", async (t) => {
  const folder = folderOf(t, { "README.md": "" });
  const [empty] = (await loadPipelines(folder, {})).problems;
  assert.match(empty?.message ?? "", /^there are no pipelines in it/);
  const [gone] = (await loadPipelines(join(folder, "nowhere"), {})).problems;
  assert.equal(gone?.message, "there is no such file or folder");
});

test("a body's JSON Schema refuses with the place of what is wrong", async (t) => {
  const schema = "body: { type: object, required: [amount], properties: { amount: { type: number, minimum: 1 } } }\n";
  const folder = folderOf(t, { "a.yaml": YAML + schema });
  const [pipeline] = await loaded(folder);
  assert.deepEqual(await pipeline?.checkBody?.({ amount: 3, more: true }), {
    kind: "accepted",
    body: { amount: 3, more: true },
  });
  const finding = await pipeline?.checkBody?.({ amount: 0 });
  assert.deepEqual(finding, { kind: "refused", issues: [{ pointer: "/amount", message: "must be >= 1" }] });
});

/** Nine levels of nine references each. */
function bomb(): string {
  const lines = ["a: &l0 [x, x, x, x, x, x, x, x, x]"];
  for (let level = 1; level < 9; level++) {
    lines.push(`b${level}: &l${level} [${Array.from({ length: 9 }, () => `*l${level - 1}`).join(", ")}]`);
  }
  return `${lines.join("\n")}\n`;
}
