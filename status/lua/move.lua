-- Writes a change that no attempt led to.
-- KEYS: record. ARGV: now in ms, new state, states that may become it as
-- |a|b|, retention in ms, how many of the following belong to the change, then the
-- change's field, value, ..., then the seed's
-- field, value, ...
-- Returns {'ok' | 'refused' | 'gone', state}.
local key = KEYS[1]
local now, to, from, retention, changes = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])

local r = redis.call('HMGET', key, 'state', 'ambiguous', 'not_after')
local state, not_after = r[1], r[3]
local missing = not state
if missing then
  if #ARGV == 5 + changes then
    return {'gone', ''}
  end
  state = 'queued' -- as every seed is
elseif state == to and to ~= 'deferred' and to ~= 'sending' then -- said before
  return {'ok', state}
end
if not string.find(from, '|' .. state .. '|', 1, true) then
  return {'refused', state}
end

if missing then
  redis.call('HSET', key, unpack(ARGV, 6 + changes))
  not_after = redis.call('HGET', key, 'not_after')
end
apply(key, now, to, retention, not_after, r[2], 6, 5 + changes, {})
return {'ok', to}
