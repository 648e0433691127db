/** The pipeline of orders that people steer while nodes are harmed: its second step waits to be completed from outside. */
import { definePipeline } from "order-process";
import { receiverStep } from "./lib/receiver-steps.ts";

export default definePipeline({
  name: "steered",
  version: 1,
  steps: [receiverStep("Reserve"), { ...receiverStep("Approve"), wait: {} }, receiverStep("Ship")],
});
