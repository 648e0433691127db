/**
 * The store's Lua scripts: each is atomic in Redis, and together they are the only code that changes what is stored.
 *
 * 1. All keys that a script touches are declared in KEYS, and on a Redis Cluster all of one call's are of one hash slot.
 * 2. None has the flag allow-oom: Redis refuses a script that may write before it has done anything when its memory is full,
 *    as when its disk can't be written or it is a replica. It never stops half-way for such a reason.
 * 3. A script that changes orders compares the cluster's id in every partition that it touches before it changes anything, and
 *    ends with the error STOREGONE where it is another, or none: the data was lost, or is another cluster's.
 *
 * Order ids are the last 36 characters of an order's key.
 */
import { createHash } from "node:crypto";
import { CLUSTER_KEYS, FORMAT, FORMER_FORMAT, NO_ORDER } from "./keys.ts";

export interface Script {
  readonly text: string;
  /** Names the text when it need not be sent again (EVALSHA). */
  readonly sha1: string;
}

/** Begins the error of a script that found its store emptied or replaced (invariant 3). */
export const STORE_GONE = "STOREGONE";

function script(text: string): Script {
  return { text, sha1: createHash("sha1").update(text).digest("hex") };
}

/** Ends a script where an open key is gone: it always has a member, and without it nobody would find the open orders (MARK). */
function requireOpenKey(key: string): string {
  return `if not redis.call('ZSCORE', ${key}, '${NO_ORDER}') then
    return redis.error_reply('${STORE_GONE} ' .. ${key} .. ' is gone')
  end`;
}

/** Outcomes of writes in the reply of COMMIT. */
export const COMMIT_APPLIED = "A";
export const COMMIT_CONFLICT = "C";
export const COMMIT_FENCED = "F";
export const COMMIT_KEY_TAKEN = "K";
/** The order is open, but its text is gone: Redis has thrown it away, or somebody has. */
export const COMMIT_MISSING = "M";

/**
 * Applies writes, in groups: writes of one owner to one partition, in their order.
 *
 *     KEYS  a partition key for each group
 *           for each group: open, keys (of idempotency keys), counts, orders and rare key; for each write an order key, and where it
 *           makes the order the key of its user's orders, or by_user (keys.ts)
 *           the key of the stream of changes
 *     ARGV  cluster id, number of groups, entries that the stream keeps (0: none is added), what the stream tells of all writes but n
 *           (order id, revision and user of each, as JSON parted by commas), an owner for each group
 *           for each group: number of writes, then for each write
 *             c <text> <status> <user>             make the order
 *             k <text> <status> <user> <digest>    make the order, unless the digest is taken
 *             a <length> <event>                   append the event to the order's text of that length
 *             s <length> <event> <from> <to> <user>    the same; the order has another status then
 *             f <length> <event> <from> <to> <user>    the same; it is final then
 *             o <length> <event> <owner>           the same as a; the order is the new owner's then
 *             n                                    nothing: the order is not in the state that the write names
 *           <user> is the digest of the order's user
 *     reply the outcomes as one string, a letter a write (COMMIT_*); then for each K, in their order: the id of the order that
 *           has the idempotency key
 *
 * A text only grows, and every change of an order, its owner's included, is an event that is appended. So the length of a text names one
 * state of its order: who has seen owner and revision at a length, and finds that length, finds that owner and that revision (G2). To
 * append and look at the length afterwards takes one command where a look before would take two; what turns out to be
 * too much is cut off again, and nobody has seen it.
 *
 * A write that is refused has changed nothing. What makes Redis fail in the middle (a string longer than it allows) comes first
 * in each write, so that a write is applied whole or not at all even then. What goes into an index is gathered, and put there with one
 * command for each group: commands are most of what a write costs, and each is written to Redis's log.
 */
