-- Grants tokens of a provider's limit to those who wait for them in one process,
-- interactive messages first. The time is Redis's own: the clocks of machines differ.
--
-- The tokens that are out come back at a steady rate, and no more than burst are ever
-- out. They are counted at a time of whole microseconds, and not kept as the time at
-- which all will be back: a float of that size is a few per cent off at a million a second.
--
-- KEYS: the provider's limit: a hash of "out" and "at", when they were counted, and for
-- each process in which interactive messages wait, until when bulk yields to them.
-- ARGV: how many come back in a period, the period in µs, the burst, how many interactive
-- and how many bulk messages wait, who asks, how long beyond the next token bulk yields
-- in µs, and how many more tokens are likely to be wanted in a moment. Returns how many of
-- each get one; if not all, in how many µs the next one may be there; and how many more
-- there are, which come out of the first half of the burst alone: where that is out, others
-- may soon want theirs.
local t = redis.call('TIME')
local now = t[1] * 1000000 + t[2]
local rate, burst = ARGV[1] / ARGV[2], tonumber(ARGV[3])
local interactive, bulk, asker = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

local out, at, yield = 0, now, false
local hash = redis.call('HGETALL', KEYS[1])
for i = 1, #hash, 2 do
  local field, value = hash[i], tonumber(hash[i + 1])
  if field == 'out' then
    out = value
  elseif field == 'at' then
    at = value
  elseif value <= now or (field == asker and interactive > 0) then
    redis.call('HDEL', KEYS[1], field) -- it is over, or said anew below
  else
    yield = true
  end
end

-- A clock that was set back brings nothing back, and stops nothing.
out = math.max(0, out - math.max(0, now - at) * rate)
local free = math.max(0, math.floor(burst - out))
local first, second = math.min(interactive, free), 0
if first == interactive and not yield then
  second = math.min(bulk, free - first)
end
out = out + first + second
local more = 0
if first == interactive and second == bulk and not yield then
  more = math.max(0, math.min(tonumber(ARGV[8]), math.floor(burst / 2 - out)))
  out = out + more
end
if first + second > 0 or now < at then
  redis.call('HSET', KEYS[1], 'out', string.format('%.17g', out), 'at', string.format('%.0f', now))
end

local wait = 0
if first < interactive or second < bulk then
  wait = math.max(1, math.ceil((out + 1 - burst) / rate))
end
if first < interactive then
  redis.call('HSET', KEYS[1], asker, string.format('%.0f', now + wait + ARGV[7]))
elseif second < bulk and yield then
  wait = math.max(wait, math.ceil(1 / rate))
end
return {first, second, wait, more}
