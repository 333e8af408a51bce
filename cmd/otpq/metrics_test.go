package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/metrics"
)

// What a worker serves and what docs/metrics.md describes are the same: a metric that
// is missing from either is an alert or a graph that shows nothing.
func TestAWorkerServesTheMetricsThatAreDescribed(t *testing.T) {
	r := newRig(t)
	url := r.worker(r.writeConfig("admin: {listen: 127.0.0.1:0}")).admin()
	r.otpq("send", "unimedbh", request, "--wait").want(t, exitDone)
	var got map[string]string
	waitFor(t, "the queue's own metrics", func() bool { // what is in Redis is shown a few seconds later
		_, body := get(t, url+"/metrics")
		got = map[string]string{}
		for line := range strings.Lines(body) {
			f := strings.Fields(line)
			if len(f) == 4 && f[1] == "TYPE" && (strings.HasPrefix(f[2], "otpq_") || strings.HasPrefix(f[2], "asynq_")) {
				got[f[2]] = f[3]
			}
		}
		return len(got) >= len(metrics.Names())
	})
	if diff := cmp.Diff(metrics.Names(), got); diff != "" {
		t.Errorf("metrics (-described +served):\n%s", diff)
	}
	_, body := get(t, url+"/metrics")
	for _, want := range []string{
		"otpq_redis_up 1", "otpq_workers 1", `otpq_dead_letters{provider="kinpos"} 0`, `otpq_redis_errors_total{kind="other"} 0`,
		`otpq_messages_total{lane="bulk",provider="kinpos",state="expired"} 0`,
		`otpq_breaker_state{provider="unimedbh",state="closed"} 1`,
		`otpq_pickup_delay_seconds_count{lane="interactive",provider="unimedbh"} 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}
