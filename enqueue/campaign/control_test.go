package campaign

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/worker"
)

// inQueue is how many messages there are in the bulk queue, in workers' hands among
// them.
func (r *rig) inQueue() int64 {
	r.t.Helper()
	n, err := r.look.LLen(r.t.Context(), "asynq:{otpq:unimedbh:bulk}:pending").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func TestPauseAndResumeTakeEffectFromAnywhere(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	s := settings("notice")
	s.Rate = 200
	r.create(s, people(0, 400)...)
	r.start("notice")
	r.feed(r.open(nil), "notice") // in another process
	r.until("notice", "half way", func(k Campaign) bool { return k.Counts.Accepted > 50 })
	if err := r.Pause(t.Context(), "notice"); err != nil {
		t.Fatal(err)
	}
	asked := time.Now()
	k := r.until("notice", "quiet", func(k Campaign) bool { return k.Counts.inFlight() == 0 })
	if k.State != Paused || k.Reason != ReasonOperator || k.Counts.Waiting == 0 {
		t.Errorf("after Pause it is %+v", k)
	}
	t.Logf("quiet %s after Pause", time.Since(asked))
	before := len(r.vendor.counts())
	if err := sleep(t.Context(), 300*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if after := len(r.vendor.counts()); after != before {
		t.Errorf("%d people were sent to while it was paused", after-before)
	}
	if err := r.Resume(t.Context(), "notice"); err != nil {
		t.Fatal(err)
	}
	if k := r.until("notice", "over", isIn(Completed, CompletedWithFailures)); k.State != Completed || k.Counts.Accepted != 400 {
		t.Errorf("at the end it is %+v", k)
	}
}

func TestCancelTakesBackWhatWaits(t *testing.T) {
	r := newRig(t)
	s := settings("wrong-text")
	s.Window = 50
	r.create(s, people(0, 300)...)
	r.start("wrong-text")
	_, stop := r.feed(r.Campaigns, "wrong-text") // no worker: the queue fills up
	r.until("wrong-text", "waiting for workers", func(k Campaign) bool { return k.Counts.Queued == 50 })
	if err := r.Cancel(t.Context(), "wrong-text"); err != nil {
		t.Fatal(err)
	}
	k := r.until("wrong-text", "all canceled", func(k Campaign) bool { return k.Counts.Canceled == 300 })
	if k.State != Canceled || k.CompletedAt.IsZero() {
		t.Errorf("after Cancel it is %+v", k)
	}
	stop()
	r.work(nil)
	deadline, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for r.inQueue() > 0 && deadline.Err() == nil {
		_ = sleep(deadline, 10*time.Millisecond)
	}
	if sent := r.vendor.counts(); len(sent) != 0 {
		t.Errorf("%d people were sent to after Cancel", len(sent))
	}
	var refused *StateError
	if err := r.Start(t.Context(), "wrong-text", false); !errors.As(err, &refused) {
		t.Errorf("Start() of a canceled campaign = %v, want a StateError", err)
	}
	states := map[string]int{}
	for row, err := range r.Report(t.Context(), "wrong-text", false) {
		if err != nil {
			t.Fatal(err)
		}
		states[row.State]++
	}
	if states["canceled"] != 300 {
		t.Errorf("the report has %v", states)
	}
}

func TestWhatAFeederHadTakenWhenItWasCanceledIsNotSent(t *testing.T) {
	r := newRig(t)
	r.create(settings("cut"), people(0, 10)...)
	r.start("cut")
	f := r.feederAt("cut")
	list, to, err := f.take(t.Context(), 0, 10, 10)
	if err != nil {
		t.Fatal(err)
	}
	r.reserve(f, list, to)
	if err := r.Cancel(t.Context(), "cut"); err != nil { // between its taking and its queuing
		t.Fatal(err)
	}
	if err := f.queue(t.Context(), list, time.Now(), to); err != nil {
		t.Fatal(err)
	}
	r.work(nil)
	k := r.until("cut", "all canceled", func(k Campaign) bool { return k.Counts.Canceled == 10 })
	if k.State != Canceled {
		t.Errorf("it is %+v", k)
	}
	for r.inQueue() > 0 && t.Context().Err() == nil {
		_ = sleep(t.Context(), 10*time.Millisecond)
	}
	if sent := r.vendor.counts(); len(sent) != 0 {
		t.Errorf("%d people were sent to after Cancel", len(sent))
	}
}

// feederAt is a feeder that has begun and does nothing by itself.
func (r *rig) feederAt(id string) *feeder {
	r.t.Helper()
	f := newFeeder(r.Campaigns, id, "hand")
	if err := f.keepLease(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	if err := f.begin(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	return f
}

// reserve takes rows, and goes no further.
func (r *rig) reserve(f *feeder, list []row, to int64) {
	r.t.Helper()
	if state, err := f.advance(r.t.Context(), list, to, time.Now()); err != nil || state != Running {
		r.t.Fatalf("advance() = %s, %v", state, err)
	}
}

func TestAFeederThatDiedIsGoneOnWith(t *testing.T) {
	for name, queued := range map[string]bool{"before its rows were queued": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.create(settings("crash"), people(0, 300)...)
			r.start("crash")
			f := r.feederAt("crash")
			list, to, err := f.take(t.Context(), 0, 300, 100)
			if err != nil {
				t.Fatal(err)
			}
			r.reserve(f, list, to)
			if queued {
				if err := f.queue(t.Context(), list, f.m.reservedAt, to); err != nil {
					t.Fatal(err)
				}
			}
			r.work(nil)
			// It is not heard of any more; its lease ends.
			other := r.open(nil)
			if err := other.Feed(t.Context(), "crash", "too early"); !errors.Is(err, ErrFed) {
				t.Errorf("Feed() beside it = %v, want ErrFed", err)
			}
			if err := r.look.Del(t.Context(), leaseKey("crash")).Err(); err != nil {
				t.Fatal(err)
			}
			r.feed(other, "crash")
			if k := r.until("crash", "over", isIn(Completed, CompletedWithFailures)); k.Counts.Accepted != 300 {
				t.Errorf("counts = %+v", k.Counts)
			}
			for name, n := range r.vendor.counts() {
				if n != 1 {
					t.Errorf("%s was sent %d requests", name, n)
				}
			}
		})
	}
}

func TestAPasswordThatIsChangedStopsACampaignOnlyMeanwhile(t *testing.T) {
	r := newRig(t, redistest.Password("first"))
	r.work(nil)
	s := settings("password")
	s.Rate = 100
	r.create(s, people(0, 300)...)
	r.start("password")
	ended, _ := r.feed(r.open(nil), "password")
	r.until("password", "under way", func(k Campaign) bool { return k.Counts.Accepted > 20 })

	// On a connection that stays when the others are cut off.
	conn := r.redis.Client().Conn()
	t.Cleanup(func() { _ = conn.Close() })
	setPassword := func(password string) {
		t.Helper()
		if err := conn.ConfigSet(t.Context(), "requirepass", password).Err(); err != nil {
			t.Fatal(err)
		}
		for id := range strings.Lines(conn.ClientList(t.Context()).Val()) {
			id, _, _ = strings.Cut(strings.TrimPrefix(id, "id="), " ")
			conn.Do(t.Context(), "client", "kill", "id", id, "skipme", "yes")
		}
	}
	setPassword("second")
	until := time.Now().Add(time.Second)
	for time.Now().Before(until) {
		if _, err := r.Status(t.Context(), "password"); !IsUnreachable(err) {
			t.Fatalf("Status() = %v, want that Redis refused us", err)
		}
		if _, err := r.List(t.Context()); !IsUnreachable(err) {
			t.Fatalf("List() = %v, want that Redis refused us", err)
		}
		_ = sleep(t.Context(), 20*time.Millisecond)
	}
	setPassword("first")
	if k := r.until("password", "over", isIn(Completed, CompletedWithFailures)); k.Counts.Accepted != 300 {
		t.Errorf("counts = %+v", k.Counts)
	}
	if err := <-ended; err != nil {
		t.Errorf("Feed() = %v", err)
	}
}

// A script whose reply is lost is run again by the client; somebody may pause between.
func TestRowsAreCountedWhenThePauseOvertakesTheReply(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	r.create(settings("overtaken"), people(0, 60)...)
	r.start("overtaken")
	f := r.feederAt("overtaken")
	list, to, err := f.take(t.Context(), 0, 60, 20)
	if err != nil {
		t.Fatal(err)
	}
	r.reserve(f, list, to)
	f.next = 0 // nothing of that was heard
	if err := r.Pause(t.Context(), "overtaken"); err != nil {
		t.Fatal(err)
	}
	if state, err := f.advance(t.Context(), list, to, time.Now()); err != nil || state != Paused {
		t.Fatalf("advance() again = %s, %v", state, err)
	}
	if err := r.Resume(t.Context(), "overtaken"); err != nil {
		t.Fatal(err)
	}
	f.lookedAt = time.Time{}
	for n := 0; n < 400 && !f.m.State.Over(); n++ {
		if err := f.keepLease(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := f.turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := sleep(t.Context(), 10*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	if k := r.status("overtaken"); k.State != Completed || k.Counts != (Counts{Rows: 60, Accepted: 60}) {
		t.Errorf("it is %+v", k)
	}
}

// A row's validity counts from when it is queued, however long nobody could queue it.
func TestWhatADeadFeederHadNotQueuedIsValidFromWhenItIs(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	s := settings("outlived")
	s.ValidFor = Duration(time.Minute)
	r.create(s, people(0, 30)...)
	r.start("outlived")
	f := r.feederAt("outlived")
	list, to, err := f.take(t.Context(), 0, 30, 20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.advance(t.Context(), list, to, time.Now().Add(-2*time.Minute)); err != nil { // and it died then
		t.Fatal(err)
	}
	r.look.Del(t.Context(), leaseKey("outlived"))
	r.feed(r.open(nil), "outlived")
	if k := r.until("outlived", "over", isIn(Completed, CompletedWithFailures)); k.Counts.Accepted != 30 {
		t.Errorf("it is %+v", k.Counts)
	}
}

func TestThereIsOneFeeder(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	s := settings("one")
	s.Rate = 500
	r.create(s, people(0, 500)...)
	if err := r.Start(t.Context(), "one", true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var feeders []*Campaigns
	ended := make(chan struct{})
	for range 4 {
		c := r.open(nil)
		feeders = append(feeders, c)
		go func() {
			c.FeedDetached(ctx, "worker", func(id string, err error) { t.Errorf("feeding %s: %v", id, err) })
			ended <- struct{}{}
		}()
	}
	k := r.until("one", "over", isIn(Completed, CompletedWithFailures))
	cancel()
	for range feeders {
		<-ended
	}
	if k.Counts.Accepted != 500 || k.State != Completed {
		t.Errorf("it is %+v", k)
	}
	for name, n := range r.vendor.counts() {
		if n != 1 {
			t.Errorf("%s was sent %d requests", name, n)
		}
	}
}

func TestAFeederThatLostItsLeaseNotesNothing(t *testing.T) {
	r := newRig(t)
	r.create(settings("fenced"), people(0, 20)...)
	r.start("fenced")
	old := r.feederAt("fenced")
	if err := r.look.Del(t.Context(), leaseKey("fenced")).Err(); err != nil { // it stood still
		t.Fatal(err)
	}
	r.feederAt("fenced")
	list, to, err := old.take(t.Context(), 0, 20, 20)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.advance(t.Context(), list, to, time.Now()); !errors.Is(err, ErrFed) {
		t.Errorf("advance() without the lease = %v, want ErrFed", err)
	}
	if err := old.keepLease(t.Context()); !errors.Is(err, ErrFed) {
		t.Errorf("keepLease() = %v, want ErrFed", err)
	}
	if err := old.hold(t.Context(), Paused, ReasonFailures, time.Now().Add(time.Hour)); err != nil {
		t.Error(err)
	}
	old.release(t.Context())
	if k := r.status("fenced"); k.Feeder == "" || k.Counts.Waiting != 20 || k.State != Running {
		t.Errorf("after it was released it is %+v", k)
	}
}

func TestItPausesWhileTheProvidersBreakerIsOpen(t *testing.T) {
	r := newRig(t)
	var down atomic.Bool
	r.vendor.answers(func(string) int {
		if down.Load() {
			return http.StatusServiceUnavailable
		}
		return 0
	})
	r.work(func(p *worker.ProviderConfig) {
		p.Breaker = worker.BreakerConfig{ConsecutiveFailures: 5, FailureRatio: 1, MinimumRequests: 1000, OpenFor: 500 * time.Millisecond}
		p.Retry.MaxAttempts = 50
	})
	s := settings("outage")
	s.Rate = 400
	r.create(s, people(0, 800)...)
	r.start("outage")
	r.feed(r.Campaigns, "outage")
	r.until("outage", "under way", func(k Campaign) bool { return k.Counts.Accepted > 50 })
	down.Store(true)
	k := r.until("outage", "paused", isIn(Paused))
	if k.Reason != ReasonBreakerOpen {
		t.Errorf("its reason is %q, want %q", k.Reason, ReasonBreakerOpen)
	}
	r.until("outage", "done with what it had taken", func(Campaign) bool {
		m, err := r.read(t.Context(), "outage")
		return err == nil && m.fed == m.reserved
	})
	waiting := r.status("outage").Counts.Waiting // what until has seen is older than m
	if err := sleep(t.Context(), 500*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if k := r.status("outage"); k.State != Paused || k.Counts.Waiting != waiting {
		t.Errorf("while the provider is down it is %+v; %d waited when it paused", k, waiting)
	}
	down.Store(false)
	if k := r.until("outage", "over", isIn(Completed, CompletedWithFailures)); k.Counts.Accepted != 800 {
		t.Errorf("counts = %+v", k.Counts)
	}
}

func TestItPausesWhenTooManyFailAndGoesOnGently(t *testing.T) {
	r := newRig(t)
	var bad atomic.Bool
	bad.Store(true)
	r.vendor.answers(func(string) int {
		if bad.Load() {
			return http.StatusBadRequest
		}
		return 0
	})
	r.work(nil)
	s := settings("bad")
	s.Rate = 1000
	r.create(s, people(0, 1000)...)
	r.start("bad")
	r.feed(r.Campaigns, "bad")
	k := r.until("bad", "paused", isIn(Paused))
	if k.Reason != ReasonFailures || k.Until.IsZero() {
		t.Errorf("it is %+v, want paused for %s until some time", k, ReasonFailures)
	}
	if failed := k.Counts.Rejected + k.Counts.Exhausted; failed < enough || failed > 500 {
		t.Errorf("%d had failed, want some %d", failed, enough)
	}
	bad.Store(false)
	k = r.until("bad", "over", isIn(Completed, CompletedWithFailures))
	if k.State != CompletedWithFailures || k.Counts.Accepted+k.Counts.Rejected+k.Counts.Exhausted != 1000 || k.Counts.Accepted < 400 {
		t.Errorf("it is %+v", k)
	}
	if m, err := r.read(t.Context(), "bad"); err != nil || m.ramp.IsZero() {
		t.Errorf("it went on at once at its full pace (%v)", err)
	}
}

func TestFailuresAreRetriedInACampaignOfTheirOwn(t *testing.T) {
	r := newRig(t)
	var down atomic.Bool
	down.Store(true)
	r.vendor.answers(func(name string) int {
		if down.Load() && strings.HasPrefix(name, "person1") { // 1, 10 to 19, 100 to 119
			return http.StatusServiceUnavailable
		}
		return 0
	})
	r.work(nil)
	s := settings("first")
	s.PauseAbove = 1
	r.create(s, people(0, 120)...)
	r.start("first")
	r.feed(r.Campaigns, "first")
	k := r.until("first", "over", isIn(CompletedWithFailures))
	const failed = 1 + 10 + 20
	if k.Counts.Exhausted != failed {
		t.Fatalf("counts = %+v, want %d exhausted", k.Counts, failed)
	}
	down.Store(false)
	second, repeated, err := r.RetryFailed(t.Context(), "first")
	if err != nil || repeated || second.ID != "first.2" || second.Counts.Waiting != failed {
		t.Fatalf("RetryFailed() = %+v, %v, %v", second, repeated, err)
	}
	if again, repeated, err := r.RetryFailed(t.Context(), "first"); err != nil || !repeated || again.ID != "first.2" {
		t.Errorf("RetryFailed() again = %+v, %v, %v", again, repeated, err)
	}
	r.start("first.2")
	r.feed(r.Campaigns, "first.2")
	if k := r.until("first.2", "over", isIn(Completed, CompletedWithFailures)); k.State != Completed || k.Counts.Accepted != failed {
		t.Errorf("the retry is %+v", k)
	}
	for row, err := range r.Report(t.Context(), "first.2", false) {
		if err != nil {
			t.Fatal(err)
		}
		old, err := r.store.Get(t.Context(), row.ReplayOf)
		if err != nil || old.State != status.Exhausted {
			t.Errorf("%+v: the message it replays is %+v, %v", row, old, err)
		}
		if record, err := r.store.Get(t.Context(), row.MessageID); err != nil || record.ReplayOf != row.ReplayOf || record.Campaign != "first.2" {
			t.Errorf("its record is %+v, %v", record, err)
		}
	}
	if _, _, err := r.RetryFailed(t.Context(), "first"); !errors.Is(err, ErrNoFailures) {
		t.Errorf("RetryFailed() when none failed = %v", err)
	}
}

// What a feeder had taken is taken back one by one, after the campaign is canceled.
func TestWhatIsStillBeingTakenBackIsNotLeftOutOfARetry(t *testing.T) {
	r := newRig(t)
	r.create(settings("early"), people(0, 30)...)
	r.start("early")
	f := r.feederAt("early") // and it dies, within its lease, as does who cancels
	list, to, err := f.take(t.Context(), 0, 30, 20)
	if err != nil {
		t.Fatal(err)
	}
	r.reserve(f, list, to)
	if err := r.control(t.Context(), "early", "cancel", ""); err != nil {
		t.Fatal(err)
	}
	var refused *StateError
	if k, _, err := r.RetryFailed(t.Context(), "early", status.Canceled); !errors.As(err, &refused) {
		t.Errorf("RetryFailed() = %+v, %v, want a StateError", k.Counts, err)
	}
	r.look.Del(t.Context(), leaseKey("early"))
	if k, _, err := r.RetryFailed(t.Context(), "early", status.Canceled); err != nil || k.Counts.Rows != 30 {
		t.Errorf("RetryFailed() later = %+v, %v, want 30 rows", k.Counts, err)
	}
}

func TestListHasTheNewestFirst(t *testing.T) {
	r := newRig(t)
	r.create(settings("a"), people(0, 1)...)
	if err := sleep(t.Context(), 2*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	r.create(settings("b"), people(0, 2)...)
	list, err := r.List(t.Context())
	var ids []string
	for _, k := range list {
		ids = append(ids, k.ID)
	}
	if err != nil || !slices.Equal(ids, []string{"b", "a"}) {
		t.Errorf("List() = %v, %v", ids, err)
	}
	for what, err := range map[string]error{
		"Status": func() error { _, err := r.Status(t.Context(), "none"); return err }(), "Pause": r.Pause(t.Context(), "none"),
		"Feed": r.Feed(t.Context(), "none", "test"),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s() of what there is not = %v", what, err)
		}
	}
}

func TestNothingIsTakenOfACampaignThatIsPaused(t *testing.T) {
	r := newRig(t)
	r.create(settings("still"), people(0, 20)...)
	r.start("still")
	f := r.feederAt("still")
	list, to, err := f.take(t.Context(), 0, 20, 20)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Pause(t.Context(), "still"); err != nil { // which the feeder has not seen yet
		t.Fatal(err)
	}
	if state, err := f.advance(t.Context(), list, to, time.Now()); err != nil || state != Paused {
		t.Errorf("advance() = %s, %v; want it paused", state, err)
	}
	m, err := r.read(t.Context(), "still")
	if live := r.look.HLen(t.Context(), liveKey("still")).Val(); err != nil || m.reserved != 0 || live != 0 {
		t.Errorf("rows are taken up to %d, %d are in flight, %v; want none", m.reserved, live, err)
	}
}

func TestACreatorThatStoodStillCountsNothing(t *testing.T) {
	r := newRig(t)
	source := Source{Rows: func(yield func(rows.Row, error) bool) {
		for n, row := range people(0, batchRows+1) {
			if n == batchRows { // the first are kept
				if err := r.look.HSet(t.Context(), campaignKey("twice"), "by", "another").Err(); err != nil {
					t.Error(err)
				}
			}
			if !yield(row, nil) {
				return
			}
		}
	}}
	if _, _, err := r.Create(t.Context(), settings("twice"), source, CreateOptions{}); !errors.Is(err, ErrCreating) {
		t.Errorf("Create() = %v, want ErrCreating", err)
	}
	if n := r.look.HGet(t.Context(), countsKey("twice"), "rows").Val(); n != strconv.Itoa(batchRows) {
		t.Errorf("%s rows are counted, want %d", n, batchRows)
	}
}

// The client asks again when it has heard no answer, and that may come late.
func TestRowsAreTakenOnce(t *testing.T) {
	r := newRig(t)
	r.create(settings("late"), people(0, 20)...)
	r.start("late")
	f := r.feederAt("late")
	list, to, err := f.take(t.Context(), 0, 20, 20)
	if err != nil {
		t.Fatal(err)
	}
	r.reserve(f, list, to)
	if err := f.queue(t.Context(), list, f.m.reservedAt, to); err != nil {
		t.Fatal(err)
	}
	if _, err := f.feed(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for _, one := range list {
		r.attempt(one.id, status.Accepted)
	}
	r.look.Del(t.Context(), leaseKey("late"))
	r.until("late", "over", isIn(Completed)) // and nothing is in flight
	if err := f.keepLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.look.HSet(t.Context(), campaignKey("late"), "state", "running") // as it was
	f.next = 0
	if _, err := f.advance(t.Context(), list, to, time.Now()); err != nil {
		t.Fatal(err)
	}
	if live := r.look.HLen(t.Context(), liveKey("late")).Val(); live != 0 {
		t.Errorf("%d rows were taken a second time", live)
	}
}

func TestAWorkerLeavesACampaignToWhoeverStartedItForAWhile(t *testing.T) {
	r := newRig(t)
	r.create(settings("mine"), people(0, 5)...)
	r.start("mine")
	k := r.status("mine")
	for after, want := range map[time.Duration]bool{adopted / 2: false, adopted + time.Second: true} {
		c := r.open(nil)
		c.now = func() time.Time { return k.askedAt.Add(after) }
		if got := c.wantsFeeder(k); got != want {
			t.Errorf("%s after it was started a worker feeds it: %t, want %t", after, got, want)
		}
	}
}

// What is asked of a campaign has to take effect within a second.
func TestAFeederLooksOften(t *testing.T) {
	if lookEvery+turn > time.Second/2 {
		t.Errorf("a feeder looks every %s", lookEvery)
	}
}
