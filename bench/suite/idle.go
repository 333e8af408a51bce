package suite

import (
	"context"
	"time"

	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
)

const (
	// otpqLanes is how many queues a worker of the product looks after: two for
	// each of its three providers.
	otpqLanes = 6
	// calm is how long a worker is left alone before its idling counts.
	calm = 2 * time.Second
	// longest is how many seconds it idles at most, whatever N says of messages.
	longest = 10
)

func idle() suite {
	asynqLanes := contender{name: "asynq 6 servers", peer: "asynq", variant: "lanes"}
	s := suite{n: longest, Suite: report.Suite{
		Name: "idle", Title: "What waiting costs",
		About: `A worker with empty queues. The product looks after six lanes, asynq alone after one queue, at its default polling; ` +
			`"asynq 6 servers" is asynq with a server for each of six queues, as the product has. N is of seconds, ten at most.`,
		Columns: []report.Column{
			{Key: "worker_percent", Title: "CPU %: worker", Digits: 2},
			{Key: "redis_percent", Title: "Redis", Digits: 2},
			{Key: "nats_percent", Title: "NATS", Digits: 2},
			{Key: "postgres_percent", Title: "PostgreSQL", Digits: 2},
			{Key: "sum_percent", Title: "sum", Digits: 2},
			{Key: "commands", Title: "Redis commands/s", Digits: 1},
			{Key: "reads", Title: "Redis socket reads/s", Digits: 1},
			{Key: "lane_reads", Title: "and lane", Digits: 2},
		},
		Goals: []report.Goal{
			{Text: "CPU, otpq / asynq", Key: "sum_percent", Case: otpq.name, Against: asynqAlone.name, Bound: 2, Most: true},
			{Text: "CPU, otpq / asynq 6 servers", Key: "sum_percent", Case: otpq.name, Against: asynqLanes.name, Bound: 2, Most: true},
			{Text: "socket reads a second and lane", Key: "lane_reads", Case: otpq.name, Bound: 5, Most: true},
		},
	}}
	nobody := contender{name: "Redis alone"}
	for _, c := range []contender{nobody, otpq, asynqAlone, asynqLanes, asynqTuned, bullMQ, jetStream, riverTuned, river} {
		lanes := 1.0
		if c == otpq || c == asynqLanes {
			lanes = otpqLanes
		}
		s.cases = append(s.cases, contest{c.name, c.needs(), func(ctx context.Context, r *run) error {
			return idleOnce(ctx, r, c, lanes)
		}})
	}
	return s
}

// idleOnce leaves a worker alone for n seconds.
func idleOnce(ctx context.Context, r *run, c contender, lanes float64) error {
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: warmUp}); err != nil {
		return err
	}
	if c.peer != "" {
		start, err := c.hire(ctx, r, inFlight)
		if err != nil {
			return err
		}
		if err := c.ready(ctx, start); err != nil {
			return err
		}
		if c.variant != "lanes" { // whose queues are not the producer's
			made, err := c.fill(ctx, r, warmUp)
			if err != nil {
				return err
			}
			if err := c.verify(ctx, r, inFlight, made.IDs); err != nil {
				return err
			}
		}
	}
	select {
	case <-time.After(calm):
	case <-ctx.Done():
		return ctx.Err()
	}
	before, from, err := r.begin(ctx)
	if err != nil {
		return err
	}
	select {
	case <-time.After(time.Duration(min(r.n, longest)) * time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	after, err := r.Cost()
	if err != nil {
		return err
	}
	to, err := r.Redis.Usage(ctx)
	if err != nil {
		return err
	}
	r.share(before, after)
	var sum float64
	for _, part := range []string{"worker", "redis", "nats", "postgres"} {
		sum += r.result.Values[part+"_percent"]
	}
	r.value("sum_percent", sum)
	used, seconds := to.Sub(from), after.At.Sub(before.At).Seconds()
	const asking = 1 // our own INFO
	r.value("commands", (used.Commands-asking)/seconds)
	r.value("reads", (used.Reads-asking)/seconds)
	r.value("lane_reads", (used.Reads-asking)/seconds/lanes)
	return nil
}
