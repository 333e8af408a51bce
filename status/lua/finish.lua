-- Writes what became of a claimed attempt.
-- KEYS: record. ARGV: now in ms, token, attempt number, attempt line, new
-- state, states that may become it as |a|b|, spent 0/1, ambiguous 0/1,
-- retention in ms, then field, value, ...
-- Returns {'ok' | 'refused' | 'gone', state}.
local key = KEYS[1]
local now, token, attempt, line, to, from, spent, ambiguous, retention =
  ARGV[1], ARGV[2], 'a' .. ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9]

local r = redis.call('HMGET', key, 'state', 'claim', attempt, 'n', 'ambiguous', 'not_after')
local state, owner, written = r[1], r[2], r[3]
if not state then
  return {'gone', ''}
end
if not (state == 'sending' and owner == token) then
  if state == to and written == line then -- the reply to our own finish was lost
    return {'ok', state}
  end
  -- The claim was taken over. What the late result says is believed only when
  -- it is that the provider took the message.
  if to ~= 'accepted' then
    return {'refused', state}
  end
  redis.call('HSET', key, attempt, line)
end
if not string.find(from, '|' .. state .. '|', 1, true) then
  return {'refused', state}
end

ARGV[#ARGV + 1] = attempt
ARGV[#ARGV + 1] = line
if tonumber(ARGV[3]) > tonumber(r[4] or '0') then -- Redis lost the claim
  ARGV[#ARGV + 1] = 'n'
  ARGV[#ARGV + 1] = ARGV[3]
end
if spent == '1' then redis.call('HINCRBY', key, 'spent', 1) end
local lost = r[5]
if ambiguous == '1' then lost = redis.call('HINCRBY', key, 'ambiguous', 1) end
-- The payload of a dead letter that comes to life goes; the new one's comes after.
apply(key, now, to, retention, r[6], lost, 10, #ARGV, {'claim', 'claimed', 'taken', 'payload'})
return {'ok', to}
