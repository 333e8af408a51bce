-- Marks a message that ended as replayed, once. Its payload is what it is replayed
-- from: a letter that was discarded has none.
-- KEYS: record. ARGV: id of the new message, states to replay from as |a|b|,
-- id of the earlier replay to replace or ''.
-- Returns {'ok', id of the message it is replayed as} | {'refused', state} | {'gone', ''}.
local r = redis.call('HMGET', KEYS[1], 'state', 'replayed_as')
if not r[1] then
  return {'gone', ''}
end
if not string.find(ARGV[2], '|' .. r[1] .. '|', 1, true) then
  return {'refused', r[1]}
end
if r[2] and r[2] ~= ARGV[3] then
  return {'ok', r[2]}
end
if redis.call('HEXISTS', KEYS[1], 'payload') == 0 then
  return {'refused', r[1]}
end
redis.call('HSET', KEYS[1], 'replayed_as', ARGV[1])
return {'ok', ARGV[1]}
