package metrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestWorkerCounts(t *testing.T) {
	registry := prometheus.NewRegistry()
	w := NewWorker(registry)
	w.Prepare("p", "bulk", []string{"accepted", "expired"})
	w.Attempt("p", "bulk", "retry_later", "timeout", 3*time.Second)
	w.Ended("p", "bulk", "accepted")
	w.Deferred("p", "bulk", "breaker_open")
	w.Accepted("p", "bulk", time.Second)
	states := []string{"closed", "open"}
	w.Breaker("p", "open", states)
	w.Breaker("p", "closed", states)

	want := `
# HELP otpq_attempts_total Requests made to a provider, by what became of them.
# TYPE otpq_attempts_total counter
otpq_attempts_total{lane="bulk",outcome="retry_later",provider="p",reason="timeout"} 1
# HELP otpq_breaker_state 1 for the state that this worker's breaker is in.
# TYPE otpq_breaker_state gauge
otpq_breaker_state{provider="p",state="closed"} 1
otpq_breaker_state{provider="p",state="open"} 0
# HELP otpq_deferrals_total Times that a message had to wait, by reason.
# TYPE otpq_deferrals_total counter
otpq_deferrals_total{lane="bulk",provider="p",reason="breaker_open"} 1
# HELP otpq_messages_total Messages that came to their end, by terminal state.
# TYPE otpq_messages_total counter
otpq_messages_total{lane="bulk",provider="p",state="accepted"} 1
otpq_messages_total{lane="bulk",provider="p",state="expired"} 0
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want),
		"otpq_attempts_total", "otpq_breaker_state", "otpq_deferrals_total", "otpq_messages_total"); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"otpq_send_duration_seconds", "otpq_time_to_accept_seconds"} {
		if n, err := testutil.GatherAndCount(registry, name); err != nil || n != 1 {
			t.Errorf("%s: %d series, %v, want 1", name, n, err)
		}
	}
}
