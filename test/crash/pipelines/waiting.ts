/** The pipeline of orders that wait for lengths of time, in tests of nodes whose clocks differ: for a signal, and between attempts. */
import { definePipeline } from "order-process";
import { receiverStep } from "./lib/receiver-steps.ts";

const RETRY = { attempts: 2, delay: "1h", factor: 1, delayMax: "1h", jitter: 0, deadline: "2h" } as const;

export default definePipeline({
  name: "waiting",
  version: 1,
  steps: [
    { ...receiverStep("Reserve"), retry: RETRY },
    { ...receiverStep("Approve"), wait: { deadline: "1h" } },
  ],
});
