package asynqredis

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// TestAWaitChangesNothing waits at a queue that has tasks, and at one that has none.
func TestAWaitChangesNothing(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 3)
	if got, err := b.hook.await(t.Context(), b.lane(), 0); !got.woken || got.asked || err != nil {
		t.Errorf("await() of a queue with tasks = %+v, %v; want woken", got, err)
	}
	if got := b.list("pending"); got != "[0 1 2]" {
		t.Errorf("then the queue is %s, want [0 1 2]", got)
	}
	empty := newByHand(t, 4, 0)
	for _, n := range []int{0, 4} {
		if got, err := empty.hook.await(t.Context(), empty.lane(), n); got.woken || len(got.tasks) > 0 || err != nil {
			t.Errorf("await() of an empty queue = %+v, %v; want neither woken nor a task", got, err)
		}
	}
	if keys := empty.rdb.Keys(t.Context(), "*").Val(); len(keys) != 0 {
		t.Errorf("then Redis has %q, want nothing", keys)
	}
}

// The script is there after the first dequeue; from then on a task that ends a wait
// comes with what ends it.
func TestATaskThatEndsAWaitTakesNoFurtherRoundTrip(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 1)
	if err := b.end(b.asked()); err != nil {
		t.Fatal(err)
	}
	b.lane().look.empty = true
	got := make(chan string, 1)
	go func() { got <- b.asked() }()
	eventually(t, "it waits", func() bool {
		return strings.Contains(b.rdb.Info(t.Context(), "clients").Val(), "blocked_clients:1")
	})
	b.rdb.ConfigResetStat(t.Context())
	enqueue(t, b.rdb, "task", asynq.TaskID("late"))
	if id := <-got; id != "late" {
		t.Errorf("the wait ended with %q, want the task that ended it", id)
	}
	stats := b.rdb.Info(t.Context(), "commandstats").Val()
	if !strings.Contains(stats, "cmdstat_evalsha:calls=2,") { // the other one is the enqueue
		t.Errorf("more than one dequeue was made:\n%s", stats)
	}
	if b.list("active") != "[late]" || b.list("pending") != "[]" {
		t.Errorf("pending %s, active %s; want it active", b.list("pending"), b.list("active"))
	}
}

// TestHoldsEndTogether begins waits at many times: the process wakes up once for all.
func TestHoldsEndTogether(t *testing.T) {
	t.Parallel()
	h := &Hook{}
	h.Serve("default", 1)
	for ms := range 3000 {
		now := h.began.Add(time.Duration(ms) * time.Millisecond)
		d := h.holdFor(now)
		if end := now.Add(d).Sub(h.began); end%holdTime != 0 || d <= longestHold-holdTime || d > longestHold {
			t.Fatalf("a wait that begins %d ms after the hook lasts %s and ends %s after it; want whole multiples of %s", ms, d, end, holdTime)
		}
	}
}

// TestWaitsOfSeveralQueuesEndTogether has two servers begin to wait one after the other.
func TestWaitsOfSeveralQueuesEndTogether(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 0)
	b.hook.Serve("other", 1)
	ends := make(chan time.Time, 2)
	for i, l := range b.hook.lanes.all() {
		time.AfterFunc(time.Duration(i)*holdTime/3, func() {
			if got, err := b.hook.hold(t.Context(), l); got.woken || err != nil {
				t.Errorf("hold() = %+v, %v", got, err)
			}
			ends <- time.Now()
		})
	}
	first := <-ends
	if apart := (<-ends).Sub(first); apart > holdTime/6 { // Redis looks ten times a second
		t.Errorf("two waits ended %s apart", apart)
	}
}

// A client that gives up a read sooner than a wait ends still waits.
func TestAnImpatientClientWaitsAllTheSame(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 0)
	options := *b.rdb.Options()
	options.ReadTimeout = holdTime / 4
	b.hook.Client = redis.NewClient(&options)
	defer b.hook.Client.Close()
	if got, err := b.hook.hold(t.Context(), b.lane()); got.woken || err != nil {
		t.Errorf("hold() of an empty queue = %+v, %v; want neither woken nor an error", got, err)
	}
}

// What comes in the moment in which the hook stops is taken by the wait that is still
// under way.
func TestWhatEndsAWaitOfAStoppedHookGoesBack(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 1)
	if err := b.end(b.asked()); err != nil {
		t.Fatal(err)
	}
	b.lane().look.empty = true
	asked := make(chan error, 1)
	go func() {
		_, err := b.ask()
		asked <- err
	}()
	eventually(t, "it waits", func() bool {
		return strings.Contains(b.rdb.Info(t.Context(), "clients").Val(), "blocked_clients:1")
	})
	if err := b.hook.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	enqueue(t, b.rdb, "task", asynq.TaskID("late"))
	if err := <-asked; !errors.Is(err, redis.Nil) {
		t.Fatalf("a dequeue that was stopped = %v, want redis.Nil", err)
	}
	if b.list("pending") != "[late]" || b.list("active") != "[]" || b.rdb.Exists(t.Context(), key("default", "lease")).Val() != 0 {
		t.Errorf("pending %s, active %s; want it pending, without a lease", b.list("pending"), b.list("active"))
	}
	if used := b.lane().slots.used; used != 0 {
		t.Errorf("%d slots are taken for good", used)
	}
}

