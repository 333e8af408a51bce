package suite

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

// latenciesAnd are the columns of what [run.quantiles] finds, and more.
func latenciesAnd(more ...report.Column) []report.Column {
	return slices.Concat([]report.Column{
		{Key: "p50", Title: "median ms", Digits: 2},
		{Key: "p95", Title: "95th", Digits: 2},
		{Key: "p99", Title: "99th", Digits: 2},
		{Key: "max", Title: "longest", Digits: 1},
	}, more)
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

// awaitTally waits until the provider has counted something; missing says what it is
// without.
func (r *run) awaitTally(ctx context.Context, so func(provider.Tally) bool, missing string) error {
	for end := time.Now().Add(stall); time.Now().Before(end); {
		tally, err := r.Provider.Await(ctx, 0, 0)
		if err != nil {
			return err
		}
		if so(tally) {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return errors.New(missing)
}

// punctual notes how long the messages took that were timed, beside others that may not
// have come yet, and what went wrong.
func (r *run) punctual(ctx context.Context, made stage.Produced) error {
	if err := r.Settle(ctx); err != nil {
		return err
	}
	arrived, _, err := r.Provider.Arrivals(ctx)
	if err != nil {
		return err
	}
	arrived = arrived[:len(made.Begun)]
	r.quantiles(gaps(made.Begun[warmUp:], arrived[warmUp:]))
	last, err := r.Provider.Await(ctx, 0, 0)
	if err != nil {
		return err
	}
	lost := 0
	for _, at := range arrived {
		if at == 0 {
			lost++
		}
	}
	if lost+last.Doubled+last.Strange > 0 {
		r.problem("%d lost, %d doubled, %d strange", lost, last.Doubled, last.Strange)
	}
	return nil
}
