package suite

import (
	"context"
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
		Columns: latenciesAnd(
			report.Column{Key: "hanging", Title: "slots that hang"},
			report.Column{Key: "bulk_rate", Title: "bulk messages/s"},
			report.Column{Key: "cores", Title: "cores used", Digits: 2},
		),
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
		taken := func(t provider.Tally) bool { return t.Hanging >= hangInteractive+hangBulk }
		if err := r.awaitTally(ctx, taken, "the slots of the provider that hangs are not taken"); err != nil {
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
	if err := r.punctual(ctx, made); err != nil {
		return err
	}
	worker.Kill() // what hangs would keep it from leaving
	return nil
}
