package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/tasks"
)

var (
	chaosRows  = flag.Int("chaos.rows", 5000, "rows of the campaign's file")
	chaosKills = flag.Int("chaos.kills", 3, "how often who feeds or works on the campaign is killed")
)

const (
	campaignID      = "outage"
	campaignWorkers = 2
	campaignSlots   = 16 // of each worker
)

func TestEachRowOfACampaignEndsOnceWhoeverIsKilled(t *testing.T) {
	seed, planted := chosen(t)
	if planted != nil && planted.ofCampaign == "" {
		return // it does not show here
	}
	r := newCampaignRun(t, seed, planted)
	say(t, "seed %d, %d rows, %d kills; the same again: make chaos CHAOS_SEED=%d CHAOS_ROWS=%d CHAOS_KILLS=%d",
		seed, *chaosRows, *chaosKills, seed, *chaosRows, *chaosKills)
	r.create()
	r.send(planKills(seed, len(r.file.recipients), *chaosKills))
	r.verdict(planted)
}

// say writes a line at once: a run takes minutes.
func say(t *testing.T, format string, args ...any) {
	fmt.Fprintf(t.Output(), "chaos: "+format+"\n", args...)
}

// campaignRun is everything that takes part.
type campaignRun struct {
	*testing.T
	binary, config string
	rdb            redis.UniversalClient
	provider       *counter
	file           campaignFile
	workers        []*process
	terminal       *process // `otpq campaign start`, which feeds unless a worker does
	start          func()   // starts all of them

	took        time.Duration
	kills       map[string]int
	workerKills int
	feeders     map[string]bool // who fed, as the status told
	readings    int
	last        campaign.Campaign
}

