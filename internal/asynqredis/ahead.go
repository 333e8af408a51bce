package asynqredis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

//go:embed lua/dequeue.lua
var dequeueLua string

//go:embed lua/giveback.lua
var givebackLua string

var givebackScript = redis.NewScript(givebackLua)

// mostAhead bounds how many tasks are taken in one round trip.
const mostAhead = 64

// lastLook is what a lane's queue was like when it was last asked for tasks. It is
// of the server's one loop only.
type lastLook struct {
	empty  bool // it had no more than was taken
	paused bool // because an operator paused the queue
	vain   int  // how many wake-ups in a row led to nothing
}

// nextTask returns the next task of a lane, or [redis.Nil] when there was none for
// a while. It asks Redis at once where there may be more, and waits to be woken
// where there was nothing.
func (h *Hook) nextTask(ctx context.Context, l *lane, run redis.ProcessHook) (string, error) {
	if msg, ok := l.next(); ok {
		return msg, nil
	}
	if h.stopped() {
		return "", redis.Nil
	}
	if !l.look.empty {
		if msg, err := h.take(ctx, l, run); !errors.Is(err, redis.Nil) {
			return msg, err
		}
	}
	got, err := h.hold(ctx, l)
	switch {
	case err != nil:
		l.forgetLost()
		return "", err
	case len(got.tasks) > 0:
		return h.accept(ctx, l, got.tasks, got.slots)
	case !got.woken:
		l.forgetLost()
		return "", redis.Nil
	case got.asked: // in vain
		l.look.paused = got.paused
		h.sleep(l.look.afterVain())
		return "", redis.Nil
	}
	msg, err := h.take(ctx, l, run)
	if errors.Is(err, redis.Nil) {
		h.sleep(l.look.afterVain())
	}
	return msg, err
}

// errNoSlot means that other queues of the lane have all slots.
var errNoSlot = errors.New("no slot came free")

// take takes what there are slots for and returns the first of it, or [redis.Nil]
// when there is nothing. It fails with errNoSlot when there was none for a while.
func (h *Hook) take(ctx context.Context, l *lane, run redis.ProcessHook) (string, error) {
	if l.slots.overdrawn() {
		l.forgetLost()
	}
	n := l.slots.take(h.stopping)
	if n == 0 {
		l.forgetLost()
		return "", errNoSlot
	}
	tasks, err := h.takeAhead(ctx, l, run, n)
	l.slots.give(n - len(tasks))
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", err
	}
	l.look.empty, l.look.paused = len(tasks) == 0, err != nil
	if l.look.empty {
		return "", redis.Nil
	}
	return h.accept(ctx, l, tasks, n)
}

// accept takes in tasks that were taken from Redis, of up to n, and returns the first
// of them.
func (h *Hook) accept(ctx context.Context, l *lane, tasks []task, n int) (string, error) {
	l.look = lastLook{empty: len(tasks) < n}
	msg, ok := l.keep(tasks)
	if !ok { // stopped meanwhile; others take over what stays behind
		l.slots.give(len(tasks))
		ctx, cancel := context.WithTimeout(ctx, tryTime)
		defer cancel()
		_ = h.giveBack(ctx, l, tasks)
		return "", redis.Nil
	}
	return msg, nil
}

// taking is one call of the script.
type taking struct {
	lane *lane
	ride *Ride // nil when nobody rides along
	call redisscript.Call
}

// taking makes a call for up to n tasks.
func (h *Hook) taking(l *lane, n int) *taking {
	now := time.Now()
	t := &taking{lane: l, ride: l.board(now)}
	args := append(l.dequeue.Begin(13), 4, key(l.queue, "pending"), key(l.queue, "paused"), key(l.queue, "active"), key(l.queue, "lease"))
	args = append(args, now.Add(leaseTime).Unix(), key(l.queue, "t:"), h.Holder, n)
	if t.ride != nil {
		args = append(args, t.ride.Args...)
	}
	// Made again by the client, a call whose answer was lost would look as if it had
	// taken nothing.
	t.call = redisscript.Call{Script: l.dequeue, Args: args, Once: t.ride != nil}
	return t
}

// takeAhead takes up to n tasks. It fails with [redis.Nil] when the queue is paused.
func (h *Hook) takeAhead(ctx context.Context, l *lane, run redis.ProcessHook, n int) ([]task, error) {
	t := h.taking(l, n)
	redisscript.RunWith(ctx, run, &t.call)
	return t.tasks()
}

// tasks reads the script's answer.
func (t *taking) tasks() ([]task, error) {
	fields, err := t.call.Cmd.StringSlice()
	if err != nil {
		if errors.Is(err, redis.Nil) || redisscript.Unknown(err) {
			return nil, err // nothing was taken
		}
		t.lane.unheard(t.ride, err)
		return nil, fmt.Errorf("dequeue: %w", err)
	}
	if len(fields) == 3 && fields[2] != "" {
		return []task{{fields[0], fields[1], t.ride}}, nil
	}
	tasks := make([]task, 0, len(fields)/2)
	for ; len(fields) >= 2; fields = fields[2:] {
		tasks = append(tasks, task{id: fields[0], msg: fields[1]})
	}
	return tasks, nil
}

// giveBack puts tasks that were not begun where they were taken from. Redis is
// asked until ctx's deadline: for this hook it is an acknowledgement.
func (h *Hook) giveBack(ctx context.Context, l *lane, tasks []task) error {
	if len(tasks) == 0 {
		return nil
	}
	l.leave(ctx, tasks)
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
