-- asynq v0.26's done, for several tasks at once. A task's place in the active list
-- is looked for from its old end: those that end are mostly the oldest.
-- KEYS: processed today, processed in all, active, lease. ARGV: what a task's key
-- begins with, when today's count expires in Unix seconds, the largest count, then
-- the ids. Returns 1 for each id that was there, 0 for the others.
local out, ids, keys = {}, {}, {}
for i = 4, #ARGV do
  local found = redis.call('LREM', KEYS[3], '-1', ARGV[i])
  out[#out + 1] = found
  if found == 1 then
    ids[#ids + 1] = ARGV[i]
    keys[#keys + 1] = ARGV[1] .. ARGV[i]
  end
end
if #ids == 0 then
  return out
end
redis.call('ZREM', KEYS[4], unpack(ids))
redis.call('DEL', unpack(keys))
if redis.call('INCRBY', KEYS[1], string.format('%d', #ids)) == #ids then
  redis.call('EXPIREAT', KEYS[1], ARGV[2])
end
if redis.call('GET', KEYS[2]) == ARGV[3] then -- as asynq begins again
  redis.call('SET', KEYS[2], string.format('%d', #ids))
else
  redis.call('INCRBY', KEYS[2], string.format('%d', #ids))
end
return out
