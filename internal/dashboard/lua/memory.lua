-- About how many bytes a queue takes, from a few tasks of each of its lists. A task
-- that is gone counts nothing, and where MEMORY USAGE is not allowed all is zero.
-- Groups, which otpq has none of, are left out.
-- KEYS: active, pending, scheduled, retry, archived, completed, groups.
-- ARGV: prefix of task keys, how many tasks to measure.
local function usage(key)
	local bytes = redis.pcall("MEMORY", "USAGE", key)
	if type(bytes) == "number" then
		return bytes
	end
end
local last = tonumber(ARGV[2]) - 1
local total = 0
for i = 1, 6 do
	local ids, count
	if i <= 2 then
		ids, count = redis.call("LRANGE", KEYS[i], 0, last), redis.call("LLEN", KEYS[i])
	else
		ids, count = redis.call("ZRANGE", KEYS[i], 0, last), redis.call("ZCARD", KEYS[i])
	end
	local sum, found = 0, 0
	for _, id in ipairs(ids) do
		local bytes = usage(ARGV[1] .. id)
		if bytes then
			sum, found = sum + bytes, found + 1
		end
	end
	if found > 0 then
		total = total + sum / found * count
	end
	total = total + (usage(KEYS[i]) or 0)
end
return math.floor(total)
