-- asynq v0.26's forward: queues the tasks of a set that fell due, the longest due
-- first.
-- KEYS: pending, the set; the other way round the hook would take it for asynq's.
-- ARGV: now in Unix seconds, what a task's key begins with, now in Unix nanoseconds,
-- what a group's key begins with, how many at most. Returns how many there were.
local ids = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', ARGV[1], 'LIMIT', 0, ARGV[5])
for _, id in ipairs(ids) do
  local task = ARGV[2] .. id
  local group = redis.call('HGET', task, 'group')
  if group and group ~= '' then
    redis.call('ZADD', ARGV[4] .. group, ARGV[1], id)
    redis.call('ZREM', KEYS[2], id)
    redis.call('HSET', task, 'state', 'aggregating')
  else
    redis.call('LPUSH', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
    redis.call('HSET', task, 'state', 'pending', 'pending_since', ARGV[3])
  end
end
return #ids
