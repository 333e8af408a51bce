package backlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
	"github.com/otpq/otpq/tasks"
)

// Queue is what one queue of otpq's holds, in asynq's terms.
type Queue struct {
	Name     string
	Provider string
	Lane     tasks.Lane

	Pending, Active, Scheduled, Retry, Archived, Completed int64
	// Processed and Failed count from the queue's beginning; where they get too
	// large, asynq begins again.
	Processed, Failed int64
	Paused            bool
	// OldestSeconds is how long the oldest pending task has been ready.
	OldestSeconds float64
	// Bytes is about what the queue's tasks take, by the size of the next in line;
	// -1 when Redis does not tell.
	Bytes int64
}

// Size is how many tasks the queue has.
func (q Queue) Size() int64 {
	return q.Pending + q.Active + q.Scheduled + q.Retry + q.Archived + q.Completed
}

// ReadAll returns all queues of otpq's that Redis knows of, and those of the
// configuration too, by name. It takes four round trips, and Redis a constant time for
// each queue, however long.
func ReadAll(ctx context.Context, rdb redis.UniversalClient, now time.Time, configured ...string) ([]Queue, error) {
	names, err := rdb.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return nil, fmt.Errorf("read queues: %w", err)
	}
	names = append(names, configured...)
	slices.Sort(names)
	var out []Queue
	for _, name := range slices.Compact(names) {
		if provider, lane, _, ok := tasks.ParseQueue(name); ok {
			out = append(out, Queue{Name: name, Provider: provider, Lane: lane, Bytes: -1})
		}
	}
	next, err := readSizes(ctx, rdb, out)
	if err != nil {
		return nil, err
	}
	if err := readAges(ctx, rdb, out, next, now); err != nil {
		return nil, err
	}
	readBytes(ctx, rdb, out, next)
	return out, nil
}

// nextTask is the id of the next task of each kind, "" where there is none.
type nextTask struct{ pending, retry, scheduled string }

func (n nextTask) any() string {
	for _, id := range []string{n.pending, n.retry, n.scheduled} {
		if id != "" {
			return id
		}
	}
	return ""
}

// readSizes fills in all that needs no task.
func readSizes(ctx context.Context, rdb redis.UniversalClient, queues []Queue) ([]nextTask, error) {
	type replies struct {
		counts            [6]*redis.IntCmd
		processed, failed *redis.StringCmd
		paused            *redis.IntCmd
		pending           *redis.StringCmd
		retry, scheduled  *redis.StringSliceCmd
	}
	asked := make([]replies, len(queues))
	err := ask(ctx, rdb, func(p redis.Pipeliner) {
		for i, q := range queues {
			key := func(name string) string { return "asynq:{" + q.Name + "}:" + name }
			r := &asked[i]
			r.counts = [6]*redis.IntCmd{
				p.LLen(ctx, key("pending")), p.LLen(ctx, key("active")), p.ZCard(ctx, key("scheduled")),
				p.ZCard(ctx, key("retry")), p.ZCard(ctx, key("archived")), p.ZCard(ctx, key("completed")),
			}
			r.processed, r.failed = p.Get(ctx, key("processed")), p.Get(ctx, key("failed"))
			r.paused = p.Exists(ctx, key("paused"))
			r.pending = p.LIndex(ctx, key("pending"), -1)
			r.retry, r.scheduled = p.ZRange(ctx, key("retry"), 0, 0), p.ZRange(ctx, key("scheduled"), 0, 0)
		}
	})
	if err != nil {
		return nil, err
	}
	next := make([]nextTask, len(queues))
	for i := range queues {
		q, r := &queues[i], &asked[i]
		for j, into := range []*int64{&q.Pending, &q.Active, &q.Scheduled, &q.Retry, &q.Archived, &q.Completed} {
			*into = r.counts[j].Val()
		}
		q.Processed, _ = strconv.ParseInt(r.processed.Val(), 10, 64) // zero when there is none yet
		q.Failed, _ = strconv.ParseInt(r.failed.Val(), 10, 64)
		q.Paused = r.paused.Val() == 1
		next[i] = nextTask{r.pending.Val(), first(r.retry.Val()), first(r.scheduled.Val())}
	}
	return next, nil
}

// ask sends the commands together. That there is nothing is no error, and hides none
// that comes after it.
func ask(ctx context.Context, rdb redis.UniversalClient, commands func(redis.Pipeliner)) error {
	sent, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error { commands(p); return nil })
	for _, cmd := range sent {
		if cmd.Err() != nil && !errors.Is(cmd.Err(), redis.Nil) {
			err = cmd.Err()
			break
		}
	}
	if err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("read queues: %w", err)
	}
	return nil
}

func first(ids []string) string {
	if len(ids) == 0 {
		return ""
	}
	return ids[0]
}

func readAges(ctx context.Context, rdb redis.UniversalClient, queues []Queue, next []nextTask, now time.Time) error {
	since := make([]*redis.StringCmd, len(queues))
	err := ask(ctx, rdb, func(p redis.Pipeliner) {
		for i, q := range queues {
			if next[i].pending != "" {
				since[i] = p.HGet(ctx, taskKey(q, next[i].pending), "pending_since")
			}
		}
	})
	if err != nil {
		return err
	}
	for i := range queues {
		if since[i] == nil {
			continue
		}
		if ns, err := strconv.ParseInt(since[i].Val(), 10, 64); err == nil {
			queues[i].OldestSeconds = max(0, now.Sub(time.Unix(0, ns)).Seconds())
		}
	}
	return nil
}

// readBytes is done without where Redis refuses it.
func readBytes(ctx context.Context, rdb redis.UniversalClient, queues []Queue, next []nextTask) {
	size := make([]*redis.IntCmd, len(queues))
	redisscript.Pipelined(ctx, rdb, func(p redis.Pipeliner) {
		for i, q := range queues {
			if id := next[i].any(); id != "" {
				size[i] = p.MemoryUsage(ctx, taskKey(q, id))
			}
		}
	})
	for i := range queues {
		q := &queues[i]
		switch {
		case q.Size() == 0:
			q.Bytes = 0
		case size[i] != nil && size[i].Err() == nil:
			q.Bytes = size[i].Val() * q.Size()
		}
	}
}

func taskKey(q Queue, id string) string { return "asynq:{" + q.Name + "}:t:" + id }
