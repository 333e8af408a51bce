package main

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/audit"
	"github.com/otpq/otpq/internal/backlog"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// TestAProviderIsSpreadOverTheQueuesOfItsConfiguration sends with the command, looks
// with each command that shows queues, and has a worker drain them.
func TestAProviderIsSpreadOverTheQueuesOfItsConfiguration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	narrow := r.file
	text, err := os.ReadFile(narrow)
	if err != nil {
		t.Fatal(err)
	}
	r.file = writeFile(t, strings.Replace(string(text), "unimedbh:\n", "unimedbh:\n    queues: 3\n", 1))
	var ids []string
	used := map[string]bool{}
	// Where they go is random: enough of them that none of three queues is left out.
	for len(ids) < 12 || len(used) < 3 && len(ids) < 100 {
		id := r.send()
		queue := tasks.QueueOf("unimedbh", tasks.Interactive, id, 3)
		if n := r.rdb.Exists(t.Context(), "asynq:{"+queue+"}:t:"+id).Val(); n != 1 {
			t.Errorf("message %s is not in %s", id, queue)
		}
		used[queue] = true
		ids = append(ids, id)
	}
	if len(used) != 3 {
		t.Errorf("%d messages went to %v, want three queues", len(ids), used)
	}

	for _, file := range []string{r.file, narrow} { // whoever looks may not know of the others
		r.file = file
		got := r.view("unimedbh").Lanes["interactive"]
		got.OldestSeconds = 0
		if diff := cmp.Diff(backlog.Lane{Queues: 3, Pending: int64(len(ids))}, got.Lane); diff != "" {
			t.Errorf("providers shows (-want +got):\n%s", diff)
		}
		doc := decode[auditDocument](t, r.otpq("audit", "--json").want(t, exitDone))
		if diff := cmp.Diff(audit.TaskTotals{Pending: len(ids)}, doc.Totals.Tasks); diff != "" || len(doc.Findings) > 0 {
			t.Errorf("audit finds %+v, tasks (-want +got):\n%s", doc.Findings, diff)
		}
		r.otpq("dev", "--once", "--redis", r.redis.URL()).want(t, exitFailed, "has messages queued for unimedbh")
	}

	r.worker(narrow)
	for _, id := range ids {
		waitFor(t, "the message", func() bool { return r.record(id).State == status.Accepted })
	}
}

func TestAWorkersConnectionsGrowWithItsQueues(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	cfg, err := (&app{configFile: r.file}).loadConfig()
	if err != nil {
		t.Fatal(err)
	}
	p := cfg.Providers["unimedbh"]
	size := func(queues int) int {
		p.Queues = queues
		cfg.Providers["unimedbh"] = p
		on, _ := workerProviders(cfg, zerolog.Nop())
		return poolSize(on)
	}
	if one, five := size(1), size(5); five != one+2*4*4 {
		t.Errorf("%d connections with one queue a lane and %d with five, want 32 more", one, five)
	}
}
