package asynqredis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
)

// The digests of those scripts of asynq v0.26.0 that ours stand in for. When a new
// asynq has others, compare the texts, carry the change over, and then put the new
// digests here.
const (
	asynqDequeue = "a8153319360adc71cdc370107f8ab9786f204765" // lua/dequeue.lua
	asynqDone    = "1241eaa1c73409baaf1fea0c08d203a4911bda15" // lua/done.lua
	asynqForward = "522b1a6ae66fe79ea2f24a9af58798ab71879035" // lua/due.lua
)

func TestWhatOursStandsInForIsStillAsynqs(t *testing.T) {
	t.Parallel()
	rdb, s := mended(t) // with no lane, so that asynq's own scripts run
	enqueue(t, rdb, "any")
	serve(t, rdb, func(context.Context, *asynq.Task) error { return nil })
	for name, c := range map[string]struct {
		digest string
		is     func(redis.Cmder) bool
	}{
		"dequeue": {asynqDequeue, func(cmd redis.Cmder) bool { return recognise(cmd) == dequeue }},
		"done":    {asynqDone, func(cmd redis.Cmder) bool { return recognise(cmd) == acknowledge && asDone(cmd) != nil }},
		"forward": {asynqForward, func(cmd redis.Cmder) bool { return recognise(cmd) == forward }},
	} {
		var digest any
		eventually(t, "asynq runs its "+name, func() bool {
			for _, cmd := range s.commands() {
				if cmd.Name() == "evalsha" && c.is(cmd) {
					digest = cmd.Args()[1]
				}
			}
			return digest != nil
		})
		if digest != c.digest {
			t.Errorf("asynq's %s is %v, want %s: see the constants' comment", name, digest, c.digest)
		}
	}
}

// house is a Redis with a server that takes tasks in a name, and blocks in them
// until the test ends.
type house struct {
	rdb   *redis.Client // without any hook
	queue *asynq.Inspector
	hook  *Hook
	stop  func()
}

func holding(t *testing.T, holder string, handler asynq.HandlerFunc) house {
	t.Helper()
	server := redistest.Start(t)
	h := house{rdb: server.Client(), hook: &Hook{Holder: holder}}
	h.queue = asynq.NewInspectorFromRedisClient(h.rdb)
	hooked := server.Client()
	h.hook.Client = hooked
	h.hook.Serve("default", 4)
	hooked.AddHook(h.hook)
	h.stop = serve(t, hooked, handler)
	return h
}

// blocking is a handler that ends with the test.
func blocking(t *testing.T) asynq.HandlerFunc {
	t.Helper()
	end := make(chan struct{})
	t.Cleanup(func() { close(end) })
	return func(context.Context, *asynq.Task) error { <-end; return nil }
}

