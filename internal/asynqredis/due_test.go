package asynqredis

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
)

// TestOneLookASecondFindsWhatFallsDue has asynq look at its intervals, and counts
// what Redis is asked. A look counts for the second it was for, even when the clock
// passes on before it is made.
func TestOneLookASecondFindsWhatFallsDue(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 1, 0)
	looks := &lookCount{}
	b.hook.Client.AddHook(looks)
	b.hook.Serve("other", 1)
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	for i := range 120 {
		enqueue(t, b.rdb, "later", asynq.TaskID(fmt.Sprint(i)), asynq.ProcessAt(at))
	}
	enqueue(t, b.rdb, "much later", asynq.ProcessAt(at.Add(time.Hour)))
	if err := b.rdb.ZAdd(t.Context(), key("default", "retry"), redis.Z{Score: float64(at.Unix()), Member: "again"}).Err(); err != nil {
		t.Fatal(err)
	}
	scripts := 0
	run := b.run
	b.run = func(ctx context.Context, cmd redis.Cmder) error { scripts++; return run(ctx, cmd) }
	due := at.Unix()
	for _, c := range []struct {
		why            string
		queue, set     string
		second         any
		moved          int64
		looks, scripts int
	}{
		{"before anything is due", "default", "scheduled", due - 1, 0, 1, 0},
		{"again in that second", "default", "scheduled", due - 1, 0, 1, 0},
		{"the other set of that second", "default", "retry", due - 1, 0, 1, 0},
		{"where something is due", "default", "scheduled", due, 100, 2, 1},
		{"where there was more than is moved at a time", "default", "scheduled", due, 20, 2, 2},
		{"until there is none", "default", "scheduled", due, 0, 2, 3},
		{"and then no more", "default", "scheduled", due, 0, 2, 3},
		{"a retry", "default", "retry", due, 1, 2, 4},
		{"a clock that was put back", "default", "scheduled", due - 9, 0, 3, 4},
		{"another lane", "other", "scheduled", due - 9, 0, 4, 4},
		{"a queue that is not served", "third", "scheduled", due - 9, 0, 4, 5},
		{"a second that is written in another way", "default", "scheduled", fmt.Sprint(due), 0, 4, 6},
	} {
		cmd := redis.NewCmd(t.Context(), "eval", forwardLike, 2, key(c.queue, c.set), key(c.queue, "pending"), c.second)
		err := b.do(cmd)
		moved, _ := cmd.Int64()
		if err != nil || moved != c.moved || looks.n != c.looks || scripts != c.scripts {
			t.Errorf("%s: %d moved, %d looks, %d scripts, %v; want %d, %d, %d", c.why, moved, looks.n, scripts, err, c.moved, c.looks, c.scripts)
		}
	}
}

// forwardLike moves what is due, a hundred at a time, as asynq's forward does.
const forwardLike = `
local ids = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 100)
for _, id in ipairs(ids) do
  redis.call('LPUSH', KEYS[2], id)
  redis.call('ZREM', KEYS[1], id)
end
return #ids`

// lookCount counts looks among all pipelines.
type lookCount struct{ n int }

func (l *lookCount) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (l *lookCount) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (l *lookCount) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "zcount" {
			l.n++
		}
		return next(ctx, cmds)
	}
}

// TestALookThatCameLateIsNotKept has a later one end first.
func TestALookThatCameLateIsNotKept(t *testing.T) {
	t.Parallel()
	var d dueLooks
	if !d.begin(100) || !d.begin(101) {
		t.Fatal("no look begins")
	}
	d.end(101, map[string]bool{"set": true})
	d.end(100, nil)
	if !d.in("set") {
		t.Error("what a look found was forgotten over an older one")
	}
}

// TestALookThatFailsIsMadeAgainASecondLater breaks a set: asynq, which writes a
// line to the log each time, hears of it once a second.
func TestALookThatFailsIsMadeAgainASecondLater(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	h := &Hook{Client: rdb}
	h.Serve("default", 1)
	look := func(second int64) (int64, error) {
		cmd := redis.NewCmd(t.Context(), "eval", forwardLike, 2, key("default", "scheduled"), key("default", "pending"), second)
		err := h.ProcessHook(func(ctx context.Context, cmd redis.Cmder) error { return rdb.Process(ctx, cmd) })(t.Context(), cmd)
		moved, _ := cmd.Int64()
		return moved, err
	}
	enqueue(t, rdb, "later", asynq.ProcessAt(time.Now().Add(time.Hour)))
	due := time.Now().Add(2 * time.Hour).Unix()
	if err := rdb.Do(t.Context(), "RENAME", key("default", "scheduled"), "aside").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.Set(t.Context(), key("default", "scheduled"), "no set", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := look(due); err == nil {
		t.Error("a look that failed says nothing")
	}
	if moved, err := look(due); moved != 0 || err != nil {
		t.Errorf("again in that second: %d, %v; want nothing", moved, err)
	}
	if err := rdb.Do(t.Context(), "RENAME", "aside", key("default", "scheduled")).Err(); err != nil {
		t.Fatal(err)
	}
	if moved, err := look(due + 1); moved != 1 || err != nil {
		t.Errorf("a second later: %d, %v; want what is due", moved, err)
	}
}
