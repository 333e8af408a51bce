-- Begins to create a campaign, or to create one anew whose creation died.
-- KEYS: campaign, counts, lease, messages in flight, messages in doubt. ARGV:
-- token, who, lease in ms, keep in ms, then the campaign's field, value, ...
-- Returns {'ok', how many chunks an earlier try left} | {'exists'} | {'busy', who}.
local call = redis.call
local state = call('HGET', KEYS[1], 'state')
if state and state ~= 'creating' then
  return {'exists'}
end
local lease, mine = call('GET', KEYS[3]), ARGV[1] .. '|' .. ARGV[2]
if lease and lease ~= mine then
  return {'busy', string.sub(lease, string.find(lease, '|', 1, true) + 1)}
end
local left = call('HGET', KEYS[1], 'chunks') or '0'
call('DEL', KEYS[1], KEYS[2], KEYS[4], KEYS[5])
call('HSET', KEYS[1], 'state', 'creating', 'chunks', left, 'by', ARGV[1], unpack(ARGV, 5))
call('HSET', KEYS[2], 'rows', '0')
call('PEXPIRE', KEYS[1], ARGV[4])
call('PEXPIRE', KEYS[2], ARGV[4])
call('SET', KEYS[3], mine, 'PX', ARGV[3])
return {'ok', left}