export const COMMIT = script(`#!lua
local call = redis.call
local groups = tonumber(ARGV[2])
local fenced = {}
for group = 1, groups do
  local found = call('HMGET', KEYS[group], 'cluster', 'fenced:' .. ARGV[4 + group])
  if found[1] ~= ARGV[1] then
    return redis.error_reply('${STORE_GONE} ' .. KEYS[group] .. ' is of another cluster, or gone')
  end
  fenced[group] = found[2]
end

local counted
-- Writes that the stream would tell of, and those of them that were refused, by their number.
local told, refused, refusals = 0, {}, 0
-- For ZADD: pairs of score and member; for ZREM: members. Of one group; listedByUser by the key of the set.
local opened, closed, listed, listedByUser
local function count(status, user, by)
  counted[status] = (counted[status] or 0) + by
  local ofUser = status .. ' ' .. user
  counted[ofUser] = (counted[ofUser] or 0) + by
end

local function isRare(status)
  return status ~= 'running' and status ~= 'completed'
end

local SLICE = 2000
local function inSlices(command, key, list)
  for at = 1, #list, SLICE do call(command, key, unpack(list, at, math.min(at + SLICE - 1, #list))) end
end

-- Puts what was gathered of a group where it belongs.
local function flush(open, listedKey, counts)
  inSlices('ZADD', open, opened)
  -- After it: an order may be made and final in one commit.
  inSlices('ZREM', open, closed)
  inSlices('ZADD', listedKey, listed)
  for key, members in pairs(listedByUser) do inSlices('ZADD', key, members) end
  for field, by in pairs(counted) do
    if by ~= 0 then call('HINCRBY', counts, field, by) end
  end
end

local function tell()
  if told == refusals or ARGV[3] == '0' then return end
  local changes = ARGV[4]
  if refusals > 0 then
    local isRead, all = pcall(cjson.decode, '[' .. changes .. ']')
    if isRead then
      local applied = {}
      for number = 1, told do
        if not refused[number] then
          local id, revision, user = unpack(all, 3 * number - 2, 3 * number)
          applied[#applied + 1] = cjson.encode(id) .. ',' .. string.format('%.0f', revision) .. ',' .. cjson.encode(user)
        end
      end
      changes = table.concat(applied, ',')
    end
  end
  call('XADD', KEYS[#KEYS], 'MAXLEN', '~', ARGV[3], '*', 'c', changes)
end

local function append2(list, one, other)
  list[#list + 1] = one
  list[#list + 1] = other
end

local BY_USER = ':by_user'
local function create(order, userKey, owner, digests, rare, text, status, user, digest)
  local holder = digest and call('HGET', digests, digest)
  if holder then return '${COMMIT_KEY_TAKEN}', holder end
  local made = redis.pcall('SET', order, text, 'NX')
  if not made then return '${COMMIT_CONFLICT}' end
  if made.err then return made end
  local id = string.sub(order, -36)
  append2(opened, owner, id)
  if digest then call('HSET', digests, digest, id) end
  append2(listed, 0, id)
  local isOfAll = string.sub(userKey, -#BY_USER) == BY_USER
  listedByUser[userKey] = listedByUser[userKey] or {}
  append2(listedByUser[userKey], 0, isOfAll and user .. ' ' .. id or id)
  if isRare(status) then call('ZADD', rare, 0, status .. ' ' .. id, 0, status .. '/' .. user .. ' ' .. id) end
  count(status, user, 1)
  return '${COMMIT_APPLIED}'
end

local function append(order, length, event)
  local now = redis.pcall('APPEND', order, event)
  if type(now) == 'table' then return now end
  if now == length + #event then return '${COMMIT_APPLIED}' end
  if now == #event then
    call('DEL', order)
    return '${COMMIT_MISSING}'
  end
  call('SET', order, call('GETRANGE', order, 0, now - #event - 1))
  return '${COMMIT_CONFLICT}'
end

local outcomes, reply = {}, { '' }
local key, arg = groups, 4 + groups
for group = 1, groups do
  local owner, isFenced = ARGV[4 + group], fenced[group]
  local open, digests, counts, orders, rare = unpack(KEYS, key + 1, key + 5)
  local writes = tonumber(ARGV[arg + 1])
  key = key + 5
  arg = arg + 1
  counted, opened, closed, listed, listedByUser = {}, {}, {}, {}, {}
  for _ = 1, writes do
    key = key + 1
    local order, kind, given = KEYS[key], ARGV[arg + 1], ARGV[arg + 2]
    local outcome = '${COMMIT_FENCED}'
    if kind == 'n' then
      arg = arg + 1
      if not isFenced then outcome = '${COMMIT_CONFLICT}' end
    elseif kind == 'c' or kind == 'k' then
      local status, user, digest = ARGV[arg + 3], ARGV[arg + 4], nil
      key = key + 1
      arg = arg + 4
      if kind == 'k' then
        arg = arg + 1
        digest = ARGV[arg]
      end
      if not isFenced then
        outcome, reply[#reply + 1] = create(order, KEYS[key], owner, digests, rare, given, status, user, digest)
      end
    else
      local event, receiver, from, to, user = ARGV[arg + 3], nil, nil, nil, nil
      arg = arg + 3
      if kind == 'o' then
        receiver = ARGV[arg + 1]
        arg = arg + 1
      elseif kind ~= 'a' then
        from, to, user = ARGV[arg + 1], ARGV[arg + 2], ARGV[arg + 3]
        arg = arg + 3
      end
      if isFenced then
        outcome = '${COMMIT_FENCED}'
      elseif receiver and call('HEXISTS', KEYS[group], 'fenced:' .. receiver) == 1 then
        outcome = '${COMMIT_CONFLICT}'
      else
        outcome = append(order, tonumber(given), event)
        if outcome == '${COMMIT_APPLIED}' and kind ~= 'a' then
          local id = string.sub(order, -36)
          if kind == 'f' then
            closed[#closed + 1] = id
          elseif receiver then
            append2(opened, receiver, id)
          end
          if to then
            if isRare(from) then call('ZREM', rare, from .. ' ' .. id, from .. '/' .. user .. ' ' .. id) end
            if isRare(to) then call('ZADD', rare, 0, to .. ' ' .. id, 0, to .. '/' .. user .. ' ' .. id) end
            count(from, user, -1)
            count(to, user, 1)
          end
        end
      end
    end
    if type(outcome) == 'table' then
      -- Redis has failed. What came before is applied whole; this and what follows is not.
      flush(open, orders, counts)
      refusals = refusals + 1
      refused[told + 1] = true
      told = told + 1
      tell()
      return outcome
    end
    outcomes[#outcomes + 1] = outcome
    if kind ~= 'n' then
      told = told + 1
      if outcome ~= '${COMMIT_APPLIED}' then
        refused[told] = true
        refusals = refusals + 1
      end
    end
  end
  flush(open, orders, counts)
end
tell()
reply[1] = table.concat(outcomes)
return reply
`);

