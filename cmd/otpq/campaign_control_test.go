package main

import (
	"strings"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/providers/sandbox"
)

func TestADetachedCampaignIsLeftRunningByWhoLooksIn(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 30), "--start", "--detach")
	looker := r.startCommand("start", "november") // no worker is there: it is fed from here
	waitFor(t, "some to be queued", func() bool { return r.campaign("november").Counts.Queued > 0 })
	if code := looker.end(); code != exitFailed {
		t.Errorf("exit code = %d, want %d", code, exitFailed)
	}
	looker.says("the campaign goes on without this")
	if got := r.campaign("november"); got.State != campaign.Running || !got.Detached {
		t.Errorf("after Ctrl-C it is %s, detached %v; want it running, for any worker", got.State, got.Detached)
	}
	r.worker(r.file)
	waitFor(t, "the end", func() bool { return r.campaign("november").State == campaign.Completed })
}

func TestTheLastThingSaidOfACanceledCampaignIsItsEnd(t *testing.T) {
	r := newRig(t)
	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{Latency: sandbox.Duration(2 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	r.create("november", peopleFile(t, 100), "--start", "--detach")
	r.worker(r.file)
	waitFor(t, "some to be sent", func() bool { return r.campaign("november").Counts.Sending > 0 })
	watcher, looker := r.startCommand("status", "november", "--watch"), r.startCommand("start", "november")
	watcher.says("running")
	looker.says("running")
	r.otpq("campaign", "cancel", "november").want(t, exitDone)
	watcher.wait()
	looker.wait()
	for who, said := range map[string]string{"status --watch": watcher.out.String(), "start": looker.err.String()} {
		last := said[strings.LastIndex(strings.TrimSpace(said), "\n")+1:]
		if !strings.Contains(last, "in the queue 0, waiting 0") {
			t.Errorf("%s ends with %q though some are in the queue", who, last)
		}
	}
}

func TestCampaignsAreControlledWithoutASealingKey(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 3), "--start", "--detach")
	file := r.withoutKeys()
	for _, c := range []struct{ args, want string }{
		{"status november", "running"},
		{"list", "november"},
		{"pause november", "november paused"},
		{"resume november", "november running"},
		{"start november --detach", "november running"},
		{"cancel november", "november canceled"},
	} {
		otpq(t, nil, "", append([]string{"campaign", "--config", file}, strings.Fields(c.args)...)...).want(t, exitDone).wantOut(t, c.want)
	}
	for _, args := range []string{"report november", "retry-failed november", "start november"} {
		otpq(t, nil, "", append([]string{"campaign", "--config", file}, strings.Fields(args)...)...).want(t, exitFailed, "otpq keygen")
	}
}

func TestAFullRedisIsCalledThat(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 3), "--start", "--detach")
	if err := r.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	const what = "redis is full: raise its maxmemory"
	args := []string{"--provider", "unimedbh", "--map", "username=email"}
	r.otpq(append([]string{"campaign", "create", "december", peopleFile(t, 3)}, args...)...).want(t, exitFailed, what)
	r.otpq("campaign", "start", "november", "--detach").want(t, exitFailed, what)
	r.otpq("campaign", "pause", "november").want(t, exitDone)
}
