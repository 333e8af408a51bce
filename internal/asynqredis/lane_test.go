package asynqredis

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
)

// fast is a Redis with a server on one fast lane, and a count of what the server
// asks of Redis.
type fast struct {
	rdb   *redis.Client // without any hook
	hook  *Hook
	asked *spy
	stop  func()
}

func serveFast(t *testing.T, slots int, handler asynq.HandlerFunc) fast {
	t.Helper()
	return serveFastOn(t, redistest.Start(t), slots, handler)
}

func serveFastOn(t *testing.T, redis *redistest.Server, slots int, handler asynq.HandlerFunc) fast {
	t.Helper()
	f := fast{rdb: redis.Client(), hook: &Hook{Holder: t.Name()}, asked: &spy{}}
	hooked := redis.Client()
	f.hook.Client = hooked
	f.hook.Serve("default", slots)
	hooked.AddHook(f.hook)
	hooked.AddHook(f.asked)
	server := asynq.NewServerFromRedisClient(hooked, asynq.Config{
		Concurrency: slots, TaskCheckInterval: time.Millisecond, DelayedTaskCheckInterval: 10 * time.Millisecond,
		ShutdownTimeout: 100 * time.Millisecond, LogLevel: asynq.FatalLevel,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Second },
	})
	if err := server.Start(handler); err != nil {
		t.Fatal(err)
	}
	f.stop = sync.OnceFunc(func() {
		if err := f.hook.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		server.Shutdown()
		f.hook.Wait()
	})
	t.Cleanup(f.stop)
	return f
}

// TestATaskWakesAnIdleServer enqueues after the server has found nothing: it comes
// at once, and not at the end of the hold.
func TestATaskWakesAnIdleServer(t *testing.T) {
	t.Parallel()
	ran := make(chan time.Time, 1)
	f := serveFast(t, 4, func(context.Context, *asynq.Task) error { ran <- time.Now(); return nil })
	quick := 0
	for range 10 {
		eventually(t, "the server waits", func() bool { return f.hook.lanes.get("default").waiting.Load() })
		enqueue(t, f.rdb, "wake")
		at := time.Now()
		if took := (<-ran).Sub(at); took < holdTime/4 {
			quick++
		}
	}
	if quick < 5 {
		t.Errorf("%d of 10 tasks came within %s of being queued", quick, holdTime/4)
	}
}

// TestATaskIsBegunBeforeTheNextIsAskedFor has one thread for all, as where the others
// are busy: what asynq does first is what comes first.
func TestATaskIsBegunBeforeTheNextIsAskedFor(t *testing.T) { //nolint:paralleltest // it changes the whole process
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	var served atomic.Pointer[lane]
	early := make(chan bool, 1)
	f := serveFast(t, 4, func(context.Context, *asynq.Task) error { early <- !served.Load().waiting.Load(); return nil })
	l := f.hook.lanes.get("default")
	served.Store(l)
	const tasks = 20
	n := 0
	for range tasks {
		eventually(t, "the server waits", l.waiting.Load)
		enqueue(t, f.rdb, "wake")
		if <-early {
			n++
		}
	}
	if n < tasks/2 {
		t.Errorf("%d of %d tasks were begun before the lane asked for more", n, tasks)
	}
}

func TestAnIdleServerAsksLittle(t *testing.T) {
	t.Parallel()
	f := serveFast(t, 4, func(context.Context, *asynq.Task) error { return nil })
	eventually(t, "the server waits", func() bool { return f.hook.lanes.get("default").waiting.Load() })
	before := len(f.asked.commands())
	<-time.After(4 * time.Second)
	// A second: one wait, and what asynq's other roles ask. Looks for what falls due
	// come in pipelines, which the spy does not see.
	if n := len(f.asked.commands()) - before; n > 4*5 {
		t.Errorf("%d commands in 4 s, want 5 a second at most", n)
	}
}

// TestManyTasksTakeFewRoundTrips drains a backlog.
func TestManyTasksTakeFewRoundTrips(t *testing.T) {
	t.Parallel()
	const tasks = 2000
	server := redistest.Start(t)
	client := server.Client()
	for i := range tasks {
		enqueue(t, client, "many", asynq.TaskID(fmt.Sprint(i)))
	}
	var ran sync.Map
	var count atomic.Int64
	f := serveFastOn(t, server, 64, func(ctx context.Context, _ *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		if _, again := ran.LoadOrStore(id, true); again {
			t.Errorf("task %s ran twice", id)
		}
		count.Add(1)
		return nil
	})
	eventually(t, "all have ended", func() bool {
		info, err := asynq.NewInspectorFromRedisClient(f.rdb).GetQueueInfo("default")
		return err == nil && info.Size == 0 && info.Processed == tasks
	})
	if count.Load() != tasks {
		t.Errorf("%d tasks ran, want %d", count.Load(), tasks)
	}
	scripts := 0
	for _, cmd := range f.asked.commands() {
		if cmd.Name() == "evalsha" {
			scripts++
		}
	}
	if scripts > tasks/2 {
		t.Errorf("%d scripts for %d tasks, want half a script each at most", scripts, tasks)
	}
	t.Logf("%d scripts for %d tasks", scripts, tasks)
	if keys := f.rdb.Keys(t.Context(), "asynq:{default}:t:*").Val(); len(keys) != 0 {
		t.Errorf("%d tasks are left in Redis", len(keys))
	}
}

