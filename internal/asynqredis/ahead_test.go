package asynqredis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
)

// byHand is a hook on a Redis with a queue of tasks "0", "1" and so on. The test
// asks in asynq's place.
type byHand struct {
	t    *testing.T
	rdb  *redis.Client // without the hook
	hook *Hook
	run  redis.ProcessHook // below the hook
}

func newByHand(t *testing.T, slots, tasks int) *byHand {
	t.Helper()
	b := &byHand{t: t, rdb: redistest.Start(t).Client()}
	b.run = func(ctx context.Context, cmd redis.Cmder) error { return b.rdb.Process(ctx, cmd) }
	b.hook = &Hook{Holder: "a", Client: b.rdb}
	b.hook.Serve("default", slots)
	for i := range tasks {
		enqueue(t, b.rdb, "task", asynq.TaskID(fmt.Sprint(i)))
	}
	return b
}

func (b *byHand) lane() *lane { return b.hook.lanes.get("default") }

func (b *byHand) do(cmd redis.Cmder) error {
	return b.hook.ProcessHook(b.run)(b.t.Context(), cmd)
}

// ask asks for a task and returns its id.
func (b *byHand) ask() (string, error) {
	b.t.Helper()
	cmd := redis.NewCmd(b.t.Context(), "evalsha", asynqDequeue, 4, key("default", "pending"), key("default", "paused"),
		key("default", "active"), key("default", "lease"), time.Now().Add(leaseTime).Unix(), key("default", "t:"))
	if err := b.do(cmd); err != nil {
		return "", err
	}
	msg, err := cmd.Text()
	if err != nil {
		b.t.Fatalf("a dequeue answers with %T", cmd.Val())
	}
	info, err := Decode([]byte(msg))
	if err != nil {
		b.t.Fatal(err)
	}
	return info.ID, nil
}

// asked is ask for a task that must be there.
func (b *byHand) asked() string {
	b.t.Helper()
	id, err := b.ask()
	if err != nil {
		b.t.Fatalf("no task: %v", err)
	}
	return id
}

const theDay = "asynq:{default}:processed:2026-11-20"

// end acknowledges a task that was done.
func (b *byHand) end(id string) error {
	return b.do(redis.NewCmd(b.t.Context(), "evalsha", asynqDone, 5, key("default", "active"), key("default", "lease"), key("default", "t:"+id),
		theDay, key("default", "processed"), id, time.Now().Add(time.Hour).Unix(), int64(1<<62)))
}

// list is what Redis has in a list, the next one first.
func (b *byHand) list(name string) string {
	b.t.Helper()
	ids, err := b.rdb.LRange(b.t.Context(), key("default", name), 0, -1).Result()
	if err != nil {
		b.t.Fatal(err)
	}
	slices.Reverse(ids)
	return fmt.Sprint(ids)
}

func TestTasksComeInTheirOrder(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 6)
	for i := range 6 {
		if id := b.asked(); id != fmt.Sprint(i) {
			t.Errorf("task %d is %q", i, id)
		}
	}
}

// TestTakingFollowsTheFreeSlots has tasks begin and end, and looks at what is taken.
func TestTakingFollowsTheFreeSlots(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 12)
	taken := func(when, want string) {
		t.Helper()
		if got := b.list("active"); got != want {
			t.Errorf("%s, %s is taken, want %s", when, got, want)
		}
	}
	b.asked()
	taken("with four free slots", "[0 1 2 3]")
	for range 3 {
		b.asked()
	}
	taken("when all were begun", "[0 1 2 3]")
	for _, id := range []string{"1", "2"} {
		if err := b.end(id); err != nil {
			t.Fatal(err)
		}
	}
	b.asked()
	taken("with two free slots", "[0 3 4 5]")
	b.asked()
	b.hook.Forget("default", "0")
	b.hook.Forget("default", "3")
	b.asked()
	taken("with two that asynq does not work on", "[0 3 4 5 6 7]")
	if n := b.rdb.ZCard(t.Context(), key("default", "lease")).Val(); n != 6 {
		t.Errorf("%d leases, want one for each that is taken", n)
	}
	fields := b.rdb.HGetAll(t.Context(), key("default", "t:6")).Val()
	delete(fields, "msg")
	delete(fields, "pending_since") // asks nobody of a task that is taken
	if diff := cmp.Diff(map[string]string{"state": "active", "otpq_holder": "a"}, fields); diff != "" {
		t.Errorf("a task that is taken (-want +got):\n%s", diff)
	}
}