/**
 * Fences an owner in partitions and lists orders that it still has there. What it finds stays found until somebody takes it:
 * the owner gets no order there any more.
 *
 *     KEYS  a partition key for each partition, then an open key for each
 *     ARGV  cluster id, the dead owner, the claiming one, how many orders at most (all partitions together)
 *     reply for each partition a list of order ids; or FENCED: the claiming one is fenced itself
 *
 * Partitions behind the one that brings the number to its limit are left alone: fewer than the limit means all were fenced.
 */
export const FENCE_AND_LIST = script(`#!lua
local partitions = #KEYS / 2
local from, remaining = 'fenced:' .. ARGV[2], tonumber(ARGV[4])
for partition = 1, partitions do
  local found = redis.call('HMGET', KEYS[partition], 'cluster', 'fenced:' .. ARGV[3])
  if found[1] ~= ARGV[1] then
    return redis.error_reply('${STORE_GONE} ' .. KEYS[partition] .. ' is of another cluster, or gone')
  end
  if found[2] then return redis.status_reply('FENCED') end
  ${requireOpenKey("KEYS[partitions + partition]")}
end
local reply = {}
for partition = 1, partitions do
  local ids = {}
  if remaining > 0 then
    if redis.call('HEXISTS', KEYS[partition], from) == 0 then redis.call('HSET', KEYS[partition], from, 1) end
    ids = redis.call('ZRANGEBYSCORE', KEYS[partitions + partition], ARGV[2], ARGV[2], 'LIMIT', 0, remaining)
    remaining = remaining - #ids
  end
  reply[partition] = ids
end
return reply
`);

