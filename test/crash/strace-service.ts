/**
 * Becomes the real service, with strace beside it (its option -D) so that the process keeps its id. `STRACE_OUTPUT` names
 * the file for the trace.
 */
import { LAUNCHER } from "../support/service.ts";
import { STRACE_OPTIONS, which } from "./strace.ts";

const strace = which("strace");
if (strace === null || process.execve === undefined) throw new Error("strace can't be run here");
const output = process.env["STRACE_OUTPUT"] ?? "";
process.execve(strace, ["strace", "-D", "-o", output, ...STRACE_OPTIONS, LAUNCHER, ...process.argv.slice(2)]);
