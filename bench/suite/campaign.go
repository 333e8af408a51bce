package suite

import (
	"context"

	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
)

// underWay is how many rows of a campaign were sent before anything is timed.
const underWay = 500

func campaigns() suite {
	s := suite{n: 200_000, Suite: report.Suite{
		Name: "campaign", Title: "Beside a campaign",
		About: `Unimed-BH's interactive messages are timed, one each 10 ms ± 50 %, alone and while the same worker feeds and sends a campaign ` +
			`(` + "`otpq campaign create --start --detach`" + `): one of Unimed-BH's rows, and one of MedSênior's. Each answer takes 50 ms, so that ` +
			`the bulk lane's slots bound the campaign. Slots as shipped: 64 interactive, 16 bulk. N is the campaign's rows.`,
		Columns: latenciesAnd(
			report.Column{Key: "row_rate", Title: "the campaign's rows/s"},
			report.Column{Key: "cores", Title: "cores used", Digits: 2},
		),
	}}
	const quiet = "quiet"
	for _, c := range []struct{ name, of string }{
		{quiet, ""},
		{"campaign of the same provider", unimedbh.Name},
		{"campaign of another provider", medsenior.Name},
	} {
		s.cases = append(s.cases, contest{c.name, stage.Needs{}, func(ctx context.Context, r *run) error {
			return besideCampaign(ctx, r, c.of)
		}})
		if c.of != "" {
			s.Goals = append(s.Goals, report.Goal{Text: "99th, " + c.name + " / " + quiet, Key: "p99", Case: c.name, Against: quiet, Bound: 1.5, Most: true})
		}
	}
	return s
}

// besideCampaign times interactive messages beside a campaign of a provider, or of none.
func besideCampaign(ctx context.Context, r *run, of string) error {
	const timed = warmUp + 1000
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: timed + r.n, Delay: slowDelay}); err != nil {
		return err
	}
	worker, err := r.WorkOtpq(stage.Otpq{Interactive: hangInteractive, Bulk: hangBulk, Other: true})
	if err != nil {
		return err
	}
	if err := worker.AwaitLog(ctx, stage.OtpqStarted); err != nil {
		return err
	}
	switch of {
	case unimedbh.Name:
		err = r.Campaign(ctx, of, r.n, func(i int) any { return peers.Request(timed + i) })
	case medsenior.Name:
		err = r.Campaign(ctx, of, r.n, func(i int) any { return peers.OtherRequest(i) })
	}
	if err != nil {
		return err
	}
	p, plan, err := r.Producer(ctx, otpq.peer, stage.Plan{Config: otpq.config(r.Scene, inFlight), Mode: "pace", N: timed, Pace: pace(isolationInterval)})
	if err != nil {
		return err
	}
	if of != "" {
		begun := func(t provider.Tally) bool { return t.Distinct+t.Other >= underWay }
		if err := r.awaitTally(ctx, begun, "the campaign is not under way"); err != nil {
			return err
		}
	}
	made, rush, err := r.paced(ctx, p, plan)
	if err != nil {
		return err
	}
	if of != "" {
		rows := rush.to.Distinct + rush.to.Other - rush.from.Distinct - rush.from.Other - timed
		r.value("row_rate", float64(rows)/rush.took.Seconds())
		if rush.to.Distinct+rush.to.Other >= timed+r.n {
			r.problem("the campaign was over before the last message was timed: it needs more rows")
		}
	}
	return r.punctual(ctx, made)
}
