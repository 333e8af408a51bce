-- Puts tasks that were taken and not begun back at the head of their queue, in
-- their order.
-- KEYS: active, lease, pending. ARGV: what a task's key begins with, now in Unix
-- nanoseconds, then the ids, the first taken first.
for i = #ARGV, 3, -1 do
  if redis.call('LREM', KEYS[1], 1, ARGV[i]) == 1 then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('HSET', ARGV[1] .. ARGV[i], 'state', 'pending', 'pending_since', ARGV[2])
    redis.call('HDEL', ARGV[1] .. ARGV[i], 'otpq_holder')
    redis.call('RPUSH', KEYS[3], ARGV[i])
  end
end
return 1
