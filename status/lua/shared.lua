-- Put before each script that changes a record.

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
  redis.call('PEXPIRE', key, string.format('%d', math.max(ttl, left + redelivery)))
end

-- Reports whether the time that a record was given when it was written will do for
-- its end as well: its deadline and the retention after that. It is right for one
-- that waits, and no more than a hundredth too long for one that ended well before.
local function kept(state, left, retention)
  local dead = state == 'rejected' or state == 'exhausted' or state == 'unknown'
  return not dead and left >= 0 and (state == 'deferred' or left * 100 <= retention)
end

-- Moves a record to a state with the fields a[first], value, ... up to a[last]. An
-- empty value deletes the field, and so does a name in dels; without dels there is
-- nothing to delete. What ends because its time is over tells when an attempt at it
-- may have been acted on.
local function apply(key, now, state, ambiguous, a, first, last, dels)
  local sets = {'state', state, 'updated', now}
  for i = first, last, 2 do
    if a[i + 1] ~= '' then
      sets[#sets + 1] = a[i]
      sets[#sets + 1] = a[i + 1]
    elseif dels then
      dels[#dels + 1] = a[i]
    end
  end
  if dels and #dels > 0 then
    redis.call('HDEL', key, unpack(dels))
  end
  if (state == 'expired' or state == 'canceled') and tonumber(ambiguous or '0') > 0 then
    sets[#sets + 1] = 'reason'
    sets[#sets + 1] = 'maybe_sent'
  end
  redis.call('HSET', key, unpack(sets))
end
