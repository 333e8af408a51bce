-- Takes the right to make the next attempt.
-- KEYS: record. ARGV: now in ms, token, abandoned after in ms, retention in ms,
-- states that may become sending as |a|b|, then the seed: field, value, ...
-- Returns {result, attempt, spent, ambiguous, detail}.
local key = KEYS[1]
local now, token, abandoned_after, retention, from = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]

local r = redis.call('HMGET', key, 'state', 'claim', 'claimed', 'taken', 'n', 'spent', 'ambiguous', 'reason', 'next')
local state, owner, claimed, taken = r[1], r[2], tonumber(r[3] or '0'), r[4]
local n, spent, ambiguous = tonumber(r[5] or '0'), tonumber(r[6] or '0'), tonumber(r[7] or '0')
if not state then
  state = 'queued' -- as every seed is
  redis.call('HSET', key, unpack(ARGV, 6))
  -- Once: a claim changes nothing of how long a record is kept.
  expire(key, now, 'sending', retention, redis.call('HGET', key, 'not_after'))
end

if state == 'sending' then
  if owner == token then -- the reply to our own claim was lost
    if not taken and claimed > 0 then
      return {'claimed', n, spent, ambiguous, ''}
    end
    -- It took over what another had begun and may have sent, or it was released.
    return {'abandoned', n, spent, ambiguous, redis.call('HGET', key, 'a' .. n)}
  end
  local busy_until = claimed + abandoned_after
  if now < busy_until then
    return {'busy', n, spent, ambiguous, tostring(busy_until)}
  end
  redis.call('HSET', key, 'claim', token, 'claimed', ARGV[1], 'taken', 1)
  return {'abandoned', n, spent, ambiguous, redis.call('HGET', key, 'a' .. n)}
end
if not string.find(from, '|' .. state .. '|', 1, true) then
  return {'over', n, spent, ambiguous, state}
end

n = n + 1
local sets = {'state', 'sending', 'updated', ARGV[1], 'claim', token, 'claimed', ARGV[1], 'n', n, 'a' .. n, ARGV[1]}
if ambiguous > 0 then
  sets[#sets + 1] = 'duplicate'
  sets[#sets + 1] = 1
end
redis.call('HSET', key, unpack(sets))
if r[8] or r[9] or n > 100 then
  -- The first attempts of hundreds tell nothing that the last do not.
  redis.call('HDEL', key, 'reason', 'next', 'a' .. (n - 100))
end
return {'claimed', n, spent, ambiguous, ''}
