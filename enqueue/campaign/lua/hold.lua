-- Notes why a campaign's feeder feeds nothing, or that it does again.
-- KEYS: campaign, lease. ARGV: token, lease in ms, the state and reason it goes from,
-- the state it goes to, its reason or '', until in ms or '', then what else is noted:
-- field, value, ...
-- Returns 1, or 0 when it is in another state by now, or the lease is another's.
local call = redis.call
local lease = call('GET', KEYS[2])
if not lease or string.sub(lease, 1, #ARGV[1] + 1) ~= ARGV[1] .. '|' then
  return 0
end
call('PEXPIRE', KEYS[2], ARGV[2])
local r = call('HMGET', KEYS[1], 'state', 'reason')
if r[1] ~= ARGV[3] or (r[2] or '') ~= ARGV[4] then
  return 0
end
call('HDEL', KEYS[1], 'reason', 'until')
call('HSET', KEYS[1], 'state', ARGV[5], unpack(ARGV, 8))
if ARGV[6] ~= '' then call('HSET', KEYS[1], 'reason', ARGV[6]) end
if ARGV[7] ~= '' then call('HSET', KEYS[1], 'until', ARGV[7]) end
return 1