func (h house) held(t *testing.T, except ...string) []Held {
	t.Helper()
	list, err := ListHeld(t.Context(), h.rdb, []string{"default"}, except)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func (h house) awaitHeld(t *testing.T, count int) []Held {
	t.Helper()
	var list []Held
	eventually(t, fmt.Sprintf("%d tasks are held", count), func() bool { list = h.held(t); return len(list) == count })
	return list
}

func TestWhatIsHeldSaysByWhom(t *testing.T) {
	t.Parallel()
	h := holding(t, "worker-a", blocking(t))
	enqueue(t, h.rdb, "one", asynq.TaskID("1"))
	enqueue(t, h.rdb, "two", asynq.TaskID("2"))
	list := h.awaitHeld(t, 2)
	want := []Held{{Queue: "default", ID: "1", Holder: "worker-a"}, {Queue: "default", ID: "2", Holder: "worker-a"}}
	if diff := cmp.Diff(want, list, cmpopts.IgnoreFields(Held{}, "LeaseEnds"), cmpopts.SortSlices(func(a, b Held) bool { return a.ID < b.ID })); diff != "" {
		t.Errorf("ListHeld() (-want +got):\n%s", diff)
	}
	if left := time.Until(list[0].LeaseEnds); left < 10*time.Second || left > 31*time.Second {
		t.Errorf("the lease ends in %s, want some 30 s", left)
	}
	if got := h.held(t, "someone", "worker-a"); len(got) != 0 {
		t.Errorf("ListHeld() without worker-a's = %v, want nothing", got)
	}
	if at := h.hook.LastTurn("default"); time.Since(at) > 20*time.Second {
		t.Errorf("LastTurn() = %v, want a moment ago", at)
	}
	if at := h.hook.LastTurn("other"); !at.IsZero() {
		t.Errorf("LastTurn() of a queue that nobody serves = %v", at)
	}
}

// TestATaskIsTakenOverOnce has many try at once, and then lets the old holder
// come to its end: what it says falls on nothing.
func TestATaskIsTakenOverOnce(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h := holding(t, "sleeper", func(context.Context, *asynq.Task) error { <-release; return nil })
	headers := map[string]string{"traceparent": "00-1-2-01"}
	task := asynq.NewTaskWithHeaders("send", []byte("sealed"), headers, asynq.TaskID("m"), asynq.MaxRetry(7), asynq.Timeout(9*time.Second))
	if _, err := asynq.NewClientFromRedisClient(h.rdb).Enqueue(task); err != nil {
		t.Fatal(err)
	}
	old := h.awaitHeld(t, 1)[0]
	if err := h.rdb.Set(t.Context(), "asynq:{default}:paused", 1, 0).Err(); err != nil { // so that what is taken over stays
		t.Fatal(err)
	}
	raw, err := old.Message(t.Context(), h.rdb)
	if err != nil {
		t.Fatal(err)
	}
	info, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	results := make([]error, 20)
	for i := range results {
		wg.Go(func() { results[i] = old.TakeOver(t.Context(), h.rdb, info, "m~1", time.Time{}) })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ErrGone):
			t.Errorf("TakeOver() = %v, want nil or ErrGone", err)
		}
	}
	if won != 1 {
		t.Errorf("%d of %d took the task over, want 1", won, len(results))
	}
	close(release) // the old holder acknowledges
	h.stop()
	got, err := h.queue.GetTaskInfo("default", "m~1")
	if err != nil {
		t.Fatal(err)
	}
	want := &asynq.TaskInfo{
		ID: "m~1", Queue: "default", Type: "send", Payload: []byte("sealed"), Headers: headers,
		State: asynq.TaskStatePending, MaxRetry: 7, Timeout: 9 * time.Second,
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(asynq.TaskInfo{}, "NextProcessAt")); diff != "" {
		t.Errorf("the task that was taken over (-want +got):\n%s", diff)
	}
	if _, err := h.queue.GetTaskInfo("default", "m"); !errors.Is(err, asynq.ErrTaskNotFound) {
		t.Errorf("the old task: %v, want it gone", err)
	}
	if n := len(h.held(t)); n != 0 {
		t.Errorf("%d tasks are held, want none", n)
	}
	if n := h.rdb.ZCard(t.Context(), "asynq:{default}:lease").Val(); n != 0 {
		t.Errorf("%d leases are left, want none: asynq's recovery would look for their tasks for ever", n)
	}
}

