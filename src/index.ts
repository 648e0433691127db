/** What a file with pipelines imports: `import { definePipeline, permanent } from "order-process"`. */
export {
  type ConcurrencyOptions,
  definePipeline,
  type Duration,
  type Jsonified,
  type RetryOptions,
  type StepOptions,
  type WaitOptions,
} from "./pipelines/define-pipeline.ts";
export type { JsonObject, Pipeline, RollbackContext, StepContext, StepLog, Verification } from "./order/pipeline.ts";
export { permanent, retryAfter, StepError, uncertain } from "./order/step-error.ts";
