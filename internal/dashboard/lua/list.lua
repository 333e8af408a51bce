-- asynq's list of tasks in a Redis list, without the ids whose task is gone.
-- KEYS: the list. ARGV: from, to, prefix of task keys.
-- Returns msg, result, msg, result, …
local out = {}
for _, id in ipairs(redis.call("LRANGE", KEYS[1], ARGV[1], ARGV[2])) do
	local task = redis.call("HMGET", ARGV[3] .. id, "msg", "result")
	if task[1] then
		table.insert(out, task[1])
		table.insert(out, task[2] or "")
	end
end
return out
