/** What an order of the checkout must say, with zod. */
import * as zod from "zod";

export const checkoutBody = zod.object({
  sku: zod.string(),
  amount: zod.number().positive(),
  to: zod.string(),
  email: zod.string(),
});
