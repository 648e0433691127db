/**
 * The same checkout as in checkout.yaml, in TypeScript: each step calls the shop (shop.py). Run it with
 *
 *     SHOP_URL=http://127.0.0.1:9000 ./order_process --pipelines examples/checkout/checkout.ts
 */
import { definePipeline, permanent, type StepContext, uncertain } from "order-process";
import { checkoutBody } from "./lib/checkout-body.ts";

const SHOP_URL = process.env["SHOP_URL"] ?? "http://127.0.0.1:9000";

/** One call of the shop. What the step's name for it is, the shop knows by the order. */
async function shop<Result>(
  method: "PUT" | "DELETE",
  resource: string,
  { order, idempotencyKey, fence, signal }: StepContext<unknown>,
  body: object = {},
): Promise<Result> {
  let response: Response;
  try {
    response = await fetch(`${SHOP_URL}/${resource}/${order.orderId}`, {
      method,
      signal,
      headers: {
        "content-type": "application/json",
        "idempotency-key": idempotencyKey,
        "order-fence": String(fence),
      },
      body: method === "PUT" ? JSON.stringify(body) : null,
    });
  } catch (error) {
    // The shop may have heard us, and done it.
    throw uncertain(error);
  }
  const answer = (await response.json()) as Result & { readonly error?: string };
  if (response.status >= 500) throw uncertain(`the shop answered ${response.status}`);
  if (!response.ok) throw permanent(answer.error ?? `the shop answered ${response.status}`);
  return answer;
}

export default definePipeline({
  name: "checkout",
  version: 1,
  body: checkoutBody,
  steps: [
    {
      name: "Reserve stock",
      run: (context) => shop<{ id: string }>("PUT", "reservations", context, { sku: context.body.sku }),
      rollback: (context) => shop("DELETE", "reservations", context),
    },
    {
      name: "Charge card",
      timeout: "10s",
      retry: { attempts: 5, delay: "200ms" },
      concurrency: 100,
      run: (context) => shop<{ amount: number }>("PUT", "charges", context, { amount: context.body.amount }),
      rollback: (context) => shop("DELETE", "charges", context),
    },
    {
      name: "Book courier",
      run: (context) =>
        shop("PUT", "couriers", context, { to: context.body.to, reservation: context.results["Reserve stock"].id }),
      rollback: (context) => shop("DELETE", "couriers", context),
    },
    {
      name: "Send receipt",
      run: (context) =>
        shop("PUT", "receipts", context, {
          email: context.body.email,
          text: `You paid ${context.results["Charge card"].amount} for ${context.body.sku}`,
        }),
    },
  ],
});
