-- Takes a task out of the archive and deletes it, unless it is somewhere else too.
-- An archive script of asynq's that broke in the middle leaves tasks in the archive
-- which call themselves active, though nobody has them.
-- KEYS: archived, the task, lease, active. ARGV: id.
if redis.call('ZREM', KEYS[1], ARGV[1]) == 0 then
  return 0
end
local state = redis.call('HGET', KEYS[2], 'state')
local held = state == 'active' and
  (redis.call('ZSCORE', KEYS[3], ARGV[1]) or redis.call('LPOS', KEYS[4], ARGV[1]))
if state == 'archived' or state == 'active' and not held then
  redis.call('DEL', KEYS[2])
end
return 1
