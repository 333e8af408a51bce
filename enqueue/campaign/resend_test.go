package campaign

import (
	"errors"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// outage sends to people while the provider is down, until all these have expired, and
// one more that is exhausted.
func (r *rig) outage(people int) (ids []string) {
	r.t.Helper()
	var down atomic.Bool
	down.Store(true)
	r.vendor.answers(func(string) int {
		if down.Load() {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	stop := r.work(func(p *worker.ProviderConfig) {
		p.Retry = worker.Retry{MaxAttempts: 100, Initial: 100 * time.Millisecond, Max: 100 * time.Millisecond}
	})
	for n := range people {
		receipt, err := r.client.Send(r.t.Context(), person(n), enqueue.ValidFor(300*time.Millisecond))
		if err != nil {
			r.t.Fatal(err)
		}
		ids = append(ids, receipt.ID)
	}
	receipt, err := r.client.Send(r.t.Context(), person(people), enqueue.MaxAttempts(1))
	if err != nil {
		r.t.Fatal(err)
	}
	ids = append(ids, receipt.ID)
	for _, id := range ids {
		for {
			record, err := r.store.Get(r.t.Context(), id)
			if err != nil {
				r.t.Fatal(err)
			}
			if record.State.Terminal() {
				break
			}
			if err := sleep(r.t.Context(), 20*time.Millisecond); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	stop()
	down.Store(false)
	return ids
}

func (r *rig) fromStatus() Source {
	r.t.Helper()
	ring, err := tasks.NewKeyring(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return Source{Name: "status", Rows: rows.FromStatus(r.t.Context(), r.store, ring, unimedbh.Definition(),
		status.EndedFilter{States: []status.State{status.Expired, status.Exhausted}})}
}

func TestWhomAnOutageHitIsSentToAgain(t *testing.T) {
	r := newRig(t)
	old := r.outage(5)
	k, _, err := r.Create(t.Context(), settings("again"), r.fromStatus(), CreateOptions{})
	if err != nil || k.Counts.Waiting != 6 {
		t.Fatalf("Create() = %+v, %v; want 6 rows", k, err)
	}
	// Meanwhile somebody replays one of them by hand, and gives up another.
	replayed, err := r.client.Replay(t.Context(), old[5])
	if err != nil {
		t.Fatal(err)
	}
	before := r.vendor.counts()
	r.work(nil)
	r.start("again")
	r.feed(r.Campaigns, "again")
	k = r.until("again", "over", isIn(Completed, CompletedWithFailures))
	if k.State != Completed || k.Counts.Accepted != 5 || k.Counts.Duplicate != 1 {
		t.Errorf("it ends %+v", k)
	}
	for row, err := range r.Report(t.Context(), "again", false) {
		if err != nil {
			t.Fatal(err)
		}
		if row.ReplayOf == old[5] {
			if row.State != RowDuplicate || row.Reason != reasonReplayed {
				t.Errorf("of what was replayed by hand the report has %+v", row)
			}
			continue
		}
		record, err := r.store.Get(t.Context(), row.MessageID)
		if err != nil || record.ReplayOf != row.ReplayOf || !record.PossibleDuplicate && record.Campaign != "again" {
			t.Errorf("the new record is %+v, %v", record, err)
		}
		if record, err = r.store.Get(t.Context(), row.ReplayOf); err != nil || record.ReplayedAs != row.MessageID {
			t.Errorf("the old record is %+v, %v", record, err)
		}
	}
	if record, err := r.store.Get(t.Context(), replayed.ID); err != nil || record.State != status.Accepted {
		t.Errorf("the replay by hand is %+v, %v", record, err)
	}
	for n := range 6 {
		name := person(n).Username
		if again := r.vendor.counts()[name] - before[name]; again != 1 {
			t.Errorf("%s was sent %d requests after the outage, want 1", name, again)
		}
	}
	for m, err := range r.store.Ended(t.Context(), unimedbh.Name, status.EndedFilter{}) {
		t.Errorf("%s is still listed as one that can be sent again (%v)", m.ID, err)
	}
}

func TestRowsThatArePassedOverAreNoFailures(t *testing.T) {
	r := newRig(t)
	r.outage(59)
	for _, id := range []string{"first", "second"} {
		s := settings(id)
		s.Window = 55 // enough to judge by, and some are left
		if k, _, err := r.Create(t.Context(), s, r.fromStatus(), CreateOptions{}); err != nil || k.Counts.Waiting != 60 {
			t.Fatalf("Create() = %+v, %v; want 60 rows", k, err)
		}
	}
	r.work(nil)
	for _, id := range []string{"first", "second"} {
		r.start(id)
		r.feed(r.Campaigns, id)
		r.until(id, "over", isIn(Completed))
	}
	if k := r.status("second"); k.Counts.Duplicate != 60 {
		t.Errorf("of those that the first has sent the second made %+v", k.Counts)
	}
	if r.look.HExists(t.Context(), campaignKey("second"), "ramp").Val() {
		t.Error("the second paused by itself, though none failed")
	}
}

func TestALetterThatACampaignSendsIsNotReplayedByHandToo(t *testing.T) {
	r := newRig(t)
	old := r.outage(1)
	if _, _, err := r.Create(t.Context(), settings("again"), r.fromStatus(), CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	r.start("again")
	f := r.feederAt("again")
	list, to, err := f.take(t.Context(), 0, 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	r.reserve(f, list, to)
	if _, _, err := f.markOld(t.Context(), list); err != nil { // and it dies
		t.Fatal(err)
	}
	own := list[slices.IndexFunc(list, func(r row) bool { return r.replayOf == old[1] })].id
	receipt, err := r.client.Replay(t.Context(), old[1])
	if err != nil || receipt.ID != own {
		t.Errorf("Replay() beside it = %+v, %v; want the campaign's own message %s", receipt, err, own)
	}
	r.look.Del(t.Context(), leaseKey("again"))
	r.work(nil)
	r.feed(r.Campaigns, "again")
	if k := r.until("again", "over", isIn(Completed, CompletedWithFailures)); k.Counts.Accepted != 2 {
		t.Errorf("it ends %+v", k)
	}
	if _, err := r.client.Replay(t.Context(), old[1]); err != nil {
		t.Errorf("Replay() once more = %v", err)
	}
	var refused *status.RefusedError
	if err := f.queue(t.Context(), list, f.m.reservedAt, to); err != nil && !errors.As(err, &refused) {
		t.Errorf("queue() repeated = %v", err)
	}
}

func TestWhoWasHitTwiceIsSentToOnce(t *testing.T) {
	r := newRig(t)
	r.outage(3)
	r.outage(3)
	before := r.vendor.counts()
	r.work(nil)
	for _, id := range []string{"first", "second"} {
		if _, _, err := r.Create(t.Context(), settings(id), r.fromStatus(), CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		r.start(id)
		r.feed(r.Campaigns, id)
		k := r.until(id, "over", isIn(Completed, CompletedWithFailures))
		if want := map[string]int64{"first": 4, "second": 0}[id]; k.Counts.Accepted != want {
			t.Errorf("%s ends %+v, want %d accepted", id, k, want)
		}
	}
	for name, n := range r.vendor.counts() {
		if n-before[name] != 1 {
			t.Errorf("%s was sent %d requests after the outage, want 1", name, n-before[name])
		}
	}
}
