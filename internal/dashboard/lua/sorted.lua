-- asynq's list of tasks in a sorted set, without the ids whose task is gone.
-- KEYS: the set. ARGV: from, to, prefix of task keys.
-- Returns msg, score, result, msg, score, result, …
local out = {}
local found = redis.call("ZRANGE", KEYS[1], ARGV[1], ARGV[2], "WITHSCORES")
for i = 1, #found, 2 do
	local task = redis.call("HMGET", ARGV[3] .. found[i], "msg", "result")
	if task[1] then
		table.insert(out, task[1])
		table.insert(out, found[i + 1])
		table.insert(out, task[2] or "")
	end
end
return out