func TestATaskThatIsTakenOverIsFirstInLine(t *testing.T) {
	t.Parallel()
	h := holding(t, "dead", blocking(t))
	enqueue(t, h.rdb, "held", asynq.TaskID("m"))
	old := h.awaitHeld(t, 1)[0]
	if err := h.rdb.Set(t.Context(), "asynq:{default}:paused", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	enqueue(t, h.rdb, "later", asynq.TaskID("n"))
	h.takeOver(t, old, time.Time{})
	if err := h.rdb.LPush(t.Context(), "asynq:{default}:pending", "newest").Err(); err != nil {
		t.Fatal(err)
	}
	if next := h.rdb.LIndex(t.Context(), "asynq:{default}:pending", -1).Val(); next != "m~1" {
		t.Errorf("the next task is %q, want m~1", next)
	}
}

func (h house) takeOver(t *testing.T, old Held, due time.Time) {
	t.Helper()
	raw, err := old.Message(t.Context(), h.rdb)
	if err != nil {
		t.Fatal(err)
	}
	info, err := Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.TakeOver(t.Context(), h.rdb, info, old.ID+"~1", due); err != nil {
		t.Fatal(err)
	}
}

func TestATaskCanBeTakenOverForLater(t *testing.T) {
	t.Parallel()
	h := holding(t, "dead", blocking(t))
	enqueue(t, h.rdb, "held", asynq.TaskID("m"))
	due := time.Now().Add(time.Hour).Truncate(time.Second)
	h.takeOver(t, h.awaitHeld(t, 1)[0], due)
	got, err := h.queue.GetTaskInfo("default", "m~1")
	if err != nil || got.State != asynq.TaskStateScheduled || !got.NextProcessAt.Equal(due) {
		t.Errorf("the task is %+v, %v; want it scheduled for %v", got, err, due)
	}
}

// TestAnotherHoldersTaskIsLeftAlone looks before a task changes hands, and acts
// after.
func TestAnotherHoldersTaskIsLeftAlone(t *testing.T) {
	t.Parallel()
	h := holding(t, "second", blocking(t))
	enqueue(t, h.rdb, "held", asynq.TaskID("m"))
	stale := h.awaitHeld(t, 1)[0]
	stale.Holder = "first"
	if err := stale.Drop(t.Context(), h.rdb); !errors.Is(err, ErrGone) {
		t.Errorf("Drop() of another's task = %v, want ErrGone", err)
	}
	h.awaitHeld(t, 1)
}

// TestATaskThatIsWaitingAgainIsLeftAlone looks while a task runs, and acts once
// its holder has put it off.
func TestATaskThatIsWaitingAgainIsLeftAlone(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	h := holding(t, "worker", func(context.Context, *asynq.Task) error { <-release; return errors.New("not now") })
	enqueue(t, h.rdb, "held", asynq.TaskID("m"))
	seen := h.awaitHeld(t, 1)[0]
	close(release)
	h.awaitHeld(t, 0)
	if err := seen.Drop(t.Context(), h.rdb); !errors.Is(err, ErrGone) {
		t.Errorf("Drop() = %v, want ErrGone", err)
	}
	if got, err := h.queue.GetTaskInfo("default", "m"); err != nil || got.State != asynq.TaskStateRetry {
		t.Errorf("the task is %+v, %v; want it waiting for its retry", got, err)
	}
}

// TestIDsWithoutTasksAreDropped has ids in the lists whose tasks were deleted by
// hand: asynq alone makes empty tasks of them.
func TestIDsWithoutTasksAreDropped(t *testing.T) {
	t.Parallel()
	ran := make(chan string, 10)
	h := holding(t, "worker", func(_ context.Context, task *asynq.Task) error { ran <- task.Type(); return nil })
	for _, ghost := range []string{"ghost-1", "ghost-2"} {
		if err := h.rdb.LPush(t.Context(), "asynq:{default}:pending", ghost).Err(); err != nil {
			t.Fatal(err)
		}
	}
	enqueue(t, h.rdb, "real")
	select {
	case got := <-ran:
		if got != "real" {
			t.Errorf("%q ran, want the real task", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the real task never ran")
	}
	eventually(t, "nothing is left", func() bool {
		keys, err := h.rdb.Keys(t.Context(), "asynq:{default}:t:*").Result()
		return err == nil && len(keys) == 0 && len(h.held(t)) == 0
	})
	// One that is already held: deleted while it ran.
	if err := h.rdb.LPush(t.Context(), "asynq:{default}:active", "ghost-3").Err(); err != nil {
		t.Fatal(err)
	}
	ghost := h.held(t)[0]
	if _, err := ghost.Message(t.Context(), h.rdb); !errors.Is(err, ErrGone) {
		t.Errorf("Message() = %v, want ErrGone", err)
	}
	if err := ghost.Drop(t.Context(), h.rdb); err != nil {
		t.Errorf("Drop() = %v", err)
	}
	if n := len(h.held(t)); n != 0 {
		t.Errorf("%d ids are left", n)
	}
}

func TestWhatIsNoMessageIsNotDecoded(t *testing.T) {
	t.Parallel()
	for _, raw := range []string{"\xff\xff", "not protobuf", "\x0a\x02\xff\xfe"} {
		if info, err := Decode([]byte(raw)); err == nil {
			t.Errorf("Decode(%q) = %+v, want an error", raw, info)
		}
	}
}

// TestHeldTasksAreListedAfterAScriptFlush flushes the scripts that a pipeline
// cannot load by itself.
func TestHeldTasksAreListedAfterAScriptFlush(t *testing.T) {
	t.Parallel()
	h := holding(t, "worker", blocking(t))
	enqueue(t, h.rdb, "held")
	h.awaitHeld(t, 1)
	if err := h.rdb.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	if n := len(h.held(t)); n != 1 {
		t.Errorf("%d tasks are held, want 1", n)
	}
	enqueue(t, h.rdb, "another")
	h.awaitHeld(t, 2)
}

func TestWhatIsBeingAcknowledgedIsKnown(t *testing.T) {
	t.Parallel()
	h := &Hook{}
	reached, release := make(chan struct{}), make(chan struct{})
	run := h.ProcessHook(func(context.Context, redis.Cmder) error {
		close(reached)
		<-release
		return nil
	})
	done := make(chan error, 1)
	go func() {
		done <- run(t.Context(), redis.NewCmd(t.Context(), "evalsha", "sha", 3, "asynq:{q}:active", "asynq:{q}:lease", "asynq:{q}:t:m~1", "m~1"))
	}()
	<-reached
	if !h.Holds("q", "m~1") || h.Holds("q", "m") {
		t.Errorf("Holds(m~1, m) = %v, %v; want true, false", h.Holds("q", "m~1"), h.Holds("q", "m"))
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if h.Holds("q", "m~1") {
		t.Error("still acknowledging after the end")
	}
}

// A list that is tried like an acknowledgement outlasts its caller.
func TestTheHookLeavesListsOfTheHeldAlone(t *testing.T) {
	t.Parallel()
	rdb, s := mended(t)
	for _, queues := range [][]string{{"default"}, {"default", "other"}} {
		if list, err := ListHeld(t.Context(), rdb, queues, []string{"worker-a"}); err != nil || len(list) > 0 {
			t.Errorf("ListHeld() of nothing = %v, %v", list, err)
		}
	}
	for _, cmd := range s.commands() {
		if k := recognise(cmd); k != other {
			t.Errorf("%v is taken for asynq's own script of kind %v", cmd.Args(), k)
		}
	}
}
