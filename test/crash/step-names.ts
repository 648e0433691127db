/** The steps of pipelines/crash-test.ts. */
export const STEP_NAMES = ["Reserve", "Charge", "Ship"] as const;

/** The steps of pipelines/steered.ts; the second waits for a signal. */
export const STEERED_STEP_NAMES = ["Reserve", "Approve", "Ship"] as const;
