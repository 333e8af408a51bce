-- Put behind a script's function, which it calls for each record: one(key, a, last),
-- whose own arguments are ARGV[a + 1] to ARGV[last]. A table of them for each would
-- cost as much as reading the record.
-- KEYS: records. ARGV, for each: how many arguments it has, then those.
-- Returns the answers.
local out, last = {}, 0
for i = 1, #KEYS do
  local a = last + 1
  last = a + ARGV[a]
  out[i] = one(KEYS[i], a, last)
end
return out
