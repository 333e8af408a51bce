-- Deletes the payload of a message that ended; its record stays like any other's.
-- KEYS: record. ARGV: now in ms, retention in ms.
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('HDEL', KEYS[1], 'payload')
  expire(KEYS[1], ARGV[1], 'done', ARGV[2], deadline(redis.call('HGET', KEYS[1], 'made')))
end
return 1
