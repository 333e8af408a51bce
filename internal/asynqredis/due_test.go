package asynqredis

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// forwardOf is asynq's call of its forward script, for a second that lies far ahead:
// what asynq would move at once.
func forwardOf(t *testing.T, queue, set string) *redis.Cmd {
	t.Helper()
	far := time.Now().Add(1000 * time.Hour)
	return redis.NewCmd(t.Context(), "evalsha", asynqForward, 2, key(queue, set), key(queue, "pending"),
		far.Unix(), key(queue, "t:"), far.UnixNano(), key(queue, "g:"))
}

// later queues n tasks for a time, in both of a queue's sets.
func (b *byHand) later(queue string, n int, at time.Time) {
	b.t.Helper()
	for i := range n {
		id := fmt.Sprintf("%s/%d", queue, i)
		enqueue(b.t, b.rdb, "later", asynq.TaskID(id), asynq.Queue(queue), asynq.ProcessAt(at))
		if i%2 == 0 {
			continue
		}
		member := redis.Z{Score: float64(at.Unix()), Member: id}
		if err := b.rdb.ZAdd(b.t.Context(), key(queue, "retry"), member).Err(); err != nil {
			b.t.Fatal(err)
		}
		if err := b.rdb.ZRem(b.t.Context(), key(queue, "scheduled"), id).Err(); err != nil {
			b.t.Fatal(err)
		}
	}
}

// waiting is how many tasks are in each of a queue's sets and in its list.
func (b *byHand) waiting(queue string) [3]int64 {
	ctx := b.t.Context()
	return [3]int64{
		b.rdb.ZCard(ctx, key(queue, "scheduled")).Val(), b.rdb.ZCard(ctx, key(queue, "retry")).Val(), b.rdb.LLen(ctx, key(queue, "pending")).Val(),
	}
}

func (b *byHand) wantWaiting(when, queue string, want ...int64) {
	b.t.Helper()
	if got := b.waiting(queue); got != [3]int64(want) {
		b.t.Errorf("%s, %s has %d scheduled, retried and pending; want %d", when, queue, got, want)
	}
}

// TestWhatIsDueIsQueuedAsAsynqDoes compares a task with one that asynq moved, and has
// more be due than goes into one step.
func TestWhatIsDueIsQueuedAsAsynqDoes(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 1, 0)
	b.hook.Serve("other", 1)
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	const n = 5 * mostDue
	b.later("default", n, at)
	b.later("other", 3, at)
	b.later("third", 2, at)
	enqueue(t, b.rdb, "much later", asynq.ProcessAt(at.Add(time.Second)))
	grouped := key("default", "t:default/4")
	if err := b.rdb.HSet(t.Context(), grouped, "group", "of two").Err(); err != nil {
		t.Fatal(err)
	}
	lanes := b.hook.lanes.all()

	b.hook.lookForDue(lanes, at.Add(-time.Second))
	b.wantWaiting("a second before", "default", n/2+1, n/2, 0)
	b.hook.lookForDue(lanes, at)
	b.wantWaiting("in its second", "default", 1, 0, n-1)
	b.wantWaiting("in its second", "other", 0, 0, 3)
	b.wantWaiting("nobody looks there:", "third", 1, 1, 0)
	if got := b.rdb.ZRange(t.Context(), key("default", "g:of two"), 0, -1).Val(); len(got) != 1 || b.rdb.HGet(t.Context(), grouped, "state").Val() != "aggregating" {
		t.Errorf("the group has %q, want the one task that is in it", got)
	}

	if moved, err := asynqForwardScript.Run(t.Context(), b.rdb, []string{key("third", "scheduled"), key("third", "pending")},
		at.Unix(), key("third", "t:"), time.Now().UnixNano(), key("third", "g:")).Int(); err != nil || moved != 1 {
		t.Fatalf("asynq's forward: %d, %v", moved, err)
	}
	fields := func(queue string) map[string]string {
		f := b.rdb.HGetAll(t.Context(), key(queue, "t:"+queue+"/0")).Val()
		since, err := time.ParseDuration(f["pending_since"] + "ns")
		if ago := time.Now().UnixNano() - since.Nanoseconds(); err != nil || ago < 0 || ago > int64(time.Minute) {
			t.Errorf("pending since %q, %v", f["pending_since"], err)
		}
		delete(f, "pending_since")
		delete(f, "msg")
		return f
	}
	if diff := cmp.Diff(fields("third"), fields("other")); diff != "" {
		t.Errorf("a task that fell due (-as asynq has it +as we have it):\n%s", diff)
	}
}

// lookCount counts looks among all pipelines, by the queues that they are for.
type lookCount struct {
	mu     sync.Mutex
	looks  int
	counts int
}

func (l *lookCount) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (l *lookCount) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (l *lookCount) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "zcount" {
			l.mu.Lock()
			l.looks++
			l.counts += len(cmds)
			l.mu.Unlock()
		}
		return next(ctx, cmds)
	}
}

