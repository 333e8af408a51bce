-- Takes a task from its holder and puts another in its place, once.
-- KEYS: active, lease, the task, then, unless it is only to be dropped: the new
-- task, and pending or scheduled. ARGV: id, holder or '', new id, its message,
-- now in Unix nanoseconds, and when it falls due in Unix seconds or ''.
if (redis.call('HGET', KEYS[3], 'otpq_holder') or '') ~= ARGV[2] then
  return 0
end
if redis.call('LREM', KEYS[1], 0, ARGV[1]) == 0 then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
if #KEYS == 3 or redis.call('EXISTS', KEYS[4]) == 1 then
  return 1
end
if ARGV[6] == '' then
  redis.call('HSET', KEYS[4], 'msg', ARGV[4], 'state', 'pending', 'pending_since', ARGV[5])
  redis.call('RPUSH', KEYS[5], ARGV[3]) -- first in line: it has waited long enough
else
  redis.call('HSET', KEYS[4], 'msg', ARGV[4], 'state', 'scheduled')
  redis.call('ZADD', KEYS[5], ARGV[6], ARGV[3])
end
return 1
