/** The pipeline of the crash tests: a user's file, as far as the service knows. */
import { definePipeline } from "order-process";
import { receiverStep } from "./lib/receiver-steps.ts";

export default definePipeline({
  name: "crash-test",
  version: 1,
  steps: [receiverStep("Reserve"), receiverStep("Charge"), receiverStep("Ship")],
});
