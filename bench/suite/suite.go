// Package suite is what is measured: which cases take part, what each of them
// does, and what it has to come to. Processes are package stage's, tables package
// report's.
package suite

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/otpq/otpq/bench/load"
	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

// Options are what a caller may choose.
type Options struct {
	Rounds int
	// N is how many messages a run has; zero is the suite's own number.
	N int
	// Cases are those to run; none is all. One that ends in * stands for all
	// that begin so. Upper and lower case are one.
	Cases []string
	// Quiet is how long to wait for a machine that nobody else uses.
	Quiet time.Duration
	// Out is told of each run.
	Out io.Writer
}

// suite is a [report.Suite] with what its cases do.
type suite struct {
	report.Suite
	n     int // messages, when the caller does not say
	cases []contest
}

// contest is one case of a suite.
type contest struct {
	name  string
	needs stage.Needs
	run   func(ctx context.Context, r *run) error
}

// run is one case in one round.
type run struct {
	*stage.Scene
	n      int
	quiet  time.Duration
	result report.Run
}

func (r *run) value(key string, v float64) { r.result.Values[key] = v }

func (r *run) problem(format string, args ...any) {
	r.result.Problems = append(r.result.Problems, fmt.Sprintf(format, args...))
}

// all lists the suites in the order in which they are run and shown.
func all() []suite {
	return []suite{
		drain(), drainSlow(), pickupIdle(), pickupBusy(), idle(), wake(), enqueue(), cost(), backlog(), isolation(), campaigns(), growth(),
	}
}

// Names lists the suites.
func Names() []string {
	var names []string
	for _, s := range all() {
		names = append(names, s.Name)
	}
	return names
}

// Run runs one suite: all its cases in turns, as often as there are rounds.
func Run(ctx context.Context, s *stage.Stage, name string, o Options) (*report.Suite, error) {
	suites := all()
	i := slices.IndexFunc(suites, func(s suite) bool { return s.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("there is no suite %q; there are %s", name, strings.Join(Names(), ", "))
	}
	u := suites[i]
	u.cases = slices.DeleteFunc(u.cases, func(c contest) bool { return !chosen(c.name, o.Cases) })
	if o.N > 0 {
		u.n = o.N
	}
	out := u.Suite
	out.Messages, out.At = u.n, time.Now().UTC()
	for _, c := range u.cases {
		out.Cases = append(out.Cases, c.name)
	}
	for round := range o.Rounds {
		for _, c := range u.cases {
			start := time.Now()
			result, err := once(ctx, s, c, u.n, o.Quiet)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				// One peer that does not run must not cost the figures of the others.
				result.Problems = append(result.Problems, err.Error())
			}
			result.Case, result.Round = c.name, round
			out.Runs = append(out.Runs, result)
			fmt.Fprintf(o.Out, "%s round %d/%d %-24s %5.1fs%s\n", name, round+1, o.Rounds, c.name,
				time.Since(start).Seconds(), describe(out.Columns, result))
		}
	}
	return &out, nil
}

func chosen(name string, patterns []string) bool {
	return len(patterns) == 0 || slices.ContainsFunc(patterns, func(p string) bool {
		stem, open := strings.CutSuffix(strings.ToLower(p), "*")
		name := strings.ToLower(name)
		return name == stem || open && strings.HasPrefix(name, stem)
	})
}

// once runs a case with stores and processes of its own.
func once(ctx context.Context, s *stage.Stage, c contest, n int, quiet time.Duration) (result report.Run, err error) {
	r := &run{n: n, quiet: quiet, result: report.Run{Values: map[string]float64{}}}
	if r.Scene, err = s.Scene(ctx, c.needs); err != nil {
		return r.result, err
	}
	defer r.Close()
	err = c.run(ctx, r)
	return r.result, err
}