// TestOneLookASecondIsForAllLanes has asynq ask for a task and for what is due, and
// counts what Redis is asked. What was due before the worker came does not wait.
func TestOneLookASecondIsForAllLanes(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 1, 0)
	looks := &lookCount{}
	b.hook.Client.AddHook(looks)
	b.hook.Serve("other", 1)
	b.later("other", 1, time.Now().Add(time.Hour))
	if err := b.rdb.ZAdd(t.Context(), key("other", "scheduled"), redis.Z{Score: 1, Member: "other/0"}).Err(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 3 { // each waits a second
		if _, err := b.ask(); err != nil && err != redis.Nil { //nolint:errorlint // as asynq compares it
			t.Fatal(err)
		}
		for _, set := range []string{"scheduled", "retry"} {
			cmd := forwardOf(t, "other", set)
			if err := b.do(cmd); err != nil || cmd.Val() != int64(0) {
				t.Fatalf("asynq is told %v, %v; want that nothing is due", cmd.Val(), err)
			}
		}
	}
	if err := b.hook.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.hook.Wait()
	most := int(time.Since(began)/time.Second) + 2
	looks.mu.Lock()
	defer looks.mu.Unlock()
	if looks.looks < 2 || looks.looks > most || looks.counts != 4*looks.looks {
		t.Errorf("%d looks at %d sets, want from 2 to %d at 4 sets each", looks.looks, looks.counts, most)
	}
	b.wantWaiting("after that", "other", 0, 0, 1)
}

// TestAQueueThatIsNotServedIsAsynqsOwn has asynq ask for one.
func TestAQueueThatIsNotServedIsAsynqsOwn(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 1, 0)
	b.later("third", 1, time.Now().Add(time.Hour))
	if err := asynqForwardScript.Load(t.Context(), b.rdb).Err(); err != nil {
		t.Fatal(err)
	}
	if cmd := forwardOf(t, "third", "scheduled"); b.do(cmd) != nil || cmd.Val() != int64(1) {
		t.Errorf("forward = %v, want the one task moved", cmd)
	}
}

// TestRunAllOfAServedQueueIsAsynqsOwn has an Inspector run all that waits, by a script
// with the keys of the one that is asynq's look for what is due.
func TestRunAllOfAServedQueueIsAsynqsOwn(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 1, 0)
	rdb := redis.NewClient(b.rdb.Options())
	t.Cleanup(func() { _ = rdb.Close() })
	rdb.AddHook(b.hook)
	inspector := asynq.NewInspectorFromRedisClient(rdb)
	b.later("default", 4, time.Now().Add(time.Hour))
	if n, err := inspector.RunAllScheduledTasks("default"); n != 2 || err != nil {
		t.Errorf("run all scheduled = %d, %v, want 2", n, err)
	}
	if n, err := inspector.RunAllRetryTasks("default"); n != 2 || err != nil {
		t.Errorf("run all retries = %d, %v, want 2", n, err)
	}
	b.wantWaiting("after that", "default", 0, 0, 4)
}

// TestALookThatFailsHoldsUpNothingElse breaks a set: asynq, which logs it, hears of it,
// and what is due is queued once the set is whole.
func TestALookThatFailsHoldsUpNothingElse(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 1, 0)
	b.hook.Serve("other", 1)
	at := time.Now().Add(time.Hour)
	b.later("default", 2, at)
	b.later("other", 2, at)
	broken := key("default", "scheduled")
	if err := b.rdb.Rename(t.Context(), broken, "aside").Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.rdb.Set(t.Context(), broken, "no set", 0).Err(); err != nil {
		t.Fatal(err)
	}
	told := func(queue, set string) error { return b.do(forwardOf(t, queue, set)) }
	b.hook.lookForDue(b.hook.lanes.all(), at)
	if told("default", "scheduled") == nil || told("default", "retry") != nil || told("other", "scheduled") != nil {
		t.Error("asynq does not hear of the set that is broken, and of no other")
	}
	b.wantWaiting("beside it", "other", 0, 0, 2)
	if err := b.rdb.Rename(t.Context(), "aside", broken).Err(); err != nil {
		t.Fatal(err)
	}
	b.hook.lookForDue(b.hook.lanes.all(), at)
	if err := told("default", "scheduled"); err != nil {
		t.Errorf("once the set is whole: %v", err)
	}
	b.wantWaiting("once the set is whole", "default", 0, 0, 2)
}

// asynqForwardScript is asynq's, whose digest [asynqForward] is.
var asynqForwardScript = redis.NewScript(`
local ids = redis.call("ZRANGEBYSCORE", KEYS[1], "-inf", ARGV[1], "LIMIT", 0, 100)
for _, id in ipairs(ids) do
	local taskKey = ARGV[2] .. id
	local group = redis.call("HGET", taskKey, "group")
	if group and group ~= '' then
	    redis.call("ZADD", ARGV[4] .. group, ARGV[1], id)
		redis.call("ZREM", KEYS[1], id)
		redis.call("HSET", taskKey,
				   "state", "aggregating")
	else
		redis.call("LPUSH", KEYS[2], id)
		redis.call("ZREM", KEYS[1], id)
		redis.call("HSET", taskKey,
				   "state", "pending",
				   "pending_since", ARGV[3])
	end
end
return table.getn(ids)`)
