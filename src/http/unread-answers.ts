/** Bounds what waits for clients that do not take their answers: whoever has most of it waiting is cut. */
import type { FastifyInstance } from "fastify";
import { type Capacity, whenClosed } from "./capacity.ts";
import { holderOf } from "./intake.ts";

/** Smaller answers cost no more than their connection does. */
const COUNTED_CHARS_MIN = 1024;

/** A text waits twice: as it was made, and as bytes. */
const BYTES_PER_CHAR = 2;

/** Counts answers from when they are made until they have been taken. Those that are shared as one buffer take nothing. */
export function boundAnswers(app: FastifyInstance, { outgoing }: Pick<Capacity, "outgoing">): void {
  app.addHook("onSend", (request, reply, payload, done) => {
    if (typeof payload !== "string" || payload.length < COUNTED_CHARS_MIN) return done();
    const { socket } = request.raw;
    const holding = outgoing.open(holderOf(request), () => {
      socket.destroy();
      return true;
    });
    whenClosed(reply.raw, () => holding.close());
    if (!holding.set(BYTES_PER_CHAR * payload.length)) socket.destroy();
    return done();
  });
}
