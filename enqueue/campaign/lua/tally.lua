-- Counts what has become of messages in flight. To repeat it does no harm.
-- KEYS: campaign, counts, messages in flight, messages in doubt. ARGV: now in ms, what
-- the names of the ends begin with, rows in a chunk, then for each: message, state,
-- reason, whether that is its end: no, yes, doubt (it is, but a late reply may
-- still say otherwise), sure (a doubt is over).
-- Returns {state, how many are in flight}.
local call = redis.call
local rows = tonumber(ARGV[3])
local delta, live, ends, gone, certain, doubt = {}, {}, {}, {}, {}, {}
for i = 4, #ARGV, 4 do
  local id, state, final = ARGV[i], ARGV[i + 1], ARGV[i + 3]
  local v = call('HGET', KEYS[3], id)
  local doubted = not v
  v = v or call('HGET', KEYS[4], id)
  if v then
    local place, old = string.match(v, '^(%d+) (.+)$')
    if state ~= old then
      delta[old] = (delta[old] or 0) - 1
      delta[state] = (delta[state] or 0) + 1
    end
    if final == 'no' then
      if state ~= old and not doubted then
        live[#live + 1] = id
        live[#live + 1] = place .. ' ' .. state
      end
    else
      local chunk = math.floor(tonumber(place) / rows)
      local e = ends[chunk] or {}
      ends[chunk] = e
      e[#e + 1] = string.format('%d', tonumber(place) % rows)
      e[#e + 1] = ARGV[i + 2] == '' and state or state .. ' ' .. ARGV[i + 2]
      if not doubted then
        gone[#gone + 1] = id
        if final == 'doubt' then
          doubt[#doubt + 1] = id
          doubt[#doubt + 1] = place .. ' ' .. state
        end
      elseif final ~= 'doubt' then
        certain[#certain + 1] = id
      end
    end
  end
end
-- What is left of a campaign ends with it: another of its name is to find nothing.
local keep = call('PTTL', KEYS[1])
local function last(key)
  if keep > 0 then call('PEXPIRE', key, keep) end
end
for state, n in pairs(delta) do
  if n ~= 0 then
    call('HINCRBY', KEYS[2], state, n)
  end
end
if #live > 0 then call('HSET', KEYS[3], unpack(live)) end
if #gone > 0 then call('HDEL', KEYS[3], unpack(gone)) end
if #certain > 0 then call('HDEL', KEYS[4], unpack(certain)) end
if #doubt > 0 then
  call('HSET', KEYS[4], unpack(doubt))
  last(KEYS[4])
end
for chunk, e in pairs(ends) do
  local key = ARGV[2] .. string.format('%d', chunk)
  call('HSET', key, unpack(e))
  last(key)
end

local r = call('HMGET', KEYS[1], 'state', 'fed', 'kept', 'completed')
local state, left = r[1], call('HLEN', KEYS[3])
if left == 0 and (state == 'running' or state == 'paused') and r[2] == r[3]
    or state == 'completed_with_failures' and #certain > 0 then
  local failed = 0
  for _, n in ipairs(call('HMGET', KEYS[2], 'invalid', 'rejected', 'exhausted', 'unknown', 'expired', 'canceled')) do
    failed = failed + tonumber(n or '0')
  end
  state = failed > 0 and 'completed_with_failures' or 'completed'
  call('HSET', KEYS[1], 'state', state)
  call('HSETNX', KEYS[1], 'completed', ARGV[1])
  call('HDEL', KEYS[1], 'reason', 'until')
elseif left == 0 and state == 'canceled' and not r[4] then
  call('HSET', KEYS[1], 'completed', ARGV[1])
end
return {state, left}
