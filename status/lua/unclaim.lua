-- Takes back the claim of a first attempt under which no request was made. The message
-- is deferred and not queued: a status never goes backwards.
-- KEYS: record. ARGV: now in ms, then the tokens that the claim may have.
local r = redis.call('HMGET', KEYS[1], 'state', 'claim', 'n', 'taken')
if r[1] ~= 'sending' or r[3] ~= '1' or r[4] then
  return 0
end
for i = 2, #ARGV do
  if r[2] == ARGV[i] then
    redis.call('HSET', KEYS[1], 'state', 'deferred', 'updated', ARGV[1])
    redis.call('HDEL', KEYS[1], 'claim', 'claimed', 'n', 'a1')
    return 1
  end
end
return 0
