// Package chaos runs otpq as it is run in earnest, with everything going wrong:
// workers are killed and frozen, Redis is killed and frozen, networks are cut, and
// the provider misbehaves, while an app sends thousands of messages. Then an
// auditor compares what the app was told with what the provider saw and what the
// records say. Of a campaign, feeders and workers are killed, and its report is
// compared, row by row, with what the provider saw. It is tests alone; nothing
// imports it.
package chaos

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
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
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/audit"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

var (
	chaosFor   = flag.Duration("chaos.for", time.Minute, "how long things go wrong")
	chaosSeed  = flag.Uint64("chaos.seed", 1, "what goes wrong; 0 draws one")
	chaosRate  = flag.Int("chaos.rate", 40, "messages a second")
	chaosRace  = flag.Bool("chaos.race", false, "build the workers with the race detector, which needs a C compiler")
	chaosPlant = flag.String("chaos.plant", "", "bug to plant, which the runs then have to find: ledger, ack, deadline, checkpoint or requeue")
)

// grace is how long after its deadline a message may come to its end here: the
// longest that troubles keep workers and Redis apart, one after the other, and
// what a dead worker's message takes to go on. What only asynq brings back takes
// up to two minutes.
const grace = 45 * time.Second

func TestNothingIsLostDoubledInSilenceOrLateWhateverBreaks(t *testing.T) {
	seed, planted := chosen(t)
	if planted != nil && planted.found == "" {
		return // it does not show here
	}
	redisconn.LogTo(zerolog.Nop()) // troubles are what is asked for
	r := newRun(t, seed, planted)
	r.say("seed %d, %s, %d messages a second; the same again: make chaos CHAOS_SEED=%d CHAOS_FOR=%s", seed, *chaosFor, *chaosRate, seed, *chaosFor)
	r.chaos(*chaosFor, *chaosRate)
	r.calm()
	r.verdict(planted)
}

// chosen is what the flags say: the seed, and a plant or nil.
func chosen(t *testing.T) (seed uint64, p *plant) {
	t.Helper()
	if seed = *chaosSeed; seed == 0 {
		seed = rand.Uint64N(1_000_000) + 1
	}
	if *chaosPlant == "" {
		return seed, nil
	}
	planted, ok := plants[*chaosPlant]
	if !ok {
		t.Fatalf("there is no plant %q; there are %q", *chaosPlant, slices.Sorted(maps.Keys(plants)))
	}
	return seed, &planted
}

// slack is how long a request may be on its way in the slowest network, on a machine
// that has other things to do.
const slack = 5 * time.Second

// run is everything that takes part.
type run struct {
	*testing.T
	seed    uint64
	guard   *guard
	binary  string
	config  string // of the commands, which go to Redis directly
	redis   *redistest.Server
	pid     int // of Redis
	rdb     redis.UniversalClient
	nets    *networks
	vendor  *vendor
	workers []*process
	app     *app
	did     map[string]int

	mu       sync.Mutex
	findings []audit.Finding // of the audits while it lasted
	audits   int
	ends     map[string]status.State // the first end that each message's record told
}

const workers = 3

