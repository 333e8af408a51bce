-- Ends the creation of a campaign. To repeat it does no harm.
-- KEYS: campaign, counts, lease. ARGV: token, how many rows are kept, how many chunks,
-- keep in ms. Returns 1, or 0 when another has begun to create it.
local call = redis.call
if call('HGET', KEYS[1], 'by') ~= ARGV[1] then
  return 0
end
if call('HGET', KEYS[1], 'state') == 'creating' then
  call('HSET', KEYS[1], 'state', 'created', 'kept', ARGV[2], 'chunks', ARGV[3], 'fed', '0', 'reserved', '0')
  call('HDEL', KEYS[1], 'batch', 'answer')
  call('PEXPIRE', KEYS[1], ARGV[4])
  call('PEXPIRE', KEYS[2], ARGV[4])
  call('DEL', KEYS[3])
end
return 1
