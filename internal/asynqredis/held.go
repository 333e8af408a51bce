package asynqredis

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

//go:embed lua/held.lua
var heldLua string

//go:embed lua/takeover.lua
var takeoverLua string

var (
	heldScript     = redisscript.New(heldLua)
	takeoverScript = redis.NewScript(takeoverLua)
)

// Held is a task that a process has dequeued and not acknowledged.
type Held struct {
	Queue, ID string
	// Holder is the process's [Hook] Holder; empty when it had none.
	Holder string
	// LeaseEnds is zero when the task has no lease.
	LeaseEnds time.Time
}

// ErrGone means that the task is no longer held, or no longer there.
var ErrGone = errors.New("the task is not held any more")

// ListHeld returns what is held in the queues, but for what the named holders
// have. It costs one round trip, and for Redis a walk over all that is held. With
// an error it still returns what is held in the queues that could be read.
func ListHeld(ctx context.Context, rdb redis.UniversalClient, queues, except []string) ([]Held, error) {
	// Each queue may be on another node of a cluster, so each has its own error.
	calls := make([]*redisscript.Call, len(queues))
	for i, q := range queues {
		// The other way round the hook would take it for an acknowledgement.
		args := append(heldScript.Begin(6+len(except)), 2, key(q, "lease"), key(q, "active"), key(q, "t:"))
		for _, holder := range except {
			args = append(args, holder)
		}
		calls[i] = &redisscript.Call{Script: heldScript, Args: args}
	}
	redisscript.Run(ctx, rdb, calls...)
	var out []Held
	var errs []error
	for i, q := range queues {
		fields, err := calls[i].Cmd.StringSlice()
		if err != nil {
			errs = append(errs, fmt.Errorf("list held tasks of %s: %w", q, err))
		}
		for ; len(fields) >= 3; fields = fields[3:] {
			h := Held{Queue: q, ID: fields[0], Holder: fields[1]}
			if end, err := strconv.ParseInt(fields[2], 10, 64); err == nil {
				h.LeaseEnds = time.Unix(end, 0)
			}
			out = append(out, h)
		}
	}
	return out, errors.Join(errs...)
}

// Message returns the task's message as asynq has it in Redis, which [Decode]
// reads. It fails with [ErrGone] when there is no such task.
func (h Held) Message(ctx context.Context, rdb redis.UniversalClient) ([]byte, error) {
	msg, err := rdb.HGet(ctx, key(h.Queue, "t:"+h.ID), "msg").Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("read held task: %w", err)
	}
	return msg, nil
}

// TakeOver takes the task from its holder and queues it again as newID: at the
// head of its queue, or for the time due. Whatever the holder still says of its
// task then falls on nothing. Of all that try, for one and the same Held, one
// succeeds; the others get [ErrGone].
func (h Held) TakeOver(ctx context.Context, rdb redis.UniversalClient, task *asynq.TaskInfo, newID string, due time.Time) error {
	msg, err := encode(task, newID)
	if err != nil {
		return err
	}
	target, score := "pending", ""
	if !due.IsZero() {
		target, score = "scheduled", strconv.FormatInt(due.Unix(), 10)
	}
	return h.take(ctx, rdb, []string{key(h.Queue, "t:"+newID), key(h.Queue, target)}, newID, msg, time.Now().UnixNano(), score)
}

// Drop takes the task from its holder and forgets it. It fails like TakeOver.
func (h Held) Drop(ctx context.Context, rdb redis.UniversalClient) error {
	return h.take(ctx, rdb, nil)
}

func (h Held) take(ctx context.Context, rdb redis.UniversalClient, newKeys []string, args ...any) error {
	keys := append([]string{key(h.Queue, "active"), key(h.Queue, "lease"), key(h.Queue, "t:"+h.ID)}, newKeys...)
	taken, err := takeoverScript.Run(ctx, rdb, keys, append([]any{h.ID, h.Holder}, args...)...).Int()
	if err != nil {
		return fmt.Errorf("take task over: %w", err)
	}
	if taken == 0 {
		return ErrGone
	}
	return nil
}

func key(queue, name string) string { return "asynq:{" + queue + "}:" + name }
