import assert from "node:assert/strict";
import { test } from "node:test";
import { ErrorReply } from "@redis/client";
import { isFinalRefusal, mayPass, reasonOf, RedisConnectionError } from "./reasons.ts";

test("a failure of Redis that may pass is told in an operator's words, with Redis's behind them", () => {
  for (const words of [
    "OOM command not allowed when used memory > 'maxmemory'.",
    "READONLY You can't write against a read only replica.",
    "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN The cluster is down",
    "TRYAGAIN Multiple keys request during rehashing of slot",
    "MISCONF Errors writing to the AOF file: No space left on device",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "NOREPLICAS Not enough good replicas to write.",
    "ERR max number of clients reached",
    "ERR Error running script: Script killed by user with SCRIPT KILL... script: 7a8b, on @user_script:12.",
    "ERR ACL failure in script: User order has no permissions to run the 'append' command",
  ]) {
    const error = new ErrorReply(words);
    assert.equal(mayPass(error), true, words);
    assert.ok(reasonOf(error).endsWith(` (Redis: ${words})`), reasonOf(error));
    assert.match(reasonOf(error), /^[^\n]+; [^\n]+$/, "what is wrong, and what to do");
  }
});

test("what can't pass, or is not foreseen, stops the node", () => {
  for (const words of [
    "STOREGONE {op:7}:partition is of another cluster, or gone",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "ERR user_script:3: Script attempted to access nonexistent global variable 'x'",
  ]) {
    assert.equal(mayPass(new ErrorReply(words)), false, words);
    assert.ok(reasonOf(new ErrorReply(words)).includes(words));
  }
  assert.equal(mayPass(new TypeError("undefined is not a function")), false);
});

test("a lost connection may pass", () => {
  assert.equal(mayPass(new RedisConnectionError("gone")), true);
  assert.equal(reasonOf(new RedisConnectionError("gone")), "gone");
});

test("an address or a password that is wrong is not tried again, and a server that is not ready is", () => {
  const system = (code: string): Error => Object.assign(new Error(`connect ${code}`), { code });
  for (const error of [
    new ErrorReply("WRONGPASS invalid username-password pair or user is disabled."),
    new ErrorReply("NOAUTH Authentication required."),
    new ErrorReply("ERR DB index is out of range"),
    new Error('Unknown RESP type 72 "H"'),
    system("SELF_SIGNED_CERT_IN_CHAIN"),
    system("UNABLE_TO_VERIFY_LEAF_SIGNATURE"),
  ]) {
    assert.equal(isFinalRefusal(error), true, error.message);
  }
  for (const error of [
    new ErrorReply("LOADING Redis is loading the dataset in memory"),
    new ErrorReply("CLUSTERDOWN Hash slot not served"),
    new ErrorReply("ERR max number of clients reached"),
    system("ECONNREFUSED"),
    system("ENOTFOUND"),
    new RedisConnectionError("silent"),
  ]) {
    assert.equal(isFinalRefusal(error), false, error.message);
  }
  assert.match(reasonOf(system("SELF_SIGNED_CERT_IN_CHAIN")), /NODE_EXTRA_CA_CERTS/);
  const both = Object.assign(new AggregateError([system("ECONNREFUSED")], ""), { code: "ECONNREFUSED" });
  assert.equal(reasonOf(both), "nothing listens there; start Redis, or correct the address (ECONNREFUSED)");
});