/**
 * Gives listed orders to the claiming owner, as far as the dead one still has them.
 *
 *     KEYS  a partition key for each partition; for each: open key, then an order key for each order; the key of the stream of changes
 *     ARGV  cluster id, the dead owner, the claiming one, the event, number of partitions, entries that the stream keeps; number of
 *           orders for each partition
 *     reply for each order: its text after the event; "" where the text is gone (the order is given all the same); or 0:
 *           another has claimed it. Or FENCED: the claiming one is fenced itself
 */
export const TAKE = script(`#!lua
local from, event, partitions = tonumber(ARGV[2]), ARGV[4], tonumber(ARGV[5])
for partition = 1, partitions do
  local found = redis.call('HMGET', KEYS[partition], 'cluster', 'fenced:' .. ARGV[3])
  if found[1] ~= ARGV[1] then
    return redis.error_reply('${STORE_GONE} ' .. KEYS[partition] .. ' is of another cluster, or gone')
  end
  if found[2] then return redis.status_reply('FENCED') end
end
local reply, changes, key = {}, {}, partitions
local function note(id, text)
  local header, history = string.match(text, '^([^\\n]*)\\n.*\\n([^\\n]*)$')
  local isHeader, fields = pcall(cjson.decode, header)
  local isHistory, events = pcall(cjson.decode, '[' .. (history or '') .. ']')
  -- What is damaged can't be told of, and the claimer says so in the log.
  if isHeader and isHistory then changes[#changes + 1] = '"' .. id .. '",' .. #events .. ',' .. cjson.encode(fields[1]) end
end
for partition = 1, partitions do
  key = key + 1
  local open = KEYS[key]
  for _ = 1, tonumber(ARGV[6 + partition]) do
    key = key + 1
    local order = KEYS[key]
    local id = string.sub(order, -36)
    local owner = redis.call('ZSCORE', open, id)
    if not owner or tonumber(owner) ~= from then
      reply[#reply + 1] = 0
    else
      local text = redis.call('GET', order)
      if text then
        redis.call('APPEND', order, event)
        text = text .. event
        note(id, text)
      end
      redis.call('ZADD', open, ARGV[3], id)
      reply[#reply + 1] = text or ''
    end
  end
end
if #changes > 0 and ARGV[6] ~= '0' then
  redis.call('XADD', KEYS[#KEYS], 'MAXLEN', '~', ARGV[6], '*', 'c', table.concat(changes, ','))
end
return reply
`);

/**
 * Counts the open orders of each owner in partitions.
 *
 *     KEYS  open keys
 *     reply owner, number, owner, number, ...; an owner comes once for each partition in which it has orders
 */
export const COUNT_OWNERS = script(`#!lua flags=no-writes
local reply = {}
for _, open in ipairs(KEYS) do
  ${requireOpenKey("open")}
  local after = '(0'
  while true do
    local found = redis.call('ZRANGEBYSCORE', open, after, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if not found[1] then break end
    local owner = found[2]
    after = '(' .. owner
    reply[#reply + 1] = tonumber(owner)
    reply[#reply + 1] = redis.call('ZCOUNT', open, owner, owner)
  end
end
return reply
`);

/**
 * Makes the cluster's identity on an empty store.
 *
 *     KEYS  identity
 *     ARGV  the offered cluster id and secret, format, number of partitions
 *     reply cluster id, secret, format, number of partitions; "1" when all partitions have been marked (MARK); "1" when orders may be in by_user
 */
