-- Takes, keeps or gives back the right to feed a campaign.
-- KEYS: campaign, lease. ARGV: token, who, how long in ms or 0 to give it back, how many
-- rows end in a second or ''.
-- Returns 1, or 0 when another has it, or -1 when there is no such campaign.
local call = redis.call
local lease = call('GET', KEYS[2])
if lease and string.sub(lease, 1, #ARGV[1] + 1) ~= ARGV[1] .. '|' then
  return 0
end
if ARGV[3] == '0' then
  call('DEL', KEYS[2])
  return 1
end
if call('EXISTS', KEYS[1]) == 0 then
  return -1
end
call('SET', KEYS[2], ARGV[1] .. '|' .. ARGV[2], 'PX', ARGV[3])
if ARGV[4] ~= '' then
  call('HSET', KEYS[1], 'pace', ARGV[4])
end
return 1
