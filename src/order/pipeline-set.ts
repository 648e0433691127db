/** The pipelines that a node has, by name and version. */
import { type Pipeline, pipelineLabel } from "./pipeline.ts";

/** What was asked for: a pipeline, or why there is none. */
export type PipelineChoice =
  | { readonly kind: "chosen"; readonly pipeline: Pipeline }
  | { readonly kind: "unknown"; readonly name: string }
  /** No name was given, and there are several. */
  | { readonly kind: "ambiguous" };

export class PipelineSet {
  readonly #versions = new Map<string, Map<number, Pipeline>>();

  /** @throws TypeError when two have one name and one version */
  constructor(pipelines: readonly Pipeline[]) {
    for (const pipeline of pipelines) {
      const versions = this.#versions.get(pipeline.name) ?? new Map<number, Pipeline>();
      if (versions.has(pipeline.version)) throw new TypeError(`there are two pipelines ${pipelineLabel(pipeline)}`);
      versions.set(pipeline.version, pipeline);
      this.#versions.set(pipeline.name, versions);
    }
  }

  /** All of them, by name and version. */
  get all(): readonly Pipeline[] {
    return Array.from(this.#versions.values(), (versions) => Array.from(versions.values())).flat();
  }

  get names(): readonly string[] {
    return Array.from(this.#versions.keys()).toSorted();
  }

  /** The pipeline for a new order: the newest version of that name; of the only one there is where none is named (null). */
  choose(name: string | null): PipelineChoice {
    if (name === null && this.#versions.size > 1) return { kind: "ambiguous" };
    const versions = name === null ? this.#versions.values().next().value : this.#versions.get(name);
    const newest = Array.from(versions?.values() ?? []).reduce<Pipeline | null>(
      (best, each) => (best === null || each.version > best.version ? each : best),
      null,
    );
    return newest === null ? { kind: "unknown", name: name ?? "" } : { kind: "chosen", pipeline: newest };
  }

  /** That version of it, or null. */
  find(name: string, version: number): Pipeline | null {
    return this.#versions.get(name)?.get(version) ?? null;
  }
}