export const MAKE_IDENTITY = script(`#!lua
if redis.call('EXISTS', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[1], 'cluster_id', ARGV[1], 'secret', ARGV[2], 'format', ARGV[3], 'partitions', ARGV[4])
end
return redis.call('HMGET', KEYS[1], 'cluster_id', 'secret', 'format', 'partitions', 'ready', 'by_user')
`);

/**
 * Marks partitions as a cluster's, unless they are marked, and gives their open keys a member that is no order (NO_ORDER in keys.ts).
 *
 *     KEYS  a partition key and an open key for each partition
 *     ARGV  cluster id
 *     reply for each partition the id of the cluster that it is now marked with
 */
export const MARK = script(`#!lua
local reply = {}
for index = 1, #KEYS, 2 do
  redis.call('HSETNX', KEYS[index], 'cluster', ARGV[1])
  redis.call('ZADD', KEYS[index + 1], 0, '${NO_ORDER}')
  reply[#reply + 1] = redis.call('HGET', KEYS[index], 'cluster')
end
return reply
`);

/** The keys of every script of the cluster's rows, in this order. */
export const ROW_KEYS: readonly string[] = Object.values(CLUSTER_KEYS);

/** Begins such a script: names its keys, and ends it where ARGV[1] is not the id of the store's cluster. */
function rowScript(text: string, flags = ""): Script {
  return script(`#!lua${flags}
local ${Object.keys(CLUSTER_KEYS).join(", ")} = unpack(KEYS)
if redis.call('HGET', identity, 'cluster_id') ~= ARGV[1] then
  return redis.error_reply('${STORE_GONE} ' .. identity .. ' is of another cluster, or gone')
end
local function vacate(incarnation)
  if redis.call('HGET', leader, 'incarnation') == incarnation then
    redis.call('HDEL', leader, 'incarnation')
    redis.call('HINCRBY', leader, 'renewal', 1)
  end
end
local function unlist(incarnation)
  redis.call('SREM', alive, incarnation)
  redis.call('ZREM', dead, incarnation)
  redis.call('HDEL', nodes, incarnation)
end
${text}`);
}

/** Stands in the description of each node that knows the present format of the store. */
const KNOWS_FORMAT = `"format":${FORMAT}`;

/**
 * ARGV: service id, description, time. Reply: the new incarnation, and the store's format; the service's former incarnation is out. A store of the
 * former format has the present one from then on, unless a node is alive that doesn't know it.
 */
export const REGISTER = rowScript(`
local former = redis.call('HGET', services, ARGV[2])
if former then
  unlist(former)
  vacate(former)
end
local incarnation = redis.call('HINCRBY', identity, 'incarnations', 1)
redis.call('HSET', incarnations, incarnation, ARGV[2])
redis.call('HSET', services, ARGV[2], incarnation)
redis.call('HSET', nodes, incarnation, '1 0 ' .. ARGV[4] .. ' ' .. ARGV[3])
redis.call('SADD', alive, incarnation)
if redis.call('HGET', identity, 'format') == '${FORMER_FORMAT}' then
  local allKnow = true
  for _, each in ipairs(redis.call('SMEMBERS', alive)) do
    allKnow = allKnow and string.find(redis.call('HGET', nodes, each) or '', '${KNOWS_FORMAT}', 1, true) ~= nil
  end
  if allKnow then redis.call('HSET', identity, 'format', ${FORMAT}, 'by_user', 1) end
end
return { incarnation, redis.call('HGET', identity, 'format') }
`);

/** ARGV: version and name, shape. Reply: the shape that is on record. */
export const KEEP_SHAPE = rowScript(`
redis.call('HSETNX', pipelines, ARGV[2], ARGV[3])
return redis.call('HGET', pipelines, ARGV[2])
`);

