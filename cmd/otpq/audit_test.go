package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/internal/audit"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// auditDocument is what `otpq audit --json` prints.
type auditDocument struct {
	Findings []audit.Finding `json:"findings"`
	OK       bool            `json:"ok"`
	Totals   audit.Totals    `json:"totals"`
}

// strand takes a queued message's task away, as a Redis that loses data does.
func (r *rig) strand(id string) {
	r.t.Helper()
	if err := asynq.NewInspectorFromRedisClient(r.rdb).DeleteTask(tasks.QueueName("unimedbh", tasks.Interactive), id); err != nil {
		r.t.Fatal(err)
	}
}

// withoutKeys is a configuration that leads to the rig's Redis and has no keys.
func (r *rig) withoutKeys() string {
	r.t.Helper()
	return writeFile(r.t, fmt.Sprintf("redis: {url: %q}\n", r.redis.URL()))
}

func TestAuditOfACleanRedisFindsNothingAndNeedsNoKey(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.send()
	r.dead("unimedbh", request, status.Rejected, "recipient_unknown", time.Now())
	file := r.withoutKeys()
	otpq(t, nil, "", "audit", "--config", file).want(t, exitDone).wantOut(t,
		"2: 1 queued, 1 rejected", "1 pending", "found", "nothing")
	got := decode[auditDocument](t, otpq(t, nil, "", "audit", "--config", file, "--json", "--rate", "10000").want(t, exitDone))
	want := auditDocument{Findings: []audit.Finding{}, OK: true, Totals: audit.Totals{
		Records: 2, States: map[status.State]int{status.Queued: 1, status.Rejected: 1}, Tasks: audit.TaskTotals{Pending: 1}, Findings: map[audit.Kind]int{},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("audit --json (-want +got):\n%s", diff)
	}
}

func TestAuditNamesWhatIsWrongAndFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.send()
	r.strand(id)
	unrecorded := r.send()
	r.rdb.Del(t.Context(), "otpq:msg:"+unrecorded)
	r.otpq("audit").want(t, exitFailed).wantOut(t,
		id, "stranded", "no worker will take it up", "→ `otpq cancel ID`", unrecorded, "note", "1 stranded; 1 notes")
	got := decode[auditDocument](t, r.otpq("audit", "--json").want(t, exitFailed))
	if got.OK || len(got.Findings) != 2 || got.Findings[0].ID != id || got.Findings[0].Kind != audit.Stranded || !got.Findings[1].Note {
		t.Errorf("audit --json = %+v, want that %s is stranded, and a note", got, id)
	}
}

func TestAuditComparesWhatAppsWereToldWithWhatTheProviderSaw(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	lines := func(name string, all ...string) string {
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(strings.Join(all, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	now := time.Now().UTC()
	accepted := r.send()
	if _, err := r.store.Claim(t.Context(), status.Claim{Seed: r.record(accepted), Token: "w", Now: now, AbandonedAfter: time.Minute}); err != nil {
		t.Fatal(err)
	}
	err := r.store.Finish(t.Context(), status.Finish{
		ID: accepted, Provider: "unimedbh", Token: "w", State: status.Accepted, Now: now,
		Attempt: status.Attempt{Number: 1, StartedAt: now, DurationMS: 5, Outcome: "accepted"},
	})
	if err != nil {
		t.Fatal(err)
	}
	refused := r.send()
	r.strand(refused)
	ahead := now.Add(time.Minute).Format(time.RFC3339Nano)
	told := func(id, tag, more string) string {
		return fmt.Sprintf(`{"id":%q,"tag":%q,"not_after":%q%s}`, id, tag, ahead, more)
	}
	seen := fmt.Sprintf(`{"tag":"a","at":%q,"acted":true,"status":200}`, now.Format(time.RFC3339Nano))
	file := lines("told", told(accepted, "a", ""), told(refused, "b", `,"failed":true`))
	r.otpq("audit", "--told", file, "--seen", lines("seen", seen)).want(t, exitDone).wantOut(t, "nothing; 1 notes", "the app knows")

	file = lines("told", told(accepted, "a", ""), told(refused, "b", `,"failed":true`), told("gone", "c", ""))
	got := decode[auditDocument](t, r.otpq("audit", "--told", file, "--seen", lines("seen", seen, seen), "--json").want(t, exitFailed))
	if diff := cmp.Diff(map[audit.Kind]int{audit.SilentDouble: 1, audit.Lost: 1}, got.Totals.Findings); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}

	bad := lines("bad", seen, person)
	r.otpq("audit", "--told", file, "--seen", bad).want(t, exitFailed, bad+": line 2 is not one JSON object")
	r.otpq("audit", "--told", file, "--seen", bad+".missing").want(t, exitFailed, bad+".missing")
}

func TestAnInterruptedAuditFails(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 20 {
		r.send()
	}
	b := start(t, []string{"OTPQ_CONFIG=" + r.file}, "audit", "--rate", "1")
	if code := b.end(); code != exitFailed || !strings.Contains(b.err.String(), "interrupted") {
		t.Errorf("exit code = %d, stderr = %q; want an interrupted audit", code, b.err)
	}
}
