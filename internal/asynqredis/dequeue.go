package asynqredis

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

// dequeue answers for Redis: with a task that was taken ahead, with one that it
// takes now, or, when there is none, after waiting for one. asynq gets an error, if
// there is one, after a pause.
func (h *Hook) dequeue(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	pending, _ := cmd.Args()[3].(string)
	queue := queueOf(pending)
	h.turns.Store(queue, time.Now())
	theirs, ok := cmd.(*redis.Cmd)
	l := h.lanes.get(queue)
	var err error
	if ok && l != nil {
		h.dueOnce.Do(func() { h.holds.Go(h.watchDue) })
		var msg string
		if msg, err = h.nextTask(ctx, l, next); err == nil {
			theirs.SetVal(msg)
		}
		if errors.Is(err, errNoSlot) {
			err = redis.Nil
		}
		theirs.SetErr(err)
	} else {
		err = next(ctx, cmd)
	}
	if err == nil || errors.Is(err, redis.Nil) || redisscript.Unknown(err) {
		h.failures.Store(0)
		return err
	}
	select {
	case <-time.After(pause(int(h.failures.Add(1)))):
	case <-ctx.Done():
	case <-h.stopping: // never, when it is nil
	}
	return err
}

// LastTurn returns when a server in this process last asked Redis for a task of
// the queue; the zero time when none ever did.
func (h *Hook) LastTurn(queue string) time.Time {
	at, _ := h.turns.Load(queue)
	t, _ := at.(time.Time)
	return t
}

// queueOf is the queue of a key of asynq's, which is asynq:{queue}:name.
func queueOf(key string) string {
	queue, _, _ := strings.Cut(strings.TrimPrefix(key, "asynq:{"), "}:")
	return queue
}
