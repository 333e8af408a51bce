-- Writes a new record.
-- Of each: now in ms, retention in ms, deadline in ms, then field, value, ...
local function one(key, a)
  if redis.call('EXISTS', key) == 1 then
    return 0
  end
  redis.call('HSET', key, unpack(a, 4))
  expire(key, a[1], 'queued', a[2], a[3])
  return 1
end
