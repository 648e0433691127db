/**
 * Takes bodies in. What a body takes of the memory counts as it comes, not as it is announced, until its request has been answered
 * or its client is gone.
 */
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Readable } from "node:stream";
import { CatalogueError } from "../order/errors.ts";
import type { Holding } from "./budget.ts";
import { type Capacity, whenClosed } from "./capacity.ts";
import { addressOf } from "./connections.ts";

declare module "fastify" {
  interface FastifyContextConfig {
    /** What nodes ask of each other. */
    forNodes?: boolean;
  }
  interface FastifyRequest {
    /** What its body takes. */
    intake: BodyIntake | null;
  }
}

/** Smaller bodies cost no more than their connection does. */
const COUNTED_BYTES_MIN = 1024;

const NOTHING: Buffer = Buffer.alloc(0);

/** One body on its way in. */
class BodyIntake {
  readonly #limitBytes: number;
  readonly #open: (giveUp: () => boolean) => Holding;
  #holding: Holding | null = null;
  #announced = 0;
  #room = NOTHING;
  #length = 0;
  #stop: ((error: Error) => void) | null = null;

  /** @param open makes the holding that its bytes count in, which closes by itself */
  constructor(limitBytes: number, open: (giveUp: () => boolean) => Holding) {
    this.#limitBytes = limitBytes;
    this.#open = open;
  }

  /**
   * Reads the body; `done` is called once.
   * @param announced how long it is, where it was said
   */
  read(body: Readable, announced: number, done: (error: Error | null, bytes?: Buffer) => void): void {
    if (announced > this.#limitBytes) return done(bodyTooLarge(this.#limitBytes));
    this.#announced = announced;
    const end = (error: Error | null): void => {
      if (this.#stop === null) return;
      this.#stop = null;
      body.off("data", take);
      if (error !== null) {
        body.off("end", finish).off("error", fail);
        body.resume(); // what still comes is let go
      }
      const bytes = this.#length === this.#room.length ? this.#room : this.#room.subarray(0, this.#length);
      this.#room = NOTHING;
      if (error === null) done(null, bytes);
      else done(error);
    };
    const take = (bytes: Buffer): void => {
      const refusal = this.#add(bytes);
      if (refusal !== null) end(refusal);
    };
    const finish = (): void => end(null);
    const fail = (): void => end(new CatalogueError("request_invalid", "The body did not arrive whole."));
    this.#stop = end;
    body.on("data", take).on("end", finish).on("error", fail);
  }

  #add(bytes: Buffer): Error | null {
    const length = this.#length + bytes.length;
    if (length > this.#limitBytes) return bodyTooLarge(this.#limitBytes);
    if (this.#length === 0 && bytes.length === this.#announced) {
      // Whole in one piece, like most: it is kept as it is.
      if (!this.#hold(length)) return receivesTooMuch();
      this.#room = bytes;
      this.#length = length;
      return null;
    }
    if (length > this.#room.length) {
      const most = this.#announced >= length ? this.#announced : this.#limitBytes;
      const roomBytes = Math.min(most, Math.max(length, 2 * this.#room.length, COUNTED_BYTES_MIN));
      if (!this.#hold(roomBytes)) return receivesTooMuch();
      const room = Buffer.allocUnsafeSlow(roomBytes);
      room.set(this.#room.subarray(0, this.#length));
      this.#room = room;
    }
    this.#room.set(bytes, this.#length);
    this.#length = length;
    return null;
  }

  #hold(bytes: number): boolean {
    if (bytes <= COUNTED_BYTES_MIN) return true;
    this.#holding ??= this.#open(() => this.#giveUp());
    return this.#holding.set(bytes);
  }

  /** Only what is still coming gives way. */
  #giveUp(): boolean {
    if (this.#stop === null) return false;
    this.#stop(receivesTooMuch());
    return true;
  }
}

function receivesTooMuch(): CatalogueError {
  return new CatalogueError("too_many_in_flight", "The node is receiving as much as it takes; try again.");
}

function bodyTooLarge(limitBytes: number): CatalogueError {
  return new CatalogueError("body_too_large", `The body is larger than ${limitBytes} bytes.`);
}

/** Has a server take in all bodies like this. */
export function takeInBodies(app: FastifyInstance, { incoming, nodes }: Pick<Capacity, "incoming" | "nodes">): void {
  app.decorateRequest("intake", null);
  app.removeAllContentTypeParsers();
  app.addHook("preParsing", (request, reply, _payload, done) => {
    if (request.method === "POST") {
      const { bodyLimit, config } = request.routeOptions;
      const budget = config.forNodes === true ? nodes : incoming;
      request.intake = new BodyIntake(bodyLimit, (giveUp) => {
        const holding = budget.open(holderOf(request), giveUp);
        whenClosed(reply.raw, () => holding.close());
        return holding;
      });
    } else {
      request.raw.resume(); // a body that nobody asked for is let go: it would stay, and count nowhere
    }
    done();
  });
  const read = (request: FastifyRequest, body: Readable, done: (error: Error | null, bytes?: Buffer) => void): void => {
    const { intake } = request;
    if (intake === null) return done(null, NOTHING);
    return intake.read(body, Number(request.headers["content-length"] ?? 0), done);
  };
  app.addContentTypeParser("application/json", read); // by name it is found at once
  app.addContentTypeParser("*", read);
}

/** Whose a request is: the user's, or where nobody is named its address's. */
export function holderOf({ user, raw }: FastifyRequest): string {
  return user === "" ? `address ${addressOf(raw.socket)}` : `user ${user}`;
}