func newCampaignRun(t *testing.T, seed uint64, p *plant) *campaignRun {
	t.Helper()
	r := &campaignRun{T: t, binary: build(t, p), kills: map[string]int{}, feeders: map[string]bool{}}
	guard := startGuard(t)
	server := redistest.Start(t, redistest.Args("--appendonly", "yes", "--appendfsync", "everysec"))
	rdb, err := redisconn.Open(server.URL(), redisconn.Options{ClientName: "chaos"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	r.rdb, r.provider = rdb, startCounter(t)
	r.file = writeCampaignFile(t, seed, *chaosRows)
	// With stop, whoever may have been sent a code is not sent another.
	config := fmt.Sprintf(`
redis: {url: %q}
keys:
  - {id: chaos, secret: %q}
admin: {listen: "127.0.0.1:0"}
log: {level: info, format: json}
providers:
  unimedbh:
    base_url: %q
    concurrency: {interactive: 4, bulk: %d}
    retry: {on_ambiguous: stop}
`, server.URL(), tasks.GenerateSecret().Reveal(), r.provider.url, campaignSlots)
	r.config = filepath.Join(t.TempDir(), "otpq.yaml")
	if err := os.WriteFile(r.config, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range campaignWorkers {
		r.workers = append(r.workers, &process{t: t, name: fmt.Sprint("worker", i+1), binary: r.binary, args: []string{"worker"}, guard: guard})
	}
	r.terminal = &process{t: t, name: "terminal", binary: r.binary, args: []string{"campaign", "start", campaignID}, guard: guard}
	r.terminal.mayEnd = func(err error) bool { // or it was started again when all was over
		return err == nil || strings.Contains(r.terminal.tail(), "it cannot start")
	}
	r.start = func() {
		for _, p := range r.processes() {
			p.run(config)
		}
	}
	return r
}

func (r *campaignRun) processes() []*process { return append(slices.Clone(r.workers), r.terminal) }

// otpq runs a command, and returns what it prints.
func (r *campaignRun) otpq(args ...string) ([]byte, error) {
	cmd := exec.CommandContext(r.Context(), r.binary, append(args, "--config", r.config)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("otpq %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return out, nil
}

// create makes the campaign as an operator would.
func (r *campaignRun) create() {
	r.Helper()
	begun, badRows := time.Now(), filepath.Join(r.TempDir(), "bad.csv")
	// What a killed worker had in its hands counts as failed: no reason to pause here.
	out, err := r.otpq("campaign", "create", campaignID, r.file.path, "--provider", "unimedbh", "--pause-above", "1",
		"--window", fmt.Sprint(max(100, *chaosRows/20)), // so that it is fed for as long as it lasts
		"--bad-rows", badRows, "--json")
	if err != nil {
		r.Fatal(err)
	}
	if err := json.Unmarshal(out, &r.last); err != nil {
		r.Fatal(err)
	}
	if want := r.file.counts(); r.last.State != campaign.Created || r.last.Counts != want {
		r.Fatalf("create made it %s with %+v, want created, %+v", r.last.State, r.last.Counts, want)
	}
	bad, err := os.ReadFile(badRows)
	if err != nil {
		r.Fatal(err)
	}
	lines := map[int]bool{}
	for line := range strings.Lines(string(bad)) {
		if n, err := strconv.Atoi(strings.SplitN(line, ",", 2)[0]); err == nil {
			lines[n] = true
		}
	}
	for i, row := range r.file.rows {
		if lines[i+2] != (row.kind == campaign.RowInvalid) {
			r.Errorf("line %d, which is %s, is among the bad rows: %t", i+2, row.kind, lines[i+2])
		}
	}
	say(r.T, "created in %s: %+v", time.Since(begun).Round(time.Millisecond), r.last.Counts)
}

// send starts all processes, kills them as planned, and returns when the campaign is
// over.
func (r *campaignRun) send(kills []kill) {
	r.Helper()
	interrupted, stop := signal.NotifyContext(r.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	begun := time.Now()
	r.start()
	var watching sync.WaitGroup
	defer watching.Wait()
	over := make(chan struct{})
	watching.Go(func() { defer close(over); r.watch(interrupted) })
	for _, k := range kills {
		select {
		case <-r.provider.reached(k.requests):
		case <-over:
			r.Fatalf("the campaign ended before %s", k)
		case <-interrupted.Done():
			r.Fatal("interrupted")
		}
		select {
		case <-time.After(k.after):
		case <-over:
		}
		r.kill(begun, k, over)
	}
	<-over
	r.took = time.Since(begun)
	if interrupted.Err() != nil {
		r.Fatal("interrupted")
	}
	r.terminal.leave()
	waitFor(r.T, "the terminal to see that it is over", func() bool { return r.terminal.isDone() || r.terminal.pid() == 0 })
}

// kill kills whom k says.
func (r *campaignRun) kill(begun time.Time, k kill, over <-chan struct{}) {
	var victims []*process
	switch k.whom {
	case "all":
		victims = r.processes()
	case "worker":
		victims = []*process{r.workers[k.worker]}
	case "feeder":
		if p, _ := r.feeder(); p != nil {
			victims = []*process{p}
		}
	case "feeder at work":
		if p := r.catch(over); p != nil {
			<-time.After(k.slip)
			victims = []*process{p}
		}
	}
	down := func(p *process) bool { return p.pid() == 0 } // still, from the last time
	if victims = slices.DeleteFunc(victims, down); len(victims) == 0 {
		victims = slices.DeleteFunc(slices.Clone(r.workers), down)
		victims = victims[:min(1, len(victims))]
	}
	var names []string
	for _, p := range victims {
		p.upset("killed", k.down)
		names = append(names, p.name)
		if p != r.terminal {
			r.workerKills++
		}
	}
	if names != nil {
		r.kills[k.whom]++
	}
	say(r.T, "%6.1fs %s: %s", time.Since(begun).Seconds(), k, strings.Join(names, ", "))
}

// catch waits for a feeder that has taken rows, and not noted yet that they are queued.
func (r *campaignRun) catch(over <-chan struct{}) *process {
	for {
		if p, working := r.feeder(); working {
			return p
		}
		select {
		case <-over:
			return nil
		default: // at once: it lasts for milliseconds
		}
	}
}

// feeder is the process that feeds, nil for none, and whether it has taken rows that
// are not queued for sure.
func (r *campaignRun) feeder() (p *process, working bool) {
	var places *redis.SliceCmd
	var lease *redis.StringCmd
	_, err := r.rdb.Pipelined(r.Context(), func(pipe redis.Pipeliner) error {
		const key = "otpq:campaign:{" + campaignID + "}"
		places, lease = pipe.HMGet(r.Context(), key, "fed", "reserved"), pipe.Get(r.Context(), key+":feeder")
		return nil
	})
	if err != nil && !errors.Is(err, redis.Nil) {
		r.Fatal(err)
	}
	for _, p := range r.processes() {
		if pid := p.pid(); pid != 0 && strings.HasSuffix(lease.Val(), fmt.Sprint(":", pid)) {
			return p, places.Val()[0] != places.Val()[1]
		}
	}
	return nil, false
}

func (r *campaignRun) status(ctx context.Context) (campaign.Campaign, error) {
	var now campaign.Campaign
	out, err := r.otpq("campaign", "status", campaignID, "--json")
	if err == nil && ctx.Err() == nil {
		err = json.Unmarshal(out, &now)
	}
	return now, err
}

// watch reads the status until the campaign is over, and holds each reading to what it
// promises.
func (r *campaignRun) watch(ctx context.Context) {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	moved := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := r.status(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.Error(err)
			return
		}
		r.judge(now)
		if now.Counts != r.last.Counts {
			moved = time.Now()
		}
		r.last = now
		if now.State.Over() {
			return
		}
		if time.Since(moved) > patience {
			r.Errorf("for %s nothing has become of a row: %+v", patience, now)
			for _, p := range r.processes() {
				r.Logf("%s: %s", p.name, p.tail())
			}
			return
		}
	}
}

// judge holds a reading to the last one and to what the provider knows.
func (r *campaignRun) judge(now campaign.Campaign) {
	n, was, want := now.Counts, r.last.Counts, r.file.counts()
	r.readings++
	if now.Feeder != "" {
		r.feeders[now.Feeder] = true
	}
	if sum := sumOf(n); sum != n.Rows || n.Rows != want.Rows || n.Invalid != want.Invalid || n.Duplicate != want.Duplicate {
		r.Errorf("the counts are %+v, which add up to %d, want %d with %d invalid and %d duplicate", n, sum, want.Rows, want.Invalid, want.Duplicate)
	}
	if n.Accepted < was.Accepted || n.Waiting > was.Waiting {
		r.Errorf("the counts went back from %+v to %+v", was, n)
	}
	if seen := r.provider.distinct(); n.Accepted > seen {
		r.Errorf("%d are accepted, and the provider has seen %d", n.Accepted, seen)
	}
	if now.State != campaign.Created && now.State != campaign.Running && now.State != campaign.CompletedWithFailures {
		r.Errorf("it is %s: %s", now.State, now.Reason)
	}
}

// sumOf adds up what has to be all rows.
func sumOf(n campaign.Counts) int64 {
	return n.Invalid + n.Duplicate + n.Waiting + n.Queued + n.Sending + n.Deferred +
		n.Accepted + n.Rejected + n.Exhausted + n.Unknown + n.Expired + n.Canceled
}
