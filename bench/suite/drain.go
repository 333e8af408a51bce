package suite

import (
	"context"
	"fmt"
	"time"

	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

const (
	slowDelay    = 50 * time.Millisecond
	slowInFlight = 512
)

func drainColumns() []report.Column {
	return []report.Column{
		{Key: "rate", Title: "messages/s"},
		{Key: "share", Title: "of the ideal, %", Digits: 1},
		{Key: "worker_us", Title: "CPU µs/message: worker", Digits: 1},
		{Key: "redis_us", Title: "Redis", Digits: 1},
		{Key: "store_us", Title: "PostgreSQL or NATS", Digits: 1},
		{Key: "provider_us", Title: "provider", Digits: 1},
		{Key: "sum_us", Title: "sum", Digits: 1},
		{Key: "commands", Title: "Redis commands/message", Digits: 2},
		{Key: "reads", Title: "Redis socket reads/message", Digits: 3},
		{Key: "rss", Title: "worker peak MB", Digits: 0, Scale: 1e-6},
	}
}

func drain() suite {
	s := suite{n: 20_000, Suite: report.Suite{
		Name: "drain", Title: "Drain, provider at 0 ms",
		About: fmt.Sprintf(`The queue is filled, then a worker is started with %d messages in flight. The provider answers at once. `+
			`The rate is taken at the provider, from the first arrival to the last answer.`, inFlight),
		Columns: drainColumns(),
		Goals: []report.Goal{
			{Text: "otpq / asynq", Key: "rate", Case: otpq.name, Against: asynqAlone.name, Bound: 2.5},
			{Text: "otpq / BullMQ", Key: "rate", Case: otpq.name, Against: bullMQ.name, Bound: 1.7},
			{Text: "otpq / JetStream", Key: "rate", Case: otpq.name, Against: jetStream.name, Bound: 1},
			{Text: "otpq limited / asynq", Key: "rate", Case: otpqLimited.name, Against: asynqAlone.name, Bound: 2.5},
			{Text: "socket reads a message, worker", Key: "reads", Case: otpq.name, Bound: 0.5, Most: true},
		},
		Plot: "rate", Better: "more", PlotTitle: "Drain: messages a second, provider at 0 ms",
	}}
	for _, c := range everybody() {
		s.cases = append(s.cases, contest{c.name, c.needs(), func(ctx context.Context, r *run) error {
			return drainOnce(ctx, r, c, 0, inFlight)
		}})
	}
	return s
}

func drainSlow() suite {
	ideal := slowInFlight / slowDelay.Seconds()
	s := suite{n: 40 * slowInFlight, Suite: report.Suite{
		Name: "drain50", Title: "Drain, provider at 50 ms",
		About: fmt.Sprintf(`The same with a provider that takes 50 ms and %d messages in flight: %.0f messages a second at best. `+
			`The number of messages is a multiple of %d, so that the last of them do not count against anybody.`,
			slowInFlight, ideal, slowInFlight),
		Columns: drainColumns(),
		Goals:   []report.Goal{{Text: "otpq, % of the ideal", Key: "share", Case: otpq.name, Bound: 82}},
		Plot:    "rate", Better: "more", PlotTitle: "Drain: messages a second, provider at 50 ms (10,240 at best)",
	}}
	for _, c := range everybody() {
		s.cases = append(s.cases, contest{c.name, c.needs(), func(ctx context.Context, r *run) error {
			r.n = max(1, (r.n+slowInFlight-1)/slowInFlight) * slowInFlight
			if err := drainOnce(ctx, r, c, slowDelay, slowInFlight); err != nil {
				return err
			}
			r.value("share", 100*r.result.Values["rate"]/ideal)
			return nil
		}})
	}
	return s
}

// drainOnce fills the queue, starts a worker and waits for the last answer.
func drainOnce(ctx context.Context, r *run, c contender, delay time.Duration, slots int) error {
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: r.n, Delay: delay}); err != nil {
		return err
	}
	empty, err := r.Redis.Usage(ctx)
	if err != nil {
		return err
	}
	ids := make([]string, r.n)
	var start func() (*stage.Proc, error)
	if c.queueless() {
		plan := stage.Plan{Config: c.config(r.Scene, slots), Mode: "fill", N: r.n, Callers: slots}
		p, _, err := r.Producer(ctx, c.peer, plan)
		if err != nil {
			return err
		}
		start = letGo(p)
	} else {
		made, err := c.fill(ctx, r, r.n)
		if err != nil {
			return err
		}
		ids = made.IDs
		if start, err = c.hire(ctx, r, slots); err != nil {
			return err
		}
	}

	before, full, err := r.begin(ctx)
	if err != nil {
		return err
	}
	worker, err := start()
	if err != nil {
		return err
	}
	tally, err := r.Provider.Await(ctx, r.n, stall)
	if err != nil {
		return err
	}
	after, err := r.Cost()
	if err != nil {
		return err
	}
	_, rss, err := stage.Memory(worker.PID())
	if err != nil {
		return err
	}
	if err := r.Settle(ctx); err != nil { // the last acknowledgements
		return err
	}
	drained, err := r.Redis.Usage(ctx)
	if err != nil {
		return err
	}
	r.perMessage(before, after, r.n)
	r.value("rate", float64(tally.Distinct)/(float64(tally.LastAnswer-tally.FirstArrival)/1e9))
	r.value("rss", rss)
	if !c.queueless() || c.peer == directStatus.peer {
		r.redisPerMessage(empty, full, drained)
	}
	return c.verify(ctx, r, slots, ids)
}

// redisPerMessage notes what a message costs Redis: to be queued, and from then
// to its end.
func (r *run) redisPerMessage(empty, full, drained stage.Usage) {
	n := float64(r.n)
	in, work := full.Sub(empty), drained.Sub(full)
	r.value("in_commands", in.Commands/n)
	r.value("in_reads", in.Reads/n)
	r.value("in_bytes", (in.In+in.Out)/n)
	r.value("commands", work.Commands/n)
	r.value("reads", work.Reads/n)
	r.value("bytes", (work.In+work.Out)/n)
	r.value("queued_memory", in.Memory/n)
	r.value("finished_memory", drained.Sub(empty).Memory/n)
}
