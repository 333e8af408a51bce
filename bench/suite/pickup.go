package suite

import (
	"context"
	"time"

	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

const (
	idleInterval = 50 * time.Millisecond
	busyInterval = 5 * time.Millisecond
	// warmUp messages come first and do not count: connections are dialed and
	// scripts loaded once in a worker's life.
	warmUp = 50
)

func pickupColumns() []report.Column {
	return latenciesAnd(
		report.Column{Key: "worker_percent", Title: "CPU %: worker", Digits: 1},
		report.Column{Key: "redis_percent", Title: "Redis", Digits: 1},
		report.Column{Key: "nats_percent", Title: "NATS", Digits: 1},
		report.Column{Key: "postgres_percent", Title: "PostgreSQL", Digits: 1},
	)
}

func pickupIdle() suite {
	s := suite{n: 200, Suite: report.Suite{
		Name: "pickup", Title: "Pick-up, idle",
		About: `A worker with nothing to do, and a message each 50 ms ± 50 %. The time is taken at the provider: from just before the call ` +
			`that queues the message (Send, EnqueueContext, add, Publish, Insert) to the arrival of its request. The fifty messages before are not counted.`,
		Columns: pickupColumns(),
		Goals: []report.Goal{
			{Text: "median, otpq / JetStream", Key: "p50", Case: otpq.name, Against: jetStream.name, Bound: 1.4, Most: true},
			{Text: "median, otpq / BullMQ", Key: "p50", Case: otpq.name, Against: bullMQ.name, Bound: 0.6, Most: true},
			{Text: "99th, otpq / BullMQ", Key: "p99", Case: otpq.name, Against: bullMQ.name, Bound: 0.5, Most: true},
		},
		Plot: "p50", Log: true, Better: "less", PlotTitle: "Idle pick-up: median, ms",
	}}
	for _, c := range everybody() {
		if c != directStatus { // the status is written after the arrival
			s.cases = append(s.cases, contest{c.name, c.needs(), func(ctx context.Context, r *run) error {
				return pickup(ctx, r, c, 0, idleInterval)
			}})
		}
	}
	return s
}

func pickupBusy() suite {
	s := suite{n: 3000, Suite: report.Suite{
		Name: "pickup200", Title: "Pick-up at 200 messages a second",
		About: `The same with a message each 5 ms ± 50 % and a provider that takes 50 ms, so that ten are in flight.`, Columns: pickupColumns(),
		Goals: []report.Goal{
			{Text: "99th, otpq / BullMQ", Key: "p99", Case: otpq.name, Against: bullMQ.name, Bound: 0.5, Most: true},
		},
		Plot: "p99", Log: true, Better: "less", PlotTitle: "Pick-up at 200/s: 99th percentile, ms",
	}}
	for _, c := range everybody() {
		if c != directStatus {
			s.cases = append(s.cases, contest{c.name, c.needs(), func(ctx context.Context, r *run) error {
				return pickup(ctx, r, c, slowDelay, busyInterval)
			}})
		}
	}
	return s
}

// pickup sends messages one by one to a worker that waits for them.
func pickup(ctx context.Context, r *run, c contender, delay, interval time.Duration) error {
	n := warmUp + r.n
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: n, Delay: delay}); err != nil {
		return err
	}
	if !c.queueless() {
		start, err := c.hire(ctx, r, inFlight)
		if err != nil {
			return err
		}
		if err := c.ready(ctx, start); err != nil {
			return err
		}
	}
	plan := stage.Plan{Config: c.config(r.Scene, inFlight), Mode: "pace", N: n, Pace: pace(interval)}
	p, plan, err := r.Producer(ctx, c.peer, plan)
	if err != nil {
		return err
	}
	before, _, err := r.begin(ctx)
	if err != nil {
		return err
	}
	made, err := r.Produce(ctx, p, plan)
	if err != nil {
		return err
	}
	after, err := r.Cost()
	if err != nil {
		return err
	}
	if _, err := r.Provider.Await(ctx, n, stall); err != nil {
		return err
	}
	r.share(before, after)
	if err := c.verify(ctx, r, inFlight, made.IDs); err != nil {
		return err
	}
	arrived, _, err := r.Provider.Arrivals(ctx)
	if err != nil {
		return err
	}
	r.quantiles(gaps(made.Begun[warmUp:], arrived[warmUp:n]))
	return nil
}