// TestNoMoreIsTakenAheadThanThereAreSlots has all slots busy: the rest stays where
// another worker finds it.
func TestNoMoreIsTakenAheadThanThereAreSlots(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	var busy atomic.Int64
	server := redistest.Start(t)
	for range 20 {
		enqueue(t, server.Client(), "slow")
	}
	f := serveFastOn(t, server, 3, func(context.Context, *asynq.Task) error { busy.Add(1); <-release; return nil })
	eventually(t, "three are at work", func() bool { return busy.Load() == 3 })
	<-time.After(200 * time.Millisecond) // time in which more could be taken
	if n := f.rdb.LLen(t.Context(), "asynq:{default}:active").Val(); n != 3 {
		t.Errorf("%d tasks are taken, want 3", n)
	}
	other := serveFastOn(t, server, 17, func(context.Context, *asynq.Task) error { busy.Add(1); <-release; return nil })
	eventually(t, "another server has the rest", func() bool { return busy.Load() == 20 })
	close(release)
	eventually(t, "all have ended", func() bool { return other.rdb.LLen(t.Context(), "asynq:{default}:active").Val() == 0 })
}

// TestAPausedQueueIsNotAskedInALoop pauses a queue that has tasks: the wait for
// one ends at once each time, and there is nothing to take.
func TestAPausedQueueIsNotAskedInALoop(t *testing.T) {
	t.Parallel()
	ran := make(chan struct{}, 1)
	f := serveFast(t, 4, func(context.Context, *asynq.Task) error { ran <- struct{}{}; return nil })
	inspector := asynq.NewInspectorFromRedisClient(f.rdb)
	if err := f.rdb.SAdd(t.Context(), "asynq:queues", "default").Err(); err != nil {
		t.Fatal(err)
	}
	if err := inspector.PauseQueue("default"); err != nil {
		t.Fatal(err)
	}
	enqueue(t, f.rdb, "waits")
	<-time.After(2 * time.Second) // until it has slowed down
	before := len(f.asked.commands())
	<-time.After(2 * time.Second)
	if n := len(f.asked.commands()) - before; n > 40 {
		t.Errorf("%d commands in 2 s of a paused queue", n)
	}
	select {
	case <-ran:
		t.Error("a task of a paused queue ran")
	default:
	}
	if err := inspector.UnpauseQueue("default"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ran:
	case <-time.After(30 * time.Second):
		t.Error("the task never ran once the queue went on")
	}
}

// TestWhatFallsDueRunsSoonAfterItsSecond has tasks fall due, of this process and
// of others.
func TestWhatFallsDueRunsSoonAfterItsSecond(t *testing.T) {
	t.Parallel()
	ran := make(chan time.Time, 1)
	f := serveFast(t, 4, func(context.Context, *asynq.Task) error { ran <- time.Now(); return nil })
	best := time.Hour
	for range 5 {
		due := time.Now().Add(2 * time.Second).Truncate(time.Second)
		enqueue(t, f.rdb, "later", asynq.ProcessAt(due))
		var at time.Time
		eventually(t, "what fell due runs", func() bool {
			select {
			case at = <-ran:
				return true
			default:
				return false
			}
		})
		if at.Before(due) {
			t.Fatalf("a task ran %s early", due.Sub(at))
		}
		best = min(best, at.Sub(due))
	}
	if best > 300*time.Millisecond {
		t.Errorf("of 5 tasks, the most punctual ran %s after it fell due", best)
	}
}

// TestATaskThatWasNeverAcknowledgedTakesNoSlotForEver has asynq lose leases, of
// which it says nothing.
func TestATaskThatWasNeverAcknowledgedTakesNoSlotForEver(t *testing.T) {
	t.Parallel()
	l := &lane{slots: NewSlots(4), given: map[string]given{}}
	l.slots.join()
	for i := range l.slots.take(nil) {
		l.given[fmt.Sprint(i)] = given{since: time.Now()}
	}
	l.forgetLost()
	if n := l.slots.take(nil); n != 1 {
		t.Errorf("take() with all slots taken = %d, want the one that is asked for", n)
	}
	l.slots.give(1)
	for id := range l.given {
		l.given[id] = given{since: time.Now().Add(-2 * longestGiven)}
	}
	l.forgetLost()
	if n := l.slots.take(nil); n != 4 {
		t.Errorf("take() with tasks long gone = %d, want 4", n)
	}
}
