package suite

import (
	"context"
	"fmt"

	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

func growth() suite {
	s := suite{n: 40_000, Suite: report.Suite{
		Name: "growth", Title: "More workers, more Redis",
		About: fmt.Sprintf(`The drain with one, two and four workers of %d slots each, on one Redis and on a cluster of three masters, there also with the provider's lane spread over %d queues. `+
			`All of it on the %d cores of one machine, the provider too: what is used up first is shown, not how far it goes elsewhere.`,
			inFlight, spreadQueues, cores),
		Columns: []report.Column{
			{Key: "rate", Title: "messages/s"},
			{Key: "worker_cores", Title: "cores used: workers", Digits: 2},
			{Key: "redis_cores", Title: "Redis", Digits: 2},
			{Key: "provider_cores", Title: "provider", Digits: 2},
			{Key: "cores", Title: "in all", Digits: 2},
			{Key: "spent", Title: "used up", Labels: []string{"nothing: they wait for round trips", "the machine's CPU", "Redis's one thread"}},
			{Key: "worker_us", Title: "CPU µs/message: workers", Digits: 1},
			{Key: "redis_us", Title: "Redis", Digits: 1},
		},
		Plot: "rate", Better: "more", InOrder: true, PlotTitle: "Workers and masters on one machine: messages a second",
	}}
	for _, workers := range []int{1, 2, 4} {
		s.add(fmt.Sprintf("%d on one Redis", workers), stage.Needs{}, workers, 1)
	}
	for _, workers := range []int{1, 2, 4} {
		s.add(fmt.Sprintf("%d on three masters", workers), stage.Needs{Cluster: true}, workers, 1)
	}
	for _, workers := range []int{1, 2, 4} {
		s.add(fmt.Sprintf("%d on three masters with %d queues", workers, spreadQueues), stage.Needs{Cluster: true}, workers, spreadQueues)
	}
	return s
}

// spreadQueues is over how many queues the spread cases have their one provider.
const spreadQueues = 6

func (s *suite) add(name string, needs stage.Needs, workers, queues int) {
	s.cases = append(s.cases, contest{name, needs, func(ctx context.Context, r *run) error {
		return grow(ctx, r, workers, queues)
	}})
}

// grow drains a lane's queues with several workers.
func grow(ctx context.Context, r *run, workers, queues int) error {
	r.Config.Queues = queues
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: r.n}); err != nil {
		return err
	}
	made, err := otpq.fill(ctx, r, r.n)
	if err != nil {
		return err
	}
	before, _, err := r.begin(ctx)
	if err != nil {
		return err
	}
	for range workers {
		if _, err := r.WorkOtpq(stage.Otpq{Interactive: inFlight, Bulk: inFlight}); err != nil {
			return err
		}
	}
	tally, err := r.Provider.Await(ctx, r.n, stall)
	if err != nil {
		return err
	}
	after, err := r.Cost()
	if err != nil {
		return err
	}
	r.perMessage(before, after, r.n)
	parts, took, _ := after.Sub(before)
	for name, used := range parts {
		r.value(name+"_cores", used.Seconds()/took.Seconds())
	}
	r.value("spent", usedUp(r.result.Values["redis_cores"]/float64(len(r.Redis.PIDs())), r.result.Values["cores"]+r.result.Foreign))
	r.value("rate", float64(tally.Distinct)/(float64(tally.LastAnswer-tally.FirstArrival)/1e9))
	return otpq.verify(ctx, r, inFlight, made.IDs)
}

// usedUp names what there was no more of, as one of the column's labels.
func usedUp(redis, all float64) float64 {
	const nearly = 0.9
	switch {
	case redis >= nearly:
		return 2
	case all >= nearly*float64(cores):
		return 1
	}
	return 0
}