// Slots that other queues share are not kept from them by a queue that waits.
func TestAWaitKeepsNoSlotFromAnotherQueue(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 0)
	slots := NewSlots(2)
	b.hook.ServeWith("one", slots, nil)
	b.hook.ServeWith("two", slots, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = b.hook.hold(t.Context(), b.hook.lanes.get("one"))
	}()
	eventually(t, "it waits", func() bool {
		return strings.Contains(b.rdb.Info(t.Context(), "clients").Val(), "blocked_clients:1")
	})
	slots.mu.Lock()
	used := slots.used
	slots.mu.Unlock()
	if used != 0 {
		t.Errorf("%d of 2 slots are taken by a queue that waits", used)
	}
	<-done
}

// TestAWaitIsTheLastOfAStoppedHook stops it in the middle of one.
func TestAWaitIsTheLastOfAStoppedHook(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 0)
	done := make(chan error, 1)
	go func() {
		_, err := b.ask()
		done <- err
	}()
	eventually(t, "it waits", b.lane().waiting.Load)
	start := time.Now()
	if err := b.hook.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > holdTime/2 {
		t.Errorf("Stop took %s: it is to wait for nobody", took)
	}
	b.hook.Wait()
	if took := time.Since(start); took > longestHold+holdTime/2 {
		t.Errorf("the wait ended %s after Stop", took)
	}
	if err := <-done; !errors.Is(err, redis.Nil) {
		t.Errorf("a dequeue that was stopped = %v, want redis.Nil", err)
	}
	if clients := b.rdb.Info(t.Context(), "clients").Val(); !strings.Contains(clients, "blocked_clients:0") {
		t.Errorf("once Wait has returned, somebody still waits at Redis:\n%s", clients)
	}
	start = time.Now()
	if _, err := b.ask(); !errors.Is(err, redis.Nil) || time.Since(start) > holdTime/2 {
		t.Errorf("a dequeue of a stopped hook = %v after %s, want redis.Nil at once", err, time.Since(start))
	}
}

// TestWhoWakesInVainStaysAway counts how long: it is short where others were quicker
// and longer where the queue is paused, and begins again with every task.
func TestWhoWakesInVainStaysAway(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		paused bool
		want   time.Duration
	}{{false, longestLost}, {true, longestPaused}} {
		look := lastLook{paused: c.paused}
		var last time.Duration
		for range 100 {
			pause := look.afterVain()
			if pause < last || pause == 0 {
				t.Errorf("a pause of %s after one of %s", pause, last)
			}
			last = pause
		}
		if last != c.want {
			t.Errorf("paused %v: the longest pause is %s, want %s", c.paused, last, c.want)
		}
	}
	b := newByHand(t, 4, 1)
	b.lane().look = lastLook{empty: true, vain: 7}
	if err := b.rdb.Set(t.Context(), key("default", "paused"), 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ask(); !errors.Is(err, redis.Nil) || b.lane().look != (lastLook{empty: true, paused: true, vain: 8}) {
		t.Errorf("at a paused queue: %v, %+v", err, b.lane().look)
	}
	if err := b.rdb.Del(t.Context(), key("default", "paused")).Err(); err != nil {
		t.Fatal(err)
	}
	if b.asked(); b.lane().look != (lastLook{empty: true}) {
		t.Errorf("after the only task: %+v, want nothing else left of it", b.lane().look)
	}
	if _, err := b.ask(); !errors.Is(err, redis.Nil) || b.lane().look.vain != 0 {
		t.Errorf("a wait that ran out: %v, %+v; want it not to count", err, b.lane().look)
	}
}

// TestAQueueThatGaveAllItHadIsNotAskedAgain: to ask in vain after each task is half of
// what an idle lane's message costs Redis.
func TestAQueueThatGaveAllItHadIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 2, 3)
	if err := b.lane().dequeue.Load(t.Context(), b.rdb).Err(); err != nil {
		t.Fatal(err)
	}
	looks := 0
	run := b.run
	b.run = func(ctx context.Context, cmd redis.Cmder) error { looks++; return run(ctx, cmd) }
	for turn, want := range []int{1, 1, 2} { // two of three, the second of them, the last
		id := b.asked()
		if looks != want {
			t.Errorf("after task %d it was asked %d times, want %d", turn, looks, want)
		}
		b.lane().ended(id)
	}
	if _, err := b.ask(); !errors.Is(err, redis.Nil) || looks != 2 {
		t.Errorf("an empty queue: %v, asked %d times; want none, and to wait without asking", err, looks)
	}
}

// failedWait has the wait for a queue fail though the dequeue behind it did not.
type failedWait struct{ once sync.Once }

func (w *failedWait) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (w *failedWait) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (w *failedWait) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if cmds[0].Name() == "blmove" {
			w.once.Do(func() {
				err = errors.New("UNBLOCKED by the test")
				cmds[0].SetErr(err)
			})
		}
		return err
	}
}

func TestWhatWasTakenIsKeptWhateverBecameOfTheWait(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 1)
	if err := b.lane().dequeue.Load(t.Context(), b.rdb).Err(); err != nil {
		t.Fatal(err)
	}
	b.rdb.AddHook(&failedWait{})
	b.lane().look.empty = true
	if id := b.asked(); id != "0" {
		t.Errorf("task %q, want 0", id)
	}
	if err := b.end("0"); err != nil || b.lane().slots.used != 0 {
		t.Errorf("%d slots are taken after its end, %v", b.lane().slots.used, err)
	}
}
