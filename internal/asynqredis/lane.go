package asynqredis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/coalesce"
)

//go:embed lua/dequeue.lua
var dequeueLua string

//go:embed lua/giveback.lua
var givebackLua string

var (
	dequeueScript  = redis.NewScript(dequeueLua)
	givebackScript = redis.NewScript(givebackLua)
)

const (
	// mostAhead bounds how many tasks are taken in one round trip.
	mostAhead = 64
	// holdTime is how long an empty queue is waited for. Shutdown may take as
	// long: a blocked connection cannot be called back.
	holdTime = time.Second
	// holdSlack is how much later than that Redis may answer.
	holdSlack = 2 * time.Second
	// longestGiven is how long a task and its acknowledgement may take together.
	longestGiven = 2 * leaseTime
	// longestVain bounds the pause after wake-ups that led to nothing: the queue
	// is paused, or others are quicker.
	longestVain = 500 * time.Millisecond
)

// lane is a queue that one server of this process drains.
type lane struct {
	queue string
	slots int
	dones *coalesce.Group[*doneTask]

	mu sync.Mutex
	// ahead are the tasks that were taken from Redis and not yet asked for by
	// asynq, the first one first. There are never more than free slots, so none
	// waits for another to end.
	ahead []task
	// given are the tasks that asynq has and has not acknowledged, and since when.
	given map[string]time.Time

	// Of the server's one loop only:
	empty bool // there was nothing when it last asked
	vain  int  // wake-ups in a row that led to nothing

	waiting atomic.Bool // for the queue to fill
}

type task struct{ id, msg string }

// next hands out a task that was taken ahead.
func (l *lane) next() (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.ahead) == 0 {
		return "", false
	}
	t := l.ahead[0]
	l.ahead = l.ahead[1:]
	l.given[t.id] = time.Now()
	return t.msg, true
}

// free is how many tasks can be begun at once, the one that is asked for included.
func (l *lane) free() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.given) >= l.slots {
		// asynq asks, so a slot is free: of a task whose lease it lost it says nothing.
		maps.DeleteFunc(l.given, func(_ string, since time.Time) bool { return time.Since(since) > longestGiven })
	}
	return min(max(l.slots-len(l.given), 1), mostAhead)
}

func (l *lane) keep(tasks []task) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ahead = tasks
}

func (l *lane) ended(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.given, id)
}

// surrender empties what was taken ahead, the last one first.
func (l *lane) surrender() []task {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.ahead
	l.ahead = nil
	slices.Reverse(out)
	return out
}

func (l *lane) isAhead(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.ahead, func(t task) bool { return t.id == id })
}

// Serve says how many tasks of a queue this process works on at once. Call it
// before the queue's server starts.
func (h *Hook) Serve(queue string, slots int) {
	l := &lane{queue: queue, slots: slots, given: map[string]time.Time{}}
	l.dones = coalesce.New(doneCalls, mostDones, func(batch []*doneTask) { h.runDones(l, batch) })
	if h.lanes == nil {
		h.lanes, h.stopping = map[string]*lane{}, make(chan struct{})
	}
	h.lanes[queue] = l
}

// Stop ends the waiting for empty queues and puts back what was taken ahead. Call
// it before the servers shut down, and [Hook.Wait] after.
func (h *Hook) Stop(ctx context.Context) error {
	h.stopOnce.Do(func() { close(h.stopping) })
	var errs []error
	for _, l := range h.lanes {
		errs = append(errs, h.giveBack(ctx, l, l.surrender()))
	}
	return errors.Join(errs...)
}

// Wait returns when this hook asks nothing of Redis any more by itself.
func (h *Hook) Wait() { h.holds.Wait() }

func (h *Hook) stopped() bool {
	select {
	case <-h.stopping:
		return true
	default:
		return false
	}
}

// Forget says that asynq does not work on a task though it was given it.
func (h *Hook) Forget(queue, id string) {
	if l := h.lanes[queue]; l != nil {
		l.ended(id)
	}
}