func newRun(t *testing.T, seed uint64, p *plant) *run {
	t.Helper()
	r := &run{T: t, seed: seed, did: map[string]int{}, ends: map[string]status.State{}, binary: build(t, p), guard: startGuard(t)}
	r.redis = redistest.Start(t, redistest.AOF())
	rdb, err := redisconn.Open(r.redis.URL(), redisconn.Options{ClientName: "chaos"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	r.rdb = rdb
	r.watchRedis()
	r.nets, r.vendor = newNetworks(), startVendor(t, seed)
	key := tasks.Key{ID: "chaos", Secret: tasks.GenerateSecret()}
	vendorAddr := strings.TrimPrefix(r.vendor.url, "http://")
	for i := range workers {
		name := fmt.Sprint("worker", i+1)
		toRedis, toVendor := r.nets.open(t, redisNet(name), r.redis.Addr()), r.nets.open(t, providerNet(name), vendorAddr)
		config := configuration(toRedis, toVendor, key)
		r.workers = append(r.workers, startWorker(t, name, r.binary, config, r.guard))
	}
	r.config = filepath.Join(t.TempDir(), "otpq.yaml")
	if err := os.WriteFile(r.config, []byte(configuration(r.redis.Addr(), vendorAddr, key)), 0o600); err != nil {
		t.Fatal(err)
	}
	r.app = newApp(t, "redis://"+r.nets.open(t, appNet, r.redis.Addr()), key, seed)
	return r
}

// configuration has everything short, so that a minute holds many lives of a
// message.
func configuration(redisAddr, vendorAddr string, key tasks.Key) string {
	return fmt.Sprintf(`
redis: {url: "redis://%s"}
keys:
  - {id: %s, secret: %q}
admin: {listen: "127.0.0.1:0"}
worker: {shutdown_timeout: 15s}
log: {level: info, format: json}
providers:
  unimedbh:
    base_url: "http://%s"
    timeout: 3s
    concurrency: {interactive: 32, bulk: 8}
    queues: 2 # the apps spread over three
    rate_limit: {limit: 200, period: 1s}
    breaker: {open_for: 2s}
    retry: {max_attempts: 6, initial: 500ms, max: 4s}
`, redisAddr, key.ID, key.Secret.Reveal(), vendorAddr)
}

// say writes a line at once: a run takes minutes.
func (r *run) say(format string, args ...any) {
	fmt.Fprintf(r.Output(), "chaos: "+format+"\n", args...)
}

// watchRedis tells the guard which process Redis is now.
func (r *run) watchRedis() {
	r.Helper()
	waitFor(r.T, "Redis to say which process it is", func() bool {
		info, err := r.rdb.Info(r.Context(), "server").Result()
		if err != nil {
			return false
		}
		_, rest, _ := strings.Cut(info, "process_id:")
		digits, _, _ := strings.Cut(rest, "\r")
		r.pid, err = strconv.Atoi(digits)
		return err == nil
	})
	r.guard.watch(r.pid)
}

// chaos has everything go wrong for a while, beside an app that sends.
func (r *run) chaos(length time.Duration, rate int) {
	interrupted, stop := signal.NotifyContext(r.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	sending, enough := context.WithCancel(interrupted)
	defer enough()
	var beside sync.WaitGroup
	beside.Go(func() { r.app.run(sending, rate) })
	beside.Go(func() { r.auditMeanwhile(sending) })

	var names []string
	for _, w := range r.workers {
		names = append(names, w.name)
	}
	type moment struct {
		at time.Duration
		do func()
	}
	var moments []moment
	for _, e := range plan(r.seed, length, names) {
		moments = append(moments,
			moment{e.at, func() { r.say("%s", e); r.did[e.kind+" ("+trackKind(e.track)+")"]++; r.upset(e) }},
			moment{e.at + e.lasts, func() { r.mend(e) }})
	}
	moments = append(moments, moment{length, func() {}})
	slices.SortStableFunc(moments, func(a, b moment) int { return cmp.Compare(a.at, b.at) })
	start := time.Now()
	for _, m := range moments {
		select {
		case <-time.After(time.Until(start.Add(m.at))):
			m.do()
		case <-interrupted.Done():
			r.Fatal("interrupted")
		}
	}
	enough()
	r.say("%s: no more troubles; waiting for the Sends that are under way", time.Since(start).Round(time.Millisecond))
	defer time.AfterFunc(lastTries, r.app.giveUp).Stop()
	beside.Wait()
	r.app.sends.Wait()
}

// trackKind is what a track is one of.
func trackKind(track string) string {
	if _, way, isNet := strings.Cut(track, "-"); isNet {
		return "network to " + way
	}
	return strings.TrimRight(track, "0123456789")
}

func (r *run) upset(e trouble) {
	r.Helper()
	switch {
	case r.nets.byName[e.track] != nil:
		r.nets.upset(r.T, e.track, e.kind)
	case e.track == "provider":
		r.vendor.upset(e.kind)
	case e.track == "redis":
		r.upsetRedis(e.kind)
	default:
		r.worker(e.track).upset(e.kind, e.lasts)
	}
}

func (r *run) mend(e trouble) {
	r.Helper()
	switch {
	case r.nets.byName[e.track] != nil:
		r.nets.mend(r.T, e.track, e.kind)
	case e.track == "provider":
		r.vendor.mend()
	case e.track == "redis" && e.kind == "killed":
		r.redis.Restart()
		r.watchRedis()
	case e.track == "redis" && e.kind == "stopped":
		r.redis.Resume()
	case e.track != "redis":
		r.worker(e.track).mend()
	}
}

func (r *run) upsetRedis(kind string) {
	r.Helper()
	switch kind {
	case "killed":
		r.redis.Stop()
		r.guard.unwatch(r.pid)
	case "stopped":
		r.redis.Pause()
	case "script flush":
		r.command("SCRIPT", "FLUSH")
	case "clients killed":
		r.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	}
}

func (r *run) command(args ...any) {
	r.Helper()
	if err := r.rdb.Do(r.Context(), args...).Err(); err != nil {
		r.Errorf("%v: %v", args, err)
	}
}

func (r *run) worker(name string) *process {
	for _, w := range r.workers {
		if w.name == name {
			return w
		}
	}
	r.Fatalf("there is no worker %q", name)
	return nil
}

// auditMeanwhile has the auditor look while everything goes wrong: what is only in
// the making must be no finding.
func (r *run) auditMeanwhile(ctx context.Context) {
	tick := time.NewTicker(5 * second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var found []audit.Finding
		_, err := audit.Live(ctx, r.rdb, audit.Options{Grace: grace, Refused: r.unpromised()}, func(f audit.Finding) error {
			found = append(found, f)
			return nil
		})
		if err != nil {
			continue // Redis is away: the next look will do
		}
		r.mu.Lock()
		r.audits++
		r.findings = append(r.findings, found...)
		r.mu.Unlock()
		r.noteEnds(ctx)
	}
}

// noteEnds remembers how messages ended, and looks whether what ended has ended in
// another way since. Only what may have been sent can still turn out to be.
func (r *run) noteEnds(ctx context.Context) {
	told, _ := r.app.heard()
	records, err := audit.Records(ctx, r.rdb, slices.Collect(maps.Keys(promised(told))))
	if err != nil {
		return // Redis is away
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, rec := range records {
		was, ended := r.ends[id]
		switch {
		case ended && was != rec.State && !was.CanBecome(rec.State):
			r.Errorf("message %s was %s and is %s", id, was, rec.State)
		case rec.State.Terminal():
			r.ends[id] = rec.State
		}
	}
}

// unpromised returns which messages no Send has promised, at the time of asking:
// the record of a Send that is under way may have no task for long.
func (r *run) unpromised() func(id string) bool {
	return func(id string) bool {
		told, _ := r.app.heard()
		return !slices.ContainsFunc(told, func(t audit.Told) bool { return t.ID == id && !t.Failed })
	}
}

// calm waits until nothing is left to do.
func (r *run) calm() {
	r.Helper()
	started := time.Now()
	for _, w := range r.workers {
		waitFor(r.T, w.name+" to run", w.alive)
	}
	told, _ := r.app.heard()
	waiting := slices.Collect(maps.Keys(promised(told)))
	r.say("calm: waiting for %d messages to come to their end", len(waiting))
	defer func() { r.say("%d are left after %s", len(waiting), time.Since(started).Round(time.Millisecond)) }()
	end := time.Now().Add(calmTime)
	tick := time.NewTicker(second)
	defer tick.Stop()
	for ; len(waiting) > 0 && time.Now().Before(end); <-tick.C {
		records, err := audit.Records(r.Context(), r.rdb, waiting)
		if err != nil {
			r.Fatal(err)
		}
		waiting = slices.DeleteFunc(waiting, func(id string) bool { // what has no record is for the auditor
			return records[id].State.Terminal() || records[id].ID == ""
		})
	}
	r.noteEnds(r.Context())
}

// calmTime bounds the wait for the last message: the longest validity, and what
// the auditor allows for.
const calmTime = 120*time.Second + grace + 15*time.Second
