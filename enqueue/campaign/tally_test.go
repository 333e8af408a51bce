package campaign

import (
	"context"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// feedOne feeds a campaign of one row, and returns its message's id.
func (r *rig) feedOne(id string) string {
	r.t.Helper()
	r.create(settings(id), people(0, 1)...)
	r.start(id)
	r.feed(r.Campaigns, id)
	r.until(id, "in the queue", func(k Campaign) bool { return k.Counts.Queued == 1 })
	for row, err := range r.Report(r.t.Context(), id, false) {
		if err != nil {
			r.t.Fatal(err)
		}
		return row.MessageID
	}
	return ""
}

// attempt makes an attempt at a message in a worker's place, which ends in a state.
func (r *rig) attempt(id string, states ...status.State) {
	r.t.Helper()
	claim := status.Claim{Seed: status.Record{ID: id}, Token: "worker/1", Now: time.Now(), AbandonedAfter: time.Minute}
	if c, err := r.store.Claim(r.t.Context(), claim); err != nil || c.Result != status.ClaimedNow {
		r.t.Fatalf("Claim() = %+v, %v", c, err)
	}
	for _, s := range states {
		r.finish(id, s)
	}
}

func (r *rig) finish(id string, s status.State) {
	r.t.Helper()
	err := r.store.Finish(r.t.Context(), status.Finish{
		ID: id, Provider: unimedbh.Name, Token: "worker/1", Attempt: status.Attempt{Number: 1, StartedAt: time.Now(), Outcome: string(s)},
		State: s, Now: time.Now(), Payload: []byte("sealed"),
	})
	if err != nil {
		r.t.Fatalf("Finish() = %v", err)
	}
}

func TestALateReplyIsCounted(t *testing.T) {
	r := newRig(t)
	id := r.feedOne("late")
	r.attempt(id, status.Unknown)
	k := r.until("late", "over", isIn(Completed, CompletedWithFailures))
	if k.State != CompletedWithFailures || k.Counts.Unknown != 1 {
		t.Errorf("after a lost reply it is %+v", k)
	}
	r.finish(id, status.Accepted)
	k = r.until("late", "accepted", func(k Campaign) bool { return k.Counts.Accepted == 1 })
	if k.State != Completed || k.Counts.Unknown != 0 {
		t.Errorf("after the late reply it is %+v", k)
	}
	for row := range r.Report(t.Context(), "late", false) {
		if row.State != "accepted" {
			t.Errorf("the report has %+v", row)
		}
	}
	r.wantNothingOutlives("late")
}

// wantNothingOutlives fails when a key is kept longer than its campaign: another one of
// the same name would find what became of this one's rows.
func (r *rig) wantNothingOutlives(id string) {
	r.t.Helper()
	kept := r.look.PTTL(r.t.Context(), campaignKey(id)).Val()
	for _, key := range r.keys(campaignKey(id) + ":*") {
		if ttl := r.look.PTTL(r.t.Context(), key).Val(); ttl < 0 || ttl > kept+time.Second {
			r.t.Errorf("%s is kept for %s, its campaign for %s", key, ttl, kept)
		}
	}
}

func TestNothingOfARunningCampaignOutlivesIt(t *testing.T) {
	r := newRig(t)
	s := settings("left")
	s.Window = 10
	r.create(s, people(0, 20)...)
	r.start("left")
	_, stop := r.feed(r.Campaigns, "left")
	r.until("left", "waiting for workers", func(k Campaign) bool { return k.Counts.Queued == 10 })
	stop()
	r.wantNothingOutlives("left")
}

func TestACampaignFindsNothingOfAnotherOfItsName(t *testing.T) {
	r := newRig(t)
	for _, key := range []string{liveKey("again"), doubtKey("again")} {
		if err := r.look.HSet(t.Context(), key, "an old message", "7 queued").Err(); err != nil {
			t.Fatal(err)
		}
	}
	r.create(settings("again"), people(0, 3)...)
	if left := r.keys(campaignKey("again") + ":*"); len(left) != 2 {
		t.Errorf("a campaign of 3 rows begins with %v, want its counts and a chunk", left)
	}
}

func TestADoubtEnds(t *testing.T) {
	r := newRig(t)
	id := r.feedOne("doubt")
	r.attempt(id, status.Unknown)
	// While there is a feeder nobody else counts.
	r.until("doubt", "over and left", func(k Campaign) bool { return k.State == CompletedWithFailures && k.Feeder == "" })
	later := r.open(nil)
	later.now = func() time.Time { return time.Now().Add(doubtFor + time.Minute) }
	if _, err := later.Status(t.Context(), "doubt"); err != nil {
		t.Fatal(err)
	}
	if n := r.look.Exists(t.Context(), doubtKey("doubt")).Val(); n != 0 {
		t.Error("it is still in doubt")
	}
	if k := r.status("doubt"); k.State != CompletedWithFailures || k.Counts.Unknown != 1 {
		t.Errorf("it is %+v", k)
	}
}

func TestAMessageWhoseRecordIsGoneIsUnknown(t *testing.T) {
	r := newRig(t)
	id := r.feedOne("gone")
	if err := r.look.Del(t.Context(), "otpq:msg:"+id).Err(); err != nil { // its retention ended
		t.Fatal(err)
	}
	k := r.until("gone", "over", isIn(Completed, CompletedWithFailures))
	if k.Counts.Unknown != 1 {
		t.Errorf("it is %+v", k)
	}
	for row := range r.Report(t.Context(), "gone", false) {
		if row.State != "unknown" || row.Reason != reasonRecordGone {
			t.Errorf("the report has %+v", row)
		}
	}
}

func TestARowThatWasPassedOverHasNoMessageInTheReport(t *testing.T) {
	for state, reason := range map[string]string{RowDuplicate: reasonReplayed, RowInvalid: reasonRefused} {
		t.Run(state, func(t *testing.T) {
			r := newRig(t)
			id := r.feedOne("passed")
			if _, err := r.tally(t.Context(), "passed", []result{{id: id, state: state, reason: reason, final: "yes"}}); err != nil {
				t.Fatal(err)
			}
			for row, err := range r.Report(t.Context(), "passed", false) {
				if err != nil || row.State != state || row.Reason != reason || row.MessageID != "" {
					t.Errorf("the report has %+v, %v", row, err)
				}
			}
		})
	}
}

func TestRowsThatWereTakenTooLongAgoAreNotSentAgain(t *testing.T) {
	r := newRig(t)
	r.create(settings("old"), people(0, 40)...)
	r.start("old")
	f := r.feederAt("old")
	list, to, err := f.take(t.Context(), 0, 40, 30)
	if err != nil {
		t.Fatal(err)
	}
	r.reserve(f, list, to) // and it dies: nobody knows whether they were queued
	r.look.Del(t.Context(), leaseKey("old"))
	later := r.open(nil)
	later.now = func() time.Time { return time.Now().Add(r.records + time.Hour) }
	r.feed(later, "old")
	r.until("old", "all fed", func(k Campaign) bool { return k.Counts.Unknown == 30 && k.Counts.Queued == 10 })
	if records := r.keys("otpq:msg:*"); len(records) != 10 {
		t.Errorf("%d messages were queued, want 10", len(records))
	}
}

func TestACampaignInACluster(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	key := tasks.Key{ID: "test", Secret: tasks.GenerateSecret()}
	k, err := Open(Config{Redis: c.Client(), Keys: []tasks.Key{key}, Definitions: []providers.Definition{unimedbh.Definition()}})
	if err != nil {
		t.Fatal(err)
	}
	k.tempo = quick
	t.Cleanup(func() { _ = k.Close() })
	r := &rig{t: t, Campaigns: k, key: key, vendor: newVendor(t), connectTo: c.URL()}
	r.look = r.connect()
	r.work(nil)
	r.create(settings("spread"), append(people(0, 500), people(0, 10)...)...)
	r.start("spread")
	r.feed(r.Campaigns, "spread")
	if k := r.until("spread", "over", isIn(Completed, CompletedWithFailures)); k.Counts.Accepted != 500 || k.Counts.Duplicate != 10 {
		t.Errorf("it is %+v", k)
	}
	for name, n := range r.vendor.counts() {
		if n != 1 {
			t.Errorf("%s was sent %d requests", name, n)
		}
	}
}

func TestRowsTakeConstantMemory(t *testing.T) {
	r := newRigAlone(t) // the heap is all tests'
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	const many = 200_000
	before, most := heap(), uint64(0)
	_, _, err := r.Create(t.Context(), settings("many"), Source{Rows: func(yield func(rows.Row, error) bool) {
		for n := range many {
			if n == many-1 {
				most = heap()
			}
			if !yield(rows.Row{Line: n + 1, Request: person(n)}, nil) {
				return
			}
		}
	}}, CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, err := range r.Report(t.Context(), "many", false) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; n == many-1 {
			most = max(most, heap())
		}
	}
	if grown := int64(most) - int64(before); grown > 16<<20 {
		t.Errorf("with %d rows the heap grew by %d bytes", many, grown)
	}
	if n != many {
		t.Errorf("the report has %d rows", n)
	}
}

func TestAFlightIsLookedAtInTurn(t *testing.T) {
	var q flight
	for _, id := range []string{"a", "b", "c"} {
		q.add(seenMessage{id: id, state: "waiting"})
	}
	now := time.Now()
	if early := q.due(now, 10); len(early) != 0 || q.len() != 3 {
		t.Errorf("at once %v are due; %d are in flight", early, q.len())
	}
	now = now.Add(time.Second)
	first := q.due(now, 2)
	if ids := []string{first[0].id, first[1].id}; !slices.Equal(ids, []string{"a", "b"}) || q.len() != 3 {
		t.Errorf("due are %v of %d", ids, q.len())
	}
	news := q.settle(now, []result{{id: "a", state: "accepted", final: "yes"}, {id: "b", state: "waiting", final: "no"}})
	if len(news) != 1 || news[0].id != "a" || q.len() != 2 {
		t.Errorf("the news are %v, and %d are in flight", news, q.len())
	}
	if rest := q.due(now, 10); len(rest) != 1 || rest[0].id != "c" {
		t.Errorf("then due are %v", rest)
	}
}

func TestFeedEndsWithItsContext(t *testing.T) {
	r := newRig(t)
	r.create(settings("stop"), people(0, 10)...)
	r.start("stop")
	_, stop := r.feed(r.Campaigns, "stop")
	r.until("stop", "in the queue", func(k Campaign) bool { return k.Counts.Queued == 10 })
	stop()
	if k := r.status("stop"); k.Feeder != "" || k.State != Running {
		t.Errorf("after it was stopped it is %+v", k)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.FeedDetached(ctx, "test", func(id string, err error) { t.Errorf("%s: %v", id, err) })
}

// Who asks for the status knows what the campaign was like a moment ago: a feeder may
// have begun since, and be about to queue what there is no record of yet.
func TestWhatIsBeingQueuedIsNotTakenForGone(t *testing.T) {
	for name, is := range map[string]struct{ sawTaken, queued bool }{
		"before it is queued":           {},
		"after":                         {queued: true},
		"taken before and queued after": {sawTaken: true, queued: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.create(settings("begun"), people(0, 10)...)
			r.start("begun")
			before, err := r.read(t.Context(), "begun")
			if err != nil {
				t.Fatal(err)
			}
			f := r.feederAt("begun")
			list, to, err := f.take(t.Context(), 0, 10, 10)
			if err != nil {
				t.Fatal(err)
			}
			r.reserve(f, list, to)
			if is.sawTaken {
				if before, err = r.read(t.Context(), "begun"); err != nil {
					t.Fatal(err)
				}
			}
			var seen []seenMessage
			for _, one := range list {
				seen = append(seen, seenMessage{one.id, one.place, RowWaiting})
			}
			looked, err := r.Control.look(t.Context(), before, seen)
			if err != nil {
				t.Fatal(err)
			}
			if is.queued {
				if err := f.queue(t.Context(), list, f.m.reservedAt, to); err != nil {
					t.Fatal(err)
				}
				if _, err := f.feed(t.Context(), 0); err != nil { // and noted
					t.Fatal(err)
				}
			}
			if _, err := r.tally(t.Context(), "begun", looked); err != nil {
				t.Fatal(err)
			}
			want := Counts{Rows: 10, Waiting: 10}
			if is.queued {
				want = Counts{Rows: 10, Queued: 10}
			}
			if k, err := r.read(t.Context(), "begun"); err != nil || k.Counts != want {
				t.Errorf("it is %+v, %v; want %+v", k, err, want)
			}
		})
	}
}

// Rows are noted as queued after they are, and a worker does not wait for that.
func TestWhatEndsBeforeItIsNotedIsCountedOnce(t *testing.T) {
	r := newRig(t)
	r.create(settings("ahead"), people(0, 30)...)
	r.start("ahead")
	f := r.feederAt("ahead")
	list, to, err := f.take(t.Context(), 0, 30, 20)
	if err != nil {
		t.Fatal(err)
	}
	r.reserve(f, list, to)
	wantCounts := func(when string, want Counts) {
		t.Helper()
		r.look.Del(t.Context(), leaseKey("ahead")) // else nobody but the feeder counts
		if k := r.status("ahead"); k.Counts != want {
			t.Errorf("%s it is %+v, want %+v", when, k.Counts, want)
		}
		if err := f.keepLease(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	wantCounts("before they are queued", Counts{Rows: 30, Waiting: 30})
	if err := f.queue(t.Context(), list, f.m.reservedAt, to); err != nil {
		t.Fatal(err)
	}
	for _, one := range list[:5] {
		r.attempt(one.id, status.Accepted)
	}
	want := Counts{Rows: 30, Waiting: 10, Queued: 15, Accepted: 5}
	wantCounts("before they are noted", want)
	if _, err := f.feed(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	wantCounts("once they are noted", want)
}
