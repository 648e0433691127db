import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTemplate, TemplateError, type TemplateValues } from "./template.ts";

const values: TemplateValues = {
  order: { id: "o-1", user: "alice" },
  body: { amount: 3, name: "Ann", tags: ["a", "b"], address: { city: null } },
  results: { "Charge card": { id: "c-1" } },
  result: null,
  attempt: 2,
  env: { TOKEN: "secret" },
};
const scope = { steps: ["Charge card"], hasResult: false, bodyNames: null };

function filled(json: unknown): unknown {
  const template = parseTemplate(json, scope);
  // eslint-disable-next-line unicorn/no-array-fill-with-reference-type -- no array
  return template.fill(values);
}

for (const [template, expected] of [
  ["plain", "plain"],
  ["${body.amount}", 3],
  ["${body.amount + 1}", 4],
  ["${body.amount * 1.5}", 4.5],
  ["${body.tags}", ["a", "b"]],
  ["${size(body.tags)}", 2],
  ["${body.address.city}", null],
  ["Order ${order.id} of ${order.user}", "Order o-1 of alice"],
  ["${results['Charge card'].id}", "c-1"],
  ['${results["Charge card"].id + "!"}', "c-1!"],
  ["${ {'a': body.amount, 'b': [1, 'x']} }", { a: 3, b: [1, "x"] }],
  ["${body.?nothing.orValue('none')}", "none"],
  ["Bearer ${env.TOKEN}", "Bearer secret"],
  ["$${body.amount} costs ${body.amount}", "${body.amount} costs 3"],
  ["${'}' + body.name}", "}Ann"],
  ["attempt ${attempt}", "attempt 2"],
] as const) {
  test(`${template} is filled in`, () => assert.deepEqual(filled(template), expected));
}

test("JSON is filled in wherever it has texts, and left as it is elsewhere", () => {
  assert.deepEqual(filled({ a: ["${body.name}", 1, null], b: { c: "${body.amount}" } }), {
    a: ["Ann", 1, null],
    b: { c: 3 },
  });
});

for (const [template, message] of [
  ["${body.amount", /has no closing brace/],
  ["${1 +}", /\$\{1 \+\}: Unexpected token/],
  ["${nothing.x}", /Unknown variable: nothing/],
  ["${results.Book.id}", /no step before this one is named "Book"/],
  ["${result.id}", /only a rollback has a result of its own step/],
  ["${env}", /name one variable of the environment/],
  ["${env[body.name]}", /name one variable of the environment/],
  ["${process.exit()}", /Unknown variable: process/],
] as const) {
  test(`${template} is refused before it is used`, () => {
    assert.throws(
      () => parseTemplate(template, scope),
      (error) => error instanceof TemplateError && message.test(error.message),
    );
  });
}

for (const template of ["${body.nothing}", "a ${body.tags}", "a ${body.address.city}", "${body.amount + body.name}"]) {
  test(`${template} can't be filled in, and says so in one line`, () => {
    assert.throws(
      () => filled(template),
      (error) => error instanceof TemplateError && !error.message.includes("\n"),
    );
  });
}

test("a template tells which variables of the environment it names, and no other can be reached", () => {
  assert.deepEqual(parseTemplate({ a: "${env.A + env['B']}" }, scope).variables, ["A", "B"]);
  assert.throws(() => filled("${env.HOME}"), TemplateError);
});

test("what stands behind ! and - is looked into like all else", () => {
  for (const source of ["!(env.A == 'x')", "-int(env.A)", "{'a': [!(-size(env.A) > 0)]}", "!bool(env.A)"])
    assert.deepEqual(parseTemplate(`\${${source}}`, scope).variables, ["A"], source);
  assert.throws(() => parseTemplate("${!body.paid}", { ...scope, bodyNames: ["name"] }), /no property "paid"/);
  assert.throws(() => parseTemplate("${-results.Other.id}", scope), /no step before this one is named "Other"/);
  assert.throws(() => parseTemplate("${!result.done}", scope), /only a rollback has a result/);
  assert.throws(
    () => filled("${!bool(env.TOKEN)}"),
    (error) => error instanceof TemplateError && !error.message.replace("env.TOKEN", "").includes("secret"),
  );
});
