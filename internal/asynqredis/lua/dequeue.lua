-- asynq v0.26's dequeue, for several tasks at once, which besides notes who took
-- them. An id whose task is gone (deleted by hand, or evicted) is dropped: asynq
-- would make an empty task of it, which nobody can run and no dashboard can show.
-- When a task was queued stays in it: asynq asks that only of tasks that wait.
-- KEYS: pending, paused, active, lease. ARGV: end of the lease in Unix seconds,
-- what a task's key begins with, holder, how many, then what the rider is told.
-- Returns id, message, ... or nil when the queue is paused.
--
-- The rider is a function that stands before this: ride(id, now in ms, what it is
-- told). It is run for a task that comes alone, which is begun at once; what it
-- answers comes behind the message.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return false
end
local ids = redis.call('LRANGE', KEYS[1], '-' .. ARGV[4], '-1') -- the next one is the last
if #ids == 0 then
  return {}
end
local taken = {}
for i = #ids, 1, -1 do
  taken[#taken + 1] = ids[i]
end
-- First: where memory is full this fails, and nothing has been changed.
if #ids == 1 then
  redis.call('RPOPLPUSH', KEYS[1], KEYS[3])
else
  redis.call('LPUSH', KEYS[3], unpack(taken))
  redis.call('LTRIM', KEYS[1], '0', string.format('%d', -#ids - 1))
end
local out, leases = {}, {}
for _, id in ipairs(taken) do
  local key = ARGV[2] .. id
  local msg = redis.call('HGET', key, 'msg')
  if msg then
    redis.call('HSET', key, 'state', 'active', 'otpq_holder', ARGV[3])
    leases[#leases + 1] = ARGV[1]
    leases[#leases + 1] = id
    out[#out + 1] = id
    out[#out + 1] = msg
  else
    redis.call('LREM', KEYS[3], '1', id)
  end
end
if #leases > 0 then
  redis.call('ZADD', KEYS[4], unpack(leases))
end
if ARGV[5] and #taken == 1 and #out > 0 then
  local now = redis.call('TIME')
  out[3] = ride(taken[1], string.format('%d', now[1] * 1000 + math.floor(now[2] / 1000)), {unpack(ARGV, 5)})
end
return out
