package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/worker"
)

// view is what `otpq providers --json` tells of one provider.
func (r *rig) view(name string) overview.Provider {
	r.t.Helper()
	views := decode[[]overview.Provider](r.t, r.otpq("providers", "--json").want(r.t, exitDone))
	for _, v := range views {
		if v.Name == name {
			return v
		}
	}
	r.t.Fatalf("providers = %+v, want %s among them", views, name)
	return overview.Provider{}
}

func TestProvidersShowsWhatWaits(t *testing.T) {
	r := newRig(t)
	for range 3 {
		r.send()
	}
	r.send("--lane", "bulk")
	r.send("--at", "1h")
	r.otpq("providers").want(t, exitDone).wantOut(t, "provider", "oldest", "unimedbh", "unknown  0 ", "interactive", "bulk", "none")

	v := r.view("unimedbh")
	if !v.On || v.Off != "" || v.BaseURL != r.url || v.Breaker.State != "unknown" || len(v.Breaker.Workers) != 0 {
		t.Errorf("unimedbh = %+v, want it on at %s, with no worker", v, r.url)
	}
	fast, bulk := v.Lanes["interactive"], v.Lanes["bulk"]
	if fast.Pending != 3 || fast.Scheduled != 1 || bulk.Pending != 1 || fast.OldestSeconds <= 0 || fast.Concurrency != 1 {
		t.Errorf("lanes = %+v, want 3 pending and 1 scheduled, and 1 pending in bulk", v.Lanes)
	}
}

func TestProvidersSaysWhatIsOffAndWhy(t *testing.T) {
	r := newRig(t)
	env := []string{"OTPQ_REDIS_URL=" + r.redis.URL(), "OTPQ_PROVIDERS_UNIMEDBH_RATE_LIMIT_LIMIT=50"}
	otpq(t, env, "", "providers").want(t, exitDone).wantOut(t,
		"medsenior is off: needs a token", "kinpos is off: needs a base URL", "OTPQ_PROVIDERS_KINPOS_BASE_URL", "50/1s")
	views := decode[[]overview.Provider](t, otpq(t, env, "", "providers", "--json").want(t, exitDone))
	on := map[string]bool{}
	for _, v := range views {
		on[v.Name] = v.On
		if v.On == (v.Off != "") {
			t.Errorf("%s: on %v, off because %q", v.Name, v.On, v.Off)
		}
	}
	if diff := cmp.Diff(map[string]bool{"medsenior": false, "unimedbh": true, "kinpos": false}, on); diff != "" {
		t.Errorf("providers that are on (-want +got):\n%s", diff)
	}
}

// An operator's shell may lack the token that the workers have.
func TestProvidersThatOnlyTheWorkersHaveOnAreNotOff(t *testing.T) {
	var out bytes.Buffer
	a := &app{streams: streams{out: &out}}
	a.printProviders([]overview.Provider{{
		Name: "medsenior", Off: "needs a token",
		Breaker: overview.Breaker{State: worker.BreakerOpen, Workers: map[string]worker.BreakerPresence{"w": {State: worker.BreakerOpen}}},
	}})
	for _, want := range []string{"medsenior  open     1 ", "medsenior is on in the workers, and not in this configuration: needs a token", "breaker open until "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("providers prints\n%s\nwant %q in it", out.String(), want)
		}
	}
}

func TestProvidersShowsAnOpenBreaker(t *testing.T) {
	r := newRig(t)
	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{ErrorRate: 1}); err != nil {
		t.Fatal(err)
	}
	r.worker(r.file)
	for range 6 {
		r.send("--valid-for", "1m", "--max-attempts", "1")
	}
	var v overview.Provider
	waitFor(t, "the breaker to open", func() bool {
		v = r.view("unimedbh")
		return v.Breaker.State == worker.BreakerOpen
	})
	if len(v.Breaker.Workers) != 1 || v.Breaker.OpenUntil.Before(time.Now()) {
		t.Errorf("breaker = %+v, want one worker's, open for a while", v.Breaker)
	}
	r.otpq("providers").want(t, exitDone).wantOut(t, "workers", "open     1 ", "unimedbh: breaker open until ", "closed   1 ")
	waiting := r.send()
	waitFor(t, "the deferral", func() bool { return r.record(waiting).State == status.Deferred })
	r.otpq("status", waiting).want(t, exitDone).wantOut(t, "deferred (breaker_open), next attempt at ")
}

func TestBreakersOfManyWorkersSumUpToTheWorst(t *testing.T) {
	soon, later := time.Now().Add(time.Second), time.Now().Add(time.Minute)
	of := func(b worker.BreakerPresence) worker.Presence {
		return worker.Presence{ID: b.State, Breakers: map[string]worker.BreakerPresence{"p": b}}
	}
	closed := of(worker.BreakerPresence{State: worker.BreakerClosed})
	half := of(worker.BreakerPresence{State: worker.BreakerHalfOpen})
	open := of(worker.BreakerPresence{State: worker.BreakerOpen, OpenUntil: later})
	other := worker.Presence{ID: "other", Breakers: map[string]worker.BreakerPresence{"q": {State: worker.BreakerOpen, OpenUntil: soon}}}
	for want, workers := range map[string][]worker.Presence{
		"unknown":              {other},
		worker.BreakerClosed:   {closed, other},
		worker.BreakerHalfOpen: {half, closed},
		worker.BreakerOpen:     {closed, open, half},
	} {
		if got := overview.SumBreakers(workers, "p"); got.State != want || want == worker.BreakerOpen && !got.OpenUntil.Equal(later) {
			t.Errorf("sumBreakers = %+v, want %s", got, want)
		}
	}
}
