/** The pipelines of orders that wait for so long: for a signal that never comes, or for their next attempt. */
import { definePipeline } from "order-process";

const WAIT = "15s";

export default [
  definePipeline({ name: "signal", version: 1, steps: [{ name: "Approve", wait: { deadline: WAIT } }] }),
  definePipeline({
    name: "retry",
    version: 1,
    steps: [
      {
        name: "Flaky",
        retry: { attempts: 2, delay: WAIT, delayMax: WAIT, factor: 1, jitter: 0 },
        run: ({ attempt }) => {
          if (attempt === 1) throw new Error("not yet");
        },
      },
    ],
  }),
];
