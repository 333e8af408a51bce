package asynqredis

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/otpq/otpq/internal/coalesce"
	"github.com/otpq/otpq/internal/redisscript"
)

// longestGiven is how long a task and its acknowledgement may take together.
const longestGiven = 2 * leaseTime

// lane is a queue that one server of this process drains.
type lane struct {
	queue   string
	slots   *Slots
	dequeue *redisscript.Script
	rider   Rider // nil when there is none
	dones   *coalesce.Group[*doneTask]

	mu sync.Mutex
	// ahead are the tasks that were taken from Redis and not yet asked for by
	// asynq, the first one first. There are never more than free slots, so none
	// waits for another to end.
	ahead []task
	// given are the tasks that asynq has and has not acknowledged.
	given map[string]given
	// closed is whether nothing may be taken ahead any more.
	closed bool

	look lastLook
	due  []*dueSet

	waiting atomic.Bool // for the queue to fill
}

// task is a task's id and its message, as asynq has it in Redis.
type task struct {
	id, msg string
	ride    *Ride // nil when nothing was done for it
}

// given is a task in asynq's hands.
type given struct {
	since time.Time
	ride  *Ride
}

// next hands out the first task that was taken ahead.
func (l *lane) next() (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first()
}

// first is next, with the lock held.
func (l *lane) first() (string, bool) {
	if len(l.ahead) == 0 {
		return "", false
	}
	t := l.ahead[0]
	l.ahead = l.ahead[1:]
	l.given[t.id] = given{time.Now(), t.ride}
	return t.msg, true
}

// forgetLost gives up the tasks that asynq has lost the lease of: it says nothing of
// their end.
func (l *lane) forgetLost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := len(l.given)
	maps.DeleteFunc(l.given, func(_ string, g given) bool { return time.Since(g.since) > longestGiven })
	l.slots.give(before - len(l.given))
}

// keep takes tasks in and hands out the first of them, unless the lane is closed.
// In between nobody may take it back: asynq would be given no task.
func (l *lane) keep(tasks []task) (string, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", false
	}
	l.ahead = tasks
	return l.first()
}

// ended says that asynq is through with a task.
func (l *lane) ended(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.given[id]; ok {
		delete(l.given, id)
		l.slots.give(1)
	}
}

// surrender closes the lane and empties what was taken ahead.
func (l *lane) surrender() []task {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.ahead
	l.ahead, l.closed = nil, true
	l.slots.give(len(out))
	return out
}

func (l *lane) isAhead(id string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.ahead, func(t task) bool { return t.id == id })
}

// Serve says how many tasks of a queue this process works on at once. Call it
// before the queue's server starts.
func (h *Hook) Serve(queue string, slots int) { h.ServeWith(queue, NewSlots(slots), nil) }

// ServeWith is Serve for a queue that shares its slots with others, and whose tasks
// somebody may ride along with.
func (h *Hook) ServeWith(queue string, slots *Slots, rider Rider) {
	l := &lane{queue: queue, slots: slots, dequeue: dequeueScript(rider), rider: rider, given: map[string]given{}}
	l.due = []*dueSet{{key: ScheduledKey(queue)}, {key: key(queue, "retry")}}
	l.dones = coalesce.New(doneCalls, mostDones, func(batch []*doneTask) { h.runDones(l, batch) })
	slots.join()
	h.lanes.add(l)
	h.begin()
}

// begin makes what [Hook.Stop] ends. A queue that is served later finds it made.
func (h *Hook) begin() {
	h.beginOnce.Do(func() { h.stopping, h.began = make(chan struct{}), time.Now() })
}

// Stop ends the waiting for empty queues and puts back what was taken ahead: from
// then on nothing more is. Call it before the servers shut down, and [Hook.Wait]
// after.
func (h *Hook) Stop(ctx context.Context) error {
	h.begin()
	h.stopOnce.Do(func() { close(h.stopping) })
	var errs []error
	for _, l := range h.lanes.all() {
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
	if l := h.lanes.get(queue); l != nil {
		l.ended(id)
	}
}

// Holds reports whether this process has a task in hand beside those it works on:
// taken ahead, or about to be acknowledged.
func (h *Hook) Holds(queue, id string) bool {
	if _, acking := h.acking.Load(id); acking {
		return true
	}
	l := h.lanes.get(queue)
	return l != nil && l.isAhead(id)
}