// Holds reports whether this process has a task in hand beside those it works on:
// taken ahead, or about to be acknowledged.
func (h *Hook) Holds(queue, id string) bool {
	if _, acking := h.acking.Load(id); acking {
		return true
	}
	l := h.lanes[queue]
	return l != nil && l.isAhead(id)
}

// nextTask returns the next task of a lane, or [redis.Nil] when there was none for
// a while.
func (h *Hook) nextTask(ctx context.Context, l *lane, run redis.ProcessHook) (string, error) {
	if msg, ok := l.next(); ok {
		return msg, nil
	}
	if h.stopped() {
		return "", redis.Nil
	}
	woken := false
	for {
		if l.empty {
			var err error
			if woken, err = h.hold(ctx, l); err != nil {
				return "", err
			}
			if !woken {
				return "", redis.Nil
			}
		}
		tasks, err := h.takeAhead(ctx, l, run)
		switch {
		case err != nil:
			return "", err
		case len(tasks) > 0 && h.stopped():
			slices.Reverse(tasks)
			_ = h.giveBack(ctx, l, tasks) // others take over what stays behind
			return "", redis.Nil
		case len(tasks) > 0:
			l.empty, l.vain = false, 0
			l.keep(tasks)
			msg, _ := l.next()
			return msg, nil
		}
		l.empty = true
		if woken {
			h.sleep(min(time.Millisecond<<min(l.vain, 10), longestVain))
			l.vain++
			return "", redis.Nil
		}
	}
}

// hold waits until the queue is no longer empty, and reports whether it is so. It
// asks Redis to move the queue's last id to where it is: that blocks for as long as
// there is none, is ended by whoever adds one, and changes nothing.
func (h *Hook) hold(ctx context.Context, l *lane) (bool, error) {
	l.waiting.Store(true)
	defer l.waiting.Store(false)
	pending := key(l.queue, "pending")
	done := make(chan error, 1)
	h.holds.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), holdTime+holdSlack)
		defer cancel()
		done <- h.Client.BLMove(ctx, pending, pending, "RIGHT", "RIGHT", holdTime).Err()
	})
	select {
	case err := <-done:
		if errors.Is(err, redis.Nil) {
			return false, nil
		}
		return err == nil, err
	case <-h.stopping:
		return false, nil
	}
}

// sleep returns early when the hook stops.
func (h *Hook) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-h.stopping:
	}
}

// takeAhead takes as many tasks as there are slots for them.
func (h *Hook) takeAhead(ctx context.Context, l *lane, run redis.ProcessHook) ([]task, error) {
	args := []any{
		"evalsha", dequeueScript.Hash(), 4, key(l.queue, "pending"), key(l.queue, "paused"), key(l.queue, "active"), key(l.queue, "lease"),
		time.Now().Add(leaseTime).Unix(), key(l.queue, "t:"), h.Holder, l.free(),
	}
	cmd := redis.NewCmd(ctx, args...)
	err := run(ctx, cmd)
	if err != nil && strings.HasPrefix(err.Error(), "NOSCRIPT") {
		args[0], args[1] = "eval", dequeueLua
		cmd = redis.NewCmd(ctx, args...)
		err = run(ctx, cmd)
	}
	if err != nil {
		return nil, err
	}
	fields, err := cmd.StringSlice()
	if err != nil {
		return nil, fmt.Errorf("dequeue: %w", err)
	}
	tasks := make([]task, 0, len(fields)/2)
	for ; len(fields) >= 2; fields = fields[2:] {
		tasks = append(tasks, task{fields[0], fields[1]})
	}
	return tasks, nil
}

func (h *Hook) giveBack(ctx context.Context, l *lane, tasks []task) error {
	if len(tasks) == 0 {
		return nil
	}
	args := []any{key(l.queue, "t:"), time.Now().UnixNano()}
	for _, t := range tasks {
		args = append(args, t.id)
	}
	keys := []string{key(l.queue, "active"), key(l.queue, "lease"), key(l.queue, "pending")}
	if err := givebackScript.Run(ctx, h.Client, keys, args...).Err(); err != nil {
		return fmt.Errorf("put back what was taken ahead: %w", err)
	}
	return nil
}
