-- Writes a new record.
-- KEYS: record. ARGV: now in ms, retention in ms, then field, value, ...
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
expire(KEYS[1], ARGV[1], 'queued', ARGV[2], redis.call('HGET', KEYS[1], 'not_after'))
return 1