// describe is a run in a line, for whoever watches.
func describe(columns []report.Column, r report.Run) string {
	var b strings.Builder
	for i, c := range columns {
		if v, ok := r.Values[c.Key]; ok && i < 4 {
			fmt.Fprintf(&b, "  %s %.*f", c.Key, c.Digits, v)
		}
	}
	if r.Noisy {
		fmt.Fprintf(&b, "  noisy: others used %.2f cores", r.Foreign)
	}
	for _, p := range r.Problems {
		b.WriteString("  FAILED: " + p)
	}
	return b.String()
}

// begin waits for a quiet machine and reads what has been used by then.
func (r *run) begin(ctx context.Context) (stage.Cost, stage.Usage, error) {
	if err := r.AwaitQuiet(ctx, r.quiet); err != nil {
		return stage.Cost{}, stage.Usage{}, err
	}
	usage, err := r.Redis.Usage(ctx)
	if err != nil {
		return stage.Cost{}, stage.Usage{}, err
	}
	cost, err := r.Cost()
	return cost, usage, err
}

// noise notes whether somebody else used the machine in a stretch of the run.
func (r *run) noise(foreign float64) {
	r.result.Foreign = max(r.result.Foreign, foreign)
	r.result.Noisy = stage.Noisy(r.result.Foreign)
}

// share notes how much of a core each part used, in per cent.
func (r *run) share(before, after stage.Cost) {
	parts, took, foreign := after.Sub(before)
	r.noise(foreign)
	for name, used := range parts {
		r.value(name+"_percent", 100*used.Seconds()/took.Seconds())
	}
}

// perMessage notes how many microseconds of CPU each part used a message.
func (r *run) perMessage(before, after stage.Cost, n int) {
	parts, took, foreign := after.Sub(before)
	r.noise(foreign)
	var sum, cores float64
	for name, used := range parts {
		micros := float64(used.Microseconds()) / float64(n)
		key := name + "_us"
		switch name {
		case "producer":
			key = "worker_us" // of a peer without a queue, who posts itself
		case "nats", "postgres":
			key = "store_us"
		}
		r.result.Values[key] += micros
		sum += micros
		cores += used.Seconds() / took.Seconds()
	}
	r.value("sum_us", sum)
	r.value("cores", cores)
}

// inFlight is how many messages each peer works on at once, unless the suite says
// otherwise.
const inFlight = 256

const (
	// stall is how long no message may arrive before a run is given up.
	stall = 20 * time.Second
	// fillCallers is how many calls of a producer run at once where a queue is
	// filled one by one.
	fillCallers = 128
	fillBatch   = 1000
	// looseLimit binds nobody: no machine of today sends as many a second.
	looseLimit = 1_000_000
)

// contender is one of those who take part in a suite.
type contender struct {
	name, peer, variant string
	rateLimit           int
}

var (
	otpq         = contender{name: "otpq", peer: "otpq"}
	otpqLimited  = contender{name: "otpq limited", peer: "otpq", rateLimit: looseLimit}
	asynqAlone   = contender{name: "asynq", peer: "asynq"}
	asynqTuned   = contender{name: "asynq tuned", peer: "asynq", variant: peers.Tuned}
	bullMQ       = contender{name: "BullMQ", peer: "bullmq"}
	jetStream    = contender{name: "JetStream", peer: "nats"}
	river        = contender{name: "River", peer: "river"}
	riverTuned   = contender{name: "River tuned", peer: "river", variant: peers.Tuned}
	direct       = contender{name: "direct", peer: "direct"}
	directStatus = contender{name: "direct + status", peer: "direct-status"}
)

// everybody takes part where nothing speaks against it.
func everybody() []contender {
	return []contender{otpq, otpqLimited, asynqAlone, asynqTuned, bullMQ, jetStream, river, riverTuned, directStatus, direct}
}

func (c contender) queueless() bool { return strings.HasPrefix(c.peer, "direct") }

func (c contender) needs() stage.Needs {
	return stage.Needs{Postgres: c.peer == "river", NATS: c.peer == "nats"}
}

func (c contender) config(s *stage.Scene, slots int) peers.Config {
	cfg := s.Config
	cfg.InFlight, cfg.Variant = slots, c.variant
	return cfg
}

