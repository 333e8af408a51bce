package stage

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/otpq/otpq/bench/load"
	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/provider"
)

// Work starts a worker of a peer. It is ready and waits for [Proc.Go].
func (s *Scene) Work(ctx context.Context, peer string, cfg peers.Config) (*Proc, error) {
	if peer == "bullmq" {
		return s.run(ctx, "worker", cfg, s.Node, s.BullMQ, "work")
	}
	return s.run(ctx, "worker", cfg, s.Self, "work", peer)
}

// run starts a program of ours with a plan as its last argument, and waits until
// it is ready.
func (s *Scene) run(ctx context.Context, part string, plan any, argv ...string) (*Proc, error) {
	raw, err := json.Marshal(plan)
	if err != nil {
		return nil, err
	}
	p, err := start(command{name: part, dir: s.dir, argv: append(argv, string(raw))})
	if err != nil {
		return nil, err
	}
	s.procs = append(s.procs, p)
	if err := s.await(ctx, p, "ready", nil); err != nil {
		return nil, err
	}
	s.watch(part, p.PID())
	return p, nil
}

// Otpq is how the product's worker is set up; what it does not say is as shipped.
type Otpq struct {
	// RateLimit is in requests a second; zero is none.
	RateLimit int
	// Interactive and Bulk are Unimed-BH's slots.
	Interactive, Bulk int
	// Hang has MedSênior's API hang, with breakers that never open, so that its
	// slots stay taken.
	Hang bool
	// Other has MedSênior's API answer, as fast as Unimed-BH's.
	Other bool
	// Patient has Unimed-BH's breaker never open.
	Patient bool
}

// neverOpens is a breaker's configuration.
const neverOpens = "{consecutive_failures: 1000000, failure_ratio: 1, minimum_requests: 1000000}"

// WorkOtpq starts the product's worker as it ships: its own binary, its metrics
// on, its log at level info in a file, all providers on, and as many queues as the
// producers spread over. It returns at once: the
// worker begins by itself. [Proc.AwaitLog] of [OtpqStarted] waits for it.
func (s *Scene) WorkOtpq(o Otpq) (*Proc, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	medsenior := s.Provider.URL
	if o.Hang {
		medsenior += provider.HangPath
	}
	if o.Other {
		medsenior += provider.OtherPath
	}
	breaker := "{}"
	if o.Patient {
		breaker = neverOpens
	}
	config := fmt.Sprintf(`redis: {url: %q}
keys: [{id: %s, secret: %q}]
admin: {listen: %q}
log: {level: info, format: json}
providers:
  unimedbh:
    base_url: %q
    concurrency: {interactive: %d, bulk: %d}
    queues: %d
    rate_limit: {limit: %d, period: 1s}
    breaker: %s
  medsenior:
    base_url: %q
    token: bench
    breaker: %s
  kinpos: {base_url: %q}
`, s.Config.Redis, peers.KeyID, s.key, net.JoinHostPort(host, strconv.Itoa(port)),
		s.Provider.URL, o.Interactive, o.Bulk, max(s.Config.Queues, 1), o.RateLimit, breaker, medsenior, neverOpens, s.Provider.URL)
	file, err := s.write("otpq-*.yaml", config)
	if err != nil {
		return nil, err
	}
	s.otpqConfig = file
	p, err := start(command{name: "otpq", dir: s.dir, argv: []string{s.Programs.Otpq, "worker", "--config", file}})
	if err != nil {
		return nil, err
	}
	s.procs = append(s.procs, p)
	s.watch("worker", p.PID())
	return p, nil
}

// OtpqStarted is what the product's worker logs when its lanes run.
const OtpqStarted = "worker started"

func (s *Stage) write(pattern, text string) (string, error) {
	f, err := os.CreateTemp(s.dir, pattern)
	if err != nil {
		return "", err
	}
	if _, err := f.WriteString(text); err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// Plan is what a producer is to do.
type Plan struct {
	peers.Config
	// Mode is "fill", "pace" or "batch".
	Mode  string `json:"mode"`
	First int    `json:"first"`
	N     int    `json:"n"`
	// Callers of Send at once, or messages a call of SendBatch.
	Callers int       `json:"callers,omitempty"`
	Batch   int       `json:"batch,omitempty"`
	Pace    load.Pace `json:"pace"`
	// Keep holds a fill back so that no more than so many are queued.
	Keep int `json:"keep,omitempty"`
	// BegunFile and IDsFile are where times and ids go; empty is nowhere.
	BegunFile string `json:"begun_file,omitempty"`
	IDsFile   string `json:"ids_file,omitempty"`
}

// Produced is what a producer has to tell.
type Produced struct {
	Took time.Duration `json:"took"`
	// Begun are, by number from Plan.First on, when the calls were begun on the
	// shared clock; only of a pace.
	Begun []int64 `json:"-"`
	// IDs are the messages' ids, "" for a peer that has none.
	IDs []string `json:"-"`
}

// Producer starts a producer. It is ready; [Scene.Produce] lets it begin.
func (s *Scene) Producer(ctx context.Context, peer string, plan Plan) (*Proc, Plan, error) {
	number := strconv.Itoa(len(s.procs))
	plan.IDsFile = filepath.Join(s.dir, "ids-"+number)
	plan.BegunFile = filepath.Join(s.dir, "begun-"+number)
	var p *Proc
	var err error
	if peer == "bullmq" {
		p, err = s.run(ctx, "producer", plan, s.Node, s.BullMQ, "produce")
	} else {
		p, err = s.run(ctx, "producer", plan, s.Self, "produce", peer)
	}
	return p, plan, err
}

// Produce runs a producer to its end.
func (s *Scene) Produce(ctx context.Context, p *Proc, plan Plan) (Produced, error) {
	var out Produced
	if err := p.Go(); err != nil {
		return out, err
	}
	if err := p.Await(ctx, "done", &out); err != nil { // no limit: a million take minutes
		return out, err
	}
	ids, err := os.ReadFile(plan.IDsFile)
	if err != nil {
		return out, err
	}
	out.IDs = strings.Split(strings.TrimSuffix(string(ids), "\n"), "\n")
	if plan.Mode == "pace" {
		begun, err := os.ReadFile(plan.BegunFile)
		if err != nil {
			return out, err
		}
		out.Begun = load.ReadTimes(begun)
	}
	return out, nil
}
