-- Lets a claim be taken over at once: the worker that holds it is dead.
-- KEYS: record. ARGV: what the tokens of that worker begin with.
local r = redis.call('HMGET', KEYS[1], 'state', 'claim')
if r[1] == 'sending' and r[2] and string.sub(r[2], 1, #ARGV[1]) == ARGV[1] then
  redis.call('HSET', KEYS[1], 'claimed', 0)
  return 1
end
return 0
