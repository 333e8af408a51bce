package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

var exportLine = regexp.MustCompile(`export OTPQ_CONFIG=(\S+)`)

func TestDevShowsEveryEnding(t *testing.T) {
	for name, flags := range map[string][]string{"a Redis in memory": nil, "a real Redis": {"--redis", newRig(t).redis.URL()}} {
		t.Run(name, func(t *testing.T) {
			res := otpq(t, nil, "", append([]string{"dev", "--once"}, flags...)...).want(t, exitDone)
			for _, sm := range newSamples(nil, nil).list {
				res.wantOut(t, sm.what)
			}
			res.wantOut(t, "redis ", "sandbox ", "accepted", "deferred", "canceled", "rejected (recipient_unknown)", "expired (deadline)", "exhausted (provider_error), 2 attempts",
				"unknown (unclassified_reply), 2 attempts, possible duplicate")
			if res.err != "" {
				t.Errorf("stderr = %q, want nothing", res.err)
			}
			file := exportLine.FindStringSubmatch(res.out)
			if file == nil {
				t.Fatalf("no configuration is named:\n%s", res.out)
			}
			if _, err := os.Stat(file[1]); !os.IsNotExist(err) {
				t.Errorf("%s is left behind (%v): it holds a key", file[1], err)
			}
		})
	}
}

func TestDevKeepsOffARedisThatOthersUse(t *testing.T) {
	r := newRig(t)
	id := r.send("--at", "1h")
	otpq(t, nil, "", "dev", "--once", "--redis", r.redis.URL()).want(t, exitFailed, "has messages queued for unimedbh", "empty database")
	r.otpq("cancel", id).want(t, exitDone)
	if err := asynq.NewInspectorFromRedisClient(r.rdb).DeleteTask(tasks.QueueName("unimedbh", tasks.Interactive), id); err != nil {
		t.Fatal(err)
	}
	w := r.worker(r.file)
	waitFor(t, "the worker", func() bool {
		workers, err := worker.Workers(t.Context(), r.rdb)
		return err == nil && len(workers) == 1
	})
	otpq(t, nil, "", "dev", "--once", "--redis", r.redis.URL()).want(t, exitFailed, "has a worker already")
	w.end()
}

func TestDevJSONIsARecordALine(t *testing.T) {
	res := otpq(t, nil, "", "dev", "--once", "--json").want(t, exitDone, "export OTPQ_CONFIG=")
	last := map[string]status.State{}
	for _, r := range decodeLines[status.Record](t, res.out) {
		last[r.ID] = r.State
	}
	got := map[status.State]int{}
	for _, state := range last {
		got[state]++
	}
	want := map[status.State]int{
		status.Accepted: 5, status.Canceled: 1, status.Rejected: 1, status.Expired: 1, status.Unknown: 1, status.Exhausted: 1,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("endings (-want +got):\n%s\n%s", diff, res.out)
	}
}

func TestDevStaysUntilCtrlCAndServesOtherTerminals(t *testing.T) {
	b := start(t, nil, "dev")
	b.says("Still running; Ctrl-C ends it.")
	file := exportLine.FindStringSubmatch(b.out.String())[1]
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("the configuration, which holds a key, has mode %v", mode)
	}
	env := []string{"OTPQ_CONFIG=" + file}
	otpq(t, env, "", "send", "unimedbh", request, "--wait").want(t, exitDone, "accepted")
	otpq(t, env, "", "providers").want(t, exitDone).wantOut(t, "closed")
	if letters := decode[[]letter](t, otpq(t, env, "", "dead", "list", "--json").want(t, exitDone)); len(letters) < 2 {
		t.Errorf("dead letters = %+v, want the rejected and the unknown one", letters)
	}
	if code := b.end(); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("%s is left behind (%v)", file, err)
	}
}

func TestCtrlCEndsDevWhileItSends(t *testing.T) {
	for _, flags := range [][]string{nil, {"--once"}, {"--json"}, {"--verbose"}} {
		b := start(t, nil, slices.Concat([]string{"dev"}, flags)...)
		b.says("medsenior") // whatever became of its first message by then
		if code := b.end(); code != exitDone {
			t.Errorf("dev %q: exit code = %d, want %d\n%s", flags, code, exitDone, b.err)
		}
		if strings.Contains(b.out.String()+b.err.String(), "\x1b") {
			t.Errorf("dev %q wrote terminal codes where no terminal is", flags)
		}
	}
}

func TestDevTakesTheUsersSettings(t *testing.T) {
	r := newRig(t)
	// A timeout that does not fit ends the worker, and so the run.
	env := []string{"OTPQ_CONFIG=" + r.file, "OTPQ_PROVIDERS_KINPOS_TIMEOUT=29s"}
	otpq(t, env, "", "dev", "--once").want(t, exitFailed, "providers.kinpos.timeout")
}
