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
	r.campaignOfOne("november")
	r.otpq("send", "unimedbh", request, "--wait").want(t, exitDone)
	servesWhatIsDescribed(t, url, metrics.Names(metrics.WorkerProcess))
	_, body := get(t, url+"/metrics")
	for _, want := range []string{
		"otpq_redis_up 1", "otpq_workers 1", `otpq_dead_letters{provider="kinpos"} 0`, `otpq_redis_errors_total{kind="other"} 0`,
		`otpq_messages_total{lane="bulk",provider="kinpos",state="expired"} 0`,
		`otpq_breaker_state{provider="unimedbh",state="closed"} 1`,
		`otpq_campaign_rows{campaign="november",provider="unimedbh",state="waiting"} 1`,
		`otpq_campaign_paused{campaign="november",reason="operator"} 0`, `otpq_campaign_rate_per_second{campaign="november"} 0`,
		`otpq_pickup_delay_seconds_count{lane="interactive",provider="unimedbh"} 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// servesWhatIsDescribed compares what a process serves with names and types.
func servesWhatIsDescribed(t *testing.T, url string, want map[string]string) {
	t.Helper()
	var got map[string]string
	waitFor(t, "the metrics of what is in Redis", func() bool { // which are shown a few seconds later
		_, body := get(t, url+"/metrics")
		got = map[string]string{}
		for line := range strings.Lines(body) {
			f := strings.Fields(line)
			if len(f) == 4 && f[1] == "TYPE" && (strings.HasPrefix(f[2], "otpq_") || strings.HasPrefix(f[2], "asynq_")) {
				got[f[2]] = f[3]
			}
		}
		return len(got) >= len(want)
	})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-described +served):\n%s", diff)
	}
}

// A dashboard tells of queues and campaigns too, when no worker is left that could;
// without a sealing key, which it does not need to look.
func TestADashboardServesTheMetricsThatAreDescribed(t *testing.T) {
	r := newRig(t)
	r.send()
	r.campaignOfOne("november")
	b := start(t, []string{"OTPQ_REDIS_URL=" + r.redis.URL()}, dashboardArgs...)
	b.says("dashboard at ")
	url := dashboardURL.FindStringSubmatch(b.out.String())[1]
	servesWhatIsDescribed(t, url, metrics.Names(metrics.DashboardProcess))
	_, body := get(t, url+"/metrics")
	for _, want := range []string{
		"otpq_workers 0", `otpq_queue_messages{lane="interactive",provider="unimedbh",state="pending"} 1`,
		`otpq_campaign_rows{campaign="november",provider="unimedbh",state="waiting"} 1`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

// campaignOfOne makes one of one row, and does not start it.
func (r *rig) campaignOfOne(id string) {
	r.t.Helper()
	file := writeFile(r.t, "email\nteste@gmail.com\n")
	r.otpq("campaign", "create", id, file, "--format", "csv", "--provider", "unimedbh", "--map", "username=email", "--map", "type==EMAIL").want(r.t, exitDone)
}
