-- Takes back the claim of a first attempt under which no request was made.
-- KEYS: record. ARGV: the tokens that it may have.
local r = redis.call('HMGET', KEYS[1], 'state', 'claim', 'n', 'taken')
if r[1] ~= 'sending' or r[3] ~= '1' or r[4] then
  return 0
end
for _, token in ipairs(ARGV) do
  if r[2] == token then
    redis.call('HSET', KEYS[1], 'state', 'queued')
    redis.call('HDEL', KEYS[1], 'updated', 'claim', 'claimed', 'n', 'a1')
    return 1
  end
end
return 0
