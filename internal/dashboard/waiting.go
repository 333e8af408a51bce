package dashboard

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

const (
	// maxAhead is how many messages are counted before a message: counting is a
	// walk through a list, which may have a million.
	maxAhead = 10_000
	// maxTakeovers is how many task ids a message is looked for under: a message
	// that kills its workers is buried after three.
	maxTakeovers = 4
)

// place is where the task of a message is.
type place struct {
	found bool
	state string // asynq's: pending, active, scheduled, retry or archived
	queue string
	// ahead is how many pending tasks come before it, maxAhead or more.
	ahead  int64
	due    time.Time
	paused bool
}

// find looks for the message's task in all queues of its lane.
func (d *Dashboard) find(ctx context.Context, r status.Record) (place, error) {
	queues, err := d.queuesOf(ctx, r)
	if err != nil {
		return place{}, err
	}
	type candidate struct {
		queue, task string
		state       *redis.StringCmd
	}
	var candidates []candidate
	_, err = d.cfg.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, queue := range queues {
			task := r.ID
			for range maxTakeovers {
				candidates = append(candidates, candidate{queue, task, p.HGet(ctx, queueKey(queue, "t:"+task), "state")})
				task = tasks.TakeoverID(task)
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return place{}, fmt.Errorf("look for the task of a message: %w", err)
	}
	for _, c := range candidates {
		if c.state.Val() != "" {
			return d.locate(ctx, c.queue, c.task, c.state.Val())
		}
	}
	return place{}, nil
}

// locate says where in its queue a task is.
func (d *Dashboard) locate(ctx context.Context, queue, task, state string) (place, error) {
	out := place{found: true, state: state, queue: queue}
	var length, paused, index *redis.IntCmd
	var due *redis.FloatCmd
	_, err := d.cfg.Redis.Pipelined(ctx, func(p redis.Pipeliner) error {
		paused = p.Exists(ctx, queueKey(queue, "paused"))
		switch state {
		case "pending":
			// The next one is at the end of the list.
			length = p.LLen(ctx, queueKey(queue, "pending"))
			index = p.LPos(ctx, queueKey(queue, "pending"), task, redis.LPosArgs{Rank: -1, MaxLen: maxAhead})
		case "scheduled", "retry":
			due = p.ZScore(ctx, queueKey(queue, state), task)
		}
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		return place{}, fmt.Errorf("look for the place of a task: %w", err)
	}
	out.paused = paused.Val() == 1
	switch {
	case index != nil && errors.Is(index.Err(), redis.Nil):
		out.ahead = min(length.Val(), maxAhead) // or it was taken meanwhile
	case index != nil:
		out.ahead = max(length.Val()-1-index.Val(), 0)
	case due != nil && due.Val() > 0:
		out.due = time.Unix(int64(due.Val()), 0).UTC()
	}
	return out, nil
}

func queueKey(queue, name string) string { return "asynq:{" + queue + "}:" + name }

// queuesOf names the queues that a message may be in, the configured ones first.
func (d *Dashboard) queuesOf(ctx context.Context, r status.Record) ([]string, error) {
	configured := 1
	for _, p := range d.cfg.Providers {
		if p.Name == r.Provider {
			configured = max(p.Queues, 1)
		}
	}
	names := tasks.Queues(r.Provider, r.Lane, configured)
	known, err := d.cfg.Redis.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	for _, name := range known {
		provider, lane, number, ok := tasks.ParseQueue(name)
		if ok && provider == r.Provider && lane == r.Lane && number > configured {
			names = append(names, name)
		}
	}
	return names, nil
}

// why says in words why a message waits; nothing for one that does not.
func (d *Dashboard) why(ctx context.Context, r status.Record) ([]string, error) {
	if r.State.Terminal() {
		return nil, nil
	}
	all, err := overview.Read(ctx, d.cfg.Redis, d.cfg.Providers, d.cfg.Now())
	if err != nil {
		return nil, err
	}
	at, err := d.find(ctx, r)
	if err != nil {
		return nil, err
	}
	var p overview.Provider
	for _, known := range all {
		if known.Name == r.Provider {
			p = known
		}
	}
	return explain(r, p, at, d.cfg.Now().UTC()), nil
}

// explain says why a message waits: what holds it up, then what is wrong around
// it, then until when it may wait.
func explain(r status.Record, p overview.Provider, at place, now time.Time) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	archived := at.state == "archived"
	switch r.State {
	case status.Queued, status.Deferred:
		switch {
		case archived:
			say("Somebody archived its task in %s with asynq's tools: a worker makes it a dead letter within a minute or so.", at.queue)
		case r.State == status.Queued:
			sayQueued(say, r, at, now)
		default:
			sayDeferred(say, r, p, at, now)
		}
	case status.Sending:
		if n := len(r.Attempts); n > 0 {
			say("Attempt %d is under way: a worker asked %s %s ago.", r.Attempts[n-1].Number, r.Provider, span(now.Sub(r.Attempts[n-1].StartedAt)))
		}
	default:
		return nil
	}
	if r.State != status.Sending {
		switch {
		case at.paused && !archived: // archives are emptied all the same
			say("The queue %s is paused: no worker takes anything from it until it is resumed.", at.queue)
		case p.Breaker.State == overview.BreakerUnknown:
			say("No running worker serves %s: it waits for one.", r.Provider)
		}
	}
	if p.OffEverywhere() {
		say("With the configuration of this dashboard %s is off: it %s.", r.Provider, p.Off)
	}
	switch left := r.NotAfter.Sub(now); {
	case r.State == status.Sending && left <= 0:
		say("Its deadline passed %s ago: no other attempt is made.", span(-left))
	case r.State == status.Sending:
		say("No other attempt begins after %s, in %s.", clock(r.NotAfter), span(left))
	case archived: // it has no time to wait for
	case left <= 0:
		say("Its deadline passed %s ago: it expires as soon as a worker takes it.", span(-left))
	default:
		say("It expires in %s, at %s, if no attempt has begun by then.", span(left), clock(r.NotAfter))
	}
	return out
}

// noTask is what it may mean that a message has none.
const noTask = "a worker may have it in hand just now. If it stays so, its task was lost or deleted; `otpq audit` says what to do."

func sayQueued(say func(string, ...any), r status.Record, at place, now time.Time) {
	waited := span(now.Sub(r.CreatedAt))
	switch {
	case !at.found:
		say("Queued %s ago, and there is no task for it in any queue: %s", waited, noTask)
	case at.state == "scheduled":
		say("It was asked for later: it is due in %s, at %s.", span(at.due.Sub(now)), clock(at.due))
	case at.state == "retry": // it could not be written down that it waits
		say("Queued %s ago; a worker took it and could not begin, and it is due again in %s, at %s.", waited, span(at.due.Sub(now)), clock(at.due))
	case at.state == "active":
		say("Queued %s ago; a worker has just taken it.", waited)
	case at.ahead >= maxAhead:
		say("Queued %s ago, with %d messages or more before it in %s.", waited, maxAhead, at.queue)
	case at.ahead == 0:
		say("Queued %s ago; it is the next one in %s.", waited, at.queue)
	default:
		say("Queued %s ago, with %s before it in %s.", waited, plural(at.ahead, "message"), at.queue)
	}
}

func sayDeferred(say func(string, ...any), r status.Record, p overview.Provider, at place, now time.Time) {
	last := len(r.Attempts) - 1
	switch reason := providers.Reason(r.Reason); {
	case reason == worker.ReasonBreakerOpen && p.Breaker.State == worker.BreakerOpen:
		say("Deferred because the breaker of %s is open until %s: it failed too often, and nobody asks it before.",
			r.Provider, clock(p.Breaker.OpenUntil))
	case reason == worker.ReasonBreakerOpen:
		say("Deferred because the breaker of %s was open; now it is %s.", r.Provider, p.Breaker.State)
	case reason == worker.ReasonRateLimit && p.RateLimit.Limit > 0:
		say("Deferred because the limit of %d requests in %s, which all workers share, was full.", p.RateLimit.Limit, p.RateLimit.Period)
	case last >= 0 && r.Attempts[last].Reason == r.Reason:
		code := ""
		if r.Attempts[last].HTTPStatus != 0 {
			code = " (HTTP " + strconv.Itoa(r.Attempts[last].HTTPStatus) + ")"
		}
		say("Deferred after attempt %d, because %s%s.", r.Attempts[last].Number, reasonWords(r.Reason), code)
	default:
		say("Deferred because %s.", reasonWords(r.Reason))
	}
	switch next := r.NextAttemptAt; {
	case !at.found:
		say("There is no task for it in any queue: %s", noTask)
	case next.IsZero():
	case !next.Before(r.NotAfter):
		say("The next attempt would be at %s, which is not before its deadline.", clock(next))
	case next.After(now):
		say("The next attempt is due in %s, at %s.", span(next.Sub(now)), clock(next))
	default:
		say("The next attempt was due %s ago: it goes on as soon as a worker has a free slot.", span(now.Sub(next)))
	}
}

// plural is a number with its noun.
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}
