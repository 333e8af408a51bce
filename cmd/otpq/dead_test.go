package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

const phone = `{"mobileNumber":"59899123456"}`

// graveyard has four dead letters, and a message that is none.
func graveyard(t *testing.T) (r *rig, ids []string) {
	t.Helper()
	r = newRig(t)
	now := time.Now()
	ids = []string{
		r.dead("kinpos", phone, status.Unknown, "timeout", now.Add(-72*time.Hour)),
		r.dead("unimedbh", request, status.Rejected, "recipient_unknown", now.Add(-48*time.Hour)),
		r.dead("unimedbh", request, status.Exhausted, "provider_error", now.Add(-2*time.Hour)),
		r.dead("unimedbh", request, status.Rejected, "recipient_unknown", now.Add(-time.Minute)),
	}
	r.send()
	return r, ids
}

// letter is what `otpq dead list --json` says of one.
type letter struct{ ID, Provider, State, Reason string }

func (r *rig) letters(args ...string) []string {
	r.t.Helper()
	got := []string{}
	for _, l := range decode[[]letter](r.t, r.otpq(append([]string{"dead", "list", "--json"}, args...)...).want(r.t, exitDone)) {
		got = append(got, l.ID)
	}
	return got
}

func TestDeadListFilters(t *testing.T) {
	r, ids := graveyard(t)
	day := time.Now().Add(-48 * time.Hour)
	for _, c := range []struct {
		args string
		want []int
	}{
		{"", []int{0, 1, 2, 3}},
		{"--provider unimedbh", []int{1, 2, 3}},
		{"--provider medsenior", nil},
		{"--state rejected", []int{1, 3}},
		{"--state unknown", []int{0}},
		{"--reason provider_error", []int{2}},
		{"--reason nosuch", nil},
		{"--since 3h", []int{2, 3}},
		{"--until 3h", []int{0, 1}},
		{"--since 50h --until 1h", []int{1, 2}},
		{"--until " + day.Add(-time.Hour).Format(time.RFC3339), []int{0}},
		{"--since " + day.AddDate(0, 0, -10).Format(time.DateOnly) + " --state exhausted", []int{2}},
		{"--provider unimedbh --state rejected --since 1h", []int{3}},
		{"--provider unimedbh --limit 2", []int{1, 2}},
	} {
		t.Run(c.args, func(t *testing.T) {
			want := []string{}
			for _, i := range c.want {
				want = append(want, ids[i])
			}
			got := r.letters(strings.Fields(c.args)...)
			slices.Sort(want) // one provider's after another's: ids sort by time
			slices.Sort(got)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("letters (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDeadListForPeople(t *testing.T) {
	r, ids := graveyard(t)
	res := r.otpq("dead", "list").want(t, exitDone, "4 dead letters")
	res.wantOut(t, append(ids, "recipient_unknown", "exhausted", "kinpos")...)
	if strings.Contains(res.out, "dead letters") {
		t.Errorf("stdout = %q, want the table alone", res.out)
	}
	if res := r.otpq("dead", "list", "--provider", "medsenior").want(t, exitDone, "0 dead letters"); res.out != "" {
		t.Errorf("stdout = %q, want nothing", res.out)
	}
	if res := r.otpq("dead", "list", "--json").want(t, exitDone); res.err != "" {
		t.Errorf("stderr = %q, want nothing beside the JSON", res.err)
	}
}

func TestALongListIsPrintedPageByPage(t *testing.T) {
	a := &app{}
	var out strings.Builder
	a.out, a.err = &out, &out
	err := a.printDead(func(yield func(status.DeadLetter, error) bool) {
		for i := range 450 {
			if !yield(status.DeadLetter{Record: status.Record{ID: fmt.Sprint("id-", i), State: status.Rejected}}, nil) {
				return
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"id-0 ", "id-199 ", "id-200 ", "id-449 ", "450 dead letters"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("output lacks %q", want)
		}
	}
	if n := strings.Count(out.String(), "\n"); n != 450+2 {
		t.Errorf("%d lines, want one a letter, a header and the sum", n)
	}
}

func TestDeadShowRevealsOnlyWhenAsked(t *testing.T) {
	r, ids := graveyard(t)
	r.otpq("dead", "show", ids[1]).want(t, exitDone).wantOut(t, ids[1], "rejected (recipient_unknown)", "404")
	plain := decode[map[string]any](t, r.otpq("dead", "show", ids[1], "--json").want(t, exitDone))
	if _, there := plain["request"]; there || plain["id"] != ids[1] {
		t.Errorf("show --json = %v, want the record without the request", plain)
	}
	r.otpq("dead", "show", ids[1], "--reveal").want(t, exitDone).wantOut(t, ids[1], request)
	revealed := decode[struct{ Request json.RawMessage }](t, r.otpq("dead", "show", ids[1], "--reveal", "--json").want(t, exitDone))
	if string(revealed.Request) != request {
		t.Errorf("request = %s, want %s", revealed.Request, request)
	}

	// What is no message at all is kept sealed too, and shown as it came.
	ring, err := tasks.NewKeyring(r.key)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := tasks.Quarantine(ring, "poison", []byte("no \"JSON\""))
	if err != nil {
		t.Fatal(err)
	}
	seed := r.record(ids[1])
	seed.ID, seed.State = "poison", status.Queued
	if err := r.store.Move(t.Context(), status.Move{ID: "poison", Seed: &seed, Provider: "unimedbh", To: status.Rejected, Payload: sealed, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	r.otpq("dead", "show", "poison", "--reveal").want(t, exitDone).wantOut(t, `"no \"JSON\""`)
	r.otpq("dead", "replay", "poison").want(t, exitFailed).wantOut(t, "cannot be replayed")

	// Without the key, and with another one.
	noKey := []string{"OTPQ_REDIS_URL=" + r.redis.URL()}
	otpq(t, noKey, "", "dead", "show", ids[1]).want(t, exitDone)
	otpq(t, noKey, "", "dead", "show", ids[1], "--reveal").want(t, exitFailed, "otpq keygen")
	otherKey := slices.Concat(noKey, []string{"OTPQ_KEYS=other:" + tasks.GenerateSecret().Reveal()})
	otpq(t, otherKey, "", "dead", "show", ids[1], "--reveal").want(t, exitFailed, "cannot be revealed", "key is not configured")
}

func TestWhatIsNoDeadLetterSaysWhy(t *testing.T) {
	r, ids := graveyard(t)
	queued := r.send()
	replayed := strings.Fields(r.otpq("dead", "replay", ids[0]).want(t, exitDone).out)
	r.otpq("dead", "discard", ids[1]).want(t, exitDone)
	for id, words := range map[string]string{
		queued: "is queued: only rejected, exhausted and unknown ones are dead letters",
		"nope": "no such message",
		ids[0]: "was replayed as " + replayed[len(replayed)-1],
		ids[1]: "was discarded",
	} {
		r.otpq("dead", "show", id).want(t, exitFailed, words)
		for _, verb := range []string{"replay", "discard"} {
			r.otpq("dead", verb, id).want(t, exitFailed, "1 failed").wantOut(t, id+" failed: ", words)
		}
	}
}

// action is a line of `otpq dead replay --json`.
type action struct {
	ID     string `json:"id"`
	Action string `json:"action"`
	NewID  string `json:"new_id"`
	Error  string `json:"error"`
}

func TestReplayQueuesANewMessage(t *testing.T) {
	r, ids := graveyard(t)
	res := r.otpq("dead", "replay", ids[1], "nope", ids[2], "--json", "--valid-for", "1h", "--lane", "bulk")
	res.want(t, exitFailed, "2 replayed, 1 failed") // the one that is wrong stops no other
	actions := decodeLines[action](t, res.out)
	if len(actions) != 3 || actions[1].Action != "failed" || actions[1].ID != "nope" || actions[1].Error == "" {
		t.Fatalf("actions = %+v, want three, the second failed", actions)
	}
	for i, old := range map[int]string{0: ids[1], 2: ids[2]} {
		a := actions[i]
		if a.Action != "replayed" || a.ID != old {
			t.Fatalf("action = %+v, want %s replayed", a, old)
		}
		got := r.record(a.NewID)
		if left := time.Until(got.NotAfter); got.ReplayOf != old || got.State != status.Queued || got.Lane != tasks.Bulk || left < 59*time.Minute {
			t.Errorf("record = %+v, want a bulk message linked to %s for an hour", got, old)
		}
	}
	if diff := cmp.Diff([]string{ids[0], ids[3]}, r.letters()); len(r.letters()) != 2 {
		t.Errorf("letters left (-want +got):\n%s", diff)
	}
}

func TestReplayByFilterSendsThem(t *testing.T) {
	r, ids := graveyard(t)
	r.worker(r.file)
	r.otpq("dead", "replay", "--provider", "unimedbh", "--rate", "1000").want(t, exitDone, "3 replayed, 0 failed")
	if diff := cmp.Diff([]string{ids[0]}, r.letters()); diff != "" {
		t.Errorf("letters left (-want +got):\n%s", diff)
	}
	for _, id := range ids[1:] {
		waitFor(t, "the replay's end", func() bool { return r.record(r.record(id).ReplayedAs).State == status.Accepted })
	}
}

func TestDryRunChangesNothing(t *testing.T) {
	r, ids := graveyard(t)
	before := r.rdb.DBSize(t.Context()).Val()
	for verb, done := range map[string]string{"replay": "replayed", "discard": "discarded"} {
		res := r.otpq("dead", verb, "--all", "--dry-run").want(t, exitDone, "4 would be "+done+", 0 failed")
		for _, id := range ids {
			res.wantOut(t, id+" would be "+done)
		}
		for _, a := range decodeLines[action](t, r.otpq("dead", verb, ids[0], "--dry-run", "--json").want(t, exitDone).out) {
			if diff := cmp.Diff(action{ID: ids[0], Action: "would_be_" + done}, a); diff != "" {
				t.Errorf("action (-want +got):\n%s", diff)
			}
		}
	}
	if got := r.letters(); len(got) != 4 {
		t.Errorf("letters after dry runs = %q, want all four", got)
	}
	if after := r.rdb.DBSize(t.Context()).Val(); after != before {
		t.Errorf("%d keys after dry runs, %d before", after, before)
	}
}

func TestDiscardDeletesTheRequestAndKeepsTheRecord(t *testing.T) {
	r, ids := graveyard(t)
	r.otpq("dead", "discard", ids[0]).want(t, exitDone, "1 discarded, 0 failed").wantOut(t, ids[0]+" discarded")
	if got := r.letters(); len(got) != 3 {
		t.Errorf("letters = %q, want three", got)
	}
	if r.record(ids[0]).State != status.Unknown {
		t.Error("the record is gone")
	}
	if there := r.rdb.HExists(t.Context(), "otpq:msg:"+ids[0], "payload").Val(); there {
		t.Error("the request is still there")
	}
	r.otpq("dead", "discard", "--all", "--json").want(t, exitDone, "3 discarded, 0 failed")
	if got := r.letters(); len(got) != 0 {
		t.Errorf("letters = %q, want none", got)
	}
	// Nothing left to do is no failure.
	r.otpq("dead", "discard", "--all").want(t, exitDone, "0 discarded, 0 failed")
}

func TestAnInterruptedReplayStops(t *testing.T) {
	r, _ := graveyard(t)
	b := start(t, []string{"OTPQ_CONFIG=" + r.file}, "dead", "replay", "--all", "--rate", "0.01")
	waitFor(t, "the first replay", func() bool { return len(r.letters()) < 4 })
	if code := b.end(); code != exitFailed || !strings.Contains(b.err.String(), "interrupted") {
		t.Errorf("exit code = %d, stderr = %q; want an interruption", code, b.err)
	}
	if got := r.letters(); len(got) != 3 || strings.Contains(b.out.String(), "failed") {
		t.Errorf("letters = %q, stdout = %q; want three left alone", got, b.out)
	}
}

func TestTimesAsPeopleTypeThem(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"2h":                        now.Add(-2 * time.Hour),
		"0s":                        now,
		"2026-11-20T03:00:00Z":      time.Date(2026, 11, 20, 3, 0, 0, 0, time.UTC),
		"2026-11-20T03:00:00-03:00": time.Date(2026, 11, 20, 6, 0, 0, 0, time.UTC),
		"2026-11-20":                time.Date(2026, 11, 20, 0, 0, 0, 0, time.Local),
	} {
		if got, err := parseTime(s, now, ago); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v, want %v", s, got, err, want)
		}
	}
	if got, err := parseTime("2h", now, fromNow); err != nil || !got.Equal(now.Add(2*time.Hour)) {
		t.Errorf("parseTime(2h from now) = %v, %v", got, err)
	}
	for _, s := range []string{"", "2", "yesterday", "20/11/2026", "-1h", "2026-13-01"} {
		if got, err := parseTime(s, now, ago); err == nil {
			t.Errorf("parseTime(%q) = %v, want an error", s, got)
		}
	}
}
