package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

var words = Vocabulary{
	Ends: []string{"accepted", "expired"}, Reasons: []string{"timeout", "breaker_open"},
	Attempts: []Attempt{{"accepted", ""}, {"ambiguous", "timeout"}}, Waits: []string{"breaker_open"},
}

func TestWorkerCounts(t *testing.T) {
	registry := prometheus.NewRegistry()
	w := NewWorker(registry)
	w.Prepare("p", "bulk", 7, words)
	w.Attempt("p", "bulk", "ambiguous", "timeout", 3*time.Second)
	w.Attempt("p", "bulk", "rejected", "maria@example.com", time.Second)
	w.Ended("p", "bulk", "accepted")
	w.Deferred("p", "bulk", "breaker_open")
	w.Deferred("p", "bulk", "never heard of")
	states := []string{"closed", "open"}
	w.Breaker("p", "open", states)
	w.Breaker("p", "closed", states)
	w.Hold("p", "bulk")()
	w.Hold("p", "bulk")

	want := `
# HELP otpq_attempts_total Requests made to a provider, by what became of them.
# TYPE otpq_attempts_total counter
otpq_attempts_total{lane="bulk",outcome="accepted",provider="p",reason=""} 0
otpq_attempts_total{lane="bulk",outcome="ambiguous",provider="p",reason="timeout"} 1
otpq_attempts_total{lane="bulk",outcome="rejected",provider="p",reason="other"} 1
# HELP otpq_breaker_state 1 for the state that this worker's breaker is in, 0 for the others.
# TYPE otpq_breaker_state gauge
otpq_breaker_state{provider="p",state="closed"} 1
otpq_breaker_state{provider="p",state="open"} 0
# HELP otpq_deferrals_total Times that a message had to wait, by reason.
# TYPE otpq_deferrals_total counter
otpq_deferrals_total{lane="bulk",provider="p",reason="breaker_open"} 1
otpq_deferrals_total{lane="bulk",provider="p",reason="other"} 1
# HELP otpq_in_flight Messages in this worker's hands.
# TYPE otpq_in_flight gauge
otpq_in_flight{lane="bulk",provider="p"} 1
# HELP otpq_slots How many messages this worker may have in its hands.
# TYPE otpq_slots gauge
otpq_slots{lane="bulk",provider="p"} 7
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want),
		"otpq_attempts_total", "otpq_breaker_state", "otpq_deferrals_total", "otpq_in_flight", "otpq_slots"); err != nil {
		t.Error(err)
	}
}

// A counter that begins with its first event has no rate for it, and an alert on
// that rate stays silent.
func TestSeriesAreThereBeforeAnythingHappens(t *testing.T) {
	registry := prometheus.NewRegistry()
	NewWorker(registry).Prepare("p", "bulk", 1, words)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, f := range families {
		seen[f.GetName()] = true
	}
	for _, s := range sections[0].specs {
		switch s.name {
		case breakerSpec.name:
			continue // set by the breakers, from the start
		}
		if !seen[s.name] {
			t.Errorf("%s has no series before its first event", s.name)
		}
	}
}

func TestDurationsAreObservedInSeconds(t *testing.T) {
	registry := prometheus.NewRegistry()
	w := NewWorker(registry)
	w.Prepare("p", "bulk", 1, words)
	w.Attempt("p", "bulk", "accepted", "", 250*time.Millisecond)
	w.Accepted("p", "bulk", 250*time.Millisecond)
	w.PickedUp("p", "bulk", 250*time.Millisecond)
	w.PickedUp("p", "bulk", -time.Hour) // clocks that differ
	w.Limited("p", "bulk", 250*time.Millisecond)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, f := range families {
		if h := f.GetMetric()[0].GetHistogram(); h != nil {
			found++
			if h.GetSampleSum() != 0.25 {
				t.Errorf("%s has the sum %v, want 0.25", f.GetName(), h.GetSampleSum())
			}
		}
	}
	if found != 4 {
		t.Errorf("%d histograms, want 4", found)
	}
}
