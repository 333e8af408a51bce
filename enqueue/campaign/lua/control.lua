-- Does what somebody asks of a campaign.
-- KEYS: campaign, counts, messages in flight. ARGV: start | resume | pause | cancel,
-- now in ms, 1 when workers are to feed it or ''.
-- Returns {'ok' | 'refused' | 'gone', state before}.
local call = redis.call
local r = call('HMGET', KEYS[1], 'state', 'reason')
local state, reason = r[1], r[2]
if not state then
  return {'gone', ''}
end
local act = ARGV[1]
if act == 'start' or act == 'resume' then
  if act == 'resume' and state ~= 'paused' and state ~= 'running'
      or act == 'start' and state ~= 'created' and state ~= 'paused' and state ~= 'running' then
    return {'refused', state}
  end
  if state ~= 'running' then
    call('HSET', KEYS[1], 'state', 'running')
    call('HDEL', KEYS[1], 'reason', 'until')
    if reason and reason ~= 'operator' then
      call('HSET', KEYS[1], 'ramp', ARGV[2]) -- whatever paused it may not be over
    end
  end
  if ARGV[3] == '1' then -- and it stays so, whoever else feeds it for a while
    call('HSET', KEYS[1], 'detached', '1')
  end
  call('HSET', KEYS[1], 'asked', ARGV[2])
  call('HSETNX', KEYS[1], 'started', ARGV[2])
elseif act == 'pause' then
  if state ~= 'running' and state ~= 'paused' then
    return {'refused', state}
  end
  call('HDEL', KEYS[1], 'until') -- first: a full Redis lets what has begun to write go on
  call('HSET', KEYS[1], 'state', 'paused', 'reason', 'operator')
elseif act == 'cancel' then
  if state == 'canceled' then
    return {'ok', state}
  end
  if state ~= 'created' and state ~= 'running' and state ~= 'paused' then
    return {'refused', state}
  end
  call('HDEL', KEYS[1], 'reason', 'until') -- first, as above
  -- What waits and is in no feeder's hands will not be sent. The rest is taken back
  -- one by one.
  local held = tonumber(call('HGET', KEYS[1], 'taken') or '0')
  local waiting = tonumber(call('HGET', KEYS[2], 'waiting') or '0')
  call('HINCRBY', KEYS[2], 'waiting', held - waiting)
  call('HINCRBY', KEYS[2], 'canceled', waiting - held)
  call('HSET', KEYS[1], 'state', 'canceled')
  if call('HLEN', KEYS[3]) == 0 then
    call('HSET', KEYS[1], 'completed', ARGV[2])
  end
end
return {'ok', state}
