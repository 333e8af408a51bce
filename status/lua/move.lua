-- Writes a change that no attempt led to.
-- Of each: now in ms, new state, retention in ms, how many of the following belong to
-- the change, then the change's field, value, ..., then the seed, if there is one: its
-- deadline in ms, then field, value, ...
-- Answers {'ok' | 'refused' | 'gone', state}.
local function one(key, a)
  local to, seed = a[2], 5 + tonumber(a[4])
  local r = redis.call('HMGET', key, 'state', 'ambiguous', 'not_after')
  local state, not_after = r[1], r[3]
  local missing = not state
  if missing then
    if not a[seed] then
      return {'gone', ''}
    end
    state = 'queued' -- as every seed is
  elseif state == to and to ~= 'deferred' and to ~= 'sending' then -- said before
    return {'ok', state}
  end
  -- What is claimed is finished, not moved, and nothing is claimed by a move.
  if state == 'sending' or to == 'sending' or not leads(state, to) then
    return {'refused', state}
  end

  if missing then
    redis.call('HSET', key, unpack(a, seed + 1))
    not_after = a[seed]
  end
  redis.call('HDEL', key, 'reason', 'next')
  redis.call('HSET', key, 'state', to, 'updated', a[1], unpack(a, 5, seed - 1))
  -- What ends because its time is over tells when an attempt at it may have been
  -- acted on.
  if (to == 'expired' or to == 'canceled') and tonumber(r[2] or '0') > 0 then
    redis.call('HSET', key, 'reason', 'maybe_sent')
  end
  expire(key, a[1], to, a[3], not_after)
  return {'ok', to}
end
