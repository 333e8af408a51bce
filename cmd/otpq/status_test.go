package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// keysOf returns the names in a JSON object.
func keysOf(v map[string]any) map[string]bool {
	names := map[string]bool{}
	for name := range v {
		names[name] = true
	}
	return names
}

func names(list string) map[string]bool {
	out := map[string]bool{}
	for _, name := range strings.Fields(list) {
		out[name] = true
	}
	return out
}

func TestStatusJSONHasTheContractsNames(t *testing.T) {
	r := newRig(t)
	const always = "id provider lane state recipient created_at updated_at not_after attempts possible_duplicate"
	fresh := r.send()
	got := decode[map[string]any](t, r.otpq("status", fresh, "--json").want(t, exitDone))
	if diff := cmp.Diff(names(always), keysOf(got)); diff != "" {
		t.Errorf("a fresh record's names (-want +got):\n%s", diff)
	}

	// A record in which everything is known.
	id := r.send("--lane", "bulk")
	now := time.Now().Truncate(time.Millisecond)
	record := r.record(id)
	record.Campaign, record.ReplayOf = "c1", fresh
	r.rdb.Del(t.Context(), "otpq:msg:"+id)
	for n := 1; n <= 2; n++ {
		if _, err := r.store.Claim(t.Context(), status.Claim{Seed: record, Token: "w", Now: now, AbandonedAfter: time.Minute}); err != nil {
			t.Fatal(err)
		}
		err := r.store.Finish(t.Context(), status.Finish{
			ID: id, Provider: "unimedbh", Token: "w", State: status.Deferred, Reason: "timeout", Next: now.Add(time.Minute),
			Ambiguous: true, Spent: true, Reference: "ref-1", CodeValid: 300 * time.Second, Now: now,
			Attempt: status.Attempt{Number: n, StartedAt: now, DurationMS: 12.5, Outcome: "ambiguous", Reason: "timeout", HTTPStatus: 504},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	got = decode[map[string]any](t, r.otpq("status", id, "--json").want(t, exitDone))
	if diff := cmp.Diff(names(always+" reason next_attempt_at reference code_valid_seconds campaign replay_of"), keysOf(got)); diff != "" {
		t.Errorf("a full record's names (-want +got):\n%s", diff)
	}
	attempts, _ := got["attempts"].([]any)
	if len(attempts) != 2 {
		t.Fatalf("attempts = %v, want two", got["attempts"])
	}
	first, _ := attempts[0].(map[string]any)
	if diff := cmp.Diff(names("number started_at duration_ms outcome reason http_status"), keysOf(first)); diff != "" {
		t.Errorf("an attempt's names (-want +got):\n%s", diff)
	}
	for _, name := range []string{"created_at", "updated_at", "not_after", "next_attempt_at"} {
		if _, err := time.Parse(time.RFC3339Nano, got[name].(string)); err != nil {
			t.Errorf("%s = %v, want RFC 3339", name, got[name])
		}
	}

	// The same for a person.
	r.otpq("status", id).want(t, exitDone).wantOut(t,
		id, "deferred (timeout), next attempt at ", "2 attempts", "possible duplicate", "unimedbh, bulk", "c1", "ref-1", "5m0s",
		"replay of", "12.5 ms", "504", "not after")
}

func TestStatusOfAnUnknownMessageFails(t *testing.T) {
	r := newRig(t)
	for _, args := range [][]string{{"status", "nope"}, {"status", "nope", "--json"}, {"status", "nope", "--watch"}, {"cancel", "nope"}} {
		res := r.otpq(args...).want(t, exitFailed, "no such message")
		if res.out != "" {
			t.Errorf("otpq %q: stdout = %q, want nothing", args, res.out)
		}
	}
}

func TestWatchFollowsAMessageToItsEnd(t *testing.T) {
	r := newRig(t)
	id := r.send()
	b := start(t, []string{"OTPQ_CONFIG=" + r.file}, "status", id, "--watch")
	b.says("queued")
	j := start(t, []string{"OTPQ_CONFIG=" + r.file}, "status", id, "--watch", "--json")
	j.says(`"state":"queued"`)
	r.worker(r.file)
	if code := b.wait(); code != exitDone || !strings.Contains(b.out.String(), "accepted") {
		t.Errorf("exit code = %d, stdout = %q; want accepted in the end", code, b.out)
	}
	if code := j.wait(); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	records := decodeLines[status.Record](t, j.out.String())
	if last := records[len(records)-1]; last.State != status.Accepted || last.ID != id {
		t.Errorf("the last record is %s of %s, want accepted of %s", last.State, last.ID, id)
	}
	if b.err.String() != "" {
		t.Errorf("stderr = %q, want nothing", b.err)
	}
}

func TestAnInterruptedWatchFails(t *testing.T) {
	r := newRig(t)
	b := start(t, []string{"OTPQ_CONFIG=" + r.file}, "status", r.send(), "--watch")
	b.says("queued")
	if code := b.end(); code != exitFailed || !strings.Contains(b.err.String(), "interrupted") {
		t.Errorf("exit code = %d, stderr = %q; want an interrupted watch", code, b.err)
	}
}

func TestAMessageThatNobodyWorksOnIsNotWatchedForEver(t *testing.T) {
	r := newRig(t)
	long := time.Now().Add(-time.Hour)
	m := tasks.Message{ID: "old", Provider: "unimedbh", Lane: tasks.Bulk, CreatedAt: long, NotAfter: long.Add(time.Minute)}
	if err := r.store.Create(t.Context(), status.NewRecord(m, "m***")); err != nil {
		t.Fatal(err)
	}
	r.otpq("status", "old", "--watch").want(t, exitFailed, "still queued", "after its deadline", "is a worker running, with unimedbh on?")
}

func TestCancel(t *testing.T) {
	r := newRig(t)
	id := r.send()
	r.otpq("cancel", id+"~1").want(t, exitDone).wantOut(t, id+" canceled") // the task's id, as dashboards show it
	r.otpq("status", id+"~1").want(t, exitDone).wantOut(t, id, "canceled")
	got := decode[map[string]string](t, r.otpq("cancel", id, "--json").want(t, exitDone))
	if diff := cmp.Diff(map[string]string{"id": id, "state": "canceled"}, got); diff != "" {
		t.Errorf("cancel --json (-want +got):\n%s", diff)
	}
	r.worker(r.file)
	r.otpq("send", "unimedbh", request, "--wait").want(t, exitDone)
	c, err := r.sandbox.Counts("unimedbh")
	if err != nil || c.Acted != 1 {
		t.Errorf("the provider acted %d times, %v; want once: the canceled message must not be sent", c.Acted, err)
	}
	accepted := r.send()
	waitFor(t, "the end", func() bool { return r.record(accepted).State == status.Accepted })
	r.otpq("cancel", accepted).want(t, exitFailed, accepted, "is accepted and cannot become canceled")
}

func TestCancelOfAMessageOnItsWayIsRefused(t *testing.T) {
	r := newRig(t)
	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{Latency: sandbox.Duration(time.Second)}); err != nil {
		t.Fatal(err)
	}
	r.worker(r.file)
	id := r.send()
	waitFor(t, "the request", func() bool { return r.record(id).State == status.Sending })
	r.otpq("cancel", id).want(t, exitFailed, "is sending and cannot become canceled")
}