/** ARGV: key. Reply: the record (nil: none), the incarnations that are alive. */
export const READ_PERMITS = rowScript(
  `
return { redis.call('HGET', permits, ARGV[2]), redis.call('SMEMBERS', alive) }
`,
  " flags=no-writes",
);

/** ARGV: key, the record that was seen ("": none), the new one. Reply: 1; 0: it has changed. */
export const CHANGE_PERMITS = rowScript(`
if (redis.call('HGET', permits, ARGV[2]) or '') ~= ARGV[3] then return 0 end
redis.call('HSET', permits, ARGV[2], ARGV[4])
return 1
`);

/** ARGV: incarnation, orders in flight, time. Reply: 1; 0: it is not alive. */
export const BEAT = rowScript(`
if redis.call('SISMEMBER', alive, ARGV[2]) == 0 then return 0 end
local heartbeat, description = string.match(redis.call('HGET', nodes, ARGV[2]), '^(%d+) %d+ %d+ (.*)$')
redis.call('HSET', nodes, ARGV[2], string.format('%.0f %s %s %s', heartbeat + 1, ARGV[3], ARGV[4], description))
return 1
`);

/**
 * Reply: nodes as field, value, field, value, ...; the incarnations that are alive; the leader's term, incarnation (nil: none)
 * and renewal.
 */
export const READ_ROWS = rowScript(
  `
return {
  redis.call('HGETALL', nodes),
  redis.call('SMEMBERS', alive),
  redis.call('HMGET', leader, 'term', 'incarnation', 'renewal'),
}
`,
  " flags=no-writes",
);

/** ARGV: incarnation, the heartbeat that was seen, dead rows at most. Reply: 1; 0: it is not alive, or has moved. */
export const MARK_DEAD = rowScript(`
if redis.call('SISMEMBER', alive, ARGV[2]) == 0 then return 0 end
if string.match(redis.call('HGET', nodes, ARGV[2]), '^%d+') ~= ARGV[3] then return 0 end
redis.call('SREM', alive, ARGV[2])
redis.call('ZADD', dead, ARGV[2], ARGV[2])
while redis.call('ZCARD', dead) > tonumber(ARGV[4]) do
  unlist(redis.call('ZRANGE', dead, 0, 0)[1])
end
return 1
`);

/** ARGV: incarnation. */
export const LEAVE = rowScript(`
if redis.call('HEXISTS', nodes, ARGV[2]) == 1 then redis.call('SADD', drained, ARGV[2]) end
unlist(ARGV[2])
vacate(ARGV[2])
return 1
`);

/** ARGV: incarnation, the term and the renewal that were seen. Reply: 1; 0: it is not alive, or the row has changed. */
export const CLAIM_LEADERSHIP = rowScript(`
if redis.call('SISMEMBER', alive, ARGV[2]) == 0 then return 0 end
local present = redis.call('HMGET', leader, 'term', 'renewal')
if (present[1] or '0') ~= ARGV[3] or (present[2] or '0') ~= ARGV[4] then return 0 end
redis.call('HSET', leader, 'term', ARGV[3] + 1, 'incarnation', ARGV[2], 'renewal', ARGV[4] + 1)
return 1
`);

/** ARGV: incarnation, term. Reply: 1; 0: it does not lead in that term. */
export const RENEW_LEADERSHIP = rowScript(`
local present = redis.call('HMGET', leader, 'term', 'incarnation')
if present[1] ~= ARGV[3] or present[2] ~= ARGV[2] then return 0 end
redis.call('HINCRBY', leader, 'renewal', 1)
return 1
`);

/** ARGV: two incarnations. Reply: how many incarnations there were; for each of the two 1: alive, 0: not; 1: the first has drained. */
export const CLAIM_STATE = rowScript(
  `
return {
  tonumber(redis.call('HGET', identity, 'incarnations') or 0),
  redis.call('SISMEMBER', alive, ARGV[2]),
  redis.call('SISMEMBER', alive, ARGV[3]),
  redis.call('SISMEMBER', drained, ARGV[2]),
}
`,
  " flags=no-writes",
);
