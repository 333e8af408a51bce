package worker

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/tasks"
)

// RateLimit is how many requests a provider gets, from all workers together,
// in any Period. A Limit of zero is no limit.
type RateLimit struct {
	Limit  int
	Period time.Duration
}

// gcra turns the limit into a rate and a burst that never let more than Limit
// requests into any window of one Period. A burst of one alone would do, but
// then each request waits for a round trip to Redis; two in a hundred are enough
// to hide it, and are taken off the rate.
func (l RateLimit) gcra() redis_rate.Limit {
	burst := 1 + l.Limit/50
	return redis_rate.Limit{Rate: l.Limit - (burst - 1), Burst: burst, Period: l.Period}
}

// limiter shares one provider's send budget between all workers, interactive
// messages first. Those that wait for the budget wait in line in this process,
// so that one of each lane asks Redis, not every free slot.
type limiter struct {
	rdb   redis.UniversalClient
	gcra  *redis_rate.Limiter
	limit RateLimit
	name  string
	line  map[tasks.Lane]chan struct{}
	// waiting counts the interactive messages of this process in line.
	waiting atomic.Int32
	// pausedUntil is when the provider's own 429 allows the next request, in
	// Unix nanoseconds.
	pausedUntil atomic.Int64
}

func newLimiter(rdb redis.UniversalClient, provider string, limit RateLimit) *limiter {
	l := &limiter{
		rdb: rdb, gcra: redis_rate.NewLimiter(rdb), limit: limit, name: "otpq:" + provider,
		line: map[tasks.Lane]chan struct{}{},
	}
	for _, lane := range tasks.Lanes() {
		l.line[lane] = make(chan struct{}, 1)
	}
	return l
}

// waitingKey says, to all workers, that an interactive message waits.
func (l *limiter) waitingKey() string { return "otpq:waiting:" + l.name }

// pause stops the provider's requests in this process for d: the provider said
// that it has had enough.
func (l *limiter) pause(now time.Time, d time.Duration) {
	until := now.Add(d).UnixNano()
	for {
		old := l.pausedUntil.Load()
		if old >= until || l.pausedUntil.CompareAndSwap(old, until) {
			return
		}
	}
}

// take waits up to hold for the right to make one request. It returns the zero
// time with that right, and otherwise when to ask again.
func (l *limiter) take(ctx context.Context, lane tasks.Lane, hold time.Duration) (retry time.Time, err error) {
	end := time.Now().Add(hold)
	if wait := l.pauseLeft(); l.limit.Limit <= 0 && wait == 0 {
		return time.Time{}, nil
	}
	if lane == tasks.Interactive {
		l.waiting.Add(1)
		defer l.waiting.Add(-1)
	}

	timer := time.NewTimer(hold)
	defer timer.Stop()
	select {
	case l.line[lane] <- struct{}{}:
		defer func() { <-l.line[lane] }()
	case <-timer.C:
		return end.Add(l.interval()), nil
	case <-ctx.Done():
		return time.Time{}, ctx.Err()
	}

	for {
		wait, err := l.ask(ctx, lane)
		if err != nil || wait == 0 {
			return time.Time{}, err
		}
		if again := time.Now().Add(wait); again.After(end) {
			return again, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
}

// ask makes one request for a token. A wait of zero is a yes.
func (l *limiter) ask(ctx context.Context, lane tasks.Lane) (wait time.Duration, err error) {
	if wait := l.pauseLeft(); wait > 0 || l.limit.Limit <= 0 {
		return wait, nil
	}
	if lane == tasks.Bulk {
		first, err := l.interactiveWaits(ctx)
		if err != nil {
			return 0, err
		}
		if first {
			return l.interval(), nil
		}
	}
	res, err := l.gcra.Allow(ctx, l.name, l.limit.gcra())
	if err != nil {
		return 0, fmt.Errorf("ask the rate limit: %w", err)
	}
	if res.Allowed > 0 {
		return 0, nil
	}
	if lane == tasks.Interactive {
		// Outlives the wait by a little, so that no bulk message slips in
		// between the token falling due and its being asked for.
		if err := l.rdb.Set(ctx, l.waitingKey(), 1, res.RetryAfter+100*time.Millisecond).Err(); err != nil {
			return 0, fmt.Errorf("ask the rate limit: %w", err)
		}
	}
	return max(res.RetryAfter, time.Millisecond), nil
}

func (l *limiter) interactiveWaits(ctx context.Context) (bool, error) {
	if l.waiting.Load() > 0 {
		return true, nil
	}
	n, err := l.rdb.Exists(ctx, l.waitingKey()).Result()
	if err != nil {
		return false, fmt.Errorf("ask the rate limit: %w", err)
	}
	return n > 0, nil
}

// interval is the mean time between two tokens.
func (l *limiter) interval() time.Duration {
	if l.limit.Limit <= 0 {
		return time.Second
	}
	return max(l.limit.Period/time.Duration(l.limit.Limit), time.Millisecond)
}

func (l *limiter) pauseLeft() time.Duration {
	return max(0, time.Until(time.Unix(0, l.pausedUntil.Load())))
}