// hire sets a worker up and returns what lets it begin. The product's begins by
// itself, so its process is started only then.
func (c contender) hire(ctx context.Context, r *run, slots int) (begin func() (*stage.Proc, error), err error) {
	if c.peer == "otpq" {
		return func() (*stage.Proc, error) {
			return r.WorkOtpq(stage.Otpq{RateLimit: c.rateLimit, Interactive: slots, Bulk: slots})
		}, nil
	}
	p, err := r.Work(ctx, c.peer, c.config(r.Scene, slots))
	return letGo(p), err
}

// letGo lets a process begin that was only waiting for it.
func letGo(p *stage.Proc) func() (*stage.Proc, error) {
	return func() (*stage.Proc, error) {
		err := p.Go()
		return p, err
	}
}

// ready begins and returns once the worker takes messages.
func (c contender) ready(ctx context.Context, begin func() (*stage.Proc, error)) error {
	p, err := begin()
	if err != nil || c.peer != "otpq" {
		return err
	}
	return p.AwaitLog(ctx, stage.OtpqStarted)
}

// fill queues the messages from 0 on as fast as the peer's producer can.
func (c contender) fill(ctx context.Context, r *run, n int) (stage.Produced, error) {
	plan := stage.Plan{Config: c.config(r.Scene, inFlight), Mode: "fill", N: n, Callers: fillCallers}
	switch c.peer {
	case "bullmq", "nats", "river":
		plan.Mode, plan.Batch = "batch", fillBatch
	}
	p, plan, err := r.Producer(ctx, c.peer, plan)
	if err != nil {
		return stage.Produced{}, err
	}
	made, err := r.Produce(ctx, p, plan)
	if err == nil && c.peer == "river" {
		err = peers.AnalyzeRiver(ctx, r.Config.Postgres)
	}
	return made, err
}

// verify holds a peer to its promise: each message once at the provider, each
// status written, nothing left in the queue.
func (c contender) verify(ctx context.Context, r *run, slots int, ids []string) error {
	cfg := c.config(r.Scene, slots)
	var state peers.State
	for end := time.Now().Add(stall); ; {
		var err error
		if state, err = peers.All()[c.peer].Check(ctx, cfg, ids); err != nil {
			return fmt.Errorf("look at what has become of the messages: %w", err)
		}
		if state.Left == 0 && state.Accepted == len(ids) || time.Now().After(end) {
			break
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if state.Accepted != len(ids) {
		r.problem("%d of %d have no record that says accepted once", len(ids)-state.Accepted, len(ids))
	}
	if state.Left != 0 {
		r.problem("%d left in the queue", state.Left)
	}
	tally, err := r.Provider.Await(ctx, 0, 0)
	if err != nil {
		return err
	}
	r.tally(tally, len(ids))
	return nil
}

// tally says what the provider did not get, or got too often.
func (r *run) tally(t provider.Tally, n int) {
	if t.Distinct != n {
		r.problem("%d lost", n-t.Distinct)
	}
	if t.Doubled > 0 {
		r.problem("%d doubled", t.Doubled)
	}
	if t.Strange > 0 {
		r.problem("%d requests that are none of this run's", t.Strange)
	}
}

// quantiles notes latencies in milliseconds.
func (r *run) quantiles(nanos []int64) {
	ms := make([]float64, len(nanos))
	for i, d := range nanos {
		ms[i] = float64(d) / 1e6
	}
	slices.Sort(ms)
	for name, q := range map[string]float64{"p50": 0.5, "p95": 0.95, "p99": 0.99, "max": 1} {
		r.value(name, report.Quantile(ms, q))
	}
}

// gaps are the times between two lists of moments, number by number.
func gaps(from, to []int64) []int64 {
	out := make([]int64, len(from))
	for i := range from {
		out[i] = to[i] - from[i]
	}
	return out
}

// cores is how many the machine has.
var cores = runtime.NumCPU()

func pace(interval time.Duration) load.Pace { return load.Pace{Interval: interval, Jitter: 0.5} }
