/**
 * Loads the pipelines that `--pipelines` names: a file, or all files of a folder (not of those in it). TypeScript and JavaScript
 * export them as default; YAML and JSON describe them.
 */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { registerHooks } from "node:module";
import { extname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { type Pipeline, pipelineLabel } from "../order/pipeline.ts";
import { textOf } from "../order/step-error.ts";
import { printable } from "../printable.ts";
import { judgedBy } from "./body-judge.ts";
import { isBuiltPipeline } from "./define-pipeline.ts";
import type { FileProblem, parseYamlPipelines } from "./yaml-pipelines.ts";

/** Something that is wrong, and in which file. */
export interface LoadProblem extends FileProblem {
  readonly file: string;
}

export interface LoadedPipeline {
  readonly file: string;
  readonly pipeline: Pipeline;
}

export interface LoadResult {
  readonly pipelines: readonly LoadedPipeline[];
  readonly problems: readonly LoadProblem[];
}

const CODE = new Set([".ts", ".mts", ".js", ".mjs"]);
const DATA = new Set([".yaml", ".yml", ".json"]);

/** In a folder these are something else. */
const OTHER_FILES = /^(package(-lock)?|tsconfig.*)\.json$|\.(test|spec)\.[cm]?[jt]s$|\.d\.[cm]?ts$|^[._]/;

/** A file that awaits something which never comes must not keep the service from saying so. */
const IMPORT_MS_MAX = 30_000;

/** This very program, whatever the file's folder has installed: its own copy could be of another version. */
const OWN_MODULES: Readonly<Record<string, string>> = {
  "order-process": new URL(`../index${extname(import.meta.url)}`, import.meta.url).href,
};

let hooked = false;

/**
 * Loads all that there is; what is wrong is told, not thrown.
 * @param environment where secrets come from
 */
export async function loadPipelines(
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
): Promise<LoadResult> {
  const pipelines: LoadedPipeline[] = [];
  const problems: LoadProblem[] = [];
  const seen = new Map<string, string>();
  for (const file of filesOf(path, problems)) {
    const found = DATA.has(extname(file))
      ? await readData(file, environment)
      : judged(await importPipelines(file), file);
    if (found.kind === "problems") {
      problems.push(...found.problems.map((each) => ({ file, ...each })));
      continue;
    }
    for (const pipeline of found.pipelines) {
      const label = pipelineLabel(pipeline);
      const other = seen.get(label);
      if (other !== undefined)
        problems.push({
          ...NOWHERE,
          file,
          message: `${label} is in ${other}, too; give one of them another name or version`,
        });
      seen.set(label, file);
      pipelines.push({ file, pipeline });
    }
  }
  if (pipelines.length === 0 && problems.length === 0) {
    problems.push({
      ...NOWHERE,
      file: path,
      message: "there are no pipelines in it: files that end in .ts, .js, .yaml or .json",
    });
  }
  return { pipelines, problems };
}

/** A problem in one line: where, and what. */
export function showProblem({ file, line, column, message }: LoadProblem): string {
  const place = line === null ? file : column === null ? `${file}:${line}` : `${file}:${line}:${column}`;
  return `${place}: ${message}`;
}

const NOWHERE = { line: null, column: null } as const;

type FileResult = ReturnType<typeof parseYamlPipelines>;

function problem(message: string, place: Pick<FileProblem, "line" | "column"> = NOWHERE): FileResult {
  return { kind: "problems", problems: [{ ...place, message }] };
}

function filesOf(path: string, problems: LoadProblem[]): string[] {
  try {
    if (!statSync(path).isDirectory()) {
      if (CODE.has(extname(path)) || DATA.has(extname(path))) return [path];
      problems.push({ ...NOWHERE, file: path, message: "a file with pipelines ends in .ts, .js, .yaml or .json" });
      return [];
    }
    const names = readdirSync(path, { withFileTypes: true })
      .filter((entry) => !entry.isDirectory() && !OTHER_FILES.test(entry.name))
      .map(({ name }) => name)
      .filter((name) => CODE.has(extname(name)) || DATA.has(extname(name)));
    return names.toSorted().map((name) => join(path, name));
  } catch (error) {
    problems.push({ ...NOWHERE, file: path, message: systemReason(error) });
    return [];
  }
}

async function readData(file: string, environment: Readonly<Record<string, string | undefined>>): Promise<FileResult> {
  let text: string;
  try {
    text = readFileSync(file, "utf8");
  } catch (error) {
    return problem(systemReason(error));
  }
  // Where there are none, a start takes a fifth of a second less of the processor.
  const { parseYamlPipelines: parse } = await import("./yaml-pipelines.ts");
  return parse(text, environment);
}

/** Their schemas are code: it runs in a process that can be ended. */
function judged(found: FileResult, file: string): FileResult {
  if (found.kind === "problems") return found;
  const pipelines = found.pipelines.map((pipeline, index) =>
    pipeline.checkBody === null ? pipeline : { ...pipeline, checkBody: judgedBy(resolve(file), index) },
  );
  return { kind: "pipelines", pipelines };
}

/** The pipelines that a file of code exports, as they are; or what is wrong with it. */
export async function importPipelines(file: string): Promise<FileResult> {
  useOwnModules();
  const url = pathToFileURL(resolve(file)).href;
  const ended = (): void => {
    process.stderr.write(`order_process: ${printable(file)}: it ended the process while it was loaded\n`);
    process.exitCode = 1;
  };
  process.once("exit", ended);
  let module: { readonly default?: unknown };
  try {
    module = await withinTime(import(url) as Promise<{ readonly default?: unknown }>);
  } catch (error) {
    return problem(importReason(error), placeIn(url, error));
  } finally {
    process.off("exit", ended);
  }
  const exported = [module.default].flat();
  if (exported.length > 0 && exported.every(isBuiltPipeline)) return { kind: "pipelines", pipelines: exported };
  return problem(
    "it does not export a pipeline; write export default definePipeline({ … }), and keep other code in a folder below",
  );
}

function useOwnModules(): void {
  if (hooked) return;
  hooked = true;
  registerHooks({
    resolve: (specifier, context, next) => {
      const url = OWN_MODULES[specifier];
      return url === undefined ? next(specifier, context) : { url, shortCircuit: true };
    },
  });
}

async function withinTime<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () =>
        reject(new Error(`it was not loaded within ${IMPORT_MS_MAX / 1_000} s; does it await something at its top?`)),
      IMPORT_MS_MAX,
    );
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

function importReason(error: unknown): string {
  // What Node says of a syntax that it can't strip goes on for lines.
  const [line = ""] = textOf(error).trim().split("\n");
  const isCommonJs = /import statement outside a module|Unexpected token 'export'/.test(line);
  const hint = isCommonJs ? '; set "type": "module" in its package.json, or name the file .mts' : "";
  return `${line.replace(/^\s*[x×]\s*/, "")}${hint}`;
}

/** Where in the file an error arose, as far as its stack tells. */
function placeIn(url: string, error: unknown): Pick<FileProblem, "line" | "column"> {
  const stack = error instanceof Error ? (error.stack ?? "") : "";
  // With file:// where code runs, without where it could not be read.
  const escaped = new URL(url).pathname.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const [, line, column] = new RegExp(`${escaped}:(\\d+)(?::(\\d+))?`).exec(stack) ?? [];
  return { line: line === undefined ? null : Number(line), column: column === undefined ? null : Number(column) };
}

function systemReason(error: unknown): string {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  if (code === "ENOENT") return "there is no such file or folder";
  if (code === "EACCES") return "it may not be read";
  return textOf(error);
}
