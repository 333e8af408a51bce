-- Writes a change that no attempt led to.
-- Of each: now in ms, new state, retention in ms, how many of the following belong to
-- the change, then the change's field, value, ..., then the seed, if there is one: its
-- deadline in ms, then field, value, ...
-- Answers 'ok' or {'refused' | 'gone', state}.
local function one(key, a, last)
  local now, to, seed = ARGV[a + 1], ARGV[a + 2], a + 5 + ARGV[a + 4]
  local r = call('HMGET', key, 'state', 'ambiguous', 'made')
  local state, not_after = r[1], deadline(r[3])
  local missing = not state
  if missing then
    if seed > last then
      return {'gone', ''}
    end
    state = 'queued' -- as every seed is
  elseif state == to and to ~= 'deferred' and to ~= 'sending' then -- said before
    return 'ok'
  end
  -- What is claimed is finished, not moved, and nothing is claimed by a move.
  if state == 'sending' or to == 'sending' or not leads(state, to) then
    return {'refused', state}
  end

  if missing then
    call('HSET', key, unpack(ARGV, seed + 1, last))
    not_after = ARGV[seed]
  end
  call('HDEL', key, 'reason', 'next')
  call('HSET', key, 'state', to, 'updated', now, unpack(ARGV, a + 5, seed - 1))
  -- What ends because its time is over tells when an attempt at it may have been
  -- acted on.
  if (to == 'expired' or to == 'canceled') and tonumber(r[2] or '0') > 0 then
    call('HSET', key, 'reason', 'maybe_sent')
  end
  expire(key, now, to, ARGV[a + 3], not_after)
  return 'ok'
end
