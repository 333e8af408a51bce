-- asynq v0.26's dequeue, for several tasks at once, which besides notes who took
-- them. An id whose task is gone (deleted by hand, or evicted) is dropped: asynq
-- would make an empty task of it, which nobody can run and no dashboard can show.
-- KEYS: pending, paused, active, lease. ARGV: end of the lease in Unix seconds,
-- what a task's key begins with, holder, how many. Returns id, message, ... or nil
-- when the queue is paused.
if redis.call('EXISTS', KEYS[2]) == 1 then
  return false
end
local out = {}
for _ = 1, tonumber(ARGV[4]) do
  local id = redis.call('RPOPLPUSH', KEYS[1], KEYS[3])
  if not id then
    break
  end
  local key = ARGV[2] .. id
  local msg = redis.call('HGET', key, 'msg')
  if msg then
    redis.call('HSET', key, 'state', 'active', 'otpq_holder', ARGV[3])
    redis.call('HDEL', key, 'pending_since')
    redis.call('ZADD', KEYS[4], ARGV[1], id)
    out[#out + 1] = id
    out[#out + 1] = msg
  else
    redis.call('LREM', KEYS[3], 1, id)
  end
end
return out
