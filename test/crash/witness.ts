/** What the pipelines of the crash tests, which are loaded like a user's, can say of the node that they run in. */
import type { Witness } from "./fault-stores.ts";

/** Nothing is known before there is a store. */
export const witness: { current: Witness } = { current: { incarnation: () => 0, durableRevision: () => 0 } };
