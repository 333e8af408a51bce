-- Counts what has become of messages in flight. To repeat it does no harm.
-- KEYS: campaign, counts, messages in flight, messages in doubt. ARGV: now in ms, what
-- the names of the ends begin with, rows in a chunk, how long records are kept in ms, the
-- reason of those whose record is gone, then for each: message, state, reason, whether
-- that is its end: no, yes, doubt (it is, but a late reply may still say otherwise), gone
-- (it has no record; state is what was counted of it before that was looked at, or '' when
-- nobody else counts).
-- Returns {state, how many are in flight}.
local call = redis.call
local rows = tonumber(ARGV[3])
local meta = call('HMGET', KEYS[1], 'fed', 'reserved_at')
local fed, taken = tonumber(meta[1] or '0'), tonumber(meta[2] or ARGV[1])

-- Reports whether a message without a record had one. One that is being queued has none
-- yet: its row is taken, and not noted as queued. And whoever looked may have looked
-- before it was.
local function had(place, counted, seen)
  if seen ~= '' and seen ~= counted then
    return false
  end
  return counted ~= 'waiting' or place < fed or tonumber(ARGV[1]) - taken >= tonumber(ARGV[4])
end

local delta, live, ends, gone, certain, doubt = {}, {}, {}, {}, {}, {}
local begun = 0 -- how many that were taken wait no more, before they are noted
for i = 6, #ARGV, 4 do
  local id, state, reason, final = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local v = call('HGET', KEYS[3], id)
  local doubted = not v
  v = v or call('HGET', KEYS[4], id)
  local place, old
  if v then
    place, old = string.match(v, '^(%d+) ?(.*)$')
    if old == '' then -- as feed.lua has it
      old = tonumber(place) < fed and 'queued' or 'waiting'
    end
    if state == 'waiting' and final ~= 'gone' then
      state = old -- whoever looked knew of an earlier fed
    end
  end
  if v and final == 'gone' then
    if doubted then
      state, reason, final = old, '', 'yes'
    elseif had(tonumber(place), old, state) then
      state, reason, final = 'unknown', ARGV[5], 'yes'
    else
      v = nil
    end
  end
  if v then
    if state ~= old then
      delta[old] = (delta[old] or 0) - 1
      delta[state] = (delta[state] or 0) + 1
      if old == 'waiting' then begun = begun + 1 end
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
      e[#e + 1] = reason == '' and state or state .. ' ' .. reason
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
if begun > 0 then call('HINCRBY', KEYS[1], 'taken', -begun) end
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
