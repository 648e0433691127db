/**
 * What the types of definePipeline let through and what they don't. Not run, but checked with all other types (`npm run types`): each
 * line after `@ts-expect-error` must be a mistake, or checking fails.
 */
import * as valibot from "valibot";
import * as zod from "zod";
import { definePipeline, permanent, type RollbackContext, type StepContext } from "../../src/index.ts";

/** Compiles only if both types are the same. */
declare function same<One, Other>(answer: Same<One, Other>): void;
type Same<One, Other> = Tested<One> extends Tested<Other> ? true : false;
// eslint-disable-next-line typescript/no-unnecessary-type-parameters -- what makes the comparison strict
type Tested<One> = <T>() => T extends One ? 1 : 2;

const body = zod.object({
  amount: zod.number(),
  note: zod.string().optional(),
  due: zod.string().transform((text) => new Date(text)),
});

definePipeline({
  name: "checkout",
  version: 1,
  body,
  steps: [
    {
      name: "Reserve stock",
      run: (context) => {
        same<typeof context.body.amount, number>(true);
        same<typeof context.body.note, string | undefined>(true);
        // A Date is a text once it is stored.
        same<typeof context.body.due, string>(true);
        same<typeof context.fence, number>(true);
        same<typeof context.signal, AbortSignal>(true);
        same<keyof typeof context.results, never>(true);
        return { reservation: "r", at: new Date(), undo: () => undefined };
      },
      rollback: ({ result }) => {
        same<typeof result, { readonly reservation: string; readonly at: string; readonly undo: never } | undefined>(
          true,
        );
      },
    },
    {
      name: "Charge card",
      run: async ({ results, body: { amount } }) => {
        same<(typeof results)["Reserve stock"]["at"], string>(true);
        await Promise.resolve();
        return amount * 2;
      },
      rollback: ({ result, results }) => {
        same<typeof result, number | undefined>(true);
        same<(typeof results)["Reserve stock"]["reservation"], string>(true);
      },
      retry: { attempts: 5, delay: "200ms" },
      timeout: "10s",
      concurrency: 100,
      onUnknown: { verify: ({ results }) => ({ done: true, result: results["Reserve stock"].reservation }) },
      commit: true,
    },
    { name: "Approve", wait: {} },
    {
      name: "Send receipt",
      run: ({ results }) => {
        same<(typeof results)["Charge card"], number>(true);
        // Whatever the signal brought.
        same<(typeof results)["Approve"], unknown>(true);
        throw permanent("no address");
      },
    },
  ],
});

definePipeline({
  name: "any-schema",
  version: 1,
  body: valibot.object({ to: valibot.optional(valibot.string(), "nobody") }),
  steps: [
    { name: "A", run: ({ body: { to } }) => same<typeof to, string>(true) },
    { name: "B", run: ({ results }) => same<(typeof results)["A"], undefined>(true) },
  ],
});

definePipeline({
  name: "no-schema",
  version: 1,
  steps: [{ name: "A", run: (context) => same<typeof context.body, { readonly [key: string]: unknown }>(true) }],
});

definePipeline({
  name: "mistakes",
  version: 1,
  body,
  steps: [
    // @ts-expect-error -- the body has no such property
    { name: "A", run: (context) => context.body.total },
    // @ts-expect-error -- a step does not know its own result
    { name: "B", run: ({ results }) => results.B },
    // @ts-expect-error -- nor those of later ones
    { name: "C", run: ({ results }) => results.D },
    // @ts-expect-error -- a duration is a text or a number
    { name: "D", run: () => 1, timeout: { seconds: 1 } },
    // @ts-expect-error -- there are no such attempts
    { name: "E", run: () => 1, retry: { attempts: "5" } },
    // @ts-expect-error -- a verification says whether it is done
    { name: "F", run: () => 1, onUnknown: { verify: () => "yes" } },
    // @ts-expect-error -- a body can't be changed
    { name: "G", run: (context) => (context.body.amount = 1) },
  ],
});

// @ts-expect-error -- a pipeline has steps
definePipeline({ name: "empty", version: 1, steps: [] });

// @ts-expect-error -- and a version
definePipeline({ name: "no-version", steps: [{ name: "A", run: () => 1 }] });

/** The thirteenth step knows the results of the first twelve. */
const step = <const Name extends string>(name: Name) => ({ name, run: () => 1 });
definePipeline({
  name: "long",
  version: 1,
  steps: [
    { name: "S1", run: () => "text" },
    step("S2"),
    step("S3"),
    step("S4"),
    step("S5"),
    step("S6"),
    step("S7"),
    step("S8"),
    step("S9"),
    step("S10"),
    step("S11"),
    { name: "S12", run: () => 12 },
    {
      name: "S13",
      run: ({ results }) => {
        same<(typeof results)["S1"], string>(true);
        same<(typeof results)["S12"], number>(true);
      },
    },
    { name: "S14", run: ({ results }) => same<(typeof results)["S13"], unknown>(true) },
  ],
});

/** A step's function may stand elsewhere. */
export function sendReceipt({ body: content, idempotencyKey }: StepContext<{ readonly to: string }>): string {
  return `${content.to} ${idempotencyKey}`;
}

/** And be used at any place, of any pipeline. */
const anywhere = {
  run: ({ order, results }: StepContext) => `${order.orderId} ${Object.keys(results).join()}`,
  rollback: ({ result }: RollbackContext) => void result,
};
definePipeline({
  name: "shared",
  version: 1,
  body,
  steps: [
    { name: "First", ...anywhere },
    { name: "Second", ...anywhere },
    { name: "Third", run: ({ results }) => same<(typeof results)["Second"], string>(true) },
  ],
});
