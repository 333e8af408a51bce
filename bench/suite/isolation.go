package suite

import (
	"context"
	"errors"
	"time"

	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

const (
	// A message each hundredth of a second is timed, a thousand of them; so the
	// bulk lane has to last ten seconds.
	isolationInterval = 10 * time.Millisecond
	isolationTimed    = 200 // bulk messages for each that is timed
	// hangSlots are the slots of the provider that hangs, as shipped, and hangFill
	// how many messages they get: each slot hangs for ten seconds with one.
	hangInteractive, hangBulk, hangFill = 64, 16, 8
)

func isolation() suite {
	s := suite{n: 200_000, Suite: report.Suite{
		Name: "isolation", Title: "Isolation",
		About: `Unimed-BH's interactive messages are timed, one each 10 ms ± 50 %, while MedSênior's API answers nothing and holds all its slots ` +
			`(its breaker is set never to open), and while Unimed-BH's own bulk lane drains: with a provider that takes 50 ms, and with one ` +
			`that answers at once, when the bulk lane takes all the CPU it gets. Slots as shipped: 64 interactive, 16 bulk.`,
		Columns: []report.Column{
			{Key: "p50", Title: "median ms", Digits: 2},
			{Key: "p95", Title: "95th", Digits: 2},
			{Key: "p99", Title: "99th", Digits: 2},
			{Key: "max", Title: "longest", Digits: 1},
			{Key: "hanging", Title: "slots that hang"},
			{Key: "bulk_rate", Title: "bulk messages/s"},
			{Key: "cores", Title: "cores used", Digits: 2},
		},
	}}
	for _, c := range []struct {
		name       string
		hang, bulk bool
		delay      time.Duration
	}{
		{"quiet at 50 ms", false, false, slowDelay},
		{"hang at 50 ms", true, false, slowDelay},
		{"hang + bulk at 50 ms", true, true, slowDelay},
		{"quiet at 0 ms", false, false, 0},
		{"hang + bulk at 0 ms", true, true, 0},
	} {
		s.cases = append(s.cases, contest{c.name, stage.Needs{}, func(ctx context.Context, r *run) error {
			return isolate(ctx, r, c.hang, c.bulk, c.delay)
		}})
	}
	for _, pair := range [][2]string{{"hang at 50 ms", "quiet at 50 ms"}, {"hang + bulk at 50 ms", "quiet at 50 ms"}, {"hang + bulk at 0 ms", "quiet at 0 ms"}} {
		s.Goals = append(s.Goals, report.Goal{Text: "99th, " + pair[0] + " / " + pair[1], Key: "p99", Case: pair[0], Against: pair[1], Bound: 1.5, Most: true})
	}
	return s
}

func isolate(ctx context.Context, r *run, hang, bulk bool, delay time.Duration) error {
	timed := warmUp + min(max(50, r.n/isolationTimed), 1000)
	total := timed
	if bulk {
		total += r.n
	}
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: total, Delay: delay}); err != nil {
		return err
	}
	if bulk {
		cfg := otpq.config(r.Scene, inFlight)
		cfg.Lane = "bulk"
		p, plan, err := r.Producer(ctx, otpq.peer, stage.Plan{Config: cfg, Mode: "fill", First: timed, N: r.n, Callers: fillCallers})
		if err != nil {
			return err
		}
		if _, err := r.Produce(ctx, p, plan); err != nil {
			return err
		}
	}
	if hang {
		if err := peers.FillHanging(ctx, r.Config, hangInteractive*hangFill, hangBulk*hangFill); err != nil {
			return err
		}
	}
	worker, err := r.WorkOtpq(stage.Otpq{Interactive: hangInteractive, Bulk: hangBulk, Hang: hang})
	if err != nil {
		return err
	}
	if err := worker.AwaitLog(ctx, stage.OtpqStarted); err != nil {
		return err
	}
	if hang {
		if err := r.awaitHanging(ctx, hangInteractive+hangBulk); err != nil {
			return err
		}
	}
	plan := stage.Plan{Config: otpq.config(r.Scene, inFlight), Mode: "pace", N: timed, Pace: pace(isolationInterval)}
	p, plan, err := r.Producer(ctx, otpq.peer, plan)
	if err != nil {
		return err
	}
	made, rush, err := r.paced(ctx, p, plan)
	if err != nil {
		return err
	}
	to := rush.to
	if hang {
		r.value("hanging", float64(to.Hanging))
	}
	if bulk {
		r.value("bulk_rate", float64(to.Distinct-rush.from.Distinct-timed)/rush.took.Seconds())
		if to.Distinct >= total {
			r.problem("the bulk lane was empty before the last message was timed: it needs more")
		}
	}
	if err := r.Settle(ctx); err != nil {
		return err
	}
	arrived, _, err := r.Provider.Arrivals(ctx)
	if err != nil {
		return err
	}
	r.quantiles(gaps(made.Begun[warmUp:], arrived[warmUp:timed]))
	last, err := r.Provider.Await(ctx, 0, 0)
	if err != nil {
		return err
	}
	lost := 0
	for _, at := range arrived[:timed] {
		if at == 0 {
			lost++
		}
	}
	if lost+last.Doubled+last.Strange > 0 {
		r.problem("%d lost, %d doubled, %d strange", lost, last.Doubled, last.Strange)
	}
	worker.Kill() // what hangs would keep it from leaving
	return nil
}

// stretch is what came to the provider while messages were timed.
type stretch struct {
	from, to provider.Tally
	took     time.Duration
}

// paced runs a producer that is ready, and notes what that cost, beside whatever else
// is under way.
func (r *run) paced(ctx context.Context, p *stage.Proc, plan stage.Plan) (made stage.Produced, s stretch, err error) {
	if s.from, err = r.Provider.Await(ctx, 0, 0); err != nil {
		return made, s, err
	}
	before, err := r.Cost() // not begin: what is measured has begun
	if err != nil {
		return made, s, err
	}
	if made, err = r.Produce(ctx, p, plan); err != nil {
		return made, s, err
	}
	after, err := r.Cost()
	if err != nil {
		return made, s, err
	}
	if s.to, err = r.Provider.Await(ctx, 0, 0); err != nil {
		return made, s, err
	}
	s.took = after.At.Sub(before.At)
	r.share(before, after)
	var used float64
	for name := range after.Parts {
		used += r.result.Values[name+"_percent"] / 100
	}
	r.value("cores", used)
	return made, s, nil
}

// awaitHanging waits until so many requests hang.
func (r *run) awaitHanging(ctx context.Context, slots int) error {
	for end := time.Now().Add(stall); time.Now().Before(end); {
		tally, err := r.Provider.Await(ctx, 0, 0)
		if err != nil {
			return err
		}
		if tally.Hanging >= slots {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New("the slots of the provider that hangs are not taken")
}
