import type { OrderFilter } from "../../src/store/store.ts";

/** Every order; tests narrow it. */
export const ALL_ORDERS: OrderFilter = {
  user: null,
  status: null,
  needsPerson: false,
  pipelineName: null,
  stepName: null,
  ownerServiceId: null,
  fromMs: null,
  toMs: null,
};
