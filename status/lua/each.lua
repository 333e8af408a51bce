-- Put behind a script's function, which it calls for each record.
-- KEYS: records. ARGV, for each: how many arguments it has, then those.
-- Returns the answers.
local out, last = {}, 0
for i = 1, #KEYS do
  local first = last + 2
  last = first + tonumber(ARGV[first - 1]) - 1
  out[i] = one(KEYS[i], {unpack(ARGV, first, last)})
end
return out
