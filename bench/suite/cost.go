package suite

import (
	"context"
	"fmt"
	"syscall"

	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

func cost() suite {
	s := suite{n: 20_000, Suite: report.Suite{
		Name: "cost", Title: "What a message costs Redis",
		About: `From the call that queues it to its end, under load (as in the drain). Commands are counted inside scripts too. A socket read ` +
			`is a round trip, or part of one where a client sends several commands at once. Memory is what is left of INFO's used_memory when ` +
			`the buffers of clients and of the append-only file are taken off. The body has 284 bytes.`,
		Columns: []report.Column{
			{Key: "in_commands", Title: "to queue: commands", Digits: 2},
			{Key: "in_reads", Title: "socket reads", Digits: 3},
			{Key: "in_bytes", Title: "bytes both ways"},
			{Key: "commands", Title: "to the end: commands", Digits: 2},
			{Key: "reads", Title: "socket reads", Digits: 3},
			{Key: "bytes", Title: "bytes both ways"},
			{Key: "redis_us", Title: "Redis CPU µs", Digits: 1},
			{Key: "queued_memory", Title: "memory queued, bytes"},
			{Key: "finished_memory", Title: "finished, bytes"},
		},
		Goals: []report.Goal{
			{Text: "socket reads a message, worker", Key: "reads", Case: otpq.name, Bound: 0.5, Most: true},
			{Text: "memory of a queued message, otpq / asynq", Key: "queued_memory", Case: otpq.name, Against: asynqAlone.name, Bound: 2, Most: true},
		},
	}}
	for _, c := range []contender{otpq, otpqLimited, asynqAlone, bullMQ} {
		s.cases = append(s.cases, contest{c.name, c.needs(), func(ctx context.Context, r *run) error {
			return drainOnce(ctx, r, c, 0, inFlight)
		}})
	}
	return s
}

// backlogSizes are shares of the largest backlog, which is the suite's number of
// messages.
var backlogSizes = []int{1000, 100, 10, 1}

func backlog() suite {
	s := suite{n: 1_000_000, Suite: report.Suite{
		Name: "backlog", Title: "A long queue",
		About: `The same work, a hundredth of the longest backlog, at the head of more or fewer messages. The worker drains ten times as ` +
			`many just before, so that what is timed is a worker at work and not one that begins, or that stood for as long as it took to ` +
			`fill the queue, and its memory has what it is to remember. Where the backlog is shorter than the work, a producer keeps it at ` +
			`its length, and there is no rate to compare.`,
		Columns: []report.Column{
			{Key: "queued", Title: "queued"},
			{Key: "rate", Title: "messages/s"},
			{Key: "rss", Title: "worker MB", Digits: 1, Scale: 1e-6},
			{Key: "peak", Title: "at its peak", Digits: 1, Scale: 1e-6},
			{Key: "worker_us", Title: "CPU µs/message: worker", Digits: 1},
			{Key: "redis_us", Title: "Redis", Digits: 1},
			{Key: "queued_memory", Title: "Redis bytes/queued message"},
		},
		Goals: []report.Goal{
			{Text: "rate, longest / a hundredth of it", Key: "rate", Case: backlogCase(1), Against: backlogCase(100), Bound: 0.9},
			{Text: "worker's peak memory, longest / a thousandth", Key: "peak", Case: backlogCase(1), Against: backlogCase(1000), Bound: 1.15, Most: true},
		},
	}}
	for _, part := range backlogSizes {
		s.cases = append(s.cases, contest{backlogCase(part), stage.Needs{}, func(ctx context.Context, r *run) error {
			return backlogOnce(ctx, r, max(1, r.n/part), max(1, r.n/100))
		}})
	}
	return s
}

func backlogCase(part int) string {
	if part == 1 {
		return "otpq longest"
	}
	return fmt.Sprintf("otpq 1/%d of it", part)
}

// backlogOnce times as many messages as work says, at the head of a queue that is as
// long as queued says when they begin.
func backlogOnce(ctx context.Context, r *run, queued, work int) error {
	worker, resume, err := r.warmed(ctx, work)
	if err != nil {
		return err
	}
	settle, filled, long := 10*work, queued, queued >= work
	if long {
		filled += settle
	}
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: filled + settle + work}); err != nil {
		return err
	}
	empty, err := r.Redis.Usage(ctx)
	if err != nil {
		return err
	}
	if _, err := otpq.fill(ctx, r, filled); err != nil {
		return err
	}
	var refill func() error
	if !long {
		plan := stage.Plan{
			Config: otpq.config(r.Scene, inFlight), Mode: "fill", First: queued, N: settle + work, Callers: fillCallers, Keep: queued,
		}
		p, _, err := r.Producer(ctx, otpq.peer, plan)
		if err != nil {
			return err
		}
		refill = p.Go
	}
	syscall.Sync() // a queue does not grow so long in the seconds before it is drained
	_, full, err := r.begin(ctx)
	if err != nil {
		return err
	}
	if err := resume(); err != nil {
		return err
	}
	if refill != nil {
		if err := refill(); err != nil {
			return err
		}
	}
	settled, err := r.Provider.Await(ctx, settle, stall)
	if err != nil {
		return err
	}
	before, err := r.Cost()
	if err != nil {
		return err
	}
	tally, err := r.Provider.Await(ctx, settle+work, stall)
	if err != nil {
		return err
	}
	now, peak, err := stage.Memory(worker.PID())
	if err != nil {
		return err
	}
	after, err := r.Cost()
	if err != nil {
		return err
	}
	r.value("queued", float64(queued))
	r.value("rss", now)
	r.value("peak", peak)
	r.value("queued_memory", full.Sub(empty).Memory/float64(filled))
	if refill == nil {
		done := tally.Distinct - settled.Distinct
		r.perMessage(before, after, done)
		r.value("rate", float64(done)/(float64(tally.LastAnswer-settled.LastAnswer)/1e9))
	} else {
		_, _, foreign := after.Sub(before)
		r.noise(foreign)
	}
	if tally.Distinct < settle+work {
		r.problem("%d of %d did not arrive", settle+work-tally.Distinct, settle+work)
	}
	if tally.Doubled+tally.Strange > 0 {
		r.problem("%d doubled, %d strange", tally.Doubled, tally.Strange)
	}
	worker.Kill() // it need not drain the rest
	return nil
}

// warmed starts a worker, has it drain n messages, and pauses the queue until resume.
func (r *run) warmed(ctx context.Context, n int) (worker *stage.Proc, resume func() error, err error) {
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: n}); err != nil {
		return nil, nil, err
	}
	made, err := otpq.fill(ctx, r, n)
	if err != nil {
		return nil, nil, err
	}
	if worker, err = r.WorkOtpq(stage.Otpq{Interactive: inFlight, Bulk: inFlight}); err != nil {
		return nil, nil, err
	}
	if _, err := r.Provider.Await(ctx, n, stall); err != nil {
		return nil, nil, err
	}
	if err := otpq.verify(ctx, r, inFlight, made.IDs); err != nil {
		return nil, nil, err
	}
	opt, err := asynq.ParseRedisURI(r.Config.Redis)
	if err != nil {
		return nil, nil, err
	}
	inspector := asynq.NewInspector(opt)
	queue := r.Config.Queue()
	return worker, func() error {
		defer inspector.Close()
		return inspector.UnpauseQueue(queue)
	}, inspector.PauseQueue(queue)
}
