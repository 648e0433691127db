import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { Agenda } from "./agenda.ts";

type Deed = { readonly kind: "add" | "remove" | "take"; readonly id: number; readonly atMs: number };

const deeds = fc.array(
  fc.record<Deed>({ kind: fc.constantFrom("add", "remove", "take"), id: fc.nat(20), atMs: fc.nat(50) }),
  { maxLength: 200 },
);

test("an agenda gives what is due, soonest first, as a sorted list would", () => {
  fc.assert(
    fc.property(deeds, (all) => {
      const agenda = new Agenda();
      const model = new Map<string, number>();
      for (const { kind, id, atMs } of all) {
        const name = String(id);
        if (kind === "add" && !model.has(name)) {
          agenda.add(name, atMs);
          model.set(name, atMs);
        } else if (kind === "remove") {
          agenda.remove(name);
          model.delete(name);
        } else if (kind === "take") {
          const due = agenda.takeDue(atMs);
          assert.deepEqual(
            due.map((each) => model.get(each) ?? -1),
            [...model.values()].filter((each) => each <= atMs).toSorted((one, other) => one - other),
          );
          for (const each of due) model.delete(each);
        }
        assert.equal(agenda.firstMs, Math.min(Number.POSITIVE_INFINITY, ...model.values()));
      }
    }),
  );
});
