package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/audit"
	"github.com/otpq/otpq/status"
)

// backup is what Redis's data file holds now.
func (r *rig) backup() []byte {
	r.t.Helper()
	if err := r.rdb.Save(r.t.Context()).Err(); err != nil {
		r.t.Fatal(err)
	}
	data, err := os.ReadFile(r.dataFile())
	if err != nil {
		r.t.Fatal(err)
	}
	return data
}

func (r *rig) dataFile() string {
	r.t.Helper()
	dir, err := r.rdb.ConfigGet(r.t.Context(), "dir").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	return filepath.Join(dir["dir"], "dump.rdb")
}

// restore has Redis go on from a backup.
func (r *rig) restore(data []byte) {
	r.t.Helper()
	file := r.dataFile()
	r.redis.Stop()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.redis.Restart()
	waitFor(r.t, "Redis", func() bool { return r.rdb.Ping(r.t.Context()).Err() == nil })
}

// jsonLines writes a file of values, a line each.
func jsonLines[V any](t *testing.T, values ...V) string {
	t.Helper()
	var b strings.Builder
	for _, v := range values {
		line, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return writeFile(t, b.String())
}

// TestWhatARestoredBackupDoes goes back to a backup from before messages were sent:
// what docs/operations.md says of that.
func TestWhatARestoredBackupDoes(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	long := r.sendAs(r.client, enqueue.ValidFor(10*time.Minute))
	short := r.sendAs(r.client, enqueue.ValidFor(5*time.Second))
	old := r.backup()
	worker := start(t, []string{"OTPQ_CONFIG=" + r.file}, "worker")
	r.ends(long.ID, status.Accepted)
	r.ends(short.ID, status.Accepted)
	after := r.sendAs(r.client)
	r.ends(after.ID, status.Accepted)
	worker.end()
	sent := time.Now().UTC()

	r.restore(old)
	if got := r.record(long.ID); got.State != status.Queued {
		t.Fatalf("the restored record says %s, want queued", got.State)
	}
	waitFor(t, "the short one's deadline", func() bool { return time.Now().After(short.NotAfter) })
	start(t, []string{"OTPQ_CONFIG=" + r.file}, "worker")
	r.ends(long.ID, status.Accepted)
	r.ends(short.ID, status.Expired)
	again := time.Now().UTC()

	// One was sent twice, and its record cannot know; the code whose time was over was not.
	if counts, err := r.sandbox.Counts("unimedbh"); err != nil || counts.Received != 4 {
		t.Errorf("the provider saw %+v, %v; want 4 requests: one twice, two once", counts, err)
	}
	if r.record(long.ID).PossibleDuplicate {
		t.Error("the record knows that it was sent twice: the page is too modest")
	}
	// From Redis alone nobody can tell.
	r.otpq("audit").want(t, exitDone).wantOut(t, "nothing")
	told := func(c enqueue.Receipt, tag string) audit.Told {
		return audit.Told{ID: c.ID, Tag: tag, NotAfter: c.NotAfter}
	}
	seen := func(tag string, at time.Time) audit.Seen {
		return audit.Seen{Tag: tag, At: at, Acted: true, Status: 200}
	}
	found := decode[auditDocument](t, r.otpq("audit", "--json",
		"--told", jsonLines(t, told(long, "long"), told(short, "short"), told(after, "after")),
		"--seen", jsonLines(t, seen("long", sent), seen("short", sent.Add(-time.Second)), seen("after", sent), seen("long", again))).want(t, exitFailed))
	kinds := map[string][]audit.Kind{}
	for _, f := range found.Findings {
		kinds[f.ID] = append(kinds[f.ID], f.Kind)
	}
	if !slices.Contains(kinds[long.ID], audit.SilentDouble) {
		t.Errorf("of the one that was sent twice the audit says %v, want %s", kinds[long.ID], audit.SilentDouble)
	}
	if want := []audit.Kind{audit.Unrecorded}; !slices.Equal(kinds[short.ID], want) {
		t.Errorf("of the one that was sent and then expired the audit says %v, want %v", kinds[short.ID], want)
	}
	if want := []audit.Kind{audit.Lost, audit.Unrecorded}; !slices.Equal(kinds[after.ID], want) {
		t.Errorf("of the one that was queued after the backup the audit says %v, want %v", kinds[after.ID], want)
	}
}