// TestNoTaskTakenAheadCanBeDeleted deletes as an operator does in a dashboard: what
// is taken counts as active, so that he hears that it is too late.
func TestNoTaskTakenAheadCanBeDeleted(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 4)
	b.asked()
	inspector := asynq.NewInspectorFromRedisClient(b.rdb)
	if err := inspector.DeleteTask("default", "1"); err == nil {
		t.Error("a task that is taken ahead was deleted, and runs all the same")
	}
	if _, err := inspector.DeleteAllPendingTasks("default"); err != nil {
		t.Fatal(err)
	}
	if id := b.asked(); id != "1" {
		t.Errorf("the next task is %q, want 1", id)
	}
}

// TestWhatWasTakenAheadGoesBack stops a hook with tasks in hand that asynq has not
// asked for.
func TestWhatWasTakenAheadGoesBack(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 6)
	b.asked()
	if !b.hook.Holds("default", "1") || b.hook.Holds("default", "0") || b.hook.Holds("default", "4") || b.hook.Holds("other", "1") {
		t.Error("Holds() does not tell what is taken ahead from what is not")
	}
	if err := b.hook.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.run = func(_ context.Context, cmd redis.Cmder) error {
		t.Errorf("after Stop, Redis is asked for %v", cmd)
		return errors.New("not now")
	}
	if _, err := b.ask(); err != redis.Nil { //nolint:errorlint // asynq compares so
		t.Errorf("a dequeue after Stop = %v, want redis.Nil itself", err)
	}
	b.wentBack("[1 2 3 4 5]", "[0]")
	if b.hook.Holds("default", "1") {
		t.Error("Holds() a task that went back")
	}
}

// wentBack checks that the tasks from "1" on are queued as if they had never been
// taken.
func (b *byHand) wentBack(pending, active string) {
	b.t.Helper()
	if got := b.list("pending"); got != pending {
		b.t.Errorf("the queue is %s, want %s: what was there, in its order", got, pending)
	}
	if got := b.list("active"); got != active {
		b.t.Errorf("%s is active, want %s: what asynq was given", got, active)
	}
	for _, id := range []string{"1", "2", "3"} {
		fields := b.rdb.HGetAll(b.t.Context(), key("default", "t:"+id)).Val()
		if fields["state"] != "pending" || fields["pending_since"] == "" || fields["otpq_holder"] != "" || fields["msg"] == "" {
			b.t.Errorf("task %s, which went back, is %q; want it pending, and nobody's", id, fields)
		}
		if lease := b.rdb.ZScore(b.t.Context(), key("default", "lease"), id); !errors.Is(lease.Err(), redis.Nil) {
			b.t.Errorf("task %s, which went back, has a lease: %v", id, lease)
		}
	}
}

// TestTheFirstThatIsTakenIsNobodyElses: what is kept may be put back at once, and asynq
// is to be given what is its own by then, or nothing.
func TestTheFirstThatIsTakenIsNobodyElses(t *testing.T) {
	t.Parallel()
	for range 200 {
		h := &Hook{}
		h.Serve("default", 2)
		l := h.lanes.get("default")
		l.slots.take(h.stopping)
		left := make(chan []task)
		go func() { left <- l.surrender() }()
		msg, kept := l.keep([]task{{id: "1", msg: "first"}, {id: "2", msg: "second"}})
		back := len(<-left)
		switch {
		case kept && (msg != "first" || back == 2), !kept && (msg != "" || back != 0):
			t.Fatalf("kept: %t, handed out %q, %d put back", kept, msg, back)
		}
	}
}

