-- Counts a batch of rows and finds the duplicates in it. To repeat it does no harm.
-- KEYS: campaign, counts, lease. ARGV: token, who, lease in ms, number of the batch,
-- what the names of the shards begin with, how many shards, how long those are kept in
-- ms, how many chunks there will be, rows that are wrong, then the hashes of the
-- others' recipients.
-- Returns the places of the duplicates among these, joined by commas, or false when
-- another has begun to create the campaign.
local call = redis.call
if call('HGET', KEYS[1], 'by') ~= ARGV[1] then
  return false
end
call('SET', KEYS[3], ARGV[1] .. '|' .. ARGV[2], 'PX', ARGV[3])
local last = call('HMGET', KEYS[1], 'batch', 'answer')
if last[1] == ARGV[4] then -- its reply was lost
  return last[2]
end
local shards, same, places = tonumber(ARGV[6]), 0, {}
for i = 10, #ARGV do
  local hash = ARGV[i]
  local high, low = string.byte(hash, 1, 2)
  local shard = ARGV[5] .. string.format('%d', (high * 256 + low) % shards)
  if call('HSETNX', shard, string.sub(hash, 3), '') == 0 then
    same = same + 1
    places[same] = i - 10
  elseif call('HLEN', shard) == 1 then
    call('PEXPIRE', shard, ARGV[7])
  end
end
local unique = #ARGV - 9 - same
call('HINCRBY', KEYS[2], 'rows', #ARGV - 9 + tonumber(ARGV[9]))
call('HINCRBY', KEYS[2], 'invalid', ARGV[9])
call('HINCRBY', KEYS[2], 'duplicate', same)
call('HINCRBY', KEYS[2], 'waiting', unique)
local answer = table.concat(places, ',')
call('HSET', KEYS[1], 'batch', ARGV[4], 'answer', answer, 'chunks', ARGV[8])
return answer
