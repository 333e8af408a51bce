-- Puts tasks that were taken and not begun back at the head of their queue.
-- KEYS: active, lease, pending. ARGV: what a task's key begins with, now in Unix
-- nanoseconds, then the ids, the last taken first.
for i = 3, #ARGV do
  if redis.call('LREM', KEYS[1], 1, ARGV[i]) == 1 then
    redis.call('ZREM', KEYS[2], ARGV[i])
    redis.call('HSET', ARGV[1] .. ARGV[i], 'state', 'pending', 'pending_since', ARGV[2])
    redis.call('HDEL', ARGV[1] .. ARGV[i], 'otpq_holder')
    redis.call('RPUSH', KEYS[3], ARGV[i])
  end
end
return 1