// TestWhatIsTakenWhileTheHookStopsGoesBack stops it between Redis's answer to a
// dequeue and the moment in which the tasks are in hand.
func TestWhatIsTakenWhileTheHookStopsGoesBack(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 6)
	run := b.run
	b.run = func(ctx context.Context, cmd redis.Cmder) error {
		err := run(ctx, cmd)
		if list, _ := cmd.(*redis.Cmd).StringSlice(); len(list) > 0 {
			err = errors.Join(err, b.hook.Stop(ctx))
		}
		return err
	}
	if id, err := b.ask(); err != redis.Nil { //nolint:errorlint // asynq compares so
		t.Errorf("a dequeue while the hook stops = %q, %v; want redis.Nil itself", id, err)
	}
	b.wentBack("[0 1 2 3 4 5]", "[]")
}

// TestEachTaskThatEndsHearsOfItself ends several in one call, of which one is not
// active any more.
func TestEachTaskThatEndsHearsOfItself(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 5)
	for range 4 {
		b.asked()
	}
	if err := b.rdb.LRem(t.Context(), key("default", "active"), 1, "1").Err(); err != nil {
		t.Fatal(err)
	}
	end := time.Now().Add(time.Hour).Unix()
	var batch []*doneTask
	for _, id := range []string{"0", "1", "2", "4"} { // 3 goes on, 4 has not begun
		batch = append(batch, &doneTask{id: id, today: theDay, total: key("default", "processed"), expire: end, most: int64(1 << 62)})
	}
	b.hook.runDones(b.lane(), batch)
	got := map[string]string{}
	for _, d := range batch {
		got[d.id] = fmt.Sprint(d.err)
	}
	if diff := cmp.Diff(map[string]string{"0": "<nil>", "1": "NOT FOUND", "2": "<nil>", "4": "NOT FOUND"}, got); diff != "" {
		t.Errorf("what each heard (-want +got):\n%s", diff)
	}
	ctx := t.Context()
	if today, all := b.rdb.Get(ctx, theDay).Val(), b.rdb.Get(ctx, key("default", "processed")).Val(); today != "2" || all != "2" {
		t.Errorf("%s were counted for the day and %s in all, want 2", today, all)
	}
	if at := b.rdb.ExpireTime(ctx, theDay).Val(); int64(at/time.Second) != end {
		t.Errorf("the day's count expires at %d, want %d", at/time.Second, end)
	}
	left := b.rdb.Keys(ctx, key("default", "t:*")).Val()
	slices.Sort(left)
	if diff := cmp.Diff([]string{key("default", "t:1"), key("default", "t:3"), key("default", "t:4")}, left); diff != "" {
		t.Errorf("tasks that are left (-want +got):\n%s", diff)
	}
	leases := b.rdb.ZRange(ctx, key("default", "lease"), 0, -1).Val()
	if diff := cmp.Diff([]string{"1", "3"}, leases); diff != "" {
		t.Errorf("leases that are left (-want +got):\n%s", diff)
	}
}

// TestATaskThatEndedElsewhereIsNotFound acknowledges what is no longer active.
func TestATaskThatEndedElsewhereIsNotFound(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 0)
	if err := b.end("m"); err == nil || err.Error() != "NOT FOUND" {
		t.Errorf("err = %v, want NOT FOUND", err)
	}
	if n := b.rdb.Exists(t.Context(), key("default", "processed")).Val(); n != 0 {
		t.Error("it was counted")
	}
}

// TestACountThatIsFullBeginsAgain is asynq's own rule, which ours carries over.
func TestACountThatIsFullBeginsAgain(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 4, 1)
	if err := b.rdb.Set(t.Context(), key("default", "processed"), int64(1<<62), 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := b.end(b.asked()); err != nil {
		t.Fatal(err)
	}
	if n := b.rdb.Get(t.Context(), key("default", "processed")).Val(); n != "1" {
		t.Errorf("the count is %s, want 1", n)
	}
}
