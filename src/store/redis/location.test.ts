import assert from "node:assert/strict";
import { test } from "node:test";
import fc from "fast-check";
import { isRedisUrl, parseRedisUrl, showRedisLocation } from "./location.ts";

test("an address is read with its defaults", () => {
  assert.deepEqual(parseRedisUrl("redis://redis.example"), {
    location: { tls: false, host: "redis.example", port: 6379, db: 0 },
  });
  assert.deepEqual(parseRedisUrl("rediss://10.0.0.1:6380/3"), {
    location: { tls: true, host: "10.0.0.1", port: 6380, db: 3 },
  });
  assert.deepEqual(parseRedisUrl("redis://[::1]:7000/"), { location: { tls: false, host: "::1", port: 7000, db: 0 } });
});

test("credentials are read, with what is written by a % in them", () => {
  assert.deepEqual(parseRedisUrl("redis://:p%40ss%2F%25@host"), {
    location: { tls: false, host: "host", port: 6379, db: 0 },
    password: "p@ss/%",
  });
  assert.deepEqual(parseRedisUrl("redis://alice:secret@host:1/2"), {
    location: { tls: false, host: "host", port: 1, db: 2 },
    username: "alice",
    password: "secret",
  });
});

test("what is not an address is refused with what is wrong, and never with the password", () => {
  for (const [text, why] of [
    ["http://host", /must begin with redis:/],
    ["redis://", /not of the form/],
    ["redis:///0", /not of the form/],
    ["redis://user:s3cret@host:70000", /not of the form/],
    ["redis://user:s3cret@host:0", /port/],
    ["redis://user:s3cret@host/one", /database must be a number/],
    ["redis://user:s3cret@host/-1", /database must be a number/],
    ["redis://user:s3cret@host/1/2", /database must be a number/],
    ["redis://user:s3cret@host?db=1", /end after the database/],
    ["redis://user:s3cret%zz@host", /write %25/],
    ["redis://user:s3cret@ho st", /not of the form/],
    ["redis://$(reboot);id;`id`&x", /host is neither/],
  ] as const) {
    assert.throws(() => parseRedisUrl(text), { message: why }, text);
    try {
      parseRedisUrl(text);
    } catch (error) {
      assert.doesNotMatch(String(error), /s3cret/);
    }
  }
});

test("an address is shown as it can be read again, without credentials", () => {
  for (const text of ["redis://host:6379", "rediss://host:1/5", "redis://[fe80::1]:7000"]) {
    assert.equal(showRedisLocation(parseRedisUrl(text).location), text);
  }
  assert.equal(showRedisLocation(parseRedisUrl("redis://alice:secret@host").location), "redis://host:6379");
});

test("any password can be given", () => {
  fc.assert(
    fc.property(fc.string({ minLength: 1, unit: "binary" }), (password) => {
      fc.pre(password.isWellFormed());
      assert.equal(parseRedisUrl(`redis://:${encodeURIComponent(password)}@host`).password, password);
    }),
  );
});

test("addresses of Redis are told from files", () => {
  assert.equal(isRedisUrl("redis://host"), true);
  assert.equal(isRedisUrl("rediss://host"), true);
  assert.equal(isRedisUrl("sqlite:orders.sqlite"), false);
  assert.equal(isRedisUrl("redis.sqlite"), false);
});
