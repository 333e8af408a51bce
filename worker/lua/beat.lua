-- Notes that a worker lives, and lists those that do. The time is Redis's own:
-- the clocks of machines differ.
-- KEYS: workers. ARGV: how fresh a beat must be in ms, how long beats are kept in
-- ms, and the worker's id, or '' to only list.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
if ARGV[3] ~= '' then
  redis.call('ZADD', KEYS[1], now, ARGV[3])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
end
return redis.call('ZRANGEBYSCORE', KEYS[1], now - ARGV[1], '+inf')
