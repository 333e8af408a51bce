// Package backlog reads how much is waiting in the queues. It looks at asynq's
// keys with constant-time commands only, because asynq's own inspector samples
// memory and fails as a whole when one task's hash is missing.
package backlog

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/tasks"
)

// Lane is what is waiting in one queue.
type Lane struct {
	Pending   int64 `json:"pending"`   // ready for a worker
	Active    int64 `json:"active"`    // in a worker's hands
	Deferred  int64 `json:"deferred"`  // waiting for a breaker, a limit or a retry
	Scheduled int64 `json:"scheduled"` // asked for later
	Paused    bool  `json:"paused"`
	// OldestSeconds is how long the oldest pending message has been ready.
	OldestSeconds float64 `json:"oldest_seconds"`
}

// Read returns what waits in a provider's lane.
func Read(ctx context.Context, rdb redis.UniversalClient, provider string, lane tasks.Lane, now time.Time) (Lane, error) {
	prefix := "asynq:{" + tasks.QueueName(provider, lane) + "}:"
	var pending, active, retry, scheduled *redis.IntCmd
	var paused *redis.IntCmd
	var oldest *redis.StringCmd
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		pending = p.LLen(ctx, prefix+"pending")
		active = p.LLen(ctx, prefix+"active")
		retry = p.ZCard(ctx, prefix+"retry")
		scheduled = p.ZCard(ctx, prefix+"scheduled")
		paused = p.Exists(ctx, prefix+"paused")
		oldest = p.LIndex(ctx, prefix+"pending", -1)
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return Lane{}, fmt.Errorf("read backlog: %w", err)
	}
	out := Lane{
		Pending: pending.Val(), Active: active.Val(), Deferred: retry.Val(), Scheduled: scheduled.Val(),
		Paused: paused.Val() == 1,
	}
	if id := oldest.Val(); id != "" {
		since, err := rdb.HGet(ctx, prefix+"t:"+id, "pending_since").Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return Lane{}, fmt.Errorf("read backlog: %w", err)
		}
		if ns, err := strconv.ParseInt(since, 10, 64); err == nil {
			out.OldestSeconds = max(0, now.Sub(time.Unix(0, ns)).Seconds())
		}
	}
	return out, nil
}
