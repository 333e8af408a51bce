-- Writes the records of many messages and queues their tasks, as asynq v0.26's
-- enqueue and schedule do one by one. All of it or nothing: whatever can fail comes
-- before the first write. To repeat it does no harm. No message comes twice in it.
--
-- On a cluster the records, the set of queues and the idempotency keys are on other
-- nodes and are seen to elsewhere: the last three groups of KEYS are empty then.
--
-- KEYS: pending, scheduled, tasks, records, for each message its idempotency keys,
-- the set of queues.
-- ARGV: queue, now in ns, how many messages, how many idempotency keys each has,
-- window in ms, how long a task's key is before its id, when all are due in Unix
-- seconds, or '' for now, or '?' if that differs, how many fields all records share,
-- how many differ; then the shared ones' names and values, and the others' names;
-- then for each message its task's message, how long its record is kept in ms, the
-- fields that differ, when it is due if that differs, and with idempotency keys its
-- reservation.
-- Returns place, key, reservation, ... of the messages whose key is another's.
local call = redis.call
local now, count, idems, window = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local prefix, due, shared, own = tonumber(ARGV[6]), ARGV[7], 2 * ARGV[8], tonumber(ARGV[9])
local records = #KEYS > 2 + count
local width = 2 + own
if due == '?' then width = width + 1 end
if idems > 0 then width = width + 1 end
local rows = 9 + shared + own -- the first message's arguments come after these

-- An error here, of a key of another kind, ends it with nothing done.
call('LLEN', KEYS[1])
call('ZCARD', KEYS[2])
if records then call('SADD', KEYS[#KEYS], ARGV[1]) end

-- Whose idempotency key is another's.
local held, answer = {}, {}
if idems > 0 then
  local taken = {}
  for i = 1, count do
    local first = 2 + 2 * count + (i - 1) * idems
    for k = first + 1, first + idems do
      local by = taken[KEYS[k]] or call('GET', KEYS[k])
      if by then
        held[i] = true
        answer[#answer + 1] = i
        answer[#answer + 1] = KEYS[k]
        answer[#answer + 1] = by
        break
      end
    end
    if not held[i] then taken[KEYS[first + 1]] = ARGV[rows + i * width] end
  end
end

-- One look at all: of messages that are new, which most are, there is nothing. A
-- task comes after its record, so that one look is enough.
local old
if records then
  old = call('EXISTS', unpack(KEYS, 3 + count, 2 + 2 * count)) > 0
else
  old = call('EXISTS', unpack(KEYS, 3, 2 + count)) > 0
end

local fields = {}
for i = 1, shared do fields[i] = ARGV[9 + i] end
for i = 1, own do fields[shared + 2 * i - 1] = ARGV[9 + shared + i] end

local pending, scheduled = {}, {}
for i = 1, count do
  if not held[i] then
    local at = rows + (i - 1) * width
    local task, state = KEYS[2 + i], false
    if idems > 0 then
      call('SET', KEYS[2 + 2 * count + (i - 1) * idems + 1], ARGV[at + width], 'PX', window)
    end
    if records then
      local record = KEYS[2 + count + i]
      state = old and call('HGET', record, 'state')
      if not state then
        for j = 1, own do fields[shared + 2 * j] = ARGV[at + 2 + j] end
        call('HSET', record, unpack(fields))
        call('PEXPIRE', record, ARGV[at + 2])
      end
    end
    -- Of what has come to its end there is no task, and none is made.
    local over = state and state ~= 'queued' and state ~= 'sending' and state ~= 'deferred'
    if not over and not (old and call('EXISTS', task) == 1) then
      local id = string.sub(task, prefix + 1)
      local when = due
      if due == '?' then when = ARGV[at + 3 + own] end
      if when == '' then
        call('HSET', task, 'msg', ARGV[at + 1], 'state', 'pending', 'pending_since', now)
        pending[#pending + 1] = id
      else
        call('HSET', task, 'msg', ARGV[at + 1], 'state', 'scheduled')
        scheduled[#scheduled + 1] = when
        scheduled[#scheduled + 1] = id
      end
    end
  end
end
if #pending > 0 then call('LPUSH', KEYS[1], unpack(pending)) end
if #scheduled > 0 then call('ZADD', KEYS[2], unpack(scheduled)) end
return answer
