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

// Lane is what is waiting in one lane of a provider, in all its queues.
type Lane struct {
	Queues    int   `json:"queues"`    // how many it has
	Pending   int64 `json:"pending"`   // ready for a worker
	Active    int64 `json:"active"`    // in a worker's hands
	Deferred  int64 `json:"deferred"`  // waiting for a breaker, a limit or a retry
	Scheduled int64 `json:"scheduled"` // asked for later
	Paused    bool  `json:"paused"`    // one of the queues at least
	// OldestSeconds is how long the oldest pending message has been ready.
	OldestSeconds float64 `json:"oldest_seconds"`
}

// Read returns what waits in a provider's lane: in as many queues as are configured,
// and in whatever others Redis knows of.
func Read(ctx context.Context, rdb redis.UniversalClient, provider string, lane tasks.Lane, configured int, now time.Time) (Lane, error) {
	names, err := queues(ctx, rdb, provider, lane, configured)
	if err != nil {
		return Lane{}, err
	}
	reads := make([]reading, len(names))
	_, err = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, name := range names {
			reads[i] = ask(ctx, p, name)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return Lane{}, fmt.Errorf("read backlog: %w", err)
	}
	out := Lane{Queues: len(names)}
	for _, r := range reads {
		out.Pending += r.pending.Val()
		out.Active += r.active.Val()
		out.Deferred += r.retry.Val()
		out.Scheduled += r.scheduled.Val()
		out.Paused = out.Paused || r.paused.Val() == 1
		age, err := r.age(ctx, rdb, now)
		if err != nil {
			return Lane{}, err
		}
		out.OldestSeconds = max(out.OldestSeconds, age)
	}
	return out, nil
}

// queues names a lane's queues, those of the configuration first.
func queues(ctx context.Context, rdb redis.UniversalClient, provider string, lane tasks.Lane, configured int) ([]string, error) {
	known, err := rdb.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return nil, fmt.Errorf("read backlog: %w", err)
	}
	names := tasks.Queues(provider, lane, configured)
	for _, name := range known {
		ofProvider, ofLane, number, ok := tasks.ParseQueue(name)
		if ok && ofProvider == provider && ofLane == lane && number > max(configured, 1) {
			names = append(names, name)
		}
	}
	return names, nil
}

// reading is what one queue is asked.
type reading struct {
	prefix                                    string
	pending, active, retry, scheduled, paused *redis.IntCmd
	oldest                                    *redis.StringCmd
}

func ask(ctx context.Context, p redis.Pipeliner, queue string) reading {
	prefix := "asynq:{" + queue + "}:"
	return reading{
		prefix: prefix, pending: p.LLen(ctx, prefix+"pending"), active: p.LLen(ctx, prefix+"active"),
		retry: p.ZCard(ctx, prefix+"retry"), scheduled: p.ZCard(ctx, prefix+"scheduled"),
		paused: p.Exists(ctx, prefix+"paused"), oldest: p.LIndex(ctx, prefix+"pending", -1),
	}
}

// age is for how many seconds the oldest pending message has been ready; zero when
// there is none, or nobody knows.
func (r reading) age(ctx context.Context, rdb redis.UniversalClient, now time.Time) (float64, error) {
	id := r.oldest.Val()
	if id == "" {
		return 0, nil
	}
	since, err := rdb.HGet(ctx, r.prefix+"t:"+id, "pending_since").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return 0, fmt.Errorf("read backlog: %w", err)
	}
	ns, err := strconv.ParseInt(since, 10, 64)
	if err != nil {
		return 0, nil //nolint:nilerr // of no known age
	}
	return max(0, now.Sub(time.Unix(0, ns)).Seconds()), nil
}
