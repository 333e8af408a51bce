-- Put before each script that changes a record, and behind leads(from, to).

local call, ARGV = redis.call, ARGV

-- How long asynq may take to bring a task back, with some to spare: a lost
-- lease, its grace and the recoverer's minute are 120 s.
local redelivery = 180000

-- Sets how long a record is kept: while the message is on its way, until its
-- deadline and the retention after that; at its end, the retention, but never
-- less than its task may still come back, because a task whose record is gone
-- is taken for a new message, and sent.
local function expire(key, now, state, retention, not_after)
  local left = math.max(tonumber(not_after or '0') - tonumber(now), 0)
  local ttl = tonumber(retention)
  if state == 'queued' or state == 'sending' or state == 'deferred' then
    ttl = ttl + left
  end
  call('PEXPIRE', key, string.format('%d', math.max(ttl, left + redelivery)))
end

-- Reports whether the time that a record was given when it was written will do for
-- its end as well: its deadline and the retention after that. It is right for one
-- that waits, and no more than a hundredth too long for one that ended well before.
local function kept(state, left, retention)
  local dead = state == 'rejected' or state == 'exhausted' or state == 'unknown'
  return not dead and left >= 0 and (state == 'deferred' or left * 100 <= retention)
end
